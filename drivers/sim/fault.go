package sim

import (
	"context"
	"io"
	"slices"
	"time"
)

// Kind is a way in which a device, its line or its converter misbehaves.
type Kind string

// The kinds of fault.
const (
	Silent    Kind = "silent"    // no answer
	Slow      Kind = "slow"      // the answer trickles: its bytes are spread over Delay
	Late      Kind = "late"      // the whole answer comes Delay late, best after the master has given up
	Exception Kind = "exception" // the device refuses with exception 4, device failure
	Noise     Kind = "noise"     // RTU: one bit of the answer flips; TCP: a stray answer of another transaction comes first
	Reset     Kind = "reset"     // TCP: the connection is reset; serial line: the device restarts, so as silent
	Truncate  Kind = "truncate"  // the second half of the answer is lost
)

// Fault is trouble to script. The first fault of a site that is on, matches a request and whose draw hits is played.
type Fault struct {
	Kind  Kind
	Bus   string        // name of the bus; "" for every bus
	Units []int         // unit ids; none for every unit
	P     float64       // probability that a request meets it, 0 to 1
	Delay time.Duration // Slow, Late

	// It is on from From to To, both since World.Start; To 0 is for ever. With a Repeat it is on again so long after.
	From, To, Repeat time.Duration
}

// on says whether the fault is on so long after World.Start.
func (f Fault) on(since time.Duration) bool {
	if f.Repeat > 0 {
		since %= f.Repeat
	}
	return since >= f.From && (f.To == 0 || since < f.To)
}

// SetFaults replaces the scripted faults; requests from now on meet the new ones. None clears them.
func (s *Site) SetFaults(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = slices.Clone(faults)
}

// draw is the fault that a request to the unit meets at an instant.
func (s *Site) draw(bus string, unit int, at time.Time) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		matches := (f.Bus == "" || f.Bus == bus) && (len(f.Units) == 0 || slices.Contains(f.Units, unit))
		if matches && f.on(at.Sub(s.World.Start)) && s.random.Float64() < f.P {
			s.Counts.Faults.Add(1)
			return f
		}
	}
	return Fault{}
}

// flip flips one bit of a frame at random.
func (s *Site) flip(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frame[s.random.IntN(len(frame))] ^= 1 << s.random.IntN(8)
}

// send writes an answer under its fault. A byte takes the time perByte on the wire; 0 does not pace.
func send(ctx context.Context, w io.Writer, answer []byte, fault Fault, perByte time.Duration) error {
	switch fault.Kind {
	case Late:
		if err := wait(ctx, fault.Delay); err != nil {
			return err
		}
	case Truncate:
		answer = answer[:len(answer)/2]
	case Slow:
		perByte = max(perByte, fault.Delay/time.Duration(len(answer)))
	}
	if perByte <= 0 {
		_, err := w.Write(answer)
		return err
	}
	// At least a millisecond's worth at once: below that a timer costs more than it shapes.
	piece := int(max(1, time.Millisecond/perByte))
	for begun, done := time.Now(), 0; done < len(answer); {
		n := min(piece, len(answer)-done)
		// Due times count from the start, so that late timers do not add up to a slower line.
		due := begun.Add(time.Duration(done+n) * perByte)
		if err := wait(ctx, time.Until(due)); err != nil {
			return err
		}
		if _, err := w.Write(answer[done : done+n]); err != nil {
			return err
		}
		done += n
	}
	return nil
}

// wait waits for d, or returns the context's error when that ends first.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
