// Package record turns samples into blocks and leaves. It is the only writer of readings: what it has committed is
// recorded, and nothing downstream sees a reading before that.
package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"hubagent/agent/contract"
	"hubagent/buffer"
	"hubagent/config"
	"hubagent/drivers"
)

// queueLen bounds the samples between the buses and the recorder. A bus that finds it full waits: its polls come late,
// which is visible, instead of being lost, which would not be.
const queueLen = 256

// leafBytes ends a leaf before its interval when its rows grow beyond this: a leaf must fit one message.
const leafBytes = 256 << 10

// Counts are totals of the epoch, kept in the same transaction as the rows they count.
type Counts struct {
	Rows     uint64 `json:"rows"`     // polls
	Readings uint64 `json:"readings"` // values
}

// Stats is what the page shows of the recorder.
type Stats struct {
	Counts
	AtRisk     int // readings that are polled and not on the disk yet
	LastCommit time.Time
	Err        error // why the last Commit failed; nil when it did not

	Growth Growth
}

// Recorder takes samples from the buses and commits them.
type Recorder struct {
	store    *buffer.Store
	epoch    Epoch
	clock    Clock
	log      *slog.Logger
	written  func() (int64, error) // see CountWrites; nil: not counted
	sync     time.Duration         // from a sample to its Commit at most
	leaf     time.Duration         // of rows in one leaf
	events   map[string]map[string]bool
	counters map[string][]string // the pulse counters of each device
	queue    chan drivers.Sample
	ping     chan struct{}

	// Owned by Run.
	held     []block // rows committed as blocks, not yet a leaf
	pending  []block // rows not committed; more than one block only after a clock step
	contacts map[string]map[string]bool
	faults   map[string]contract.Fault    // that last
	pulses   map[string]map[string]uint64 // pending rows included
	pulsed   bool                         // pulses is not what was committed
	wear     wear
	counts   Counts // pending rows included

	mu    sync.Mutex
	stats Stats
}

// block is rows that share a time line.
type block struct {
	contract.Stamp
	rows     []byte // contract.AppendRow's texts joined by commas
	readings int
}

// New makes a recorder for a store on which Begin was called. Blocks that an earlier run left are taken over.
func New(store *buffer.Store, epoch Epoch, cfg *config.Config, clock Clock, log *slog.Logger) (*Recorder, error) {
	r := &Recorder{
		store: store, epoch: epoch, clock: clock, log: log,
		sync: cfg.Journal.SyncInterval, leaf: cfg.Journal.LeafInterval,
		queue: make(chan drivers.Sample, queueLen), ping: make(chan struct{}),
		events: map[string]map[string]bool{}, contacts: map[string]map[string]bool{},
		counters: map[string][]string{}, faults: map[string]contract.Fault{}, pulses: map[string]map[string]uint64{},
	}
	for _, bus := range cfg.Buses {
		for _, d := range bus.Devices {
			for _, p := range d.Model.Points {
				if p.Type == config.Pulses {
					r.counters[d.Name] = append(r.counters[d.Name], p.Name)
				}
				if p.Event {
					if r.events[d.Name] == nil {
						r.events[d.Name] = map[string]bool{}
					}
					r.events[d.Name][p.Name] = true
				}
			}
		}
	}
	if err := getState(store, stateContacts, &r.contacts); err != nil {
		return nil, err
	}
	for name, v := range map[string]any{stateFaults: &r.faults, statePulses: &r.pulses, stateCounts: &r.counts} {
		if err := getState(store, name, v); err != nil {
			return nil, err
		}
	}
	if err := getState(store, stateWear, &r.wear.before); err != nil {
		return nil, err
	}
	r.wear.began = time.Now()
	r.stats.Counts = r.counts
	blocks, err := store.Blocks()
	if err != nil {
		return nil, err
	}
	for _, raw := range blocks {
		b, err := parseBlock(raw)
		if err != nil {
			return nil, err
		}
		r.held = append(r.held, b)
	}
	return r, nil
}

func (b block) encode() []byte {
	head, _ := json.Marshal(b.Stamp) // strings and numbers cannot fail
	return slices.Concat(head, []byte("\n"), b.rows)
}

