// Package poll asks the devices of each bus in turn, each at its own interval.
package poll

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

// A device is quarantined after this many polls in a row without an answer: it is then asked ever more rarely.
const (
	quarantineAfter = 3
	probeMin        = time.Second
	probeMax        = time.Minute
)

// State is what is known of a device since the start.
type State struct {
	Polls    uint64    // polls due, those not sent in quarantine included
	Failures uint64    // of these, without a full answer
	Failing  int       // polls in a row without any answer; 0: answers
	RetryAt  time.Time // set in quarantine: the next probe
	Err      string    // the last failure while Failing > 0
}

// Bus polls the devices of one bus.
type Bus struct {
	name    string
	driver  drivers.Bus
	emit    func(context.Context, drivers.Sample)
	log     *slog.Logger
	devices []*device // owned by Run, but for state

	mu sync.Mutex // guards the devices' state
}

type device struct {
	config.Device
	due   time.Time
	probe time.Duration     // from one probe to the next, in quarantine
	last  []drivers.Reading // what the last failed poll gave
	state State
}

// New makes the poller of a bus. emit gets one sample for each due poll, from Run's goroutine; it may block, and then
// the bus waits.
func New(bus config.Bus, driver drivers.Bus, emit func(context.Context, drivers.Sample), log *slog.Logger) *Bus {
	b := &Bus{name: bus.Name, driver: driver, emit: emit, log: log.With("bus", bus.Name)}
	for _, d := range bus.Devices {
		b.devices = append(b.devices, &device{Device: d})
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

// Run polls until ctx ends, then closes the driver.
func (b *Bus) Run(ctx context.Context) {
	defer func() {
		if err := b.driver.Close(); err != nil {
			b.log.Warn("cannot close bus", "err", err)
		}
	}()
	begin := time.Now()
	for i, d := range b.devices {
		// Phases are spread over the interval, so that devices with one interval do not queue up behind each other.
		d.due = begin.Add(time.Duration(i) * d.Interval / time.Duration(len(b.devices)))
	}
	for len(b.devices) > 0 {
		d := b.next()
		select {
		case <-time.After(time.Until(d.due)):
		case <-ctx.Done():
			return
		}
		if !b.poll(ctx, d) {
			return
		}
		// A beat that was missed is left out: catching up would only make the next ones late, too.
		now := time.Now()
		if d.due = d.due.Add(d.Interval); d.due.Before(now) {
			d.due = d.due.Add(now.Sub(d.due).Truncate(d.Interval) + d.Interval)
		}
	}
	<-ctx.Done()
}

// next is the device that is due first.
func (b *Bus) next() *device {
	first := b.devices[0]
	for _, d := range b.devices[1:] {
		if d.due.Before(first.due) {
			first = d
		}
	}
	return first
}

// poll carries out one due poll and hands its sample on. It returns false when ctx ended in it.
func (b *Bus) poll(ctx context.Context, d *device) bool {
	now := time.Now()
	if now.Before(d.state.RetryAt) { // written only by this goroutine
		b.mu.Lock()
		d.state.Polls++
		d.state.Failures++
		b.mu.Unlock()
		b.emit(ctx, silent(d, now))
		return ctx.Err() == nil
	}
	s, err := b.driver.Read(ctx, d.Device)
	if ctx.Err() != nil {
		return false
	}
	b.note(d, s, err)
	b.emit(ctx, s)
	return ctx.Err() == nil
}

// silent is the sample of a poll that was not sent: every point is missing for the reason it was at the last failure.
func silent(d *device, now time.Time) drivers.Sample {
	return drivers.Sample{Device: d.Name, At: now, Readings: slices.Clone(d.last)}
}

// note keeps account of a poll's outcome and logs when the device's state changes.
func (b *Bus) note(d *device, s drivers.Sample, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := &d.state
	st.Polls++
	if err == nil {
		b.back(d)
		return
	}
	st.Failures++
	if answered(s) {
		b.back(d)
		return
	}
	st.Failing++
	st.Err = err.Error()
	d.last = slices.Clone(s.Readings)
	var failed *drivers.Error
	why := "failure"
	if errors.As(err, &failed) {
		why = failed.Why()
	}
	switch {
	case st.Failing < quarantineAfter:
		return
	case st.Failing == quarantineAfter:
		d.probe = max(d.Interval, probeMin)
		b.log.Warn("device does not answer", "device", d.Name, "why", why, "polls", st.Failing, "err", err)
	default:
		d.probe = min(2*d.probe, max(probeMax, d.Interval))
	}
	st.RetryAt = time.Now().Add(d.probe)
}

// back ends a device's failure.
func (b *Bus) back(d *device) {
	if d.state.Failing >= quarantineAfter {
		b.log.Info("device is back", "device", d.Name, "failures", d.state.Failing)
	}
	d.state.Failing, d.state.RetryAt, d.state.Err = 0, time.Time{}, ""
}

// answered says whether the device gave anything at all. One that only refuses is of no more use than a silent one, and
// behind a converter exception 11 is how a silent one looks.
func answered(s drivers.Sample) bool {
	for _, r := range s.Readings {
		if r.Quality != drivers.Missing || r.Why == "sentinel" || r.Why == "nan" {
			return true
		}
	}
	return false
}
