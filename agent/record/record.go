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
// which is visible, instead of being lost, which would not be. It is full only while a Commit does not come back.
const queueLen = 256

const (
	leafBytes  = 256 << 10 // ends a leaf before its interval when its rows grow beyond this: a leaf must fit one message
	blockBytes = 64 << 10  // of the rows of one block
)

// Counts are totals of the epoch, kept in the same transaction as the rows they count.
type Counts struct {
	Rows     uint64 `json:"rows"`     // polls
	Readings uint64 `json:"readings"` // values
}

func (c *Counts) add(more Counts) {
	c.Rows += more.Rows
	c.Readings += more.Readings
}

// Stats is what the page shows of the recorder.
type Stats struct {
	Counts
	AtRisk     int    // readings that are polled and not on the disk yet
	Lost       Counts // since the start: what the memory had no room for while the journal took nothing
	LastCommit time.Time
	Err        error // why the journal does not take what waits; nil when it does

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
	write    func(func(*buffer.Tx) error) error // the store's Commit; tests inject faults here
	window   int                                // most bytes that wait in memory

	// Owned by Run.
	held     []block                      // rows committed as blocks, not yet a leaf
	pending  []block                      // rows not committed; more than one block after a clock step, or while the disk is full
	urgent   []urgent                     // events and faults not committed; more than one only while the disk is full
	lost     loss                         // what has been given up and no gap leaf tells of yet
	refused  error                        // why the journal does not take what waits; nil: it does
	refusal  form                         // leaves: only a leaf that is taken shows that it does again
	told     told                         // by what is committed
	contacts map[string]map[string]bool   // urgent included
	faults   map[string]openFault         // that last, urgent included
	pulses   map[string]map[string]uint64 // pending rows included
	pulsed   bool                         // pulses is not what was committed
	counts   Counts                       // of what is committed
	wear     wear

	mu    sync.Mutex
	stats Stats
}

// block is rows that share a time line.
type block struct {
	contract.Stamp
	rows  []byte // contract.AppendRow's texts joined by commas
	count Counts // of rows not committed yet
}

