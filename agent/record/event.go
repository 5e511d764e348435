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
	event  *event
	faults []contract.Fault
	open   map[string]contract.Fault // faults that last, after these
}

// event is a sample in which contacts changed. It becomes a leaf of its own, so its row is in no data leaf.
type event struct {
	block
	changes []change
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

func (r *Recorder) appendEvent(tx *buffer.Tx, e *event) error {
	list, err := json.Marshal(e.changes)
	if err != nil {
		return fmt.Errorf("cannot encode event: %w", err)
	}
	leaf := contract.AppendRows(nil, r.header(tx, contract.KindEvent, e.Stamp), e.rows)
	leaf = slices.Concat(leaf[:len(leaf)-1], []byte(`,"changes":`), list, []byte("}"))
	_, err = tx.Append(buffer.Class(contract.KindEvent.Class()), leaf)
	return err
}

// faultsOf compares what a sample says of its device with the faults that last. A fault that lasted when the agent was
// last stopped goes on until the device answers.
func (r *Recorder) faultsOf(s drivers.Sample) (changed []contract.Fault, open map[string]contract.Fault) {
	f, lasts := r.faults[s.Device]
	switch {
	case lasts && s.Answered():
		f.Until = s.At.UnixMilli()
	case !lasts && !s.Down.IsZero():
		f = contract.Fault{Device: s.Device, Since: s.Down.UnixMilli(), Why: firstReason(s)}
	default:
		return nil, r.faults
	}
	open = maps.Clone(r.faults)
	if f.Until != 0 {
		delete(open, s.Device)
	} else {
		open[s.Device] = f
	}
	return []contract.Fault{f}, open
}

func firstReason(s drivers.Sample) string {
	for _, r := range s.Readings {
		if r.Why != "" {
			return r.Why
		}
	}
	return ""
}

func (r *Recorder) appendFault(tx *buffer.Tx, f contract.Fault, stamp contract.Stamp) error {
	leaf, err := contract.AppendDocument(nil, r.header(tx, contract.KindFault, stamp), string(contract.KindFault), f)
	if err != nil {
		return err
	}
	_, err = tx.Append(buffer.Class(contract.KindFault.Class()), leaf)
	return err
}
