package modbus

import (
	"context"
	"errors"
	"io"
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

func newRTULine(b config.Bus) *rtuLine {
	perByte := 11 * time.Second / time.Duration(b.Baud)
	silence := perByte * 7 / 2
	if b.Baud > 19200 { // Modbus over Serial Line V1.02, 2.5.1.1: fixed above 19,200 Bd
		silence = 1750 * time.Microsecond
	}
	return &rtuLine{
		open: func() (stream, error) { return openPort(b) }, silence: silence, perByte: perByte, late: map[byte]time.Time{},
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
		l.port = port
	}
	defer interrupt(l.ctx, l.port)()
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
	wait := time.Duration(len(frame)+answerLength(frame))*l.perByte + l.timeout
	answer, err := l.receive(frame, time.Now().Add(wait))
	if err != nil {
		l.late[unit] = time.Now().Add(l.timeout)
	}
	return answer, err
}

// quiet waits until the line may be used: the silence between frames and what the device needs beyond it have passed,
// nothing is still coming in, and no late answer of this unit can be taken for the next one. It listens for at least
// one silence, however long ago the line was used: a late answer lies in the driver's queue until somebody reads it.
func (l *rtuLine) quiet(unit byte) error {
	free := l.lastEnd.Add(max(l.silence, l.limits.InterFrameDelay))
	if unit != l.lastUnit {
		free = free.Add(l.limits.Turnaround)
	}
	free = latest(free, l.late[unit], time.Now())
	giveUp := free.Add(l.timeout)
	var junk [256]byte
	for {
		if err := l.until(latest(free, time.Now().Add(l.silence))); err != nil {
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
		case time.Now().After(giveUp):
			return &drivers.Error{Failure: drivers.Frame, Detail: "the line does not fall silent: noise, or another master"}
		}
	}
}

func latest(t time.Time, others ...time.Time) time.Time {
	for _, o := range others {
		if o.After(t) {
			t = o
		}
	}
	return t
}

// receive reads until the answer is whole or the deadline passes. Foreign frames and noise before it are skipped.
func (l *rtuLine) receive(frame []byte, deadline time.Time) ([]byte, error) {
	var buf []byte
	var chunk [maxFrame]byte
	var s seen
	for {
		until := deadline
		if s.damaged() { // whatever comes after the next silence is no part of it
			if end := time.Now().Add(max(l.silence, minSilence)); end.Before(until) {
				until = end
			}
		}
		if err := l.until(until); err != nil {
			return nil, err
		}
		n, err := l.port.Read(chunk[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, s.failure(buf)
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.ErrUnexpectedEOF
		}
		buf = append(buf[max(0, len(buf)-maxFrame):], chunk[:n]...) // an endless babble must not fill the memory
		var answer []byte
		if answer, s = cut(frame, buf); answer != nil {
			return answer, nil
		}
	}
}
