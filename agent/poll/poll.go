// Package poll asks the devices of each bus in turn, each at its own interval: the one whose reading is needed first is
// asked first (earliest deadline first, Liu and Layland 1973), and devices with alarms before all others.
package poll

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

// A device is quarantined after this many polls in a row without an answer: it is then asked ever more rarely. One that
// cannot be reached, because the port or connection of its bus is gone, costs nothing and is asked on as ever.
const (
	quarantineAfter = 3
	probeMin        = time.Second
	probeMax        = time.Minute
)

// Waiting for devices that did not answer last time may take this share of a bus's time while others have to wait for
// it, and at most so much at once. Without it, many devices that die together would hold up all that live.
const (
	deadShare = 0.1
	deadBurst = 3 * time.Second
)

// firstGap is the longest time from one device's first poll to the next one's: after a start the page must fill soon,
// even when the intervals are long.
const firstGap = 300 * time.Millisecond

// lateAfter is how many beats a bus may leave out before it is said that it cannot keep up.
const lateAfter = 10

// State is what is known of a device since the start.
type State struct {
	Polls    uint64    // polls due, those not sent in quarantine included
	Failures uint64    // of these, without a full answer
	Overruns uint64    // beats left out because the bus was busy until the next
	Failing  int       // polls in a row without any answer; 0: answers
	RetryAt  time.Time // set in quarantine: the next probe
	Err      string    // the last failure while Failing > 0
}

// Load is what a bus has done since the start.
type Load struct {
	Busy    time.Duration // time spent in polls
	Elapsed time.Duration
}

// Bus polls the devices of one bus.
type Bus struct {
	name    string
	driver  drivers.Bus
	emit    func(context.Context, drivers.Sample)
	log     *slog.Logger
	devices []*device // owned by Run, but for state
	credit  time.Duration
	counted time.Time     // until when credit was given
	behind  bool          // it was said that the bus cannot keep up
	quick   bool          // see New
	timeout time.Duration // the bus's own, 0 for the profiles'

	mu    sync.Mutex // guards load and the devices' state
	load  Load
	begun time.Time
}

type device struct {
	config.Device
	groups groups
	first  time.Duration     // deadline of a poll after its beat
	due    time.Time         // the beat that is next, or waits
	grid   time.Time         // a beat: all others are whole intervals from it
	beats  uint64            // begun
	probe  time.Duration     // from one probe to the next, in quarantine
	since  time.Time         // of the first of the polls without an answer
	last   []drivers.Reading // what the last failed poll gave
	cost   time.Duration     // of the last failed poll
	state  State
}

// New makes the poller of a bus. Devices on a serial line are spread over their interval. On a connection without a line
// known behind it an exchange takes less time than waking a sleeping processor: there, devices of one interval are
// polled one right after the other, which costs an eighth of the processor time.
//
// emit gets one sample for each due poll, from Run's goroutine; it may block, and then
// the bus waits.
func New(bus config.Bus, driver drivers.Bus, emit func(context.Context, drivers.Sample), log *slog.Logger) *Bus {
	b := &Bus{name: bus.Name, driver: driver, emit: emit, log: log.With("bus", bus.Name), quick: bus.Kind == config.ModbusTCP && bus.Baud == 0, timeout: bus.Timeout}
	for _, d := range bus.Devices {
		added := &device{Device: d, groups: newGroups(d), first: d.Interval}
		for _, p := range d.Model.Points {
			if p.Event {
				added.first = 0
			}
		}
		b.devices = append(b.devices, added)
	}
	return b
}

// States returns the state of each device by name. It may be called at any time.
func (b *Bus) States() map[string]State {
	b.mu.Lock()
	defer b.mu.Unlock()
	states := make(map[string]State, len(b.devices))
	for _, d := range b.devices {
		states[d.Name] = d.state
	}
	return states
}

// Load returns how busy the bus was. It may be called at any time.
func (b *Bus) Load() Load {
	b.mu.Lock()
	defer b.mu.Unlock()
	load := b.load
	if !b.begun.IsZero() {
		load.Elapsed = time.Since(b.begun)
	}
	return load
}

