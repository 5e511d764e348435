package modbus

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
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
	silent   time.Time          // when a silence was last listened to to its end
	late     map[byte]time.Time // until when a unit may still answer an earlier request
	log      *slog.Logger
	answered time.Duration // see took
	warned   time.Time     // when another master was last spoken of
	counted  lineCounts
	reopens  bool // a loss of the connection may be the far end's rest and not a fault

	ctx    context.Context
	wait   wait
	limits config.ModbusLimits
}

// warnPause is the least time between two words about another master.
const warnPause = time.Hour

// minSilence is the least wait for more bytes before a damaged answer is given up. USB adapters deliver a frame in
// pieces up to 16 ms apart, so real gaps are no measure.
const minSilence = 20 * time.Millisecond

func newRTULine(b config.Bus, log *slog.Logger) *rtuLine {
	baud := cmp.Or(b.Baud, 9600) // behind a converter that does not say, the slower one is the safer
	perByte := 11 * time.Second / time.Duration(baud)
	silence := perByte * 7 / 2
	if baud > 19200 { // Modbus over Serial Line V1.02, 2.5.1.1: fixed above 19,200 Bd
		silence = 1750 * time.Microsecond
	}
	return &rtuLine{
		open: func() (stream, error) { return openPort(b) }, silence: silence, perByte: perByte, late: map[byte]time.Time{}, log: log,
	}
}

// newRTUTCPLine makes a line behind a converter that passes bytes through. Silences are kept as on a port: the line
// behind the converter needs them.
func newRTUTCPLine(b config.Bus, log *slog.Logger) *rtuLine {
	l, d := newRTULine(b, log), newDialer(b.Address)
	l.open = func() (stream, error) { return d.connect(l.ctx) }
	l.reopens = true
	return l
}

func (l *rtuLine) begin(ctx context.Context, w wait, limits config.ModbusLimits) {
	l.ctx, l.wait, l.limits = ctx, w, limits
}

func (l *rtuLine) took() time.Duration { return l.answered }

// Close closes the port.
func (l *rtuLine) Close() error {
	if l.port == nil {
		return nil
	}
	err := l.port.Close()
	l.port, l.silent = nil, time.Time{} // what a new port has in its queue nobody has listened to
	return err
}

// Send implements goburrow's Transporter: it puts a frame on the line and returns the answer that belongs to it. The
// answer's unit, function, byte count and CRC are checked. The error is a *drivers.Error or ctx's.
//
// Converters close connections that have rested for a while, and say so only to the next request. So a connection that
// is found lost is made anew, once, and the request sent again. A port that is lost was pulled out, and is not.
func (l *rtuLine) Send(frame []byte) ([]byte, error) {
	used := l.port != nil
	answer, err := l.try(frame)
	var failed *drivers.Error
	if l.reopens && used && errors.As(err, &failed) && failed.Failure == drivers.Link {
		answer, err = l.try(frame)
	}
	return answer, err
}

