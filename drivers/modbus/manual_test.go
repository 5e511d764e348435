package modbus

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
)

// bits are points of single bits at consecutive addresses.
func bits(f config.Function, start, count int) []config.Point {
	var points []config.Point
	for i := range count {
		points = append(points, config.Point{Name: "bit", Function: f, Address: start + i, Type: config.Bool})
	}
	return points
}

func words(f config.Function, start, count int) []config.Point {
	var points []config.Point
	for i := range count {
		points = append(points, config.Point{Name: "word", Function: f, Address: start + i, Type: config.U16, Unit: "1"})
	}
	return points
}

// The examples of Modbus Application Protocol V1.1b3, 6.1 to 6.4, and of the SDM630's manual.
func TestTransactionsOfManuals(t *testing.T) {
	for _, c := range []struct {
		name            string
		unit            int
		points          []config.Point
		request, answer string // PDU
		want            string
	}{
		{"coils 20-38", 0x11, bits(config.Coil, 19, 19), "01 00 13 00 13", "01 03 CD 6B 05",
			"1 0 1 1 0 0 1 1 1 1 0 1 0 1 1 0 1 0 1"},
		{"discrete inputs 197-218", 0x11, bits(config.DiscreteInput, 196, 22), "02 00 C4 00 16", "02 03 AC DB 35",
			"0 0 1 1 0 1 0 1 1 1 0 1 1 0 1 1 1 0 1 0 1 1"},
		{"holding registers 108-110", 0x11, words(config.HoldingRegister, 107, 3), "03 00 6B 00 03", "03 06 02 2B 00 00 00 64", "555 0 100"},
		{"input register 9", 0x11, words(config.InputRegister, 8, 1), "04 00 08 00 01", "04 02 00 0A", "10"},
		{"SDM630 voltage L1", 1, meter().Model.Points, "04 00 00 00 02", "04 04 43 66 33 34", voltage},
	} {
		unit := map[int]string{1: "01", 0x11: "11"}[c.unit]
		d := device(c.unit, c.points...)
		t.Run("RTU "+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := drivertest.NewPlayback(t, drivertest.Exchange{Request: frame(unit + c.request), Answer: drivertest.Whole(frame(unit + c.answer))})
				bus := rtu(t, func() (net.Conn, error) { return p.Dial(), nil })
				if got := outcome(t, bus, d); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
				bus.Close()
				p.Done()
			})
		})
		t.Run("TCP "+c.name, func(t *testing.T) {
			p := drivertest.NewPlayback(t, drivertest.Exchange{
				Request: "00 01 00 00" + length(c.request) + unit + c.request,
				Answer:  drivertest.Whole("00 01 00 00" + length(c.answer) + unit + c.answer),
			})
			opened, err := OpenTCP(config.Bus{Address: p.Listen()}, drivers.With{})
			if err != nil {
				t.Fatal(err)
			}
			defer opened.Close()
			if got := outcome(t, opened.(*Bus), d); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			p.Done()
		})
	}
}

// length is the MBAP header's length field for a PDU: its bytes and the unit id.
func length(pdu string) string {
	return fmt.Sprintf("%04x", len(strings.Fields(pdu))+1)
}

// The bytes as they stand in manuals, CRC included: goburrow's CRC, which the other tests build frames with, is right.
func TestFramesAsPrinted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := drivertest.NewPlayback(t, drivertest.Exchange{Request: ask, Answer: drivertest.Whole(answer)},
			drivertest.Exchange{Request: "11 03 00 6B 00 03 76 87", Answer: drivertest.Whole("11 03 06 AE 41 56 52 43 40 49 AD")})
		bus := rtu(t, func() (net.Conn, error) { return p.Dial(), nil })
		if got := outcome(t, bus, meter()); got != voltage {
			t.Errorf("got %s", got)
		}
		if got := outcome(t, bus, device(0x11, words(config.HoldingRegister, 107, 3)...)); got != "44609 22098 17216" {
			t.Errorf("got %s", got)
		}
		bus.Close()
		p.Done()
	})
}