// Run polls until ctx ends, then closes the driver.
func (b *Bus) Run(ctx context.Context) {
	defer func() {
		if err := b.driver.Close(); err != nil {
			b.log.Warn("cannot close bus", "err", err)
		}
	}()
	begin := time.Now()
	b.mu.Lock()
	b.begun = begin
	b.mu.Unlock()
	b.start(begin)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for len(b.devices) > 0 {
		d := b.next(time.Now())
		timer.Reset(time.Until(d.due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		if ctx.Err() != nil || !b.poll(ctx, d) {
			return
		}
		b.advance(d, began, time.Now())
	}
	<-ctx.Done()
}

// start sets every device's first beats.
func (b *Bus) start(begin time.Time) {
	b.counted = begin
	for i, d := range b.devices {
		// Phases are spread over the interval, so that devices with one interval do not queue up behind each other. The
		// first polls come sooner.
		phase := d.Interval / time.Duration(len(b.devices))
		if b.quick {
			phase = 0
		}
		d.grid = begin.Add(time.Duration(i) * phase)
		d.due = begin.Add(time.Duration(i) * min(phase, firstGap))
	}
}

// next is the device to poll: of those that are due, the one with the earliest deadline; of none, the one that is due
// first.
func (b *Bus) next(now time.Time) *device {
	var waiting, coming *device
	for _, d := range b.devices {
		switch {
		case d.due.After(now):
			if coming == nil || d.due.Before(coming.due) {
				coming = d
			}
		case waiting == nil || d.deadline().Before(waiting.deadline()):
			waiting = d
		}
	}
	if waiting != nil {
		return waiting
	}
	return coming
}

// deadline is when the reading of the present beat is needed.
func (d *device) deadline() time.Time { return d.due.Add(d.first) }

// advance sets a device's next beat after a poll that began at began. Of beats that passed meanwhile the last one is
// still polled, late, unless that would be close to the poll before; the others are left out and counted: catching up
// would only make everything later.
func (b *Bus) advance(d *device, began, now time.Time) {
	last := d.due
	if d.due = d.grid; last.After(d.grid.Add(-d.Interval / 2)) { // the first poll may be well before its grid begins
		d.due = d.grid.Add((max(last.Sub(d.grid), 0)/d.Interval + 1) * d.Interval)
	}
	missed := uint64(0)
	for d.due.Before(began.Add(d.Interval/2)) || !d.due.Add(d.Interval).After(now) {
		d.due = d.due.Add(d.Interval)
		missed++
	}
	if missed == 0 {
		return
	}
	b.mu.Lock()
	d.state.Overruns += missed
	b.mu.Unlock()
	if d.state.Overruns >= lateAfter && !b.behind {
		b.behind = true
		b.log.Warn("bus cannot keep up: polls are left out; hubagent check says what it can do", "device", d.Name, "interval", d.Interval, "left_out", d.state.Overruns)
	}
}

// poll carries out one due poll and hands its sample on. It returns false when ctx ended in it.
func (b *Bus) poll(ctx context.Context, d *device) bool {
	model := d.groups.due(d.beats)
	d.beats++
	now := time.Now()
	if !b.allowed(d, now) {
		b.mu.Lock()
		d.state.Polls++
		d.state.Failures++
		b.mu.Unlock()
		b.emit(ctx, d.silent(model, now))
		return ctx.Err() == nil
	}
	asked := d.Device
	asked.Model = model
	s, err := b.driver.Read(ctx, asked)
	took := time.Since(now)
	if ctx.Err() != nil {
		return false
	}
	if d.state.Failing > 0 {
		b.credit -= took
	}
	b.note(d, &s, err, now, took)
	b.emit(ctx, s)
	return ctx.Err() == nil
}

// allowed says whether a device may be asked now. One that answers always may. One that does not may when its quarantine
// is over and either nobody else is about to be due or there is time set aside for the dead.
func (b *Bus) allowed(d *device, now time.Time) bool {
	b.credit = min(b.credit+time.Duration(deadShare*float64(now.Sub(b.counted))), deadBurst)
	b.counted = now
	switch {
	case d.state.Failing == 0: // written only by this goroutine
		return true
	case now.Before(d.state.RetryAt):
		return false
	}
	idle, turn := true, b.credit >= d.cost
	refill := time.Duration(float64(d.cost) / deadShare)
	for _, other := range b.devices {
		switch {
		case other == d:
		case other.state.Failing == 0:
			idle = idle && !other.due.Before(now.Add(d.cost))
		case other.state.RetryAt.Before(d.state.RetryAt) && other.due.Before(now.Add(refill)):
			turn = false // it has waited longer, and would find nothing left
		}
	}
	return idle || turn
}

// silent is the sample of a poll that was not sent: every point is missing for the reason it was at the last failure.
func (d *device) silent(model *config.Profile, now time.Time) drivers.Sample {
	s := drivers.Sample{Device: d.Name, At: now, Readings: make([]drivers.Reading, len(model.Points)), Down: d.down()}
	for i, p := range model.Points {
		s.Readings[i] = drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Missing, Why: d.last[0].Why}
		for _, before := range d.last {
			if before.Point == p.Name {
				s.Readings[i] = before
			}
		}
	}
	return s
}

// down is since when the device is quarantined.
func (d *device) down() time.Time {
	if d.state.Failing < quarantineAfter {
		return time.Time{}
	}
	return d.since
}

// note keeps account of a poll's outcome and logs when the device's state changes.
func (b *Bus) note(d *device, s *drivers.Sample, err error, began time.Time, took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.load.Busy += took
	st := &d.state
	st.Polls++
	if err != nil {
		st.Failures++
	}
	if err == nil || s.Answered() {
		if st.Failing >= quarantineAfter {
			b.log.Info("device is back", "device", d.Name, "failures", st.Failing)
		}
		st.Failing, st.RetryAt, st.Err = 0, time.Time{}, ""
		return
	}
	if st.Failing == 0 {
		d.since = began
	}
	st.Failing++
	st.Err = err.Error()
	d.last, d.cost = append(d.last[:0], s.Readings...), took
	defer func() { s.Down = d.down() }()
	var failed *drivers.Error
	why, gone := "failure", false
	if errors.As(err, &failed) {
		why, gone = failed.Why(), failed.Failure == drivers.Link
	}
	switch {
	case st.Failing == quarantineAfter:
		b.log.Warn("device does not answer", "device", d.Name, "why", why, "polls", st.Failing, "err", err)
	case st.Failing < quarantineAfter:
		return
	}
	switch {
	case gone:
		d.probe = probeMin
	case st.Failing == quarantineAfter:
		d.probe = max(d.Interval, probeMin)
	default:
		d.probe = min(2*d.probe, max(probeMax, d.Interval))
	}
	st.RetryAt = began.Add(took + d.probe)
}
