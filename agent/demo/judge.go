package demo

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"hubagent/agent/contract"
	"hubagent/agent/keys"
	"hubagent/agent/record"
	"hubagent/buffer"
	"hubagent/config"
)

// Summary is what the demo showed.
type Summary struct {
	OK            bool     `json:"ok"` // the receiver holds every journaled reading exactly once, and recomputed the root
	Seconds       float64  `json:"seconds"`
	OutageSeconds float64  `json:"outage_seconds"`
	Kills         int      `json:"kills"`
	StopSeconds   float64  `json:"stop_seconds"` // from SIGTERM to the agent's end
	Answers       int64    `json:"answers"`      // given by the simulated devices, several a poll
	Rows          int      `json:"rows"`         // polls in the journal
	Readings      int      `json:"readings"`     // values in the journal
	Leaves        int64    `json:"leaves"`       // in the journal
	Stored        int64    `json:"stored"`       // leaves the receiver holds
	SentAgain     uint64   `json:"sent_again"`   // leaves published more than once by one agent process
	Duplicates    uint64   `json:"duplicates"`   // leaves the receiver got more than once and dropped
	Refused       uint64   `json:"refused"`      // messages the receiver could not read
	Equivocations uint64   `json:"equivocations"`
	Checkpoints   uint64   `json:"checkpoints"` // whose root the receiver recomputed and found equal
	Root          string   `json:"root"`        // of the journal
	RootConfirmed bool     `json:"root_confirmed"`
	Missing       []Row    `json:"missing"` // journaled, and not handed on exactly once
	Problems      []string `json:"problems"`
	State         string   `json:"state"` // folder
}

// Row names a device's poll.
type Row struct {
	Device string    `json:"device"`
	At     time.Time `json:"at"`
	Times  int       `json:"times"` // how often it was handed on
}

type rowKey struct {
	device string
	at     int64
}

func openJournal(path string) (*buffer.Store, record.Epoch, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, record.Epoch{}, err
	}
	k, err := keys.Load(cfg)
	if err != nil {
		return nil, record.Epoch{}, err
	}
	store, err := buffer.Open(buffer.Options{Dir: keys.JournalDir(cfg), Key: k.Journal})
	if err != nil {
		return nil, record.Epoch{}, err
	}
	epoch, err := record.ReadEpoch(store, cfg.Gateway.ID)
	return store, epoch, err
}

// judge opens the journal that the agent left and compares it with what the receiver has.
func (d *demo) judge() (Summary, error) {
	s := d.sum
	s.State, s.Seconds, s.Answers = d.o.State, time.Since(d.began).Seconds(), d.site.Counts.Answers.Load()
	s.Missing, s.Problems = []Row{}, []string{}
	problem := func(format string, a ...any) { s.Problems = append(s.Problems, fmt.Sprintf(format, a...)) }

	store, e, err := openJournal(d.config)
	if err != nil {
		return s, fmt.Errorf("cannot open the journal that the agent left: %w", err)
	}
	defer store.Close()
	gateway, epoch := e.Gateway, e.Name
	tree, stats := d.platform.receiver.Tree(gateway, epoch), d.platform.receiver.Stats()
	s.Leaves, s.Stored = store.Size(), tree.Stored.Count()
	s.Duplicates, s.Refused, s.Equivocations, s.Checkpoints = stats.Duplicates, stats.Refused, stats.Equivocations, stats.Checkpoints

	journaled := map[rowKey]int{}
	for n := range s.Leaves {
		leaf, err := store.Leaf(n)
		if err != nil {
			return s, err
		}
		parsed, err := contract.ParseLeaf(leaf.Data)
		if err != nil {
			return s, fmt.Errorf("leaf %d: %w", n, err)
		}
		for _, row := range parsed.Rows {
			journaled[rowKey{row.Device, row.At}]++
			s.Rows++
			s.Readings += len(row.Measured)
		}
		if hash, ok := d.platform.receiver.Hash(gateway, epoch, n); !ok {
			problem("leaf %d did not arrive", n)
		} else if hash != tlog.RecordHash(leaf.Data) {
			problem("leaf %d arrived with other bytes", n)
		}
	}
	for key, times := range journaled {
		if times != 1 {
			problem("%s at %s is in the journal %d times", key.device, time.UnixMilli(key.at).Format(time.TimeOnly), times)
		}
		if got := d.handed[key]; got != 1 {
			s.Missing = append(s.Missing, Row{key.device, time.UnixMilli(key.at), got})
		}
	}
	for key := range d.handed {
		if journaled[key] == 0 {
			problem("%s at %s was handed on and is not in the journal", key.device, time.UnixMilli(key.at).Format(time.TimeOnly))
		}
	}
	slices.SortFunc(s.Missing, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), a.At.Compare(b.At))
	})
	if counts, err := record.ReadCounts(store); err != nil || counts.Rows != uint64(s.Rows) || counts.Readings != uint64(s.Readings) {
		problem("the journal's counters say %d polls and %d readings, its leaves hold %d and %d (%v)", counts.Rows, counts.Readings, s.Rows, s.Readings, err)
	}
	if waiting, err := store.Blocks(); err != nil || len(waiting) > 0 {
		problem("%d blocks of readings did not become a leaf (%v)", len(waiting), err)
	}
	if root, err := store.Root(s.Leaves); err != nil {
		problem("%v", err)
	} else {
		s.Root = root.String()
		s.RootConfirmed = tree.Confirmed == s.Leaves && tree.Root == root
		if !s.RootConfirmed {
			problem("the receiver recomputed the root of %d leaves, the journal has %d", tree.Confirmed, s.Leaves)
		}
	}
	if s.Rows == 0 {
		problem("nothing was journaled")
	}
	if s.StopSeconds > stopTime.Seconds() && d.o.Runner == "" {
		problem("the agent took %.1f s to stop", s.StopSeconds)
	}
	s.OK = len(s.Missing) == 0 && len(s.Problems) == 0
	return s, nil
}

// Print writes the summary for people.
func (s Summary) Print(w io.Writer) {
	line := func(format string, a ...any) { fmt.Fprintf(w, format+"\n", a...) }
	line("")
	line("%d readings of %d polls journaled in %d leaves, in %.0f s", s.Readings, s.Rows, s.Leaves, s.Seconds)
	if s.OutageSeconds > 0 {
		line("the broker was gone for %.0f s", s.OutageSeconds)
	}
	if s.Kills > 0 {
		line("the agent was killed with SIGKILL and started again")
	}
	line("the receiver holds %d of %d leaves; %d came twice and were dropped", s.Stored, s.Leaves, s.Duplicates)
	line("%d signed checkpoints recomputed; root %s confirmed: %v", s.Checkpoints, s.Root, s.RootConfirmed)
	for i, m := range s.Missing {
		if i == 20 {
			line("  ... and %d more", len(s.Missing)-i)
			break
		}
		line("  handed on %d times instead of once: %s at %s", m.Times, m.Device, m.At.Format("15:04:05.000"))
	}
	for _, p := range s.Problems {
		line("  problem: %s", p)
	}
	if s.OK {
		line("OK: every journaled reading arrived exactly once.")
	} else {
		line("NOT OK.")
	}
	line("everything is in %s; try: hubagent check --config %s/hub.yaml", s.State, s.State)
}
