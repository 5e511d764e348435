package poll

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
	"hubagent/drivers/modbus"
	"hubagent/drivers/sim"
)

// meters is a 9,600 Bd line of so many meters, every twentieth of them of another, slower model.
func meters(t *testing.T, count int, interval time.Duration) config.Bus {
	t.Helper()
	profiles, err := config.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	model := map[string]*config.Profile{}
	for _, p := range profiles {
		model[p.ID] = p
	}
	b := config.Bus{Name: "line", Kind: config.ModbusRTU, Baud: 9600, Parity: config.ParityNone, StopBits: 1}
	for i := range count {
		d := config.Device{Name: fmt.Sprintf("meter-%02d", i+1), Unit: i + 1, Model: model["chint-ddsu666"], Interval: interval}
		if i%20 == 3 {
			d.Model, d.Interval = model["eastron-sdm630"], 2*interval
		}
		b.Devices = append(b.Devices, d)
	}
	return b
}

// What is predicted of a line comes true within a tenth: the real scheduler with the real driver, and simulated meters
// on a line that takes the time of its bytes, of which a share never answers.
func TestPrediction(t *testing.T) {
	const latency = 20 * time.Millisecond
	for _, c := range []struct {
		count    int
		interval time.Duration
		dead     float64
	}{
		{20, 10 * time.Second, 0}, {20, 10 * time.Second, 0.05}, {10, 15 * time.Second, 0.01}, {30, 10 * time.Second, 0},
	} {
		t.Run(fmt.Sprintf("%d meters, %s, %g dead", c.count, c.interval, c.dead), func(t *testing.T) {
			bus := meters(t, c.count, c.interval)
			want := Predict(bus, c.dead, latency)
			synctest.Test(t, func(t *testing.T) {
				site := sim.New(sim.World{Seed: 3, Start: time.Now()})
				site.Latency = latency
				var mute []int
				for i := range want.Dead {
					mute = append(mute, bus.Devices[i*len(bus.Devices)/want.Dead].Unit)
				}
				if mute != nil {
					site.SetFaults(sim.Fault{Kind: sim.Silent, Units: mute, P: 1})
				}
				master, slaves := drivertest.Wire()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
				defer cancel()
				ended := make(chan struct{})
				go func() { defer close(ended); site.ServeRTU(ctx, slaves, bus) }()
				driver := modbus.OpenLine(bus, drivers.With{}, master)
				begin := time.Now()
				last := map[string]time.Time{}
				var late, most, interval time.Duration
				var busyAtHalf time.Duration
				var b *Bus
				emit := func(_ context.Context, s drivers.Sample) {
					if !s.Answered() {
						return
					}
					now := time.Now()
					if now.Sub(begin) > 10*time.Minute {
						if busyAtHalf == 0 {
							busyAtHalf = b.Load().Busy
						}
						for _, d := range bus.Devices {
							if age := now.Sub(last[s.Device]); d.Name == s.Device && age-d.Interval > late {
								late, most, interval = age-d.Interval, age, d.Interval
							}
						}
					}
					last[s.Device] = now
				}
				b = New(bus, driver, emit, slog.New(slog.DiscardHandler))
				b.Run(ctx)
				<-ended
				busy := (b.Load().Busy - busyAtHalf).Seconds() / (10 * time.Minute).Seconds()
				t.Logf("load %.0f %%; busy %.1f %%, predicted %.1f %%; age at most %s of %s, predicted %s of %s", 100*want.Load, 100*busy, 100*want.Busy, most, interval, want.Age, want.Interval)
				if busy < 0.9*want.Busy || busy > 1.1*want.Busy {
					t.Errorf("busy %.3f of the time, predicted %.3f", busy, want.Busy)
				}
				if most < want.Age*9/10 || most > want.Age*11/10 {
					t.Errorf("readings at most %s old, predicted %s", most, want.Age)
				}
			})
		})
	}
}

func TestMend(t *testing.T) {
	bus := meters(t, 40, 10*time.Second)
	f := Predict(bus, 0, 0)
	if f.Fits() || f.Load < 1.2 || f.Left == 0 {
		t.Fatalf("40 meters each 10 s fit: %+v", f)
	}
	r := Mend(bus, f, 0)
	for i := range bus.Devices {
		bus.Devices[i].Interval = time.Duration(float64(bus.Devices[i].Interval) * r.Stretch)
	}
	if longer := Predict(bus, 0, 0); !longer.Fits() || longer.Load > comfortable+0.01 {
		t.Errorf("with %+v: %+v", r, longer)
	}
	if r.Lines < 2 {
		t.Errorf("%+v of %+v", r, f)
	}
	if none := Predict(config.Bus{Kind: config.ModbusRTU, Baud: 9600}, 0.05, 0); none.Load != 0 || none.Dead != 0 {
		t.Errorf("a bus without devices: %+v", none)
	}
}
