package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hubagent/agent/contract"
	"hubagent/buffer"
	"hubagent/drivers"
)

var errNoSpace = errors.New("only 1 MB are free")

// ledger is what a test polled, to be held against what the journal says.
type ledger struct {
	rows     map[string]int // by device
	readings map[string]int
	changes  []change // in order
	faults   []contract.Fault
}

func newLedger() *ledger { return &ledger{rows: map[string]int{}, readings: map[string]int{}} }

func (l *ledger) note(s drivers.Sample) drivers.Sample {
	l.rows[s.Device]++
	l.readings[s.Device] += values(s)
	return s
}

// read is what a journal's leaves say, and their gap leaves.
func (l *ledger) read(t *testing.T, store *buffer.Store) (gaps []gap) {
	t.Helper()
	for n := int64(0); n < store.Size(); n++ {
		leaf, err := store.Leaf(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(leaf.Data) > leafBytes+2*blockBytes {
			t.Errorf("leaf %d has %d bytes", n, len(leaf.Data))
		}
		var doc struct {
			Kind    contract.Kind
			Rows    []contract.Row
			Changes []change
			Fault   contract.Fault
			Gap     gap
		}
		if err := json.Unmarshal(leaf.Data, &doc); err != nil {
			t.Fatal(err)
		}
		for _, row := range doc.Rows {
			l.rows[row.Device]++
			l.readings[row.Device] += len(row.Measured)
		}
		l.changes = append(l.changes, doc.Changes...)
		switch doc.Kind {
		case contract.KindFault:
			l.faults = append(l.faults, doc.Fault)
		case contract.KindGap:
			gaps = append(gaps, doc.Gap)
		}
	}
	return gaps
}

// The journal takes nothing for a long time: polling goes on, the oldest rows go when memory is full, no event and no
// fault does, and afterwards the journal holds all that is not named by its gap leaf, to the reading.
func TestWindow(t *testing.T) {
	for _, c := range []struct {
		name   string
		window int
		rows   int
		lossy  bool
	}{
		{"all fits", 2 << 20, 6000, false},
		{"much does not", 600 << 10, 20_000, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			store, err := buffer.Open(buffer.Options{Dir: t.TempDir(), Lasting: Lasting()})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			clock := contract.Stamp{At: 1790842802000, Clock: contract.ClockOK, Boot: "boot-1", Mono: 60_000}
			tick := func() time.Time {
				clock.At += 10
				clock.Mono += 10
				return time.UnixMilli(clock.At)
			}
			epoch, err := Begin(store, testConfig(), "key", "test", clock)
			if err != nil {
				t.Fatal(err)
			}
			r, err := New(store, epoch, testConfig(), func() contract.Stamp { return clock }, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			full, refused := false, 0
			r.window = c.window
			r.write = func(fn func(*buffer.Tx) error) error {
				if full {
					refused++
					return errNoSpace
				}
				return store.Commit(fn)
			}
			want := newLedger()
			take := func(s drivers.Sample) { // what Record and Run do
				t.Helper()
				r.stats.AtRisk += values(s)
				if err := r.take(want.note(s)); err != nil && !errors.Is(err, errNoSpace) {
					t.Fatalf("%v: %v", s.At, err)
				}
			}
			for i := range 150 { // blocks wait for their leaf
				take(sampleAt("bin-001", tick(), uint64(i), false))
				if err := r.commit(blocks); err != nil {
					t.Fatal(err)
				}
			}
			full = true
			alarm := false
			for i := range c.rows {
				s := sampleAt("bin-001", tick(), uint64(i), alarm)
				if i%1000 == 500 { // a lift that is in alarm for 100 polls
					alarm = true
				} else if i%1000 == 600 {
					alarm = false
				}
				if now, _ := s.Readings[1].Value.AsBool(); now != alarm {
					s.Readings[1].Value = drivers.Bool(alarm)
					c := change{Device: "bin-001", Point: "alarm", From: new(int), To: digit(alarm), At: s.At.UnixMilli()}
					if i == 500 {
						c.From = nil
					} else if !alarm {
						*c.From = 1
					}
					want.changes = append(want.changes, c)
				}
				take(s)
				if i%2000 == 700 {
					at := tick()
					want.faults = append(want.faults, contract.Fault{Device: "bin-002", Since: at.UnixMilli(), Why: "timeout"})
					take(silentAt("bin-002", at, at))
				}
				if i%2000 == 900 {
					f := want.faults[len(want.faults)-1]
					f.Until = tick().UnixMilli()
					want.faults = append(want.faults, f)
					take(sampleAt("bin-002", time.UnixMilli(f.Until), 1, false))
				}
				if i%200 == 0 {
					if err := r.commit(form(i%400 == 0)); !errors.Is(err, errNoSpace) {
						t.Fatalf("got %v", err)
					}
				}
				if i == c.rows/2 { // the clock is set back an hour meanwhile
					clock.At -= 3_600_000
					clock.Clock = contract.ClockStep
				}
			}
			s := r.Stats()
			if s.Err == nil || s.Counts != (Counts{150, 300}) {
				t.Errorf("stats %+v", s)
			}
			if wait := want.readings["bin-001"] + want.readings["bin-002"] - 300 - int(s.Lost.Readings); s.AtRisk != wait {
				t.Errorf("%d readings are at risk, %d wait", s.AtRisk, wait)
			}
			if (s.Lost.Rows > 0) != c.lossy {
				t.Errorf("lost %+v", s.Lost)
			}
			if got := size(r.pending); got > c.window || c.lossy && got < c.window/2 {
				t.Errorf("%d bytes of rows wait, the window is %d", got, c.window)
			}
			tries := refused
			full = false
			if err := r.commit(blocks); err != nil {
				t.Fatal(err)
			}
			if err := r.commit(leaves); err != nil {
				t.Fatal(err)
			}
			if s := r.Stats(); s.Err != nil || s.AtRisk != 0 || len(r.pending)+len(r.urgent)+len(r.held) > 0 {
				t.Errorf("afterwards: %+v", s)
			}

			got := newLedger()
			gaps := got.read(t, store)
			if len(gaps) != map[bool]int{false: 0, true: 1}[c.lossy] {
				t.Fatalf("gaps %+v", gaps)
			}
			lost := Counts{}
			for _, g := range gaps {
				if g.Why != "no space" || g.Leaves != nil || g.From >= g.Until || g.Until > clock.At || g.From < 1790842802000-3_600_000 {
					t.Errorf("gap %+v, now %d", g, clock.At)
				}
				for device, n := range g.Lost {
					if n.Events+n.Faults > 0 {
						t.Errorf("events or faults of %s went before rows: %+v", device, n)
					}
					got.rows[device] += int(n.Rows)
					got.readings[device] += int(n.Readings)
					lost.add(n.Counts)
				}
			}
			if lost != s.Lost {
				t.Errorf("the page says %+v, the gap leaf %+v", s.Lost, lost)
			}
			if fmt.Sprint(got.rows, got.readings) != fmt.Sprint(want.rows, want.readings) {
				t.Errorf("rows and readings %v %v, polled %v %v", got.rows, got.readings, want.rows, want.readings)
			}
			text := func(v any) string { b, _ := json.Marshal(v); return string(b) }
			if text(got.changes) != text(want.changes) {
				t.Errorf("events\n%s\nwant\n%s", text(got.changes), text(want.changes))
			}
			if len(got.faults) != len(want.faults) {
				t.Errorf("%d faults, want %d", len(got.faults), len(want.faults))
			}
			counts, err := ReadCounts(store)
			if all := (Counts{uint64(want.rows["bin-001"] + want.rows["bin-002"]), uint64(want.readings["bin-001"] + want.readings["bin-002"])}); err != nil ||
				counts.Rows+lost.Rows != all.Rows || counts.Readings+lost.Readings != all.Readings {
				t.Errorf("counts %+v %v, lost %+v, polled %+v", counts, err, lost, all)
			}
			t.Logf("%d Commits were refused; %+v lost of %d rows; %d leaves", tries, lost, c.rows, store.Size())
		})
	}
}

// The journal takes blocks and no leaves, as while the redo log has room on a full disk: rows are safe, the page goes on
// saying that not all is well, and event and clock leaf come as soon as they can, once.
func TestOnlyBlocksGo(t *testing.T) {
	store, err := buffer.Open(buffer.Options{Dir: t.TempDir(), Lasting: Lasting()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := &story{t: t, store: store, boot: "boot-1", mono: 20_000, state: contract.ClockUnsync, want: map[int64]int64{}}
	s.start()
	full := true
	s.rec.write = func(fn func(*buffer.Tx) error) error {
		return store.Commit(func(tx *buffer.Tx) error {
			size := tx.Next()
			if err := fn(tx); err != nil || !full || tx.Next() == size {
				return err
			}
			return errNoSpace
		})
	}
	take := func(alarm bool, commit form) {
		t.Helper()
		s.mono += 1000
		s.rec.stats.AtRisk += 2
		for _, err := range []error{s.rec.take(sampleAt("bin-001", time.UnixMilli(s.clock+s.mono), 1, alarm)), s.rec.commit(commit)} {
			if err != nil && !errors.Is(err, errNoSpace) {
				t.Fatal(err)
			}
		}
	}
	take(false, leaves)
	take(true, blocks)
	s.clock, s.state = 1790842802000, contract.ClockOK
	take(true, blocks)
	if st := s.rec.Stats(); st.Err == nil || st.AtRisk != 2 || st.Rows != 2 {
		t.Errorf("the event alone should wait: %+v", st)
	}
	if n := store.Size(); n != 2 {
		t.Errorf("%d leaves", n)
	}
	full = false
	take(true, leaves)
	if st := s.rec.Stats(); st.Err != nil || st.AtRisk != 0 || st.Rows != 4 {
		t.Errorf("afterwards: %+v", st)
	}
	kinds := map[contract.Kind]int{}
	for _, l := range leavesIn(t, store) {
		kinds[l.Kind]++
	}
	if fmt.Sprint(kinds) != "map[clock:1 data:2 event:1]" {
		t.Errorf("leaves %v", kinds)
	}
}

// When there are events alone, the oldest of them go at last, and are named.
func TestWindowOfEvents(t *testing.T) {
	store, err := buffer.Open(buffer.Options{Dir: t.TempDir(), Lasting: Lasting()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	epoch, err := Begin(store, testConfig(), "key", "test", synced())
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(store, epoch, testConfig(), synced, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	full := true
	r.window = 20_000
	r.write = func(fn func(*buffer.Tx) error) error {
		if full {
			return errNoSpace
		}
		return store.Commit(fn)
	}
	const polls = 301
	for i := range polls {
		if err := r.take(sampleAt("bin-001", time.UnixMilli(int64(1000+i)), 1, i%2 == 0)); !errors.Is(err, errNoSpace) {
			t.Fatalf("got %v", err)
		}
	}
	full = false
	if err := r.commit(leaves); err != nil {
		t.Fatal(err)
	}
	got := newLedger()
	gaps := got.read(t, store)
	if len(gaps) != 1 {
		t.Fatalf("gaps %+v", gaps)
	}
	n := gaps[0].Lost["bin-001"]
	if n.Events == 0 || n.Events+len(got.changes) != polls || int(n.Rows)+got.rows["bin-001"] != polls || gaps[0].From != 1000 || gaps[0].Until != int64(1000+n.Events-1) {
		t.Errorf("%+v, %d events in leaves", gaps[0], len(got.changes))
	}
	if last := got.changes[len(got.changes)-1]; last.To != 1 || last.At != 1000+polls-1 {
		t.Errorf("the newest event is %+v", last)
	}
	var contacts map[string]map[string]bool
	if err := getState(store, stateContacts, &contacts); err != nil || !contacts["bin-001"]["alarm"] {
		t.Errorf("contacts %v %v", contacts, err)
	}
}

// Run takes samples at any pace while the journal refuses, and ends by itself only when it failed. A Commit that failed
// and yet reached the disk leaves every row there once.
func TestRefusedAndFailed(t *testing.T) {
	const refusing, failing, failingPersisted = 1, 2, 3 // modes
	for _, persisted := range []bool{false, true} {
		dir := t.TempDir()
		store, err := buffer.Open(buffer.Options{Dir: dir, Lasting: Lasting()})
		if err != nil {
			t.Fatal(err)
		}
		epoch, err := Begin(store, testConfig(), "key", "test", synced())
		if err != nil {
			t.Fatal(err)
		}
		cfg := testConfig()
		cfg.Journal.SyncInterval, cfg.Journal.LeafInterval = 5*time.Millisecond, 20*time.Millisecond
		r, err := New(store, epoch, cfg, synced, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		var mode atomic.Int32
		mode.Store(refusing)
		tries := make(chan struct{}, 10_000)
		r.write = func(fn func(*buffer.Tx) error) error {
			defer func() { tries <- struct{}{} }()
			switch mode.Load() {
			case refusing:
				return errNoSpace
			case failingPersisted:
				if err := store.Commit(fn); err != nil {
					t.Error(err)
				}
				fallthrough
			case failing:
				return fmt.Errorf("%w: injected", buffer.ErrFailed)
			}
			return store.Commit(fn)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		const rows = 4 * queueLen
		for i := range rows {
			if err := r.Record(ctx, sampleAt("bin-001", time.UnixMilli(int64(1000+i)), uint64(i), false)); err != nil {
				t.Fatalf("row %d: a full disk holds up polling: %v", i, err)
			}
		}
		for range 3 {
			<-tries
		}
		if s := r.Stats(); s.AtRisk != 2*rows || s.Err == nil || s.Rows != 0 {
			t.Errorf("while refused: %+v", s)
		}
		if err := r.Alive(ctx); err != nil {
			t.Errorf("the watchdog would bite: %v", err)
		}
		if persisted {
			mode.Store(failingPersisted)
		} else {
			mode.Store(failing)
		}
		if err := <-done; !errors.Is(err, buffer.ErrFailed) {
			t.Fatalf("Run ended with %v", err)
		}
		if s := r.Stats(); s.AtRisk != 2*rows || !errors.Is(s.Err, buffer.ErrFailed) {
			t.Errorf("after the failure: %+v", s)
		}
		stop()
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		g := startRig(t, dir, synced) // as the agent is started again
		g.end()
		if store, err = buffer.Open(buffer.Options{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		got := newLedger()
		got.read(t, store)
		want := 0
		if persisted {
			want = rows
		}
		if counts, err := ReadCounts(store); err != nil || got.rows["bin-001"] != want || int(counts.Rows) != want {
			t.Errorf("persisted %v: %d rows, counts %+v %v", persisted, got.rows["bin-001"], counts, err)
		}
		store.Close()
	}
}

// Somebody else fills the disk to the last byte and frees it again, at random moments, under a recorder at work: nothing
// holds up polling, everything polled is in the journal or named by a gap leaf.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=160m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	filler := filepath.Join(disk, "filler")
	store, err := buffer.Open(buffer.Options{Dir: filepath.Join(disk, "journal"), Lasting: Lasting()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	epoch, err := Begin(store, testConfig(), "key", "test", synced())
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(store, epoch, testConfig(), synced, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.window = 150 << 10
	random := rand.New(rand.NewPCG(3, 9))
	want := newLedger()
	refused, n := 0, 0
	work := func(rows int) {
		t.Helper()
		for range rows {
			n++
			s := sampleAt("bin-001", time.UnixMilli(int64(1000+n)), random.Uint64(), n%97 < 10)
			if n == 1 || n%97 == 0 || n%97 == 10 {
				want.changes = append(want.changes, change{})
			}
			err := r.take(want.note(s))
			if n%100 == 0 {
				err = errors.Join(err, r.commit(form(n%3000 == 0)))
			}
			if errors.Is(err, buffer.ErrFailed) {
				t.Fatal(err)
			}
			if err != nil {
				refused++
			}
		}
	}
	for range 6 {
		work(random.IntN(1500))
		fillDisk(t, filler)
		work(8000 + random.IntN(4000))
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		work(random.IntN(1500))
		if err := r.commit(leaves); err != nil {
			t.Fatal(err)
		}
		if s := r.Stats(); s.Err != nil {
			t.Errorf("after the disk was freed: %+v", s)
		}
	}
	got := newLedger()
	gaps := got.read(t, store)
	for _, g := range gaps {
		got.rows["bin-001"] += int(g.Lost["bin-001"].Rows)
		got.readings["bin-001"] += int(g.Lost["bin-001"].Readings)
	}
	if got.rows["bin-001"] != n || got.readings["bin-001"] != 2*n || len(got.changes) != len(want.changes) {
		t.Errorf("journal and gap leaves have %v rows, %v readings, %d events; polled %d, %d, %d", got.rows, got.readings, len(got.changes), n, 2*n, len(want.changes))
	}
	lost := r.Stats().Lost
	if refused == 0 || lost.Rows == 0 || len(gaps) == 0 {
		t.Errorf("%d refusals, %+v lost, %d gap leaves: the disk was never full for long", refused, lost, len(gaps))
	}
	t.Logf("%d rows, %d refusals, %+v lost and told by %d gap leaves", n, refused, lost, len(gaps))
}

// fillDisk takes all space of a file system, to the last page.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); len(chunk) >= 4096; {
		if _, err := f.Write(chunk); errors.Is(err, unix.ENOSPC) {
			chunk = chunk[:len(chunk)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
