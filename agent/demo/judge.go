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
	"hubagent/agent/receiver"
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
	at     int64 // Unix milliseconds
}

func (k rowKey) String() string {
	return k.device + " at " + time.UnixMilli(k.at).Format("15:04:05.000")
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
	store, err := buffer.Open(buffer.Options{Dir: keys.JournalDir(cfg), Key: k.Journal, Lasting: record.Lasting()})
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
	store, epoch, err := openJournal(d.config)
	if err != nil {
		return s, fmt.Errorf("cannot open the journal that the agent left: %w", err)
	}
	defer store.Close()
	if s.StopSeconds > stopTime.Seconds() && d.o.Runner == "" { // an emulator is slow
		s.problem("the agent took %.1f s to stop", s.StopSeconds)
	}
	stats := d.platform.receiver.Stats()
	s.Duplicates, s.Refused, s.Equivocations, s.Checkpoints = stats.Duplicates, stats.Refused, stats.Equivocations, stats.Checkpoints
	if s.Refused+s.Equivocations+stats.WrongRoots > 0 {
		s.problem("the receiver refused %d messages, got %d leaves with other bytes under a known number, and %d wrong checkpoints", s.Refused, s.Equivocations, stats.WrongRoots)
	}
	err = s.compare(store, epoch, d.platform.receiver, d.handed)
	s.OK = err == nil && len(s.Missing) == 0 && len(s.Problems) == 0
	return s, err
}

func (s *Summary) problem(format string, a ...any) {
	s.Problems = append(s.Problems, fmt.Sprintf(format, a...))
}

// farEnd is what the receiver knows of a log.
type farEnd interface {
	Tree(gateway, epoch string) receiver.Tree
	Hash(gateway, epoch string, seq int64) (tlog.Hash, bool)
}

// compare holds each leaf and row of the journal against the far end, and what was handed on against the journal.
func (s *Summary) compare(store *buffer.Store, e record.Epoch, far farEnd, handed map[rowKey]int) error {
	tree := far.Tree(e.Gateway, e.Name)
	s.Leaves, s.Stored = store.Size(), tree.Stored.Count()
	journaled := map[rowKey]int{}
	for n := range s.Leaves {
		leaf, err := store.Leaf(n)
		if err != nil {
			return err
		}
		parsed, err := contract.ParseLeaf(leaf.Data)
		if err != nil {
			return fmt.Errorf("leaf %d: %w", n, err)
		}
		for _, row := range parsed.Rows {
			journaled[rowKey{row.Device, row.At}]++
			s.Rows++
			s.Readings += len(row.Measured)
		}
		if hash, ok := far.Hash(e.Gateway, e.Name, n); !ok {
			s.problem("leaf %d did not arrive", n)
		} else if hash != tlog.RecordHash(leaf.Data) {
			s.problem("leaf %d arrived with other bytes", n)
		}
	}
	for key, times := range journaled {
		if times != 1 {
			s.problem("%v is in the journal %d times", key, times)
		}
		if got := handed[key]; got != 1 {
			s.Missing = append(s.Missing, Row{key.device, time.UnixMilli(key.at), got})
		}
	}
	for key := range handed {
		if journaled[key] == 0 {
			s.problem("%v was handed on and is not in the journal", key)
		}
	}
	slices.SortFunc(s.Missing, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), a.At.Compare(b.At))
	})
	if counts, err := record.ReadCounts(store); err != nil || counts.Rows != uint64(s.Rows) || counts.Readings != uint64(s.Readings) {
		s.problem("the journal's counters say %d polls and %d readings, its leaves hold %d and %d (%v)", counts.Rows, counts.Readings, s.Rows, s.Readings, err)
	}
	if waiting, err := store.Blocks(); err != nil || len(waiting) > 0 {
		s.problem("%d blocks of readings did not become a leaf (%v)", len(waiting), err)
	}
	if s.Rows == 0 {
		s.problem("nothing was journaled")
	}
	root, err := store.Root(s.Leaves)
	if err != nil {
		return err
	}
	s.Root = root.String()
	if s.RootConfirmed = tree.Confirmed == s.Leaves && tree.Root == root; !s.RootConfirmed {
		s.problem("the receiver recomputed the root of %d leaves, the journal has %d", tree.Confirmed, s.Leaves)
	}
	return nil
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
