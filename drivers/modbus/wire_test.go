package modbus

import (
	"context"
	"net"
	"testing"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
	"hubagent/drivers/sim"
)

// farEnd is the slaves' end of a line. It adds up how long the line was idle for the master's sake: from the last byte of
// an answer to the first of the next request.
type farEnd struct {
	net.Conn
	written time.Time
	idle    time.Duration
}

func (f *farEnd) Write(b []byte) (int, error) {
	n, err := f.Conn.Write(b)
	f.written = time.Now()
	return n, err
}

func (f *farEnd) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if n > 0 && !f.written.IsZero() {
		f.idle += time.Since(f.written)
		f.written = time.Time{}
	}
	return n, err
}

// BenchmarkWireUse polls eight devices one right after the other over a simulated 9,600 Bd line, in real time. It reports
// which share of the time the line and the slaves need: bytes, silences, the pauses of the profile and the slaves' delay.
// What remains is what the master idles beyond them; the simulated slaves' own timers are not counted against it.
func BenchmarkWireUse(b *testing.B) {
	for _, id := range []string{"eastron-sdm630", "chint-ddsu666", "hub-bin"} {
		b.Run(id, func(b *testing.B) {
			const latency = 10 * time.Millisecond
			model := profile(b, id)
			bus := config.Bus{Name: "line", Kind: config.ModbusRTU, Baud: 9600, Parity: config.ParityNone, StopBits: 1}
			for unit := 1; unit <= 8; unit++ {
				bus.Devices = append(bus.Devices, config.Device{Name: "meter", Unit: unit, Model: model, Interval: time.Second})
			}
			site := sim.New(sim.World{Seed: 1, Start: time.Now()})
			site.Latency = latency
			near, end := drivertest.Wire()
			far := &farEnd{Conn: end}
			stop := task(b, func(ctx context.Context) error { return site.ServeRTU(ctx, far, bus) })
			opened, err := OpenRTU(bus, drivers.With{})
			if err != nil {
				b.Fatal(err)
			}
			opened.(*Bus).line.(*rtuLine).open = func() (stream, error) { return net.Conn(near), nil }
			need, requests := PollTime(LineOf(bus), model, latency)
			rounds := 0
			for b.Loop() {
				for _, d := range bus.Devices {
					if _, err := opened.Read(b.Context(), d); err != nil {
						b.Fatal(err)
					}
				}
				rounds++
			}
			opened.Close()
			stop()
			// The pauses that the model counts, which the line spends between answer and request.
			pauses := need - time.Duration(requests)*latency
			for _, r := range plan(model, LineOf(bus), latency) {
				pauses -= LineOf(bus).bytes(requestFrame + r.answerFrame())
			}
			polls := time.Duration(rounds * len(bus.Devices))
			before := LineOf(bus).silence() // the first request's, which follows no answer
			before = max(before, model.Modbus.InterFrameDelay) + model.Modbus.Turnaround
			idle := far.idle - polls*pauses + before
			b.ReportMetric(100*float64(polls*need)/float64(polls*need+idle), "%wire")
		})
	}
}
