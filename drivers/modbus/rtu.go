package modbus

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

// stream is an open serial port, or what stands for one in a test.
type stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// rtuLine sends RTU frames on one line, one request at a time.
type rtuLine struct {
	open    func() (stream, error)
	silence time.Duration // t3.5: what ends a frame
	perByte time.Duration
	log     *slog.Logger

	port     stream // nil while the line is not open
	lastUnit byte
	lastEnd  time.Time          // when the line was last busy
	late     map[byte]time.Time // until when a unit may still answer an earlier request

	ctx     context.Context
	timeout time.Duration
	limits  config.ModbusLimits
}

// minSilence is the least wait for more bytes before a damaged answer is given up. USB adapters deliver a frame in
// pieces up to 16 ms apart, so real gaps are no measure.
const minSilence = 20 * time.Millisecond

func newRTULine(b config.Bus, log *slog.Logger) *rtuLine {
	perByte := 11 * time.Second / time.Duration(b.Baud)
	silence := perByte * 7 / 2
	if b.Baud > 19200 { // Modbus over Serial Line V1.02, 2.5.1.1: fixed above 19,200 Bd
		silence = 1750 * time.Microsecond
	}
	return &rtuLine{
		open: func() (stream, error) { return openPort(b) }, silence: silence, perByte: perByte, log: log, late: map[byte]time.Time{},
	}
}

func (l *rtuLine) begin(ctx context.Context, timeout time.Duration, limits config.ModbusLimits) {
	l.ctx, l.timeout, l.limits = ctx, timeout, limits
}

// Close closes the port.
func (l *rtuLine) Close() error {
	if l.port == nil {
		return nil
	}
	err := l.port.Close()
	l.port = nil
	return err
}

// Send implements goburrow's Transporter: it puts a frame on the line and returns the answer that belongs to it. The
// answer's unit, function, byte count and CRC are checked. The error is a *drivers.Error or ctx's.
func (l *rtuLine) Send(frame []byte) ([]byte, error) {
	if l.port == nil {
		port, err := l.open()
		if err != nil {
			return nil, &drivers.Error{Failure: drivers.Link, Detail: err.Error()}
		}
		l.port, l.late = port, map[byte]time.Time{}
	}
	port := l.port
	stop := context.AfterFunc(l.ctx, func() { port.SetDeadline(time.Unix(1, 0)) }) // wakes whoever waits for the port
	defer stop()
	answer, err := l.exchange(frame)
	l.lastEnd, l.lastUnit = time.Now(), frame[0]
	var failed *drivers.Error
	if l.ctx.Err() != nil {
		return nil, l.ctx.Err()
	}
	if err != nil && !errors.As(err, &failed) { // the port is gone: pulled out, hung up
		l.Close()
		return nil, &drivers.Error{Failure: drivers.Link, Detail: err.Error()}
	}
	return answer, err
}

// until sets the deadline of the next reads and writes, unless ctx has ended.
func (l *rtuLine) until(t time.Time) error {
	if err := l.port.SetDeadline(t); err != nil {
		return err
	}
	return l.ctx.Err() // after the deadline is set, or the wake-up would be undone
}

func (l *rtuLine) exchange(frame []byte) ([]byte, error) {
	unit := frame[0]
	if err := l.quiet(unit); err != nil {
		return nil, err
	}
	// Writing needs no more than the frame's time on the line, and some for the driver's queue.
	if err := l.until(time.Now().Add(time.Second + time.Duration(len(frame))*l.perByte)); err != nil {
		return nil, err
	}
	if _, err := l.port.Write(frame); err != nil {
		return nil, err
	}
	sent := time.Now()
	wait := time.Duration(len(frame)+answerLength(frame))*l.perByte + l.timeout
	answer, err := l.receive(frame, sent.Add(wait))
	if err != nil && answer == nil {
		l.late[unit] = time.Now().Add(l.timeout)
	}
	return answer, err
}

