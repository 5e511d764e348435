// Package modbus reads devices over Modbus RTU and Modbus TCP (Modbus Application Protocol V1.1b3, Modbus over Serial
// Line V1.02).
//
// Requests and answers are built and taken apart by goburrow/modbus; what is on the wire between them is ours, because
// goburrow's own transporters take a late answer for the next request's.
package modbus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/goburrow/modbus"

	"hubagent/config"
	"hubagent/drivers"
)

// defaultTimeout is the wait for an answer where neither bus nor profile says another: below 500 ms slow slaves are
// taken for dead, and other slaves take the next request for their answer.
const defaultTimeout = 500 * time.Millisecond

// retries bounds what one poll may send to a device again after noise. After silence nothing is sent again at once: the
// answer may only be late, and then it would be taken for that of the second request.
const retries = 1

// line is one RTU line or TCP connection, as a transporter for goburrow's client.
type line interface {
	modbus.Transporter
	// begin sets what the next Sends need: how long an answer to each is waited for, the device's delays, and ctx.
	begin(ctx context.Context, w wait, limits config.ModbusLimits)
	// took is how long the device let its last good answer wait, without the time of the bytes on the wire.
	took() time.Duration
	Close() error
}

// wait is how long a device may take for an answer.
type wait struct {
	answer  time.Duration // until the answer is given up
	longest time.Duration // the device may take, by bus or profile: until twice this an answer may come late
}

// interrupt ends what waits for the connection when ctx ends. stop is called when nothing waits any more; it sees to it
// that the next request does not meet a deadline set late.
func interrupt(ctx context.Context, conn interface{ SetDeadline(time.Time) error }) (stop func()) {
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0))
		close(done)
	})
	return func() {
		if !cancel() {
			<-done
		}
	}
}

// Bus is a line with goburrow's client on it.
type Bus struct {
	config config.Bus
	line   line
	unit   func(byte) // sets the unit id of the next request
	client modbus.Client
	log    *slog.Logger
	plans  map[planKey][]request
	delays map[int]*delay // of a unit's answers
}

// planKey tells plans apart: devices of one model may run firmware of different ages, and refuse different requests.
type planKey struct {
	unit  int
	model *config.Profile
}

var _ drivers.Bus = (*Bus)(nil)

// OpenRTU makes a bus of a serial port. The port is opened at the first Read, and again after it was lost.
func OpenRTU(b config.Bus, with drivers.With) (drivers.Bus, error) {
	if _, err := speed(b.Baud); err != nil {
		return nil, err
	}
	packager := modbus.NewRTUClientHandler("")
	return newBus(b, packager, newRTULine(b, with.Log), func(unit byte) { packager.SlaveId = unit }, with), nil
}

// OpenRTUTCP makes a bus of a converter that passes RTU frames through between a TCP connection and its line. It is
// connected to at the first Read, and again after the connection was lost.
func OpenRTUTCP(b config.Bus, with drivers.With) (drivers.Bus, error) {
	packager := modbus.NewRTUClientHandler("")
	return newBus(b, packager, newRTUTCPLine(b, with.Log), func(unit byte) { packager.SlaveId = unit }, with), nil
}

// OpenTCP makes a bus of a Modbus TCP server or converter. It is connected to at the first Read, and again after the
// connection was lost.
func OpenTCP(b config.Bus, with drivers.With) (drivers.Bus, error) {
	packager := modbus.NewTCPClientHandler("")
	return newBus(b, packager, newTCPLine(b), func(unit byte) { packager.SlaveId = unit }, with), nil
}

func newBus(b config.Bus, packager modbus.Packager, l line, unit func(byte), with drivers.With) *Bus {
	log := with.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Bus{
		config: b, line: l, unit: unit, client: modbus.NewClient2(packager, l), log: log.With("bus", b.Name),
		plans: map[planKey][]request{}, delays: map[int]*delay{},
	}
}

// OpenLine makes an RTU bus on a connection that is open already, for tests of what is above the driver.
func OpenLine(b config.Bus, with drivers.With, conn net.Conn) drivers.Bus {
	packager, line := modbus.NewRTUClientHandler(""), newRTULine(b, with.Log)
	line.open = func() (stream, error) { return conn, nil }
	return newBus(b, packager, line, func(unit byte) { packager.SlaveId = unit }, with)
}

// Close closes the port or connection.
func (b *Bus) Close() error { return b.line.Close() }

