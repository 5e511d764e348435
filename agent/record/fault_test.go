package record

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"hubagent/agent/contract"
	"hubagent/buffer"
	"hubagent/drivers"
)

// silentAt is a poll without an answer, of a device that is down since then, or not yet.
func silentAt(device string, t, down time.Time) drivers.Sample {
	return drivers.Sample{Device: device, At: t, Down: down, Readings: []drivers.Reading{
		{Point: "fill", Unit: "%", Quality: drivers.Missing, Why: "timeout"},
		{Point: "alarm", Unit: "1", Quality: drivers.Missing, Why: "timeout"},
	}}
}

// faultsIn are the documents of the fault leaves, and the numbers of all rows by device.
func faultsIn(t *testing.T, dir string) (faults []contract.Fault, rows map[string]int) {
	t.Helper()
	store, err := buffer.Open(buffer.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	rows = map[string]int{}
	for _, l := range leavesIn(t, store) {
		for _, row := range l.Rows {
			rows[row.Device]++
		}
		if l.Kind != contract.KindFault {
			continue
		}
		leaf, err := store.Leaf(l.Seq)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct{ Fault contract.Fault }
		if err := json.Unmarshal(leaf.Data, &doc); err != nil {
			t.Fatal(err)
		}
		faults = append(faults, doc.Fault)
	}
	return faults, rows
}

// A fault has one leaf at its beginning and one at its end, whatever happens to the agent in between.
func TestFaultsOfDevices(t *testing.T) {
	dir := t.TempDir()
	base := time.UnixMilli(10_000)
	at := func(second int) time.Time { return base.Add(time.Duration(second) * time.Second) }
	g := startRig(t, dir, synced)
	g.record(sampleAt("bin-001", at(0), 1, false))
	g.record(silentAt("bin-001", at(1), time.Time{})) // a poll that was missed is no fault
	g.record(silentAt("bin-001", at(2), time.Time{}))
	grown := g.store.Grown()
	g.record(silentAt("bin-001", at(3), at(1)))
	select {
	case <-grown:
	case <-time.After(10 * time.Second):
		t.Fatal("a fault waited for the leaf interval")
	}
	g.record(silentAt("bin-001", at(4), at(1)))
	g.record(silentAt("bin-002", at(4), at(2)))
	g.end()

	g = startRig(t, dir, synced)
	g.record(silentAt("bin-001", at(9), time.Time{})) // after the restart nobody knows yet
	g.record(silentAt("bin-001", at(11), at(9)))      // the same fault, counted anew by the poller
	g.record(sampleAt("bin-001", at(12), 1, true))    // back, with an alarm: a fault and an event in one
	g.record(sampleAt("bin-001", at(13), 1, true))
	g.end()

	faults, rows := faultsIn(t, dir)
	want := []contract.Fault{
		{Device: "bin-001", Since: at(1).UnixMilli(), Why: "timeout"},
		{Device: "bin-002", Since: at(2).UnixMilli(), Why: "timeout"},
		{Device: "bin-001", Since: at(1).UnixMilli(), Until: at(12).UnixMilli(), Why: "timeout"},
	}
	if !reflect.DeepEqual(faults, want) {
		t.Errorf("faults %+v, want %+v", faults, want)
	}
	if rows["bin-001"] != 9 || rows["bin-002"] != 1 {
		t.Errorf("rows %v", rows)
	}
}

// The count of a pulse counter is in the transaction of the row that tells it.
func TestPulsesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	pulse := func(second int, count uint64, value drivers.Value) drivers.Sample {
		r := drivers.Reading{Point: "energy", Unit: "kW.h", Quality: drivers.Good, Value: value, Count: count}
		if value.IsNone() {
			r.Quality, r.Why = drivers.Missing, "link"
		}
		return drivers.Sample{Device: "meter-001", At: time.UnixMilli(int64(second) * 1000), Readings: []drivers.Reading{r}}
	}
	g := startRig(t, dir, synced)
	if counts := g.rec.Pulses(); len(counts) != 0 {
		t.Errorf("a new store counts %v", counts)
	}
	g.record(pulse(1, 1000, drivers.Float64(1)))
	g.record(pulse(2, 1003, drivers.Float64(1.003)))
	g.record(pulse(3, 0, drivers.Value{})) // the chip is gone: nothing is known, and nothing forgotten
	g.end()
	g = startRig(t, dir, synced)
	if got := g.rec.Pulses()["meter-001"]["energy"]; got != 1003 {
		t.Errorf("count %d after the restart, want 1003", got)
	}
	g.end()
}
