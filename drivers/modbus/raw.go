package modbus

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

// Raw is a master for commissioning tools: a bus with everything that goes over its wire kept to be looked at. It asks
// by the functions 1 to 4 only, so it cannot write. It is used by one goroutine at a time.
type Raw struct {
	bus  *Bus
	tape *tape
}

// Query asks one unit for registers or bits of one table.
type Query struct {
	Unit     int // 1 to 247; behind a TCP server 0 and 255, too
	Function config.Function
	Start    int                 // zero-based, as sent in the PDU
	Count    int                 // 1 to 125 registers or 2000 bits
	Timeout  time.Duration       // longest wait for the answer, beyond its time on a serial line
	Limits   config.ModbusLimits // only the pauses of it are used
}

// Exchange is one request and what came of it, byte by byte.
type Exchange struct {
	Unit         int
	Function     config.Function
	Start, Count int
	RTU          bool // what follows are RTU frames, not those of Modbus TCP

	Heard    []byte        // serial line: what came in before the request was sent, and so was no answer to it
	Sent     []byte        // the request, nil when there was no line to send it on
	Received []byte        // all that came in from then on: noise, frames of others and the answer
	Took     time.Duration // from handing the request to the kernel to the last byte received; 0 when none was
	Data     []byte        // what was asked for, registers high byte first; nil without a good answer
	Code     byte          // the exception code with which the device refused; 0 otherwise

	answer []byte // the frame in Received that is the answer
}

// Asked names what was asked for, as errors and logs do: "input register 0-17".
func (x Exchange) Asked() string {
	return request{function: x.Function, start: x.Start, count: x.Count}.String()
}

// Frame is a whole RTU frame that was not for us.
type Frame struct {
	Unit     int
	Function byte // function code, without the bit that marks a refusal
	Request  bool // a master sent it; otherwise it has the form of an answer
	Bytes    []byte
}

