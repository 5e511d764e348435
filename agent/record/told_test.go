package record

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"
	"unsafe"

	"hubagent/agent/contract"
	"hubagent/buffer"
	"hubagent/drivers"
)

// beforeJump is t as it was taken down before the wall clock jumped by that. Go has no other way to make one.
func beforeJump(t time.Time, by time.Duration) time.Time {
	const hasMonotonic, secondShift = 1 << 63, 30 // time.Time's wall: a bit, 33 bits of seconds, 30 of nanoseconds
	wall := (*uint64)(unsafe.Pointer(&t))
	if *wall&hasMonotonic == 0 {
		panic("BUG: a time without a monotonic part")
	}
	*wall -= uint64(by/time.Second) << secondShift
	return t
}

func TestPresent(t *testing.T) {
	now := time.Now()
	for _, by := range []time.Duration{7 * 24 * time.Hour, -time.Hour, 56 * 365 * 24 * time.Hour} {
		old := beforeJump(now.Add(-3*time.Second), by)
		if !jumped(old, now) {
			t.Fatalf("the jump by %v is not in the test's time", by)
		}
		if got := Present(old, now); !got.Round(0).Equal(now.Add(-3 * time.Second).Round(0)) {
			t.Errorf("jump by %v: %v, want 3 s before %v", by, got, now)
		}
	}
	for _, same := range []time.Time{now, now.Add(-time.Hour), now.Add(-time.Hour).Round(0), time.UnixMilli(1), {}} {
		if got := Present(same, now); got != same {
			t.Errorf("%v became %v without a jump", same, got)
		}
	}
}

// story is a recorder whose clock and boots a test sets.
type story struct {
	t     *testing.T
	store *buffer.Store
	epoch Epoch
	rec   *Recorder
	boot  string
	mono  int64 // ms since boot
	clock int64 // wall less mono
	state string
	true_ int64 // the boot's true moment, Unix ms
	want  map[int64]int64
}

func (s *story) stamp() contract.Stamp {
	return contract.Stamp{At: s.clock + s.mono, Clock: s.state, Boot: s.boot, Mono: s.mono}
}

// start is a start of the agent.
func (s *story) start() {
	s.t.Helper()
	var err error
	if s.epoch, err = Begin(s.store, testConfig(), "key", "test", s.stamp()); err != nil {
		s.t.Fatal(err)
	}
	if s.rec, err = New(s.store, s.epoch, testConfig(), s.stamp, slog.New(slog.DiscardHandler)); err != nil {
		s.t.Fatal(err)
	}
}

