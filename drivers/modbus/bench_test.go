package modbus

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"testing"
	"time"

	"github.com/goburrow/modbus"

	"hubagent/config"
	"hubagent/drivers"
)

// One poll of an SDM630: three requests, their answers, 24 values.
func BenchmarkPollSDM630(b *testing.B) {
	s := newSimulated(b, config.ModbusTCP, "eastron-sdm630")
	for _, c := range []struct {
		name string
		bus  func(near net.Conn) *Bus
		far  func(far net.Conn)
	}{
		{"RTU", func(near net.Conn) *Bus {
			packager, line := modbus.NewRTUClientHandler(""), newRTULine(config.Bus{Baud: 115200}, nil)
			line.open = func() (stream, error) { return near, nil }
			line.silence = 0 // or only the pauses would be measured
			line.perByte = 0
			return newBus(config.Bus{Timeout: time.Minute}, packager, line, func(unit byte) { packager.SlaveId = unit }, drivers.With{})
		}, func(far net.Conn) {
			request := make([]byte, 8)
			for {
				if _, err := io.ReadFull(far, request); err != nil {
					return
				}
				far.Write(raw(good(request)))
			}
		}},
		{"TCP", func(near net.Conn) *Bus {
			packager := modbus.NewTCPClientHandler("")
			line := &tcpLine{dialer: &dialer{dial: func(context.Context) (net.Conn, error) { return near, nil }}}
			return newBus(config.Bus{Timeout: time.Minute}, packager, line, func(unit byte) { packager.SlaveId = unit }, drivers.With{})
		}, func(far net.Conn) {
			request := make([]byte, 12)
			for {
				if _, err := io.ReadFull(far, request); err != nil {
					return
				}
				count := int(binary.BigEndian.Uint16(request[10:]))
				answer := append(request[:8:8], byte(2*count))
				binary.BigEndian.PutUint16(answer[4:], uint16(3+2*count))
				far.Write(append(answer, make([]byte, 2*count)...))
			}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			near, far := net.Pipe()
			go c.far(far)
			bus := c.bus(near)
			defer bus.Close()
			d := s.bus.Devices[0]
			model := *d.Model
			model.Modbus.InterFrameDelay, model.Modbus.Turnaround = 0, 0
			d.Model = &model
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bus.Read(b.Context(), d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range []struct {
		name string
		p    config.Point
		raw  []byte
	}{
		{"f32", config.Point{Type: config.F32, Order: config.ABCD}, []byte{0x43, 0x66, 0x33, 0x34}},
		{"u64 cdab", config.Point{Type: config.U64, Order: config.CDAB, Missing: []int64{math.MaxInt64}}, make([]byte, 8)},
		{"s16 scaled", config.Point{Type: config.S16, Scale: config.Decimal{Mantissa: 1, Exponent: -2}}, []byte{0x18, 0x0C}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				decode(c.p, c.raw)
			}
		})
	}
}
