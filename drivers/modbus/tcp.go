package modbus

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

// tcpLine sends Modbus TCP requests on one connection, one at a time.
type tcpLine struct {
	*dialer
	conn net.Conn // nil while not connected
	in   bufio.Reader

	ctx      context.Context
	wait     wait
	answered time.Duration // see took
}

// Bounds on connecting. A converter that is away must not cost every device of its bus a full attempt.
const (
	dialTime  = 3 * time.Second
	dialPause = time.Second
)

// dialer connects to a server or converter, but not again at once after it failed.
type dialer struct {
	dial    func(context.Context) (net.Conn, error)
	failed  *drivers.Error // why the last attempt to connect failed
	nextTry time.Time
}

func newDialer(address string) *dialer {
	d := net.Dialer{Timeout: dialTime}
	return &dialer{dial: func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }}
}

func (d *dialer) connect(ctx context.Context) (net.Conn, error) {
	if time.Now().Before(d.nextTry) {
		again := *d.failed
		return nil, &again
	}
	conn, err := d.dial(ctx)
	if err != nil {
		// A copy: the dialer's own time-out must not pass for that of an answer.
		failed := drivers.Error{Failure: drivers.Link, Detail: err.Error()}
		if ctx.Err() == nil {
			d.failed, d.nextTry = &failed, time.Now().Add(dialPause)
		}
		again := failed
		return nil, &again
	}
	return plain(conn), nil
}

func newTCPLine(b config.Bus) *tcpLine { return &tcpLine{dialer: newDialer(b.Address)} }

func (l *tcpLine) begin(ctx context.Context, w wait, _ config.ModbusLimits) { l.ctx, l.wait = ctx, w }

func (l *tcpLine) took() time.Duration { return l.answered }

// Close closes the connection.
func (l *tcpLine) Close() error {
	if l.conn == nil {
		return nil
	}
	err := l.conn.Close()
	l.conn = nil
	return err
}

// Send implements goburrow's Transporter. The answer has the request's transaction id, unit and function. After any
// failure but a refusal the connection is closed: what may still come on it belongs to nobody.
//
// Converters close connections that have rested for a while, and say so only to the next request. So a connection that
// is found lost is made anew, once, and the request sent again.
func (l *tcpLine) Send(adu []byte) ([]byte, error) {
	used := l.conn != nil
	answer, err := l.try(adu)
	var failed *drivers.Error
	if used && errors.As(err, &failed) && failed.Failure == drivers.Link {
		answer, err = l.try(adu)
	}
	return answer, err
}

func (l *tcpLine) open(ctx context.Context) error {
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	l.conn = conn
	l.in.Reset(conn)
	return nil
}

// try does one exchange. The error is a *drivers.Error or ctx's.
func (l *tcpLine) try(adu []byte) ([]byte, error) {
	var err error
	if l.conn == nil {
		err = l.open(l.ctx)
	}
	if err == nil {
		l.conn.SetDeadline(time.Now().Add(l.wait.answer))
		stop := interrupt(l.ctx, l.conn)
		var answer []byte
		answer, err = l.exchange(adu)
		stop()
		if err == nil {
			return answer, nil
		}
		l.Close()
	}
	var failed *drivers.Error
	switch {
	case l.ctx.Err() != nil:
		return nil, l.ctx.Err()
	case errors.As(err, &failed):
		return nil, failed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &drivers.Error{Failure: drivers.Timeout}
	}
	return nil, &drivers.Error{Failure: drivers.Link, Detail: err.Error()}
}

// exchange writes a request and reads until its answer comes. Answers to earlier requests are dropped.
func (l *tcpLine) exchange(adu []byte) ([]byte, error) {
	if _, err := l.conn.Write(adu); err != nil {
		return nil, err
	}
	sent := time.Now()
	for {
		answer, err := readADU(&l.in)
		if err != nil {
			return nil, err
		}
		if binary.BigEndian.Uint16(answer) != binary.BigEndian.Uint16(adu) {
			continue
		}
		if answer[6] != adu[6] || answer[7]&^0x80 != adu[7] || answer[7] != adu[7] && len(answer) != 9 {
			return nil, &drivers.Error{Failure: drivers.Frame, Detail: fmt.Sprintf("answer of unit %d, function %d, to a request to unit %d, function %d", answer[6], answer[7], adu[6], adu[7])}
		}
		l.answered = time.Since(sent)
		return answer, nil
	}
}

// readADU reads one answer: MBAP header (Modbus Messaging on TCP/IP V1.0b, 3.1.3) and PDU.
func readADU(r io.Reader) ([]byte, error) {
	var header [7]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(header[4:])) // of unit id and PDU
	if protocol := binary.BigEndian.Uint16(header[2:]); protocol != 0 || length < 3 || length > 254 {
		return nil, &drivers.Error{Failure: drivers.Frame, Detail: fmt.Sprintf("header is not Modbus TCP: % x", header)}
	}
	adu := make([]byte, 6+length)
	copy(adu, header[:])
	_, err := io.ReadFull(r, adu[7:])
	return adu, err
}
