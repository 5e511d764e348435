package poll

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
)

// fake is a bus on which a device does at each poll what does says: take some time, and fail or not.
type fake struct {
	does   func(device string, at time.Duration) (takes time.Duration, failure *drivers.Error)
	begin  time.Time
	polls  []event // Reads
	closed int
}

type event struct {
	device string
	at     time.Duration // since the start
	why    string        // of its readings; "" is good
}

func (f *fake) Read(ctx context.Context, d config.Device) (drivers.Sample, error) {
	at := time.Since(f.begin)
	f.polls = append(f.polls, event{device: d.Name, at: at})
	takes, failed := f.does(d.Name, at)
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		failed = &drivers.Error{Failure: drivers.Timeout}
	}
	s := drivers.Sample{Device: d.Name, At: time.Now()}
	for _, p := range d.Model.Points {
		r := drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Good, Value: drivers.Int(7)}
		if failed != nil {
			r.Quality, r.Value, r.Why = drivers.Missing, drivers.Value{}, failed.Why()
		}
		s.Readings = append(s.Readings, r)
	}
	switch {
	case ctx.Err() != nil:
		return s, ctx.Err()
	case failed != nil:
		failed.Device = d.Name
		return s, failed
	}
	return s, nil
}

func (f *fake) Close() error { f.closed++; return nil }

// site is a poller on a fake bus, and what came of it.
type site struct {
	*fake
	bus     *Bus
	samples []event
	log     bytes.Buffer
}

func devices(interval time.Duration, names ...string) config.Bus {
	model := &config.Profile{Points: []config.Point{{Name: "a", Unit: "V"}, {Name: "b", Unit: "A"}}}
	b := config.Bus{Name: "line"}
	for _, name := range names {
		b.Devices = append(b.Devices, config.Device{Name: name, Interval: interval, Model: model})
	}
	return b
}

// run polls until just before length is over, on synctest's clock.
func run(t *testing.T, b config.Bus, length time.Duration, does func(device string, at time.Duration) (time.Duration, *drivers.Error)) *site {
	t.Helper()
	length = max(0, length-1) // not on a beat
	s := &site{fake: &fake{does: does, begin: time.Now()}}
	byName := map[string]config.Device{}
	for _, d := range b.Devices {
		byName[d.Name] = d
	}
	emit := func(_ context.Context, sample drivers.Sample) {
		drivertest.CheckSample(t, byName[sample.Device], sample)
		s.samples = append(s.samples, event{sample.Device, sample.At.Sub(s.begin), sample.Readings[0].Why})
	}
	s.bus = New(b, s.fake, emit, slog.New(slog.NewTextHandler(&s.log, nil)))
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	s.bus.Run(ctx)
	if took := time.Since(s.begin); took != length {
		t.Errorf("Run ended after %s, its context after %s", took, length)
	}
	if s.closed != 1 {
		t.Errorf("driver closed %d times", s.closed)
	}
	return s
}

// of are the events of one device.
func of(device string, events []event) []event {
	return slices.DeleteFunc(slices.Clone(events), func(e event) bool { return e.device != device })
}

func good(string, time.Duration) (time.Duration, *drivers.Error) { return 0, nil }

func timeout() *drivers.Error {
	return &drivers.Error{Failure: drivers.Timeout, At: "input register 0"}
}

// mixed is a bus whose device fails in two ways.
type mixed struct{}

func (mixed) Read(_ context.Context, d config.Device) (drivers.Sample, error) {
	return drivers.Sample{Device: d.Name, At: time.Now(), Readings: []drivers.Reading{
		{Point: "a", Unit: "V", Quality: drivers.Missing, Why: "crc"},
		{Point: "b", Unit: "A", Quality: drivers.Missing, Why: "timeout"},
	}}, &drivers.Error{Failure: drivers.CRC}
}

func (mixed) Close() error { return errors.New("no such port") }

// partial is a bus whose device gives one point and not the other.
type partial struct {
	why   string // of the point that came in
	polls *int
}

func (p partial) Read(_ context.Context, d config.Device) (drivers.Sample, error) {
	*p.polls++
	first := drivers.Reading{Point: "a", Unit: "V", Quality: drivers.Missing, Why: p.why}
	if p.why == "" {
		first.Quality, first.Value = drivers.Good, drivers.Int(0)
	}
	return drivers.Sample{Device: d.Name, At: time.Now(), Readings: []drivers.Reading{
		first, {Point: "b", Unit: "A", Quality: drivers.Missing, Why: "timeout"},
	}}, timeout()
}

func (partial) Close() error { return nil }
