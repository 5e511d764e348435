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
	// begin sets what the next Sends need: the deadline for an answer to each, the device's delays, and ctx.
	begin(ctx context.Context, timeout time.Duration, limits config.ModbusLimits)
	Close() error
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
	plans  map[*config.Profile][]request
}

var _ drivers.Bus = (*Bus)(nil)

// OpenRTU makes a bus of a serial port. The port is opened at the first Read, and again after it was lost.
func OpenRTU(b config.Bus, _ drivers.With) (drivers.Bus, error) {
	if _, err := speed(b.Baud); err != nil {
		return nil, err
	}
	packager := modbus.NewRTUClientHandler("")
	return newBus(b, packager, newRTULine(b), func(unit byte) { packager.SlaveId = unit }), nil
}

// OpenTCP makes a bus of a Modbus TCP server or converter. It is connected to at the first Read, and again after the
// connection was lost.
func OpenTCP(b config.Bus, _ drivers.With) (drivers.Bus, error) {
	packager := modbus.NewTCPClientHandler("")
	return newBus(b, packager, newTCPLine(b), func(unit byte) { packager.SlaveId = unit }), nil
}

func newBus(b config.Bus, packager modbus.Packager, l line, unit func(byte)) *Bus {
	return &Bus{config: b, line: l, unit: unit, client: modbus.NewClient2(packager, l), plans: map[*config.Profile][]request{}}
}

// Close closes the port or connection.
func (b *Bus) Close() error { return b.line.Close() }

// Read implements drivers.Bus. One request a poll that meets noise is sent once more. When a device stays silent, or
// the line is gone, its other requests are not sent: they would only wait as long again.
func (b *Bus) Read(ctx context.Context, device config.Device) (drivers.Sample, error) {
	s := drivers.Sample{Device: device.Name, Readings: make([]drivers.Reading, len(device.Model.Points))}
	limits := device.Model.Modbus
	timeout := cmp.Or(b.config.Timeout, limits.ResponseTimeout, defaultTimeout)
	b.unit(byte(device.Unit))
	var first, dead *drivers.Error
	tries := retries
	for _, r := range b.plan(device.Model) {
		err := dead
		var data []byte
		if dead == nil {
			b.line.begin(ctx, timeout, limits)
			data, err = b.send(r)
			if err != nil && tries > 0 && ctx.Err() == nil && err.Failure == drivers.CRC {
				tries--
				data, err = b.send(r)
			}
		}
		if err == nil {
			if s.At.IsZero() {
				s.At = time.Now()
			}
			r.take(device.Model, data, s.Readings)
			continue
		}
		err.Device = device.Name
		if first == nil {
			first = err
		}
		if err.Failure == drivers.Timeout || err.Failure == drivers.Link {
			dead = err
		}
		for _, i := range r.points {
			p := device.Model.Points[i]
			s.Readings[i] = drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Missing, Why: err.Why()}
		}
	}
	if s.At.IsZero() {
		s.At = time.Now()
	}
	if ctx.Err() != nil {
		return s, ctx.Err()
	}
	if first != nil {
		return s, first
	}
	return s, nil
}

func (b *Bus) plan(p *config.Profile) []request {
	if b.plans[p] == nil {
		b.plans[p] = plan(p, LineOf(b.config), DefaultLatency)
	}
	return b.plans[p]
}

// send does one request and checks the length of its answer, which goburrow does not.
func (b *Bus) send(r request) ([]byte, *drivers.Error) {
	read := map[config.Function]func(address, quantity uint16) ([]byte, error){
		config.Coil: b.client.ReadCoils, config.DiscreteInput: b.client.ReadDiscreteInputs,
		config.HoldingRegister: b.client.ReadHoldingRegisters, config.InputRegister: b.client.ReadInputRegisters,
	}[r.function]
	data, err := read(uint16(r.start), uint16(r.count))
	want := 2 * r.count
	if r.isBits() {
		want = (r.count + 7) / 8
	}
	var failed *drivers.Error
	var refused *modbus.ModbusError
	switch {
	case err == nil && len(data) == want:
		return data, nil
	case err == nil:
		failed = &drivers.Error{Failure: drivers.Frame, Detail: fmt.Sprintf("answer has %d bytes of data, not %d", len(data), want)}
	case errors.As(err, &refused):
		failed = &drivers.Error{Failure: drivers.Exception, Code: refused.ExceptionCode}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		failed = &drivers.Error{Failure: drivers.Timeout, Detail: err.Error()}
	case !errors.As(err, &failed):
		failed = &drivers.Error{Failure: drivers.Frame, Detail: err.Error()}
	}
	failed.At = r.String()
	return nil, failed
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
		readings[i] = decode(point, data[2*at:2*(at+point.Type.Registers())])
	}
}