func parseBlock(raw []byte) (block, error) {
	var b block
	head, rows, ok := bytes.Cut(raw, []byte("\n"))
	if !ok {
		return b, errors.New("block has no stamp")
	}
	if err := json.Unmarshal(head, &b.Stamp); err != nil {
		return b, fmt.Errorf("block has a damaged stamp: %w", err)
	}
	b.rows = rows
	return b, nil
}

// Record hands over a sample. It waits while the journal is behind, and gives up when ctx ends.
func (r *Recorder) Record(ctx context.Context, s drivers.Sample) error {
	n := values(s)
	r.mu.Lock()
	r.stats.AtRisk += n
	r.mu.Unlock()
	select {
	case r.queue <- s:
		return nil
	case <-ctx.Done():
		r.mu.Lock()
		r.stats.AtRisk -= n
		r.mu.Unlock()
		return ctx.Err()
	}
}

func values(s drivers.Sample) (n int) {
	for _, reading := range s.Readings {
		if !reading.Value.IsNone() {
			n++
		}
	}
	return n
}

// Stats returns a copy of the present figures.
func (r *Recorder) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Run commits samples until ctx ends, then commits what is left as a leaf and returns. Whoever calls Record must have
// stopped by then. An error means that readings in memory could not be committed; after one that wraps
// buffer.ErrFailed the process must reopen the journal.
func (r *Recorder) Run(ctx context.Context) error {
	if err := r.commit(leaves, nil); err != nil { // blocks of an earlier run
		return err
	}
	syncAt, leafAt := alarm{}, alarm{}
	for {
		var err error
		queue := r.queue
		if size(r.pending) > leafBytes {
			queue = nil // the disk does not take what is here: let the buses wait
		}
		if len(r.pending) > 0 {
			syncAt.arm(r.sync)
		}
		if len(r.pending)+len(r.held) > 0 {
			leafAt.arm(r.leaf)
		}
		select {
		case s := <-queue:
			err = r.take(s)
		case <-syncAt.C:
			syncAt.C = nil
			err = r.commit(blocks, nil)
		case <-leafAt.C:
			leafAt.C = nil
			err = r.commit(leaves, nil)
		case <-r.ping:
		case <-ctx.Done():
			return r.finish()
		}
		if errors.Is(err, buffer.ErrFailed) {
			return err
		}
	}
}

// alarm rings once after it was armed; arming it again before that changes nothing.
type alarm struct{ C <-chan time.Time }

func (a *alarm) arm(d time.Duration) {
	if a.C == nil {
		a.C = time.After(d)
	}
}

func (r *Recorder) finish() error {
	for {
		select {
		case s := <-r.queue:
			if err := r.take(s); errors.Is(err, buffer.ErrFailed) {
				return err
			}
		default:
			r.wear.keptAt = time.Time{}
			return r.commit(leaves, nil)
		}
	}
}

// take adds a sample's row to what is pending, or commits it at once when one of its contacts changed.
func (r *Recorder) take(s drivers.Sample) error {
	n := values(s)
	r.counts.Rows++
	r.counts.Readings += uint64(n)
	row := block{Stamp: r.clock(), rows: contract.AppendRow(nil, s), readings: n}
	r.keepPulses(s)
	var now urgent
	now.faults, now.open = r.faultsOf(s)
	if changes := r.changes(s); len(changes) > 0 {
		now.event = &event{row, changes}
		err := r.commit(blocks, &now)
		if err != nil {
			// The row goes the ordinary way. The contact still counts as unchanged, so its next poll is the event; and so
			// does the device's state.
			r.add(row)
		}
		return err
	}
	r.add(row)
	if len(now.faults) > 0 {
		return r.commit(blocks, &now)
	}
	if size(r.held)+size(r.pending) > leafBytes {
		return r.commit(leaves, nil)
	}
	return nil
}

// keepPulses takes the counts that pulse counters have come to, to be committed with the row that tells them.
func (r *Recorder) keepPulses(s drivers.Sample) {
	for _, p := range r.counters[s.Device] {
		for _, reading := range s.Readings {
			if reading.Point == p && !reading.Value.IsNone() {
				if r.pulses[s.Device] == nil {
					r.pulses[s.Device] = map[string]uint64{}
				}
				r.pulses[s.Device][p] = reading.Count
				r.pulsed = true
			}
		}
	}
}

