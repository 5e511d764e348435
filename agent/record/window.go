package record

import (
	"encoding/json"
	"slices"

	"hubagent/agent/contract"
)

// windowBytes bounds what waits in memory while the journal takes nothing: rows as they will stand in leaves, some 20
// minutes of 1,300 readings every 10 s. A gateway has 512 MB, and more time than this would not save a disk that nobody
// looks after.
const windowBytes = 4 << 20

// loss is what was given up because it had no room in memory, and no gap leaf tells of yet.
type loss struct {
	line        contract.Stamp // from and until are by its clock
	from, until int64          // Unix milliseconds
	devices     map[string]lostCount
}

// lostCount is what was lost of one device.
type lostCount struct {
	Counts
	Events int `json:"events,omitempty"` // contacts that changed
	Faults int `json:"faults,omitempty"` // faults that began or ended
}

// trim gives up what has no room: the oldest rows, and events and faults only when there are no rows left.
//
// The oldest, because the newest say more. They show the present state; counters are running totals, so that the newest
// row tells what was counted in the lost ones, too; and what is lost then lies in one piece behind what is on the disk.
func (r *Recorder) trim() {
	bytes := size(r.pending)
	for _, u := range r.urgent {
		bytes += u.size()
	}
	for bytes > r.window && len(r.pending)+len(r.urgent) > 1 {
		if !r.lost.any() {
			r.log.Error("memory is full, too, while the journal takes no readings: the oldest are lost from now on")
		}
		before := r.lost.total()
		if len(r.pending) > 0 {
			bytes -= len(r.pending[0].rows)
			r.lost.addRows(r.pending[0])
			r.pending = slices.Delete(r.pending, 0, 1)
		} else {
			bytes -= r.urgent[0].size()
			r.lost.addUrgent(r.urgent[0])
			r.urgent = slices.Delete(r.urgent, 0, 1)
		}
		after := r.lost.total()
		r.mu.Lock()
		r.stats.AtRisk -= int(after.Readings - before.Readings)
		r.stats.Lost.add(Counts{after.Rows - before.Rows, after.Readings - before.Readings})
		r.mu.Unlock()
	}
}

func (l *loss) any() bool { return len(l.devices) > 0 }

func (l *loss) total() (sum Counts) {
	for _, d := range l.devices {
		sum.add(d.Counts)
	}
	return sum
}

// addRows counts a block's rows by reading them again: keeping the counts by device beside each block would take as much
// memory as some of the rows.
func (l *loss) addRows(b block) {
	var rows []contract.Row
	if err := json.Unmarshal(slices.Concat([]byte("["), b.rows, []byte("]")), &rows); err != nil {
		panic("BUG: a row of our own is not valid JSON: " + err.Error())
	}
	for _, row := range rows {
		l.add(row.Device, row.At, b.Stamp, lostCount{Counts: Counts{1, uint64(len(row.Measured))}})
	}
}

func (l *loss) addUrgent(u urgent) {
	if u.event != nil {
		l.addRows(u.event.block)
		for _, c := range u.event.changes {
			l.add(c.Device, c.At, u.now, lostCount{Events: 1})
		}
	}
	for _, f := range u.faults {
		l.add(f.Device, max(f.Since, f.Until), u.now, lostCount{Faults: 1})
	}
}

func (l *loss) add(device string, at int64, line contract.Stamp, more lostCount) {
	if l.devices == nil {
		l.devices = map[string]lostCount{}
		l.from, l.until = at, at
	} else {
		l.from, l.until = moved(l.from, l.line, line), moved(l.until, l.line, line)
	}
	l.line, l.from, l.until = line, min(l.from, at), max(l.until, at)
	d := l.devices[device]
	d.add(more.Counts)
	d.Events += more.Events
	d.Faults += more.Faults
	l.devices[device] = d
}

// gap is what a leaf says of it.
func (l *loss) gap(now contract.Stamp) gap {
	return gap{Why: "no space", From: moved(l.from, l.line, now), Until: moved(l.until, l.line, now), Lost: l.devices}
}

// moved is a time by the clock of another stamp of the same boot, which may have jumped in between.
func moved(t int64, from, to contract.Stamp) int64 {
	if by := (to.At - to.Mono) - (from.At - from.Mono); from.Boot != "" && from.Boot == to.Boot && (by <= -stepMs || by >= stepMs) {
		return t + by
	}
	return t
}
