package modbus

import (
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"hubagent/config"
	"hubagent/drivers/drivertest"
)

// The first two are from the Modbus Application Protocol V1.1b3, 6.5 and 6.6: coil 173 on, register 2 set to 3. An
// adapter that echoes shows the request before the answer, or instead of it.
func TestWrite(t *testing.T) {
	coil := config.Write{Name: "relay", Function: config.Coil, Address: 0xAC, Type: config.Bool}
	register := config.Write{Name: "level", Function: config.HoldingRegister, Address: 1, Type: config.U16}
	pair := config.Write{Name: "limit", Function: config.HoldingRegister, Address: 1, Type: config.S32, Order: config.CDAB}
	on, readCoil := frame("01 05 00 AC FF 00"), frame("01 01 00 AC 00 01")
	set, readRegister := frame("01 06 00 01 00 03"), frame("01 03 00 01 00 01")
	for _, c := range []struct {
		name   string
		write  config.Write
		raw    int64
		script []drivertest.Exchange
		want   string // "" for none, else how the error ends
	}{
		{"coil", coil, 1, []drivertest.Exchange{{Request: on, Answer: drivertest.Whole(on)}, {Request: readCoil, Answer: drivertest.Whole(frame("01 01 01 CD"))}}, ""},
		{"register", register, 3, []drivertest.Exchange{{Request: set, Answer: drivertest.Whole(set)}, {Request: readRegister, Answer: drivertest.Whole(frame("01 03 02 00 03"))}}, ""},
		{"two registers, low word first", pair, -2, []drivertest.Exchange{
			{Request: frame("01 10 00 01 00 02 04 FF FE FF FF"), Answer: drivertest.Whole(frame("01 10 00 01 00 02"))},
			{Request: frame("01 03 00 01 00 02"), Answer: drivertest.Whole(frame("01 03 04 FF FE FF FF"))}}, ""},
		{"off", coil, 0, []drivertest.Exchange{
			{Request: frame("01 05 00 AC 00 00"), Answer: drivertest.Whole(frame("01 05 00 AC 00 00"))}, {Request: readCoil, Answer: drivertest.Whole(frame("01 01 01 00"))}}, ""},
		{"refused", coil, 1, []drivertest.Exchange{{Request: on, Answer: drivertest.Whole(frame("01 85 02"))}}, "cannot write coil 172 of meter: exception 2"},
		{"echo and answer", register, 3, []drivertest.Exchange{{Request: set, Answer: drivertest.Whole(set + set)}, {Request: readRegister, Answer: drivertest.Whole(readRegister + frame("01 03 02 00 03"))}}, ""},
		{"echo only, no device", register, 3, []drivertest.Exchange{{Request: set, Answer: drivertest.Whole(set)}, {Request: readRegister, Answer: drivertest.Whole(readRegister)}}, "holding register 1 of meter: timeout"},
		{"confirmed and not done", register, 3, []drivertest.Exchange{{Request: set, Answer: drivertest.Whole(set)}, {Request: readRegister, Answer: drivertest.Whole(frame("01 03 02 00 02"))}}, "it confirmed the write of 00 03, but holds 00 02"},
		{"another value confirmed", register, 3, []drivertest.Exchange{{Request: set, Answer: drivertest.Whole(frame("01 06 00 01 00 04"))}}, "was not asked for"},
		{"cannot be read back", register, 3, []drivertest.Exchange{{Request: set, Answer: drivertest.Whole(set)}, {Request: readRegister, Answer: drivertest.Whole(frame("01 83 01"))}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := drivertest.NewPlayback(t, c.script...)
				bus := rtu(t, func() (net.Conn, error) { return p.Dial(), nil })
				got := ""
				if err := bus.Write(t.Context(), meter(), c.write, c.raw); err != nil {
					got = err.Error()
				}
				if (got == "") != (c.want == "") || !strings.HasSuffix(got, c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
				bus.Close()
				p.Done()
			})
		})
	}
}
