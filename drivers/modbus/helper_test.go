package modbus

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/goburrow/modbus"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
)

const testTimeout = 500 * time.Millisecond

// meter has one value, as an SDM630 has it: voltage L1, a float in input registers 0 and 1.
func meter() config.Device {
	return device(1, config.Point{Name: "voltage_l1", Function: config.InputRegister, Type: config.F32, Unit: "V"})
}

func device(unit int, points ...config.Point) config.Device {
	return config.Device{Name: "meter", Unit: unit, Model: &config.Profile{
		ID: "test", Modbus: config.ModbusLimits{MaxRegisters: 60, MaxBits: 64}, Points: points,
	}}
}

// The SDM630's manual: voltage L1 is asked for, and is 230.2 V; the bytes printed there are those of the float32 next to
// it. other is another value of it, 231.5 V.
const (
	ask     = "01 04 00 00 00 02 71 CB"
	answer  = "01 04 04 43 66 33 34 1B 38"
	voltage = "230.20001"
	other   = "01 04 04 43 67 80 00 3E 1F"
)

// frame gives unit, function and data their CRC, by goburrow's implementation and not by ours.
func frame(text string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		panic(err)
	}
	packager := modbus.NewRTUClientHandler("")
	packager.SlaveId = b[0]
	adu, err := packager.Encode(&modbus.ProtocolDataUnit{FunctionCode: b[1], Data: b[2:]})
	if err != nil {
		panic(err)
	}
	return hex.EncodeToString(adu)
}

// rtu makes a bus on a line at whose other end dial puts a peer.
func rtu(t *testing.T, dial func() (net.Conn, error)) *Bus {
	t.Helper()
	opened, err := OpenRTU(config.Bus{Baud: 9600, Timeout: testTimeout}, drivers.With{})
	if err != nil {
		t.Fatal(err)
	}
	bus := opened.(*Bus)
	bus.line.(*rtuLine).open = func() (stream, error) {
		conn, err := dial()
		return conn, err
	}
	return bus
}

// tcp does the same with a connection.
func tcp(t *testing.T, dial func() (net.Conn, error)) *Bus {
	t.Helper()
	opened, err := OpenTCP(config.Bus{Timeout: testTimeout}, drivers.With{})
	if err != nil {
		t.Fatal(err)
	}
	bus := opened.(*Bus)
	bus.line.(*tcpLine).dial = func(context.Context) (net.Conn, error) { return dial() }
	return bus
}

// outcome is a Read's result in a line: values, or the failure and its detail.
func outcome(t *testing.T, bus *Bus, d config.Device) string {
	t.Helper()
	s, err := bus.Read(t.Context(), d)
	drivertest.CheckSample(t, d, s)
	var failed *drivers.Error
	switch {
	case errors.As(err, &failed):
		return strings.TrimSpace(failed.Why() + " " + failed.Detail)
	case err != nil:
		return err.Error()
	}
	return values(s)
}

func values(s drivers.Sample) string {
	var all []string
	for _, r := range s.Readings {
		all = append(all, r.Value.String())
	}
	return strings.Join(all, " ")
}

// reply is the answer of a device whose first two registers are value to a request for both.
func reply(request []byte, value uint32) []byte {
	b, err := hex.DecodeString(frame(fmt.Sprintf("%02x %02x 04 %08x", request[0], request[1], value)))
	if err != nil {
		panic(err)
	}
	return b
}

// good is an answer in hexadecimal to any RTU read request, all its data zero.
func good(request []byte) string {
	n := answerLength(request) - 5
	return frame(fmt.Sprintf("%02x %02x %02x", request[0], request[1], n) + strings.Repeat("00", n))
}
