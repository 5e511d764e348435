package record

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/tlog"

	"hubagent/agent/contract"
	"hubagent/buffer"
	"hubagent/config"
	"hubagent/drivers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testConfig() *config.Config {
	profile := &config.Profile{ID: "p", Kind: config.Bin, Points: []config.Point{
		{Name: "fill", Type: config.U16, Unit: "%"}, {Name: "alarm", Type: config.Bool, Unit: "1", Event: true},
	}}
	return &config.Config{
		Hash:    "h1",
		Gateway: config.Gateway{ID: "g1", Site: "secret place"},
		Journal: config.Journal{SyncInterval: 2 * time.Second, LeafInterval: time.Minute},
		Buses: []config.Bus{{Name: "b", Devices: []config.Device{
			{Name: "bin-001", Label: "Mrs Wang's bin", Profile: "p", Model: profile, Interval: time.Second},
			{Name: "bin-002", Profile: "p", Model: profile, Interval: time.Second},
			{Name: "meter-001", Profile: "s", Interval: time.Second, Model: &config.Profile{ID: "s", Kind: config.Meter, Points: []config.Point{
				{Name: "energy", Type: config.Pulses, Unit: "kW.h"},
			}}},
		}}},
	}
}

func sampleAt(device string, t time.Time, fill uint64, alarm bool) drivers.Sample {
	return drivers.Sample{Device: device, At: t, Readings: []drivers.Reading{
		{Point: "fill", Value: drivers.Uint(fill), Unit: "%", Quality: drivers.Good},
		{Point: "alarm", Value: drivers.Bool(alarm), Unit: "1", Quality: drivers.Good},
	}}
}

// rig is a recorder on a store, with a clock that tests set.
type rig struct {
	t     *testing.T
	store *buffer.Store
	rec   *Recorder
	stop  context.CancelFunc
	done  chan error
}