// New makes a recorder for a store on which Begin was called. Blocks that an earlier run left are taken over.
func New(store *buffer.Store, epoch Epoch, cfg *config.Config, clock Clock, log *slog.Logger) (*Recorder, error) {
	r := &Recorder{
		store: store, epoch: epoch, clock: clock, log: log,
		sync: cfg.Journal.SyncInterval, leaf: cfg.Journal.LeafInterval,
		queue: make(chan drivers.Sample, queueLen), ping: make(chan struct{}), write: store.Commit, window: windowBytes,
		events: map[string]map[string]bool{}, contacts: map[string]map[string]bool{},
		counters: map[string][]string{}, faults: map[string]openFault{}, pulses: map[string]map[string]uint64{},
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
	for name, v := range map[string]any{stateFaults: &r.faults, statePulses: &r.pulses, stateCounts: &r.counts, stateClock: &r.told} {
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
	stamp := b.Stamp
	if stamp.Clock == contract.ClockOK { // as in a leaf's header
		stamp.Boot, stamp.Mono = "", 0
	}
	head, _ := json.Marshal(stamp) // strings and numbers cannot fail
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

// Record hands over a sample. It waits while a Commit does not come back, and gives up when ctx ends.
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
// stopped by then. A journal that has no space does not end it: what comes then waits in memory. An error means that
// readings in memory could not be committed; after one that wraps buffer.ErrFailed the process must reopen the journal.
func (r *Recorder) Run(ctx context.Context) error {
	if err := r.commit(leaves); errors.Is(err, buffer.ErrFailed) { // blocks of an earlier run
		return err
	}
	syncAt, leafAt := alarm{}, alarm{}
	for {
		var err error
		if len(r.pending)+len(r.urgent) > 0 || r.refused != nil {
			syncAt.arm(r.sync)
		}
		if len(r.pending)+len(r.held) > 0 {
			leafAt.arm(r.leaf)
		}
		select {
		case s := <-r.queue:
			err = r.take(s)
		case <-syncAt.C:
			syncAt.C = nil
			err = r.commit(blocks)
		case <-leafAt.C:
			leafAt.C = nil
			err = r.commit(leaves)
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
			err := r.commit(leaves)
			if waits := r.Stats().AtRisk; err != nil && !errors.Is(err, buffer.ErrFailed) && waits > 0 {
				err = fmt.Errorf("%d readings that waited in memory are lost: %w", waits, err)
			}
			return err
		}
	}
}

// take adds a sample's row to what waits, and commits at once when a contact changed, a fault began or ended, or the
// clock has something to tell.
func (r *Recorder) take(s drivers.Sample) error {
	s, now := r.place(s)
	row := block{Stamp: now, rows: contract.AppendRow(nil, s), count: Counts{1, uint64(values(s))}}
	r.keepPulses(s)
	u := r.urgentOf(s, row)
	if u.event == nil {
		r.add(row)
	}
	isUrgent := u.event != nil || len(u.faults) > 0
	if isUrgent {
		r.urgent = append(r.urgent, u)
	}
	r.trim()
	switch {
	case r.refused != nil && isUrgent:
		return r.commitUrgent()
	case r.refused != nil: // tried again at the next sync interval
		return nil
	case isUrgent, r.told.news(now):
		return r.commit(blocks)
	case size(r.held)+size(r.pending) > leafBytes:
		return r.commit(leaves)
	}
	return nil
}

// place puts the sample's times on the clock's present time line: they were taken down a moment ago, and the clock may
// have jumped since.
func (r *Recorder) place(s drivers.Sample) (drivers.Sample, contract.Stamp) {
	for {
		before := time.Now()
		stamp := r.clock()
		now := time.Now()
		if jumped(before, now) {
			continue // in between: nobody knows on which side the stamp is
		}
		s.At, s.Down = Present(s.At, now), Present(s.Down, now)
		return s, stamp
	}
}

// jumped says whether the wall clock has jumped from one moment to another. Without a monotonic part of both it has not.
func jumped(a, b time.Time) bool {
	by := b.Round(0).Sub(a.Round(0)) - b.Sub(a)
	return by <= -ms(stepMs) || by >= ms(stepMs)
}

// Present is t, straight from time.Now, by the clock as it is now, which may have jumped since. The zero time stays.
func Present(t, now time.Time) time.Time {
	if !jumped(t, now) {
		return t
	}
	return now.Add(-now.Sub(t))
}

// keepPulses takes the counts that pulse counters have come to, to be committed with the row that tells them, or before
// it while the disk is full.
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
	if n := len(r.pending); n > 0 && continues(r.pending[n-1].Stamp, row.Stamp) && len(r.pending[n-1].rows)+len(row.rows) < blockBytes {
		last := &r.pending[n-1]
		last.Stamp = row.Stamp
		last.rows = append(append(last.rows, ','), row.rows...)
		last.count.add(row.count)
		return
	}
	r.pending = append(r.pending, row)
}

// continues says whether the times of both stamps are on one line, so that one offset repairs them.
func continues(a, b contract.Stamp) bool {
	if a.Clock != b.Clock || a.Boot != b.Boot {
		return false
	}
	step := (b.At - b.Mono) - (a.At - a.Mono)
	return a.Boot == "" || -stepMs < step && step < stepMs
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

// batch is what one Commit writes. Much that waits takes several: a leaf must fit a message, and Badger bounds a
// transaction.
type batch struct {
	as     form
	fix    *contract.ClockFix
	gap    bool // told of what was lost
	urgent int  // so many of Recorder.urgent
	blocks int  // so many of Recorder.pending
}

// commit writes all that waits: what is urgent, then rows, with the counters of what is written. A full disk leaves what
// is left in memory for the next try, and is logged when it begins and ends.
func (r *Recorder) commit(as form) error {
	if len(r.held)+len(r.pending) >= buffer.MaxBlocks || size(r.held)+size(r.pending) > leafBytes {
		as = leaves
	}
	if r.refused != nil {
		if err := r.commitUrgent(); err != nil { // small as it is, it has a chance where rows have none; and the other way round
			if errors.Is(err, buffer.ErrFailed) {
				return err
			}
			return errors.Join(err, r.commitRows(as))
		}
	}
	for {
		now := r.clock()
		b := batch{as: as, fix: r.told.fix(now), gap: r.lost.any(), urgent: r.urgentBatch()}
		if b.urgent < len(r.urgent) {
			b.as = blocks
		} else {
			b.blocks = r.rowBatch(as)
		}
		if b.empty(r) {
			r.settled(as)
			return nil
		}
		if err := r.commitBatch(b, now); err != nil {
			return err
		}
	}
}

// commitUrgent writes what is urgent and leaves rows for later.
func (r *Recorder) commitUrgent() error {
	for len(r.urgent) > 0 {
		now := r.clock()
		if err := r.commitBatch(batch{fix: r.told.fix(now), gap: r.lost.any(), urgent: r.urgentBatch()}, now); err != nil {
			return err
		}
	}
	return nil
}

// commitRows writes rows and leaves what is urgent for later.
func (r *Recorder) commitRows(as form) error {
	for {
		b := batch{as: as, blocks: r.rowBatch(as)}
		if b.empty(r) {
			return nil
		}
		if err := r.commitBatch(b, r.clock()); err != nil {
			return err
		}
	}
}

func (b batch) empty(r *Recorder) bool {
	return b.fix == nil && !b.gap && b.urgent+b.blocks == 0 && (b.as == blocks || len(r.held) == 0)
}

// rowBatch is how many blocks of pending rows go with the next Commit.
func (r *Recorder) rowBatch(as form) (n int) {
	if as == blocks {
		return len(r.pending)
	}
	bytes := size(r.held)
	for n < len(r.pending) && (bytes == 0 || bytes+len(r.pending[n].rows) <= leafBytes+blockBytes) {
		bytes += len(r.pending[n].rows)
		n++
	}
	return n
}

func (r *Recorder) commitBatch(b batch, now contract.Stamp) error {
	rows, urgent := r.pending[:b.blocks], r.urgent[:b.urgent]
	var added Counts
	for _, row := range rows {
		added.add(row.count)
	}
	for _, u := range urgent {
		if u.event != nil {
			added.add(u.event.count)
		}
	}
	counts, told := r.counts, r.told
	counts.add(added)
	if b.fix != nil || !told.news(now) { // else the clock leaf is still due
		told = told.after(now)
	}
	err := r.write(func(tx *buffer.Tx) (err error) {
		if b.fix != nil {
			_, err = appendDocument(tx, r.epoch, contract.KindClock, now, b.fix)
		}
		for _, u := range urgent {
			err = errors.Join(err, r.appendUrgent(tx, u))
		}
		if b.as == leaves {
			err = errors.Join(err, r.appendData(tx, rows))
		} else {
			for _, b := range rows {
				err = errors.Join(err, tx.Hold(b.encode()))
			}
		}
		if b.gap {
			_, gapErr := appendDocument(tx, r.epoch, contract.KindGap, now, r.lost.gap(now))
			err = errors.Join(err, gapErr)
		}
		if r.pulsed {
			err = errors.Join(err, setState(tx, statePulses, r.pulses))
		}
		if now.Boot != "" && (b.as == leaves || !told.same(r.told)) {
			err = errors.Join(err, setState(tx, stateClock, told))
		}
		if b.as == leaves {
			err = errors.Join(err, r.keepWear(tx))
		}
		return errors.Join(err, setState(tx, stateCounts, counts))
	})
	if err != nil {
		r.refuse(err, b.as)
		return err
	}
	if b.gap {
		r.log.Info("a gap leaf tells what was lost while the journal took no readings", "readings", r.lost.total().Readings)
		r.lost = loss{}
	}
	r.counts, r.told, r.pulsed = counts, told, false
	if b.as == leaves {
		r.held = nil
	} else {
		for _, row := range rows {
			row.count = Counts{}
			r.held = append(r.held, row)
		}
	}
	r.pending, r.urgent = slices.Clone(r.pending[b.blocks:]), slices.Clone(r.urgent[b.urgent:])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.AtRisk -= int(added.Readings)
	r.stats.Counts, r.stats.LastCommit = counts, time.Now()
	if b.as == leaves {
		r.stats.Growth = r.wear.grew(mark{time.Now(), r.store.Size(), r.store.Appended()})
	}
	return nil
}

// refuse notes that the journal did not take a Commit.
func (r *Recorder) refuse(err error, as form) {
	if r.refused == nil {
		r.log.Error("journal does not take readings: they wait in memory", "err", err)
	}
	r.refusal = as || r.refused != nil && r.refusal // leaves, once one was refused
	r.refused = err
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Err = err
}

// settled notes that nothing waits any more. Blocks say nothing of whether a leaf, which takes more, would go as well.
func (r *Recorder) settled(as form) {
	if r.refused == nil || r.refusal == leaves && as == blocks {
		return
	}
	r.refused = nil
	r.log.Info("journal takes readings again")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Err = nil
}

// appendData makes leaves of held and further rows, one for each time line, and releases the held blocks.
func (r *Recorder) appendData(tx *buffer.Tx, rows []block) error {
	tx.Release()
	all := slices.Concat(r.held, rows)
	for len(all) > 0 {
		end := 1
		for end < len(all) && continues(all[end-1].Stamp, all[end].Stamp) {
			end++
		}
		var texts [][]byte
		for _, b := range all[:end] {
			texts = append(texts, b.rows)
		}
		leaf := contract.AppendRows(nil, r.header(tx, contract.KindData, all[end-1].Stamp), bytes.Join(texts, []byte(",")))
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
