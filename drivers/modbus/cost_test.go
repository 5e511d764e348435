package modbus

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/goburrow/modbus"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
)

// at9600 is the line that most meters are delivered for, 9600 Bd and 8N1.
func at9600() Line { return Line{Baud: 9600, CharacterBits: 10, RTU: true} }

func TestLineOf(t *testing.T) {
	for _, c := range []struct {
		name string
		bus  config.Bus
		want Line
	}{
		{"8N1", config.Bus{Kind: config.ModbusRTU, Baud: 9600, Parity: config.ParityNone, StopBits: 1}, Line{9600, 10, true}},
		{"8E1, the standard's own", config.Bus{Kind: config.ModbusRTU, Baud: 19200, Parity: config.ParityEven, StopBits: 1}, Line{19200, 11, true}},
		{"8N2", config.Bus{Kind: config.ModbusRTU, Baud: 4800, Parity: config.ParityNone, StopBits: 2}, Line{4800, 11, true}},
		{"8O2", config.Bus{Kind: config.ModbusRTU, Baud: 4800, Parity: config.ParityOdd, StopBits: 2}, Line{4800, 12, true}},
		{"converter in transparent mode", config.Bus{Kind: config.ModbusRTUTCP, Baud: 9600}, Line{9600, 10, true}},
		{"converter that speaks Modbus TCP", config.Bus{Kind: config.ModbusTCP, Baud: 9600, Parity: config.ParityEven}, Line{9600, 11, false}},
		{"device with Ethernet", config.Bus{Kind: config.ModbusTCP}, Line{0, 10, false}},
	} {
		if got := LineOf(c.bus); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// The times are worked out by hand: characters of ten or eleven bits, 3.5 characters of eleven bits or 1.75 ms.
func TestExchange(t *testing.T) {
	const ms = time.Millisecond
	registers := func(n int) request { return request{function: config.InputRegister, count: n} }
	for _, c := range []struct {
		name    string
		line    Line
		limits  config.ModbusLimits
		r       request
		latency time.Duration
		want    time.Duration
	}{
		{"one float", at9600(), config.ModbusLimits{}, registers(2), 20 * ms, 41_718_750},                               // 4.010416 + 80/9.6 + 20 + 90/9.6
		{"125 registers", at9600(), config.ModbusLimits{}, registers(125), 0, 277_968_749},                              // 4.010416 + 80/9.6 + 2550/9.6
		{"a refusal", at9600(), config.ModbusLimits{}, registers(0), 0, 17_552_082},                                     // 4.010416 + 80/9.6 + 50/9.6
		{"8 coils", at9600(), config.ModbusLimits{}, request{function: config.Coil, count: 8}, 0, 18_593_749},           // 4.010416 + 80/9.6 + 60/9.6
		{"9 inputs", at9600(), config.ModbusLimits{}, request{function: config.DiscreteInput, count: 9}, 0, 19_635_416}, // 4.010416 + 80/9.6 + 70/9.6
		{"parity", Line{19200, 11, true}, config.ModbusLimits{}, registers(1), 0, 10_598_957},                           // 2.005208 + 88/19.2 + 77/19.2
		{"fast", Line{38400, 10, true}, config.ModbusLimits{}, registers(1), 0, 5_656_249},                              // 1.75 + 80/38.4 + 70/38.4
		{"the device's pause", at9600(), config.ModbusLimits{InterFrameDelay: 100 * ms}, registers(2), 0, 117_708_333},
		{"a pause below t3.5", at9600(), config.ModbusLimits{InterFrameDelay: ms}, registers(2), 0, 21_718_749},
		{"through a converter, which keeps its own pauses", Line{9600, 10, false}, config.ModbusLimits{InterFrameDelay: 100 * ms}, registers(2), 0, 21_718_749},
		{"Ethernet", Line{}, config.ModbusLimits{InterFrameDelay: 100 * ms}, registers(125), 3 * ms, 3 * ms},
	} {
		// Each part is cut to whole nanoseconds.
		if got := c.line.exchange(c.limits, c.r, c.latency); max(got-c.want, c.want-got) > 3 {
			t.Errorf("%s: %d ns, want %d", c.name, got, c.want)
		}
	}
}

func TestPollTime(t *testing.T) {
	p := &config.Profile{Points: []config.Point{
		{Function: config.InputRegister, Address: 0, Type: config.F32}, {Function: config.InputRegister, Address: 100, Type: config.F32},
	}, Modbus: config.ModbusLimits{Turnaround: 200 * time.Millisecond}}
	one := at9600().exchange(p.Modbus, request{function: config.InputRegister, count: 2}, DefaultLatency)
	if total, requests := PollTime(at9600(), p, DefaultLatency); requests != 2 || total != 200*time.Millisecond+2*one {
		t.Errorf("%d requests, %s", requests, total)
	}
	if total, requests := PollTime(Line{}, p, time.Millisecond); requests != 2 || total != 2*time.Millisecond {
		t.Errorf("over Ethernet: %d requests, %s", requests, total)
	}
}

// The model is only worth something if it says what the driver then takes. The far side keeps the times of a real line.
func TestPollTakesAsLongAsReckoned(t *testing.T) {
	for _, b := range []config.Bus{{Baud: 9600}, {Baud: 1200, Parity: config.ParityEven}, {Baud: 115200, StopBits: 2}} {
		for _, limits := range []config.ModbusLimits{
			{}, {MaxHole: 40}, {InterFrameDelay: 100 * time.Millisecond, Turnaround: 200 * time.Millisecond}, {InterFrameDelay: time.Millisecond},
		} {
			synctest.Test(t, func(t *testing.T) {
				line := LineOf(b)
				near, far := drivertest.Wire()
				go func() {
					request := make([]byte, requestFrame)
					for {
						if _, err := far.Read(request); err != nil {
							return
						}
						time.Sleep(line.bytes(len(request)) + DefaultLatency + line.bytes(answerLength(request)))
						far.Write(raw(good(request)))
					}
				}()
				packager, rtu := modbus.NewRTUClientHandler(""), newRTULine(b, nil)
				rtu.open = func() (stream, error) { return near, nil }
				bus := newBus(b, packager, rtu, func(unit byte) { packager.SlaveId = unit }, drivers.With{})
				defer bus.Close()
				model := &config.Profile{Modbus: limits, Points: []config.Point{
					{Name: "a", Function: config.InputRegister, Address: 0, Type: config.F32}, {Name: "b", Function: config.InputRegister, Address: 10, Type: config.U16},
					{Name: "c", Function: config.InputRegister, Address: 50, Type: config.U64}, {Name: "d", Function: config.DiscreteInput, Address: 3, Type: config.Bool},
				}}
				for _, unit := range []int{1, 2} {
					begin := time.Now()
					d := config.Device{Name: "meter", Unit: unit, Model: model}
					if _, err := bus.Read(t.Context(), d); err != nil {
						t.Fatal(err)
					}
					want, _ := PollTime(line, model, DefaultLatency)
					if took := time.Since(begin); unit == 2 && took != want { // the line never rested before the second
						t.Errorf("%d Bd, %+v: took %s, reckoned %s", b.Baud, limits, took, want)
					}
				}
			})
		}
	}
}