// OpenRaw opens the port, or connects to the address, of a bus of any Modbus kind; its devices are not needed. The
// error is ErrInUse if another program has the port.
func OpenRaw(ctx context.Context, b config.Bus) (*Raw, error) {
	open := map[config.BusKind]drivers.OpenFunc{config.ModbusTCP: OpenTCP, config.ModbusRTU: OpenRTU, config.ModbusRTUTCP: OpenRTUTCP}[b.Kind]
	if open == nil {
		return nil, fmt.Errorf("a bus of kind %s carries no Modbus", b.Kind)
	}
	opened, err := open(b, drivers.With{})
	if err != nil {
		return nil, err
	}
	r := &Raw{bus: opened.(*Bus), tape: new(tape)}
	r.bus.line.begin(ctx, wait{}, config.ModbusLimits{})
	switch l := r.bus.line.(type) {
	case *tcpLine:
		l.dial = r.tape.dial(l.dial)
		err = l.open(ctx)
	case *rtuLine:
		l.open = r.tape.open(l.open)
		if l.port, err = l.open(); err == nil {
			l.lineErrors() // from here on counts
		}
	}
	var failed *drivers.Error
	if errors.As(err, &failed) {
		err = errors.New(failed.Detail)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// HasSpeed says whether serial ports have a baud rate.
func HasSpeed(baud int) bool {
	_, err := speed(baud)
	return err == nil
}

// Close closes the port or connection.
func (r *Raw) Close() error { return r.bus.Close() }

// Exchange sends one request, once, and gives what came of it, after a failure too. The error is a *drivers.Error, or
// that of ctx.
func (r *Raw) Exchange(ctx context.Context, q Query) (Exchange, error) {
	asked := request{function: q.Function, start: q.Start, count: q.Count}
	most := 125
	if asked.isBits() {
		most = 2000
	}
	if code(q.Function) == 0 || q.Unit < 0 || q.Unit > 255 || q.Start < 0 || q.Count < 1 || q.Count > most || q.Start+q.Count > 0x10000 {
		return Exchange{}, &drivers.Error{Failure: drivers.Frame, At: asked.String(), Detail: "no device can be asked for this"}
	}
	r.bus.unit(byte(q.Unit))
	longest := cmp.Or(q.Timeout, defaultTimeout)
	r.bus.line.begin(ctx, wait{longest, longest}, q.Limits)
	r.tape.exchanges = nil
	_, failed := r.bus.send(asked)
	all := r.exchanges()
	x := Exchange{Unit: q.Unit, Function: q.Function, Start: q.Start, Count: q.Count, RTU: r.serial()}
	if len(all) > 0 {
		x = all[len(all)-1]
	}
	switch {
	case ctx.Err() != nil:
		return x, ctx.Err()
	case failed != nil:
		failed.Device = fmt.Sprintf("unit %d", q.Unit)
		return x, failed
	}
	return x, nil
}

// Poll reads a device once as the agent does, and gives every exchange that it took. Sample and error are those of
// drivers.Bus.
func (r *Raw) Poll(ctx context.Context, d config.Device) (drivers.Sample, []Exchange, error) {
	r.tape.exchanges = nil
	s, err := r.bus.Read(ctx, d)
	return s, r.exchanges(), err
}

// Decode makes a reading of a point's registers, which are as many as its type has, each high byte first.
func Decode(p config.Point, registers []byte) drivers.Reading { return decode(p, registers) }

func (r *Raw) serial() bool { return r.bus.config.Kind != config.ModbusTCP }

// exchanges gives what is on the tape, taken apart.
func (r *Raw) exchanges() []Exchange {
	var all []Exchange
	for _, x := range r.tape.exchanges {
		if x.RTU = r.serial(); x.Sent != nil {
			x.parse()
		}
		all = append(all, x)
	}
	return all
}

// parse takes apart what was sent, which is ours and well formed, and looks for the answer.
func (x *Exchange) parse() {
	header, trailer := 1, 2
	if !x.RTU {
		header, trailer = 7, 0
	}
	unit, pdu := x.Sent[header-1], x.Sent[header:]
	x.Unit, x.Start, x.Count = int(unit), int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
	for _, f := range []config.Function{config.Coil, config.DiscreteInput, config.HoldingRegister, config.InputRegister} {
		if code(f) == pdu[0] {
			x.Function = f
		}
	}
	if x.RTU {
		x.answer, _ = cut(x.Sent, x.Received)
	} else {
		x.answer = cutTCP(x.Sent, x.Received)
	}
	if x.answer == nil {
		return
	}
	data := x.answer[header : len(x.answer)-trailer]
	length := 2 * x.Count
	if pdu[0] <= 2 {
		length = (x.Count + 7) / 8
	}
	switch {
	case data[0] == pdu[0]|0x80:
		x.Code = data[1]
	case data[0] == pdu[0] && len(data) == 2+length && int(data[1]) == length:
		x.Data = data[2:]
	}
}

// cutTCP finds the answer to a request among all that came in.
func cutTCP(request, received []byte) []byte {
	for in := bytes.NewReader(received); ; {
		adu, err := readADU(in)
		if err != nil {
			return nil
		}
		if bytes.Equal(adu[:2], request[:2]) && adu[6] == request[6] {
			return adu
		}
	}
}

// code is the function code of a table; 0 for what is none.
func code(f config.Function) byte {
	return map[config.Function]byte{config.Coil: 1, config.DiscreteInput: 2, config.HoldingRegister: 3, config.InputRegister: 4}[f]
}

// Sift takes apart what came in on a serial line beside the answer and the echo that some adapters give: whole frames
// of others, such as late answers or another master's requests, and how many bytes belong to no frame at all.
func (x Exchange) Sift() (others []Frame, noise int) {
	if !x.RTU {
		return nil, 0
	}
	for _, b := range [][]byte{x.Heard, x.Received} {
		for len(b) > 0 {
			n := frameSize(b)
			if n == 0 {
				noise++
				b = b[1:]
				continue
			}
			frame := b[:n:n]
			b = b[n:]
			if bytes.Equal(frame, x.Sent) || x.answer != nil && bytes.Equal(frame, x.answer) {
				continue
			}
			others = append(others, Frame{Unit: int(frame[0]), Function: frame[1] &^ 0x80, Request: isRequest(frame), Bytes: frame})
		}
	}
	return others, noise
}

// mostTaped bounds what is kept of a line that babbles, before each request and after it.
const mostTaped = 4 << 10

// tape keeps what goes over a stream. A request begins with the write that sends it.
type tape struct {
	exchanges []Exchange
	sentAt    time.Time
}

// current is the exchange that is going on, a new one if the last has been sent and another is to begin.
func (t *tape) current(begin bool) *Exchange {
	if n := len(t.exchanges); n == 0 || begin && t.exchanges[n-1].Sent != nil {
		t.exchanges = append(t.exchanges, Exchange{})
	}
	return &t.exchanges[len(t.exchanges)-1]
}

func (t *tape) wrote(b []byte) {
	x := t.current(true)
	x.Sent, t.sentAt = bytes.Clone(b), time.Now()
}

func (t *tape) read(b []byte) {
	if len(b) == 0 {
		return
	}
	x := t.current(false)
	if x.Sent == nil {
		x.Heard = append(x.Heard, b[:min(len(b), mostTaped-len(x.Heard))]...)
		return
	}
	x.Received = append(x.Received, b[:min(len(b), mostTaped-len(x.Received))]...)
	x.Took = time.Since(t.sentAt)
}

func (t *tape) open(open func() (stream, error)) func() (stream, error) {
	return func() (stream, error) {
		s, err := open()
		if err != nil {
			return nil, err
		}
		return tapedStream{s, t}, nil
	}
}

func (t *tape) dial(dial func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return tapedConn{conn, t}, nil
	}
}

type tapedStream struct {
	stream
	tape *tape
}

func (s tapedStream) Read(b []byte) (int, error) {
	n, err := s.stream.Read(b)
	s.tape.read(b[:n])
	return n, err
}

func (s tapedStream) Write(b []byte) (int, error) {
	s.tape.wrote(b) // before, or the answer may overtake the note
	return s.stream.Write(b)
}

// SyscallConn lets the port's own counts of errors be asked for.
func (s tapedStream) SyscallConn() (syscall.RawConn, error) {
	if port, ok := s.stream.(syscall.Conn); ok {
		return port.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

type tapedConn struct {
	net.Conn
	tape *tape
}

func (c tapedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tape.read(b[:n])
	return n, err
}

func (c tapedConn) Write(b []byte) (int, error) {
	c.tape.wrote(b)
	return c.Conn.Write(b)
}