// poll takes a sample as the story's clock has it; its fill level numbers it.
func (s *story) poll(n int64) {
	s.t.Helper()
	s.mono += 1000
	s.want[n] = s.true_ + s.mono
	if err := s.rec.take(sampleAt("bin-001", time.UnixMilli(s.clock+s.mono), uint64(n), false)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) leaf() {
	s.t.Helper()
	if err := s.rec.commit(leaves); err != nil {
		s.t.Fatal(err)
	}
}

func clocksIn(t *testing.T, store *buffer.Store) (fixes []contract.ClockFix) {
	t.Helper()
	for n := range store.Size() {
		leaf, err := store.Leaf(n)
		if err != nil {
			t.Fatal(err)
		}
		if leaf.Class == buffer.Class(contract.KindClock.Class()) {
			fix, err := contract.ParseClock(leaf.Data)
			if err != nil {
				t.Fatal(err)
			}
			fixes = append(fixes, fix)
		}
	}
	return fixes
}

// A gateway that boots in 1970, is set, restarted, stepped while the agent is away, and rebooted without ever being set:
// its clock leaves repair what can be known, and nothing else.
func TestClockLeavesRepair(t *testing.T) {
	store, err := buffer.Open(buffer.Options{Dir: t.TempDir(), Lasting: Lasting()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	const day = 86_400_000
	s := &story{t: t, store: store, boot: "boot-1", mono: 20_000, state: contract.ClockUnsync, true_: 1790842802000, want: map[int64]int64{}}
	clocks := func(want int) {
		t.Helper()
		if got := clocksIn(t, store); len(got) != want {
			t.Fatalf("%d clock leaves %+v, want %d", len(got), got, want)
		}
	}
	s.start()
	s.poll(1)
	s.poll(2)
	s.clock += 5 * day // by hand, wrong
	s.poll(3)
	if err := s.rec.commit(blocks); err != nil {
		t.Fatal(err)
	}
	clocks(0)
	s.clock, s.state = s.true_, contract.ClockStep // NTP
	s.poll(4)
	clocks(1)
	s.poll(5)
	s.mono += 60_000
	s.state = contract.ClockOK
	s.poll(6)
	clocks(2)
	s.poll(7)
	s.leaf()
	s.start() // again, in the same boot
	s.poll(8)
	clocks(2)
	if good, err := LastGood(store); err != nil || good != s.stamp().At-1000 {
		t.Errorf("last good %d %v, now %d", good, err, s.stamp().At)
	}
	s.leaf()
	s.start()
	s.true_ += 3000 // what was believed so far was 3 s slow, and was set right while the agent was away
	s.clock = s.true_
	s.poll(9)
	clocks(3)
	s.state = contract.ClockUnsync // the server is gone
	s.poll(10)
	s.leaf()
	s.state = contract.ClockOK
	s.poll(11)
	clocks(4)
	s.leaf()
	s.boot, s.mono, s.clock, s.state = "boot-2", 0, 0, contract.ClockUnsync // 1970 again, and never set
	s.start()
	s.poll(12)
	s.leaf()
	s.boot, s.mono, s.state = "boot-3", 0, contract.ClockOK
	s.true_ += day
	s.clock = s.true_
	s.start()
	s.poll(13)
	s.leaf()
	clocks(5)
	for i, f := range clocksIn(t, store) { // each jump once, from what was told before
		if want := []int64{1790842802000 - 5*day, 0, 3000, 0, 0}[i]; want == 0 && f.Before != nil || want != 0 && (f.Before == nil || f.Offset-*f.Before != want) {
			t.Errorf("clock leaf %d: %+v, want a jump by %d", i, f, want)
		}
	}

	fixes := clocksIn(t, store)
	seen := 0
	for _, l := range leavesIn(t, store) {
		for _, row := range l.Rows {
			var n int64
			if err := json.Unmarshal([]byte(row.Measured["fill"]), &n); err != nil {
				t.Fatal(err)
			}
			seen++
			at, known := contract.RepairedTime(l.Stamp, row.At, fixes)
			if known != (n != 12) {
				t.Errorf("row %d in %+v: known %v", n, l.Stamp, known)
			}
			if want := s.want[n]; known && at != want {
				t.Errorf("row %d in %+v: at %v, want %v", n, l.Stamp, time.UnixMilli(at).UTC(), time.UnixMilli(want).UTC())
			}
		}
	}
	if seen != 13 {
		t.Errorf("%d rows, want 13", seen)
	}
}

// A sample that was taken down before the clock jumped stands in its leaf by the clock after it, its fault and event, too.
func TestSampleAcrossAJump(t *testing.T) {
	store, err := buffer.Open(buffer.Options{Dir: t.TempDir(), Lasting: Lasting()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	now := contract.Stamp{At: time.Now().UnixMilli(), Clock: contract.ClockOK, Boot: "boot-1", Mono: 60_000}
	epoch, err := Begin(store, testConfig(), "key", "test", now)
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(store, epoch, testConfig(), func() contract.Stamp { return now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const jump = 7 * 24 * time.Hour
	base := time.Now()
	for _, s := range []drivers.Sample{
		sampleAt("bin-001", beforeJump(base.Add(-time.Second), jump), 1, true),
		silentAt("bin-002", base, beforeJump(base.Add(-30*time.Second), jump)),
		sampleAt("bin-001", base, 2, true),
	} {
		if err := r.take(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.commit(leaves); err != nil {
		t.Fatal(err)
	}
	near := func(what string, ms int64, want time.Time) {
		t.Helper()
		if d := time.UnixMilli(ms).Sub(want.Round(0)); d < -100*time.Millisecond || d > 100*time.Millisecond {
			t.Errorf("%s is at %v, want %v", what, time.UnixMilli(ms), want)
		}
	}
	kinds := ""
	for n := range store.Size() {
		leaf, err := store.Leaf(n)
		if err != nil {
			t.Fatal(err)
		}
		var l struct {
			Kind    string
			Rows    []contract.Row
			Changes []change
			Fault   contract.Fault
		}
		if err := json.Unmarshal(leaf.Data, &l); err != nil {
			t.Fatal(err)
		}
		switch kinds += l.Kind + " "; l.Kind {
		case "event":
			near("the event's row", l.Rows[0].At, base.Add(-time.Second))
			near("the event", l.Changes[0].At, base.Add(-time.Second))
		case "fault":
			near("the fault", l.Fault.Since, base.Add(-30*time.Second))
		case "data":
			for _, row := range l.Rows {
				near("a row", row.At, base)
			}
		}
	}
	if kinds != "genesis meta clock event fault data " {
		t.Errorf("leaves %s", kinds)
	}
}

// A fault that began by one clock and ends by another has both its times by the one of its end.
func TestFaultAcrossAJump(t *testing.T) {
	dir := t.TempDir()
	store, err := buffer.Open(buffer.Options{Dir: dir, Lasting: Lasting()})
	if err != nil {
		t.Fatal(err)
	}
	s := &story{t: t, store: store, boot: "boot-1", mono: 20_000, state: contract.ClockUnsync, want: map[int64]int64{}}
	s.start()
	at := func() time.Time { return time.UnixMilli(s.clock + s.mono) }
	take := func(sample drivers.Sample) {
		t.Helper()
		if err := s.rec.take(sample); err != nil {
			t.Fatal(err)
		}
	}
	take(silentAt("bin-001", at(), at().Add(-5*time.Second)))
	take(silentAt("bin-002", at(), at().Add(-5*time.Second)))
	s.clock, s.mono, s.state = 1790842802000, s.mono+10_000, contract.ClockOK
	take(sampleAt("bin-001", at(), 1, false))
	s.start() // and what the journal remembers of it is as good
	s.mono += 10_000
	take(sampleAt("bin-002", at(), 1, false))
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	faults, _ := faultsIn(t, dir)
	if len(faults) != 4 {
		t.Fatalf("faults %+v", faults)
	}
	for i, last := range []time.Duration{15 * time.Second, 25 * time.Second} {
		if f := faults[2+i]; time.Duration(f.Until-f.Since)*time.Millisecond != last || f.Since != 1790842802000+15_000 {
			t.Errorf("fault %+v, want one of %v", f, last)
		}
	}
}