// Read implements drivers.Bus. One request a poll that meets noise is sent once more. When a device stays silent, or
// the line is gone, its other requests are not sent: they would only wait as long again. A request that the device
// refuses for its addresses is split, and stays so.
func (b *Bus) Read(ctx context.Context, device config.Device) (drivers.Sample, error) {
	s := drivers.Sample{Device: device.Name, Readings: make([]drivers.Reading, len(device.Model.Points))}
	x := exchanges{Bus: b, device: device, delay: b.delay(device.Unit), tries: retries}
	b.unit(byte(device.Unit))
	key := planKey{device.Unit, device.Model}
	requests, planned := b.plans[key]
	if !planned {
		requests = plan(device.Model, LineOf(b.config), DefaultLatency)
		b.plans[key] = requests
	}
	for i := 0; i < len(requests); i++ {
		r := requests[i]
		data, err := x.ask(ctx, r)
		if err == nil {
			if s.At.IsZero() {
				s.At = time.Now()
			}
			r.take(device.Model, data, s.Readings)
			continue
		}
		if err.Failure == drivers.Exception && (err.Code == illegalAddress || err.Code == illegalValue) {
			if parts := split(device.Model, r); len(parts) > 1 {
				b.log.Info("device refuses a request; it is split from now on", "device", device.Name, "request", r.String(), "why", err.Why(), "parts", len(parts))
				requests = slices.Concat(requests[:i], parts, requests[i+1:])
				b.plans[key] = requests
				i--
				continue
			}
		}
		for _, k := range r.points {
			p := device.Model.Points[k]
			s.Readings[k] = drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Missing, Why: err.Why()}
		}
	}
	scaleBy(device.Model, s.Readings)
	if s.At.IsZero() {
		s.At = time.Now()
	}
	if ctx.Err() != nil {
		return s, ctx.Err()
	}
	if x.first != nil {
		return s, x.first
	}
	return s, nil
}

// The exception codes by which a device refuses the addresses of a request (Modbus Application Protocol V1.1b3, 7).
const (
	illegalAddress = 2
	illegalValue   = 3
)

// exchanges are the requests of one poll.
type exchanges struct {
	*Bus
	device config.Device
	delay  *delay
	tries  int
	first  *drivers.Error // the poll's first failure
	dead   *drivers.Error // why nothing more is sent
}

// ask sends a request, once more after noise.
func (x *exchanges) ask(ctx context.Context, r request) ([]byte, *drivers.Error) {
	if x.dead != nil {
		return nil, x.dead
	}
	limits := x.device.Model.Modbus
	longest := cmp.Or(x.config.Timeout, limits.ResponseTimeout, defaultTimeout)
	w := wait{x.delay.timeout(limits.LeastTimeout, longest), longest}
	x.line.begin(ctx, w, limits)
	data, err := x.send(r)
	if err != nil && x.tries > 0 && ctx.Err() == nil && err.Failure == drivers.CRC {
		x.tries--
		data, err = x.send(r)
	}
	if err == nil {
		x.delay.add(x.line.took())
		return data, nil
	}
	err.Device = x.device.Name
	if x.first == nil {
		x.first = err
	}
	switch err.Failure {
	case drivers.Timeout:
		x.delay.forget()
		x.dead = err
	case drivers.Link:
		x.dead = err
	}
	return nil, err
}

func (b *Bus) delay(unit int) *delay {
	if b.delays[unit] == nil {
		b.delays[unit] = new(delay)
	}
	return b.delays[unit]
}

// send does one request and checks the length of its answer, which goburrow does not.
func (b *Bus) send(r request) ([]byte, *drivers.Error) {
	var data []byte
	var err error
	switch address, count := uint16(r.start), uint16(r.count); r.function {
	case config.Coil:
		data, err = b.client.ReadCoils(address, count)
	case config.DiscreteInput:
		data, err = b.client.ReadDiscreteInputs(address, count)
	case config.HoldingRegister:
		data, err = b.client.ReadHoldingRegisters(address, count)
	case config.InputRegister:
		data, err = b.client.ReadInputRegisters(address, count)
	}
	want := 2 * r.count
	if r.isBits() {
		want = (r.count + 7) / 8
	}
	if err == nil && len(data) != want {
		err = &drivers.Error{Failure: drivers.Frame, Detail: fmt.Sprintf("answer has %d bytes of data, not %d", len(data), want)}
	}
	if err != nil {
		return nil, failure(err, r.String())
	}
	return data, nil
}

// failure is what went wrong with a request, told apart.
func failure(err error, at string) *drivers.Error {
	var failed *drivers.Error
	var refused *modbus.ModbusError
	switch {
	case errors.As(err, &refused):
		failed = &drivers.Error{Failure: drivers.Exception, Code: refused.ExceptionCode}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		failed = &drivers.Error{Failure: drivers.Timeout, Detail: err.Error()}
	case !errors.As(err, &failed):
		failed = &drivers.Error{Failure: drivers.Frame, Detail: err.Error()}
	}
	failed.At = at
	return failed
}

// take decodes an answer into the readings of its points.
func (r request) take(p *config.Profile, data []byte, readings []drivers.Reading) {
	for _, i := range r.points {
		point := p.Points[i]
		at := point.Address - r.start
		if r.isBits() {
			readings[i] = decodeBit(point, data[at/8]>>(at%8)&1 == 1)
			continue
		}
		readings[i] = decode(point, data[2*at:2*(at+point.Registers())])
	}
}
