package record

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"hubagent/agent/contract"
	"hubagent/buffer"
	"hubagent/drivers"
)

// urgent is what a sample brings that cannot wait for the next commit of blocks: contacts that changed, a fault that
// began or ended, or both.
type urgent struct {
	now      contract.Stamp
	event    *event
	contacts map[string]map[string]bool // after the event
	faults   []contract.Fault
	open     map[string]openFault // faults that last, after these
}

// event is a sample in which contacts changed. It becomes a leaf of its own, so its row is in no data leaf.
type event struct {
	block
	changes []change
}

// openFault is a fault that lasts, with the time line of its since, so that it can be told once the clock has jumped.
type openFault struct {
	contract.Fault
	Boot string `json:"boot,omitempty"`
	Mono int64  `json:"mono,omitempty"` // of Since
}

// change is one contact that is not as it was, as the leaf says it.
type change struct {
	Device string `json:"d"`
	Point  string `json:"p"`
	From   *int   `json:"from"` // null: never seen before
	To     int    `json:"to"`
	At     int64  `json:"t"` // Unix milliseconds
}

// changes compares the sample's event points with what was last seen. A contact that was never seen is an event only
// when it is active: an alarm that stands when the gateway first looks must not go untold.
func (r *Recorder) changes(s drivers.Sample) (changes []change) {
	for _, reading := range s.Readings {
		state, ok := reading.Value.AsBool()
		if !ok || !r.events[s.Device][reading.Point] {
			continue
		}
		before, seen := r.contacts[s.Device][reading.Point]
		if before == state { // the zero value stands for "not active" when it was never seen
			continue
		}
		c := change{Device: s.Device, Point: reading.Point, To: digit(state), At: s.At.UnixMilli()}
		if seen {
			from := digit(before)
			c.From = &from
		}
		changes = append(changes, c)
	}
	return changes
}

func digit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// urgentOf is what a sample brings that is urgent. The recorder's contacts and faults are as they are after it.
func (r *Recorder) urgentOf(s drivers.Sample, row block) urgent {
	u := urgent{now: row.Stamp}
	if changes := r.changes(s); len(changes) > 0 {
		u.event = &event{row, changes}
		r.contacts = u.event.apply(r.contacts)
	}
	u.faults, r.faults = r.faultsOf(s, row.Stamp)
	u.contacts, u.open = r.contacts, r.faults
	return u
}

// apply returns the states after the event and leaves the given ones as they are.
func (e *event) apply(contacts map[string]map[string]bool) map[string]map[string]bool {
	next := maps.Clone(contacts)
	for _, c := range e.changes {
		points := maps.Clone(next[c.Device])
		if points == nil {
			points = map[string]bool{}
		}
		points[c.Point] = c.To == 1
		next[c.Device] = points
	}
	return next
}

// faultsOf compares what a sample says of its device with the faults that last. A fault that lasted when the agent was
// last stopped goes on until the device answers.
func (r *Recorder) faultsOf(s drivers.Sample, now contract.Stamp) (changed []contract.Fault, open map[string]openFault) {
	f, lasts := r.faults[s.Device]
	switch {
	case lasts && s.Answered():
		f.Until = s.At.UnixMilli()
		if f.Boot != "" && f.Boot == now.Boot {
			if since := now.At - (now.Mono - f.Mono); since <= f.Since-stepMs || since >= f.Since+stepMs {
				f.Since = since
			}
		}
	case !lasts && !s.Down.IsZero():
		f.Fault = contract.Fault{Device: s.Device, Since: s.Down.UnixMilli(), Why: firstReason(s)}
		f.Boot, f.Mono = now.Boot, now.Mono-(now.At-f.Since)
	default:
		return nil, r.faults
	}
	open = maps.Clone(r.faults)
	if f.Until != 0 {
		delete(open, s.Device)
	} else {
		open[s.Device] = f
	}
	return []contract.Fault{f.Fault}, open
}

func firstReason(s drivers.Sample) string {
	for _, r := range s.Readings {
		if r.Why != "" {
			return r.Why
		}
	}
	return ""
}

// What goes with one Commit of what is urgent: it must fit the redo log, and so must its transaction Badger.
const (
	mostUrgent  = 32
	urgentBytes = 16 << 10
)

// urgentBatch is how many of what is urgent go with the next Commit.
func (r *Recorder) urgentBatch() (n int) {
	for bytes := 0; n < min(len(r.urgent), mostUrgent); n++ {
		if bytes += r.urgent[n].size(); n > 0 && bytes > urgentBytes {
			break
		}
	}
	return n
}

// size is about what it takes in memory and in leaves, in bytes.
func (u urgent) size() int {
	const document = 200
	n := document * len(u.faults)
	if u.event != nil {
		n += len(u.event.rows) + document*(1+len(u.event.changes))
	}
	return n
}

func (r *Recorder) appendUrgent(tx *buffer.Tx, u urgent) error {
	if u.event != nil {
		list, err := json.Marshal(u.event.changes)
		if err != nil {
			return fmt.Errorf("cannot encode event: %w", err)
		}
		leaf := contract.AppendRows(nil, r.header(tx, contract.KindEvent, u.event.Stamp), u.event.rows)
		leaf = slices.Concat(leaf[:len(leaf)-1], []byte(`,"changes":`), list, []byte("}"))
		if _, err = tx.Append(buffer.Class(contract.KindEvent.Class()), leaf); err != nil {
			return err
		}
		if err := setState(tx, stateContacts, u.contacts); err != nil {
			return err
		}
	}
	for _, f := range u.faults {
		if _, err := appendDocument(tx, r.epoch, contract.KindFault, u.now, f); err != nil {
			return err
		}
	}
	if len(u.faults) > 0 {
		return setState(tx, stateFaults, u.open)
	}
	return nil
}
