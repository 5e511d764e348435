package sim

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/modbus"
)

// profilesWithReference are the shipped profiles and the one that has every key there is.
func profilesWithReference(t *testing.T) []*config.Profile {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "reference-profile.yaml"), []byte(config.ReferenceProfile()), 0o644); err != nil {
		t.Fatal(err)
	}
	profiles, err := config.Profiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	return profiles
}

// truth is the range of a point's values from begin to end, as its registers resolve them.
func truth(w World, d config.Device, p config.Point, begin, end time.Time) (low, high, span float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for n := range 21 {
		v := w.Value(d, p, begin.Add(end.Sub(begin)*time.Duration(n)/20))
		low, high = min(low, v), max(high, v)
	}
	scale := w.factor(d, p)
	if p.Scale.Mantissa != 0 {
		scale *= math.Abs(p.Scale.Float64())
	}
	switch p.Type {
	case config.F32:
		step := 1.2e-7 * max(math.Abs(low), math.Abs(high)) // 2^-24, twice rounded
		return low - step, high + step, 0
	case config.F64:
		return low, high, 0
	case config.Bool:
		return low, high, 0
	}
	if p.Counter {
		_, end := rawRange(p)
		span = end * scale
	}
	return low - 0.5001*scale, high + 0.5001*scale, span
}

// What a master reads of a device, through package modbus, is what World says: for every shipped profile by Modbus TCP,
// and for every key that a profile can have on every kind of Modbus bus.
func TestRoundTrip(t *testing.T) {
	openers := map[config.BusKind]drivers.OpenFunc{
		config.ModbusTCP: modbus.OpenTCP, config.ModbusRTUTCP: modbus.OpenRTUTCP, config.ModbusRTU: modbus.OpenRTU,
	}
	var buses []config.Bus
	for kind := range openers {
		bus := config.Bus{Name: string(kind), Kind: kind, Baud: 9600, Parity: config.ParityNone, StopBits: 1, Timeout: 5 * time.Second}
		for i, model := range profilesWithReference(t) {
			if model.Points[0].Function != config.Line && (kind == config.ModbusTCP || model.ID == "reference-profile") {
				bus.Devices = append(bus.Devices, config.Device{Name: fmt.Sprintf("device-%d", i+1), Unit: i + 1, Model: model})
			}
		}
		buses = append(buses, bus)
	}
	// Counters begin anywhere, and World's clock runs on: each run sees other values.
	world := World{Seed: uint64(time.Now().UnixNano()), Start: time.Now(), Day: DemoDay}
	hub, err := Setup{World: world, Dir: t.TempDir(), Host: "127.0.0.1", Fast: true}.Open(buses)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := hub.Close(); err != nil {
			t.Error(err)
		}
	})
	begin(t, hub.Serve)
	for i, b := range hub.Buses {
		t.Run(b.Name, func(t *testing.T) {
			if b.Kind == config.ModbusRTU {
				b.Baud = 115200 // of the master: the pseudo-terminal does not care
			}
			bus, err := openers[b.Kind](b, drivers.With{})
			if err != nil {
				t.Fatal(err)
			}
			defer bus.Close()
			for _, d := range b.Devices {
				for range 2 {
					begun := time.Now()
					sample, err := bus.Read(t.Context(), d)
					if err != nil {
						t.Errorf("seed %d: %v", world.Seed, err)
						break
					}
					for k, p := range d.Model.Points {
						compare(t, world, d, p, sample.Readings[k], begun)
					}
				}
				for _, w := range d.Model.Writes {
					for _, raw := range w.Allowed {
						if err := bus.(drivers.Writer).Write(t.Context(), d, w, raw); err != nil && w.Function != config.Line {
							t.Errorf("%s %s = %d: %v", d.Profile, w.Name, raw, err)
						}
					}
				}
			}
			if n := &hub.Sites[i].Counts; n.Requests.Load() == 0 || n.Exceptions.Load() != 0 || n.Faults.Load() != 0 {
				t.Errorf("%d requests, %d exceptions, %d faults", n.Requests.Load(), n.Exceptions.Load(), n.Faults.Load())
			}
		})
	}
}

// compare sees whether a reading taken since begun is what World says.
func compare(t *testing.T, world World, d config.Device, p config.Point, r drivers.Reading, begun time.Time) {
	t.Helper()
	name := d.Model.ID + " " + p.Name
	if r.Quality != drivers.Good {
		t.Errorf("%s has quality %d (%s), seed %d", name, r.Quality, r.Why, world.Seed)
		return
	}
	if p.Type == config.ASCII {
		if text, _ := r.Value.AsText(); text != strings.TrimSpace(world.Text(d, p)) || text == "" {
			t.Errorf("%s says %q, want %q", name, text, world.Text(d, p))
		}
		return
	}
	got, ok := r.Value.Float64()
	low, high, span := truth(world, d, p, begun, time.Now())
	if span > 0 { // the counter shows what is left of it
		rounds := math.Floor(low / span)
		low, high = low-rounds*span, high-rounds*span
		if got < low && got+span >= low {
			got += span
		}
	}
	if !ok || got < low || got > high {
		t.Errorf("%s is %v, want %v to %v, seed %d", name, r.Value, low, high, world.Seed)
	}
}

// The task of a bus ends with an error when its port is taken away, and the others with it.
func TestHubEndsWithItsFirstBus(t *testing.T) {
	hub, err := Setup{World: demoWorld(), Dir: t.TempDir(), Host: "127.0.0.1"}.Open([]config.Bus{
		{Name: "bins", Kind: config.ModbusTCP}, {Name: "annex", Kind: config.ModbusRTUTCP}, {Name: "meters", Kind: config.ModbusRTU},
	})
	if err != nil {
		t.Fatal(err)
	}
	hub.closers[0]()
	if err := hub.Serve(context.Background()); err == nil || !strings.Contains(err.Error(), "accept") {
		t.Errorf("Serve: %v", err)
	}
	if err := hub.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}