// quiet waits until the line may be used: the silence between frames and what the device needs beyond it have passed,
// nothing is still coming in, and no late answer of this unit can be taken for the next one.
func (l *rtuLine) quiet(unit byte) error {
	free := l.lastEnd.Add(max(l.silence, l.limits.InterFrameDelay))
	if unit != l.lastUnit {
		free = free.Add(l.limits.Turnaround)
	}
	if late := l.late[unit]; late.After(free) {
		free = late
	}
	delete(l.late, unit)
	var junk [256]byte
	for stale := false; ; {
		at := free
		if now := time.Now(); at.Before(now) {
			if at = now; stale {
				at = now.Add(l.silence)
			}
		}
		if err := l.until(at); err != nil {
			return err
		}
		n, err := l.port.Read(junk[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if l.ctx.Err() != nil {
				return l.ctx.Err()
			}
			return nil
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF // a hang-up; goburrow spins here
		}
		stale = true
	}
}

// receive reads until the answer is whole or the deadline passes. Foreign frames and noise before it are skipped.
func (l *rtuLine) receive(frame []byte, deadline time.Time) ([]byte, error) {
	var buf []byte
	var chunk [256]byte
	var bad *drivers.Error // what was seen instead of an answer
	for {
		until := deadline
		if bad != nil && bad.Failure == drivers.CRC { // damaged: give up at the next silence
			if end := time.Now().Add(max(l.silence, minSilence)); end.Before(until) {
				until = end
			}
		}
		if err := l.until(until); err != nil {
			return nil, err
		}
		n, err := l.port.Read(chunk[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			switch {
			case bad != nil:
				return nil, bad
			case len(buf) > 0:
				return nil, &drivers.Error{Failure: drivers.Frame, Detail: fmt.Sprintf("answer cut short: % x", buf)}
			}
			return nil, &drivers.Error{Failure: drivers.Timeout}
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		buf = append(buf, chunk[:n]...)
		var answer []byte
		var seen *drivers.Error
		if answer, buf, seen = cut(frame, buf); answer != nil {
			return answer, nil
		}
		if seen != nil {
			bad = seen
		}
	}
}

// cut looks for the answer to a request at the beginning of what came in. It returns the answer, or nil and what is
// left to wait on, and what was wrong with the bytes that it dropped.
func cut(frame, buf []byte) (answer, rest []byte, bad *drivers.Error) {
	for len(buf) >= 2 {
		if buf[0] == frame[0] && (buf[1] == frame[1] || buf[1] == frame[1]|0x80) {
			size := answerLength(frame)
			if buf[1] != frame[1] {
				size = 5
			}
			if len(buf) < size {
				return nil, buf, bad
			}
			if crcFits(buf[:size]) && (size == 5 && buf[1] != frame[1] || int(buf[2]) == size-5) {
				return buf[:size:size], nil, nil
			}
		}
		if len(buf) >= 3 {
			size := 5
			if buf[1]&0x80 == 0 {
				size += int(buf[2])
			}
			if size <= len(buf) && size <= 256 && crcFits(buf[:size]) {
				bad = cmp.Or(bad, &drivers.Error{Failure: drivers.Frame, Detail: fmt.Sprintf("an answer of unit %d, function %d, that was not asked for", buf[0], buf[1])})
				buf = buf[size:]
				continue
			}
		}
		if len(buf) < 5 {
			break
		}
		bad = &drivers.Error{Failure: drivers.CRC, Detail: fmt.Sprintf("bytes that are no answer: % x", buf[:min(len(buf), 16)])}
		buf = buf[1:]
	}
	return nil, buf, bad
}

// answerLength is the length of a good answer to a read request of function 1 to 4.
func answerLength(frame []byte) int {
	count := int(binary.BigEndian.Uint16(frame[4:]))
	if frame[1] <= 2 {
		return 5 + (count+7)/8
	}
	return 5 + 2*count
}

// crcFits checks the CRC of Modbus over Serial Line V1.02, 6.2.2: over a frame with its CRC, low byte first, it is 0.
func crcFits(frame []byte) bool {
	crc := uint16(0xFFFF)
	for _, b := range frame {
		crc ^= uint16(b)
		for range 8 {
			if crc&1 == 1 {
				crc = crc>>1 ^ 0xA001
			} else {
				crc >>= 1
			}
		}
	}
	return crc == 0
}