func startRig(t *testing.T, dir string, clock Clock) *rig {
	t.Helper()
	g := &rig{t: t, done: make(chan error, 1)}
	var err error
	if g.store, err = buffer.Open(buffer.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	epoch, err := Begin(g.store, testConfig(), "key", "test", clock())
	if err != nil {
		t.Fatal(err)
	}
	if g.rec, err = New(g.store, epoch, testConfig(), clock, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, g.stop = context.WithCancel(t.Context())
	go func() { g.done <- g.rec.Run(ctx) }()
	return g
}

func (g *rig) record(s drivers.Sample) {
	g.t.Helper()
	if err := g.rec.Record(g.t.Context(), s); err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) end() {
	g.t.Helper()
	g.stop()
	if err := <-g.done; err != nil {
		g.t.Fatal(err)
	}
	if err := g.store.Close(); err != nil {
		g.t.Fatal(err)
	}
}

// leaves parses what the store holds, without genesis and meta.
func leavesIn(t *testing.T, store *buffer.Store) (parsed []contract.Leaf) {
	t.Helper()
	for n := int64(2); n < store.Size(); n++ {
		leaf, err := store.Leaf(n)
		if err != nil {
			t.Fatal(err)
		}
		l, err := contract.ParseLeaf(leaf.Data)
		if err != nil {
			t.Fatalf("leaf %d %s: %v", n, leaf.Data, err)
		}
		if l.Seq != n || l.Kind.Class() != byte(leaf.Class) {
			t.Fatalf("leaf %d says %d, kind %s, class %c", n, l.Seq, l.Kind, leaf.Class)
		}
		parsed = append(parsed, l)
	}
	return parsed
}

func synced() contract.Stamp {
	return contract.Stamp{At: time.Now().UnixMilli(), Clock: contract.ClockOK}
}

// realTime is used where Badger's own goroutines must run: a store cannot live inside a synctest bubble with its
// background workers, so timing is tested through the alarms alone, and the rest with short intervals.
func TestBlocksBecomeOneLeaf(t *testing.T) {
	dir := t.TempDir()
	g := startRig(t, dir, synced)
	base := time.UnixMilli(1790842802000)
	for i := range 10 {
		g.record(sampleAt("bin-001", base.Add(time.Duration(i)*time.Second), uint64(i), false))
	}
	g.end()
	store, err := buffer.Open(buffer.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	l := leavesIn(t, store)
	if len(l) != 1 || len(l[0].Rows) != 10 || l[0].Kind != contract.KindData {
		t.Fatalf("leaves %+v", l)
	}
	for i, row := range l[0].Rows {
		if row.Device != "bin-001" || row.At != base.UnixMilli()+int64(i)*1000 || row.Measured["fill"].String() != fmt.Sprint(i) {
			t.Errorf("row %d: %+v", i, row)
		}
	}
	if c, err := ReadCounts(store); err != nil || c != (Counts{10, 20}) {
		t.Errorf("counts %+v %v", c, err)
	}
}

// A crash between a block and its leaf: the next run makes the leaf, once.
func TestBlocksOfAnEarlierRun(t *testing.T) {
	dir := t.TempDir()
	store, err := buffer.Open(buffer.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := Begin(store, testConfig(), "key", "test", synced())
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(store, epoch, testConfig(), synced, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // three syncs, then the process is gone
		if err := r.take(sampleAt("bin-001", time.UnixMilli(int64(1000+i)), uint64(i), false)); err != nil {
			t.Fatal(err)
		}
		if err := r.commit(blocks); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		g := startRig(t, dir, synced)
		g.end()
	}
	if store, err = buffer.Open(buffer.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if l := leavesIn(t, store); len(l) != 1 || len(l[0].Rows) != 3 {
		t.Fatalf("leaves %+v", l)
	}
	if c, err := ReadCounts(store); err != nil || c != (Counts{3, 6}) {
		t.Errorf("counts %+v %v", c, err)
	}
	if waiting, err := store.Blocks(); err != nil || len(waiting) != 0 {
		t.Errorf("%d blocks wait (%v)", len(waiting), err)
	}
}

// The genesis comes first and once; a changed config adds a meta leaf, an unchanged one does not.
func TestEpochAndMeta(t *testing.T) {
	dir := t.TempDir()
	var first Epoch
	for i, hash := range []string{"h1", "h1", "h2", "h2"} {
		store, err := buffer.Open(buffer.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		cfg := testConfig()
		cfg.Hash = hash
		e, err := Begin(store, cfg, "key", "test", synced())
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = e
		}
		if e.Name != first.Name || (e.Meta == first.Meta) != (hash == "h1") {
			t.Errorf("start %d: %+v, first %+v", i, e, first)
		}
		if want := []int64{2, 2, 3, 3}[i]; store.Size() != want {
			t.Errorf("start %d: %d leaves, want %d", i, store.Size(), want)
		}
		leaf, err := store.Leaf(store.Size() - 1)
		if err != nil || tlog.RecordHash(leaf.Data).String() != e.Meta {
			t.Errorf("meta hash does not match its leaf (%v)", err)
		}
		for _, private := range []string{"secret place", "Mrs Wang"} {
			for n := range store.Size() {
				if leaf, _ := store.Leaf(n); containsText(leaf.Data, private) {
					t.Errorf("leaf %d carries %q", n, private)
				}
			}
		}
		store.Close()
	}
}

func containsText(data []byte, text string) bool {
	for i := range len(data) - len(text) + 1 {
		if string(data[i:i+len(text)]) == text {
			return true
		}
	}
	return false
}

// A contact that changes is a leaf of its own at once, its row is nowhere else, and its state survives a restart.
func TestEvents(t *testing.T) {
	dir := t.TempDir()
	g := startRig(t, dir, synced)
	at := time.UnixMilli(5000)
	tick := func(device string, alarm bool) {
		at = at.Add(time.Second)
		g.record(sampleAt(device, at, 1, alarm))
	}
	tick("bin-001", false) // first look, quiet: no event
	tick("bin-002", true)  // first look, alarm stands: event, from nothing
	grown := g.store.Grown()
	tick("bin-001", true) // event
	select {
	case <-grown:
	case <-time.After(10 * time.Second):
		t.Fatal("an event waited for the leaf interval")
	}
	tick("bin-001", true) // as it was
	g.end()
	g = startRig(t, dir, synced)
	tick("bin-001", true)  // as it was before the restart
	tick("bin-001", false) // event
	g.end()

	store, err := buffer.Open(buffer.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	rows := map[int64]int{}
	events := 0
	for _, l := range leavesIn(t, store) {
		for _, row := range l.Rows {
			rows[row.At]++
		}
		if l.Kind == contract.KindEvent {
			events++
			if len(l.Rows) != 1 {
				t.Errorf("event with %d rows", len(l.Rows))
			}
		}
	}
	if events != 3 || len(rows) != 6 {
		t.Errorf("%d events, %d rows", events, len(rows))
	}
	for at, n := range rows {
		if n != 1 {
			t.Errorf("row at %d is there %d times", at, n)
		}
	}
}

// Rows whose times need different repairs never share a leaf.
func TestClockStepSplitsLeaves(t *testing.T) {
	dir := t.TempDir()
	store, err := buffer.Open(buffer.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	now := contract.Stamp{At: 1000, Clock: contract.ClockUnsync, Boot: "boot-1", Mono: 500}
	clock := func() contract.Stamp { return now }
	epoch, err := Begin(store, testConfig(), "key", "test", now)
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(store, epoch, testConfig(), clock, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i, stamp := range []contract.Stamp{
		{At: 1000, Clock: contract.ClockUnsync, Boot: "boot-1", Mono: 500},
		{At: 2100, Clock: contract.ClockUnsync, Boot: "boot-1", Mono: 1500}, // drifts a little
		{At: 1790842802000, Clock: contract.ClockUnsync, Boot: "boot-1", Mono: 2500},
		{At: 1790842803000, Clock: contract.ClockOK},
		{At: 1790842899000, Clock: contract.ClockOK},
		{At: 9000, Clock: contract.ClockUnsync, Boot: "boot-2", Mono: 10},
	} {
		now = stamp
		if err := r.take(sampleAt("bin-001", time.UnixMilli(stamp.At), uint64(i), false)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.commit(leaves); err != nil {
		t.Fatal(err)
	}
	l := leavesIn(t, store)
	var got []int
	for _, leaf := range l {
		got = append(got, len(leaf.Rows))
	}
	if fmt.Sprint(got) != "[2 1 2 1]" {
		t.Fatalf("rows by leaf %v", got)
	}
	if l[0].Mono != 1500 || l[0].At != 2100 || l[2].Boot != "" || l[3].Boot != "boot-2" {
		t.Errorf("stamps %+v %+v %+v %+v", l[0].Stamp, l[1].Stamp, l[2].Stamp, l[3].Stamp)
	}
}

// A failed store ends Run, and what was not committed is not counted.
func TestFailedStoreEndsRun(t *testing.T) {
	dir := t.TempDir()
	g := startRig(t, dir, synced)
	g.store.Close() // what a vanished disk looks like
	g.record(sampleAt("bin-001", time.UnixMilli(1), 1, true))
	g.record(sampleAt("bin-001", time.UnixMilli(2), 1, true))
	select {
	case err := <-g.done:
		if !errors.Is(err, buffer.ErrFailed) {
			t.Fatalf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run goes on without a journal")
	}
	if s := g.rec.Stats(); s.Rows != 0 || s.AtRisk != 4 || s.Err == nil {
		t.Errorf("stats %+v", s)
	}
	g.stop()
}

func TestAlarmRingsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a alarm
		begin := time.Now()
		a.arm(2 * time.Second)
		time.Sleep(time.Second)
		a.arm(2 * time.Second) // changes nothing
		<-a.C
		if d := time.Since(begin); d != 2*time.Second {
			t.Errorf("rang after %v", d)
		}
	})
}