func (l *rtuLine) try(frame []byte) ([]byte, error) {
	if l.port == nil {
		port, err := l.open()
		if l.ctx.Err() != nil {
			if err == nil {
				port.Close()
			}
			return nil, l.ctx.Err()
		}
		var failed *drivers.Error
		if errors.As(err, &failed) {
			return nil, failed
		}
		if err != nil {
			return nil, &drivers.Error{Failure: drivers.Link, Detail: err.Error()}
		}
		l.port = port
		l.lineErrors() // from here on counts
	}
	defer interrupt(l.ctx, l.port)()
	answer, err := l.exchange(frame)
	l.lastUnit = frame[0]
	var failed *drivers.Error
	if l.ctx.Err() != nil {
		return nil, l.ctx.Err()
	}
	if err != nil && !errors.As(err, &failed) { // the port is gone: pulled out, hung up
		l.Close()
		return nil, &drivers.Error{Failure: drivers.Link, Detail: err.Error()}
	}
	if failed != nil && failed.Failure == drivers.CRC {
		failed.Detail += l.lineErrors()
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
	sent, wire := time.Now(), time.Duration(len(frame)+answerLength(frame))*l.perByte
	l.lastEnd = sent
	answer, err := l.receive(frame, sent.Add(wire+l.wait.answer))
	if err != nil {
		l.lastEnd = time.Now()
		// What came was damaged or foreign: the answer may still come in its time. If nothing came it is late already,
		// and how late it can be nobody knows; twice the longest wait is what is bridged.
		l.late[unit] = time.Now().Add(l.wait.longest)
		var failed *drivers.Error
		if errors.As(err, &failed) && failed.Failure == drivers.Timeout {
			l.late[unit] = sent.Add(wire + 2*l.wait.longest)
		}
	} else {
		l.answered = max(0, l.lastEnd.Sub(sent)-time.Duration(len(frame)+len(answer))*l.perByte)
	}
	return answer, err
}

// quiet waits until the line may be used: the silence between frames and what the device needs beyond it have passed,
// nothing is still coming in, and no late answer of this unit can be taken for the next one. It listens for at least
// one silence, however long ago the line was used: a late answer lies in the driver's queue until somebody reads it. The
// silence that ended the last answer is that one, if it has only just passed.
func (l *rtuLine) quiet(unit byte) error {
	free := l.lastEnd.Add(max(l.silence, l.limits.InterFrameDelay))
	if unit != l.lastUnit {
		free = free.Add(l.limits.Turnaround)
	}
	now := time.Now()
	if free = latest(free, l.late[unit]); !free.After(now) && now.Sub(l.silent) < l.silence {
		return nil
	}
	free = latest(free, now)
	giveUp := free.Add(l.wait.longest)
	var junk [256]byte
	var heard []byte
	defer func() { l.mention(overheard(heard)) }()
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
		case len(heard) < maxFrame:
			heard = append(heard, junk[:n]...)
			fallthrough
		default:
			if time.Now().After(giveUp) {
				if request := overheard(heard); request != nil {
					return &drivers.Error{Failure: drivers.Frame, Detail: otherMaster(request)}
				}
				return &drivers.Error{Failure: drivers.Frame, Detail: "the line does not fall silent: noise, or another master"}
			}
		}
	}
}

// mention logs that another master was heard, now and then: the exchanges that it spoils are counted anyway.
func (l *rtuLine) mention(request []byte) {
	if request == nil || l.log == nil || time.Since(l.warned) < warnPause {
		return
	}
	l.warned = time.Now()
	l.log.Warn(otherMaster(request))
}

// lineErrors says what the port's own hardware has counted since the last time, if it counts.
func (l *rtuLine) lineErrors() string {
	port, ok := l.port.(syscall.Conn)
	if !ok {
		return ""
	}
	now, ok := errorCounts(port)
	since := now.less(l.counted)
	l.counted = now
	switch {
	case !ok || since == lineCounts{}:
		return ""
	case since.parity > since.framing:
		return fmt.Sprintf("; the port counted %d parity errors: check parity first", since.parity)
	default:
		return fmt.Sprintf("; the port counted %d framing and %d overrun errors: check the baud rate first", since.framing, since.overrun)
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

// receive reads until the answer is whole and the line silent behind it, or the deadline passes. Foreign frames and noise
// before it are skipped. What comes right behind it, without the silence that ends a frame, is heard too: were there
// another answer in it, nobody could tell which of the two is the right one, so then there is none.
func (l *rtuLine) receive(frame []byte, deadline time.Time) ([]byte, error) {
	var buf, answer []byte
	var chunk [maxFrame]byte
	var s seen
	for {
		until := deadline
		switch {
		case answer != nil:
			until = time.Now().Add(l.silence)
		case s.damaged(): // whatever comes after the next silence is no part of it
			if end := time.Now().Add(max(l.silence, minSilence)); end.Before(until) {
				until = end
			}
		}
		if err := l.until(until); err != nil {
			return nil, err
		}
		n, err := l.port.Read(chunk[:])
		switch {
		case answer != nil && (err != nil || n == 0 || time.Now().After(deadline)):
			if errors.Is(err, os.ErrDeadlineExceeded) {
				l.silent = time.Now()
			}
			return answer, nil // a line that is gone is seen by who asks next
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, s.failure(buf)
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.ErrUnexpectedEOF
		}
		l.lastEnd = time.Now()
		buf = append(buf[max(0, len(buf)-maxFrame):], chunk[:n]...) // an endless babble must not fill the memory
		if answer == nil {
			answer, s = cut(frame, buf)
			answer = bytes.Clone(answer)
		}
		if answer != nil && rival(frame, buf, answer) {
			return nil, &drivers.Error{Failure: drivers.Frame, Detail: fmt.Sprintf("two answers that do not agree: % x", buf[:min(len(buf), 32)])}
		}
	}
}