// Pulses returns the counts that were committed, by device and point. Call it before Run.
func (r *Recorder) Pulses() map[string]map[string]uint64 {
	counts := maps.Clone(r.pulses)
	for device, points := range counts {
		counts[device] = maps.Clone(points)
	}
	return counts
}

func (r *Recorder) add(row block) {
	if n := len(r.pending); n > 0 && continues(r.pending[n-1].Stamp, row.Stamp) {
		last := &r.pending[n-1]
		last.Stamp = row.Stamp
		last.rows = append(append(last.rows, ','), row.rows...)
		last.readings += row.readings
		return
	}
	r.pending = append(r.pending, row)
}

func size(list []block) (n int) {
	for _, b := range list {
		n += len(b.rows)
	}
	return n
}

// form says what pending rows are committed as.
type form bool

const (
	blocks form = false
	leaves form = true
)

// commit writes what is pending, and what is urgent if there is anything, in one transaction with the counters. A full disk
// leaves everything in memory for the next try, and is logged when it begins and ends.
func (r *Recorder) commit(as form, now *urgent) error {
	if len(r.held)+len(r.pending) >= buffer.MaxBlocks {
		as = leaves
	}
	if len(r.pending) == 0 && now == nil && (as == blocks || len(r.held) == 0) {
		return nil
	}
	contacts := r.contacts
	err := r.store.Commit(func(tx *buffer.Tx) (err error) {
		if as == leaves {
			err = r.appendData(tx)
		} else {
			for _, b := range r.pending {
				err = errors.Join(err, tx.Hold(b.encode()))
			}
		}
		if now != nil && now.event != nil {
			contacts = now.event.apply(r.contacts)
			err = errors.Join(err, r.appendEvent(tx, now.event), setState(tx, stateContacts, contacts))
		}
		if now != nil && len(now.faults) > 0 {
			for _, f := range now.faults {
				err = errors.Join(err, r.appendFault(tx, f, r.clock()))
			}
			err = errors.Join(err, setState(tx, stateFaults, now.open))
		}
		if r.pulsed {
			err = errors.Join(err, setState(tx, statePulses, r.pulses))
		}
		if as == leaves {
			err = errors.Join(err, r.keepWear(tx))
		}
		return errors.Join(err, setState(tx, stateCounts, r.counts))
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if r.stats.Err == nil {
			r.log.Error("journal does not take readings", "err", err)
		}
		r.stats.Err = err
		return err
	}
	if r.stats.Err != nil {
		r.log.Info("journal takes readings again")
	}
	for _, b := range r.pending {
		r.stats.AtRisk -= b.readings
	}
	if now != nil {
		if now.event != nil {
			r.stats.AtRisk -= now.event.readings
		}
		r.faults = now.open
	}
	r.pulsed = false
	r.stats.Counts, r.stats.LastCommit, r.stats.Err = r.counts, time.Now(), nil
	r.contacts = contacts
	if as == leaves {
		r.stats.Growth = r.wear.grew(mark{time.Now(), r.store.Size(), r.store.Appended()})
		r.held = nil
	} else {
		r.held = append(r.held, r.pending...)
	}
	r.pending = nil
	return nil
}

// appendData makes leaves of held and pending rows, one for each time line, and releases the held blocks.
func (r *Recorder) appendData(tx *buffer.Tx) error {
	tx.Release()
	all := slices.Concat(r.held, r.pending)
	for len(all) > 0 {
		end := 1
		for end < len(all) && continues(all[end-1].Stamp, all[end].Stamp) {
			end++
		}
		var rows [][]byte
		for _, b := range all[:end] {
			rows = append(rows, b.rows)
		}
		leaf := contract.AppendRows(nil, r.header(tx, contract.KindData, all[end-1].Stamp), bytes.Join(rows, []byte(",")))
		if _, err := tx.Append(buffer.Class(contract.KindData.Class()), leaf); err != nil {
			return err
		}
		all = all[end:]
	}
	return nil
}

func (r *Recorder) header(tx *buffer.Tx, kind contract.Kind, stamp contract.Stamp) contract.Header {
	return contract.Header{Gateway: r.epoch.Gateway, Epoch: r.epoch.Name, Seq: tx.Next(), Kind: kind, Stamp: stamp}
}
