// Package drivers holds what every way of reaching a device has in common: a bus, a sample of a device's points, and
// the kinds of failure that stay apart all the way to the page.
package drivers

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"hubagent/config"
)

// Quality is a QARTOD flag (IOOS Manual for Real-Time Oceanographic Data Quality Control Flags, v1.2): what is known
// about a reading, never a change to it.
type Quality uint8

// The flags.
const (
	Good         Quality = 1
	NotEvaluated Quality = 2
	Suspect      Quality = 3
	Bad          Quality = 4
	Missing      Quality = 9
)

// Reading is one point's value at one poll.
type Reading struct {
	Point   string
	Value   Value // none when Quality is Missing
	Unit    string
	Quality Quality
	Count   uint64 // of a pulse counter: the pulses that Value is scaled from
	Why     string // for a quality other than Good: a short code, e.g. "timeout", "exception 2", "sentinel"
}

// Sample is what one poll of one device gave: one reading for each point that was asked for, in the profile's order,
// those that could not be read included as Missing.
type Sample struct {
	Device   string
	At       time.Time // when the device's first answer of this poll was complete; for a failed poll, when it was given up
	Readings []Reading

	// Down is since when the device has given no answer, once it counts as faulty; zero while it answers, and while it
	// has only missed a few polls. Set by the poller.
	Down time.Time
}

// Answered says whether the device gave anything at all. One that only refuses is of no more use than a silent one, and
// behind a converter exception 11 is how a silent one looks.
func (s Sample) Answered() bool {
	for _, r := range s.Readings {
		if r.Quality != Missing {
			return true
		}
		switch r.Why { // it answered, and says itself that there is no value
		case "sentinel", "nan", "digits", "encoding", "scale":
			return true
		}
	}
	return false
}

// Bus reads devices of one line. It is used by one goroutine at a time.
type Bus interface {
	// Read polls every point of the device once and returns a full sample whatever happens. The error is the first
	// failure, an *Error unless ctx ended; readings that came in before it are kept. Read returns within the
	// device's time-out for each request it has to send, or when ctx ends. On a serial line a device that missed its
	// time-out is waited for as long again before it is asked next, so that its late answer is taken for no other.
	Read(ctx context.Context, device config.Device) (Sample, error)
	// Close releases the port or connection. Read must not be called afterwards.
	Close() error
}

// Writer is a Bus that can also write.
type Writer interface {
	// Write writes a raw value to a device once and sees that the device confirmed it; where it can be read back, that
	// it holds. The caller has checked that the device's entry enables the write and that the value is allowed. The
	// error is an *Error unless ctx ended.
	Write(ctx context.Context, device config.Device, write config.Write, raw int64) error
}

// With is what a bus is given beside its entry in the config.
type With struct {
	Log *slog.Logger

	// Count is the count at which a pulse counter goes on, and whether there is one: what the journal last committed.
	// It is nil where there is no journal.
	Count func(device, point string) (count uint64, known bool)
}

// OpenFunc makes the bus of one entry under buses. It does not fail because a device, cable or server is absent now:
// that is what Read reports, and it opens the port anew by itself when it can. An error means the entry can never
// work as written.
type OpenFunc func(bus config.Bus, with With) (Bus, error)

// Failure tells apart why a device gave no value.
type Failure uint8

// The failures, from the line outward to the device's own refusal.
const (
	Link      Failure = iota + 1 // port or connection absent: nothing was sent
	Timeout                      // no answer in time
	CRC                          // an answer with a wrong checksum: noise, wrong baud or parity
	Frame                        // an answer that is not this request's: other unit, function or length
	Exception                    // the device refused with an exception code
)

// String names the failure as it stands in readings, logs and metrics.
func (f Failure) String() string {
	switch f {
	case Link:
		return "link"
	case Timeout:
		return "timeout"
	case CRC:
		return "crc"
	case Frame:
		return "frame"
	case Exception:
		return "exception"
	}
	return fmt.Sprintf("failure %d", uint8(f))
}

// Error is a failed exchange with a device.
type Error struct {
	Failure Failure
	Device  string
	At      string // what was asked for, e.g. "input register 0-37" or "line 17"
	Write   bool   // it was to be written, not read
	Code    byte   // Exception: the code
	Detail  string // what was seen, in words; may be empty
}

// Why is the short code that travels with a missing reading.
func (e *Error) Why() string {
	if e.Failure == Exception {
		return fmt.Sprintf("exception %d", e.Code)
	}
	return e.Failure.String()
}

// Error names device, place and failure.
func (e *Error) Error() string {
	verb := "read"
	if e.Write {
		verb = "write"
	}
	s := fmt.Sprintf("cannot %s %s of %s: %s", verb, e.At, e.Device, e.Why())
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}
