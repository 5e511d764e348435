// Package drivertest holds what drivers are tested with: one conformance suite that every drivers.Bus passes, a peer
// that plays back a script of traffic byte for byte, and a line in memory.
package drivertest

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hubagent/config"
	"hubagent/drivers"
)

// Rig is a bus to test, with its far side.
type Rig struct {
	Open   drivers.OpenFunc
	Config config.Bus

	Device config.Device // answers with Good readings, but for while it is away
	// Away takes the device away, and Back gives it back. It is there at first.
	Away, Back func()
	Failure    drivers.Failure // what a poll gives while the device is away

	// Waiting keeps Read waiting for a minute or longer. Its Config.Timeout is set so by the suite.
	Waiting config.Device
}

// Bounds of the suite, wide enough for a busy machine.
const (
	prompt  = 2 * time.Second  // an ended context is obeyed within this
	patient = 10 * time.Second // a device that is back is read within this
)

// Run tests a driver. rig sets a fresh far side up, and cleans it up with t.Cleanup.
func Run(t *testing.T, rig func(t *testing.T) Rig) {
	step := func(name string, do func(t *testing.T, r Rig)) {
		t.Run(name, func(t *testing.T) {
			running := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, running) })
			do(t, rig(t))
		})
	}
	step("a device that answers gives a full good sample", func(t *testing.T, r Rig) {
		bus := r.open(t)
		for range 3 {
			r.readGood(t, bus)
		}
	})
	step("an absent device gives its failure, and is read again when it is back", func(t *testing.T, r Rig) {
		bus := r.open(t)
		r.readGood(t, bus)
		r.Away()
		r.readAway(t, bus)
		r.readAway(t, bus)
		r.Back()
		r.awaitBack(t, bus)
	})
	step("a device that is absent from the start is read when it comes", func(t *testing.T, r Rig) {
		r.Away()
		bus := r.open(t)
		r.readAway(t, bus)
		r.Back()
		r.awaitBack(t, bus)
	})
	step("an ended context ends a wait at once", func(t *testing.T, r Rig) {
		r.Config.Timeout = time.Minute
		bus := r.open(t)
		r.readGood(t, bus)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			begin := time.Now()
			s, err := bus.Read(ctx, r.Waiting)
			if took := time.Since(begin); took > prompt {
				t.Errorf("Read returned %s after it began, its context lived 30ms", took)
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Read: %v, want that of the context", err)
			}
			CheckSample(t, r.Waiting, s)
		}
	})
	step("a context that has ended sends nothing and breaks nothing", func(t *testing.T, r Rig) {
		bus := r.open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s, err := bus.Read(ctx, r.Device)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Read: %v, want that of the context", err)
		}
		CheckSample(t, r.Device, s)
		r.readGood(t, bus)
	})
	step("a bus that was never read closes", func(t *testing.T, r Rig) {
		r.Away()
		bus, err := r.Open(r.Config, drivers.With{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatalf("cannot open bus with its far side away: %v", err)
		}
		closeTwice(t, bus)
	})
}

// open makes the bus, and closes it at the end.
func (r Rig) open(t *testing.T) drivers.Bus {
	t.Helper()
	bus, err := r.Open(r.Config, drivers.With{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeTwice(t, bus) })
	return bus
}

// closeTwice closes a bus, and again: the second time there is nothing left to do.
func closeTwice(t *testing.T, bus drivers.Bus) {
	t.Helper()
	for range 2 {
		if err := bus.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

func (r Rig) readGood(t *testing.T, bus drivers.Bus) {
	t.Helper()
	begin := time.Now()
	s, err := bus.Read(t.Context(), r.Device)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	CheckSample(t, r.Device, s)
	if s.At.Before(begin) || s.At.After(time.Now()) {
		t.Errorf("sample is of %s, and its poll began at %s", s.At, begin)
	}
	for _, reading := range s.Readings {
		if reading.Quality != drivers.Good {
			t.Errorf("%s is %d, %s", reading.Point, reading.Quality, reading.Why)
		}
	}
}

func (r Rig) readAway(t *testing.T, bus drivers.Bus) {
	t.Helper()
	s, err := bus.Read(t.Context(), r.Device)
	CheckSample(t, r.Device, s)
	var failed *drivers.Error
	if !errors.As(err, &failed) {
		t.Fatalf("Read of an absent device: %v, want an Error", err)
	}
	if failed.Failure != r.Failure || failed.Device != r.Device.Name || failed.At == "" {
		t.Errorf("failure %s of %q at %q, want %s of %s: %v", failed.Failure, failed.Device, failed.At, r.Failure, r.Device.Name, err)
	}
	for _, reading := range s.Readings {
		if reading.Quality != drivers.Missing || reading.Why != r.Failure.String() {
			t.Errorf("%s is %d, %q; want missing, %q", reading.Point, reading.Quality, reading.Why, r.Failure)
		}
	}
}

// awaitBack reads until the device answers: an attempt to connect anew may have to wait for its turn.
func (r Rig) awaitBack(t *testing.T, bus drivers.Bus) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); ; <-tick.C {
		s, err := bus.Read(t.Context(), r.Device)
		CheckSample(t, r.Device, s)
		if err == nil {
			return
		}
		if time.Since(begin) > patient {
			t.Fatalf("not read again: %v", err)
		}
	}
}

// CheckSample reports what is not as the contract of drivers.Sample has it: one reading a point of the profile, in its
// order, each with its unit, and with a value and no reason, suspect with both, or missing with a reason and no value.
func CheckSample(t testing.TB, device config.Device, s drivers.Sample) {
	t.Helper()
	if s.Device != device.Name || s.At.IsZero() {
		t.Errorf("sample of %q at %s, want %s and a time", s.Device, s.At, device.Name)
	}
	if len(s.Readings) != len(device.Model.Points) {
		t.Fatalf("%d readings, the profile has %d points", len(s.Readings), len(device.Model.Points))
	}
	for i, p := range device.Model.Points {
		r := s.Readings[i]
		if r.Point != p.Name || r.Unit != p.Unit {
			t.Errorf("reading %d is %s in %q, the point %s in %q", i, r.Point, r.Unit, p.Name, p.Unit)
		}
		missing := r.Quality == drivers.Missing
		if !missing && r.Quality != drivers.Good && r.Quality != drivers.Suspect {
			t.Errorf("%s: quality %d is not a driver's to give", r.Point, r.Quality)
		}
		if r.Value.IsNone() != missing || (r.Why == "") != (r.Quality == drivers.Good) {
			t.Errorf("%s: quality %d with value %q and reason %q", r.Point, r.Quality, r.Value, r.Why)
		}
	}
}
