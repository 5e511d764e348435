package sim

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"hubagent/config"
)

// SerialLine is what RTU slaves hang on: a pseudo-terminal's master, a serial port, or one end of net.Pipe.
type SerialLine interface {
	io.ReadWriter
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
}

const (
	// responseDelay is what a device takes to work out an answer where Site.Latency does not say, once the request's
	// silence has passed.
	responseDelay = 2 * time.Millisecond
	// minSilence bounds from below the silence that ends a frame. 3.5 characters are right on a wire but not on a
	// pseudo-terminal, where a master's two writes come apart by as much as the scheduler likes.
	minSilence = 20 * time.Millisecond
)

// characterTime is how long a byte takes on a bus's line: start bit, eight of data, parity if there is one, stop bits. A
// bus without a speed has no such time.
func characterTime(bus config.Bus) time.Duration {
	if bus.Baud <= 0 {
		return 0
	}
	bits := 1 + 8 + max(bus.StopBits, 1)
	if bus.Parity == config.ParityEven || bus.Parity == config.ParityOdd {
		bits++
	}
	return time.Duration(bits) * time.Second / time.Duration(bus.Baud)
}

// ServeRTU answers Modbus RTU for the devices of a bus on a serial line, one request at a time: a request that comes
// while an answer is on its way waits. A unit the bus does not have gets silence. With a bus.Baud above 0 requests
// and answers take as long as on a wire of that speed; leave it 0 on a real wire, which has its own. It sets the
// line's deadlines and does not close it. It returns nil when ctx ends, else the line's error, io.EOF included.
func (s *Site) ServeRTU(ctx context.Context, line SerialLine, bus config.Bus) error {
	return s.serveLine(ctx, line, bus, newSlave(bus))
}

func (s *Site) serveLine(ctx context.Context, line SerialLine, bus config.Bus, units *slave) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	if err := line.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("cannot serve bus %s: %w", bus.Name, err)
	}
	running.Go(func() {
		<-ctx.Done()
		line.SetDeadline(time.Unix(1, 0)) // wakes whoever reads or writes
	})

	perByte := characterTime(bus)
	silence := perByte * 7 / 2
	var pending []byte
	var chunk [256]byte
	for {
		var deadline time.Time
		if len(pending) > 0 {
			deadline = time.Now().Add(max(silence, minSilence))
		}
		line.SetReadDeadline(deadline)
		if ctx.Err() != nil { // after the deadline is set, or it would undo the wake-up
			return nil
		}
		n, err := line.Read(chunk[:])
		silent := errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !silent && ctx.Err() == nil {
			return fmt.Errorf("cannot read line of bus %s: %w", bus.Name, err)
		}
		pending = append(pending, chunk[:n]...)
		for {
			var frame []byte
			frame, pending = cutRTU(pending, silent)
			if frame == nil {
				break
			}
			if err := s.respond(ctx, line, bus, units, frame, perByte); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("cannot write line of bus %s: %w", bus.Name, err)
			}
		}
	}
}

// respond answers one frame.
func (s *Site) respond(ctx context.Context, line io.Writer, bus config.Bus, units *slave, frame []byte, perByte time.Duration) error {
	unit := frame[0]
	if _, known := units.devices[unit]; !known {
		return nil
	}
	release, err := units.seize(ctx)
	if err != nil {
		return err
	}
	defer release()
	x := s.take(bus, units, unit, frame[1:len(frame)-2])
	if x.fault.Kind == Silent {
		return nil
	}
	if x.fault.Kind == Reset {
		reset(line) // a serial line cannot be
		return nil
	}
	answer := append([]byte{unit}, x.answer...)
	answer = binary.LittleEndian.AppendUint16(answer, crc16(answer))
	if x.fault.Kind == Noise {
		s.flip(answer)
	}
	// A pseudo-terminal hands the request over at once; on a wire it would just now be complete.
	onWire := time.Duration(len(frame))*perByte + perByte*7/2
	if err := wait(ctx, onWire+cmp.Or(s.Latency, responseDelay)); err != nil {
		return err
	}
	if err := send(ctx, line, answer, x.fault, perByte); err != nil {
		return err
	}
	s.sent(x)
	return nil
}

// maxFrame is the most bytes an RTU frame has.
const maxFrame = 256

// cutRTU takes the first request off b: unit, function, data, CRC. Without a frame it returns nil and what is to be
// kept of b for the bytes that follow. A request is known by its function's length and its CRC, wherever it starts,
// so noise before it costs nothing. The length of an unknown function is not known: such a request is what stands
// between two silences. After a silence nothing is kept, as the rest of a broken frame will not come any more.
func cutRTU(b []byte, silent bool) (frame, rest []byte) {
	for i := range b {
		if n := requestSize(b[i:]); n > 0 && n <= len(b)-i && valid(b[i:i+n]) {
			return b[i : i+n], b[i+n:]
		}
	}
	if !silent {
		return nil, b[max(0, len(b)-maxFrame):]
	}
	if len(b) >= 4 && len(b) <= maxFrame && valid(b) {
		return b, nil
	}
	return nil, nil
}

// requestSize is the length of the request that b begins with, 0 if b does not tell.
func requestSize(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case 1, 2, 3, 4, 5, 6:
		return 8
	case 15, 16:
		if len(b) >= 7 {
			return 9 + int(b[6])
		}
	}
	return 0
}

// valid says whether a frame's last two bytes are the CRC of the rest.
func valid(frame []byte) bool {
	n := len(frame) - 2
	return crc16(frame[:n]) == binary.LittleEndian.Uint16(frame[n:])
}

// crc16 is the CRC of Modbus over serial line V1.02, section 6.2.2: polynomial 0xA001 reflected, all ones to begin.
// The agent's master has another implementation of it, so each checks the other.
func crc16(b []byte) uint16 {
	crc := uint16(0xFFFF)
	for _, v := range b {
		crc ^= uint16(v)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xA001
			} else {
				crc >>= 1
			}
		}
	}
	return crc
}
