package sim

import (
	"math"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"hubagent/config"
)

var worlds = map[string]World{
	"demo":     demoWorld(),
	"real":     {Seed: 7, Start: start},
	"midnight": {Seed: 1, Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Day: time.Hour},
}

// after turns a random number into an instant within ten days of the world's making.
func after(w World, n uint32) time.Time {
	return w.Start.Add(time.Duration(float64(n) / math.MaxUint32 * 10 * float64(w.day())))
}

func value(w World, kind config.DeviceKind, name, unit string, at time.Time) float64 {
	d := config.Device{Name: "device-001", Model: &config.Profile{Kind: kind}}
	return w.Value(d, config.Point{Name: name, Type: config.F64, Unit: unit}, at)
}

func eachWorld(t *testing.T, holds func(w World) any) {
	for name, w := range worlds {
		t.Run(name, func(t *testing.T) {
			if err := quick.Check(holds(w), &quick.Config{MaxCount: 200}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCountersOnlyGrow(t *testing.T) {
	eachWorld(t, func(w World) any {
		return func(a, b uint32) bool {
			early, late := after(w, min(a, b)), after(w, max(a, b))
			for _, c := range []struct {
				kind config.DeviceKind
				name string
			}{{config.Bin, "deposits"}, {config.Bin, "correct"}, {config.Bin, "deposits_kitchen"}, {config.Meter, "energy_import"}} {
				if value(w, c.kind, c.name, "", early) > value(w, c.kind, c.name, "", late) {
					return false
				}
			}
			return true
		}
	})
}

func TestBinAgreesWithItself(t *testing.T) {
	eachWorld(t, func(w World) any {
		return func(n uint32) bool {
			at := after(w, n)
			deposits, correct := value(w, config.Bin, "deposits", "", at), value(w, config.Bin, "correct", "", at)
			fill, weight := value(w, config.Bin, "fill", "%", at), value(w, config.Bin, "weight", "kg", at)
			return deposits == math.Trunc(deposits) && correct == math.Trunc(correct) &&
				correct <= deposits && math.Abs(correct/deposits-0.92) < 0.01 &&
				fill >= 0 && fill <= 100 && weight > 0 && weight < 60 && math.Abs(fill-weight*2.6) < 26
		}
	})
}

// Every step of a counter is one deposit, and a correct one is never counted without it.
func TestDepositsComeOneByOne(t *testing.T) {
	w := demoWorld()
	var deposits, correct, fill, collections float64
	for at := start; at.Before(start.Add(2 * DemoDay)); at = at.Add(40 * time.Millisecond) {
		d, c, f := value(w, config.Bin, "deposits", "", at), value(w, config.Bin, "correct", "", at), value(w, config.Bin, "fill", "%", at)
		if at.After(start) && (d-deposits > 1 || c-correct > d-deposits || f > fill+2) {
			t.Fatalf("at %s deposits %v -> %v, correct %v -> %v, fill %v -> %v", at, deposits, d, correct, c, fill, f)
		}
		if f < fill {
			collections++
			if f != fillAfter {
				t.Errorf("after a collection the fill is %v", f)
			}
		}
		deposits, correct, fill = d, c, f
	}
	if grown := deposits - value(w, config.Bin, "deposits", "", start); grown < 300 || grown > 500 {
		t.Errorf("%v deposits in two days", grown)
	}
	if collections != 4 {
		t.Errorf("%v collections in two days", collections)
	}
}

func TestMorningsAndEveningsAreBusy(t *testing.T) {
	w := World{Seed: 7, Start: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)}
	in := func(from, to float64) float64 {
		at := func(hour float64) time.Time { return w.Start.Add(time.Duration(hour * float64(time.Hour))) }
		return value(w, config.Bin, "deposits", "", at(to)) - value(w, config.Bin, "deposits", "", at(from))
	}
	if morning, noon, evening := in(6, 9), in(12, 15), in(18, 21); morning < 3*noon || evening < 3*noon {
		t.Errorf("deposits: %v in the morning, %v after noon, %v in the evening", morning, noon, evening)
	}
}

func TestEnergyAdvancesAsPowerSays(t *testing.T) {
	eachWorld(t, func(w World) any {
		return func(n uint32) bool {
			const step = 200 * time.Millisecond
			begin := after(w, n)
			var wattSeconds float64
			for i := range 150 { // Simpson's rule: its error here is far below the tolerance
				at := begin.Add(time.Duration(i) * step)
				power := func(at time.Time) float64 { return value(w, config.Meter, "power_active", "W", at) }
				wattSeconds += step.Seconds() / 6 * (power(at) + 4*power(at.Add(step/2)) + power(at.Add(step)))
			}
			advance := value(w, config.Meter, "energy_import", "W.h", begin.Add(150*step)) -
				value(w, config.Meter, "energy_import", "W.h", begin)
			return math.Abs(advance-wattSeconds/3600) < 1e-6*advance
		}
	})
}

func TestMeterAgreesWithItself(t *testing.T) {
	eachWorld(t, func(w World) any {
		return func(n uint32) bool {
			at := after(w, n)
			read := func(name, unit string) float64 { return value(w, config.Meter, name, unit, at) }
			var sum float64
			for _, phase := range []string{"_l1", "_l2", "_l3"} {
				voltage, current, power := read("voltage"+phase, "V"), read("current"+phase, "A"), read("power_active"+phase, "W")
				if math.Abs(voltage-230) > 3 || power <= 0 || math.Abs(voltage*current*read("power_factor", "1")-power) > 1e-9*power {
					return false
				}
				sum += power
			}
			active, apparent, reactive := read("power_active", "W"), read("power_apparent", "VA"), read("power_reactive", "var")
			return math.Abs(sum-active) < 1e-9*sum && math.Abs(math.Hypot(active, reactive)-apparent) < 1e-9*apparent &&
				math.Abs(read("frequency", "Hz")-50) < 0.1 && math.Abs(read("power_active", "kW")*1000-active) < 1e-9*active
		}
	})
}

func TestContacts(t *testing.T) {
	w := demoWorld()
	for _, c := range []struct {
		kind          config.DeviceKind
		name          string
		usual         float64
		least, most   time.Duration // of one event
		events, delta int           // in a day
	}{
		{config.Camera, "alarm", 0, 5 * time.Second, 5 * time.Second, 20, 1},
		{config.Camera, "fault", 0, 4 * time.Second, 8 * time.Second, 2, 1},
		{config.Contact, "fault", 0, 4 * time.Second, 8 * time.Second, 10, 1},
		{config.Contact, "running", 1, 4 * time.Second, 8 * time.Second, 10, 1},
	} {
		d := config.Device{Name: "device-001", Model: &config.Profile{Kind: c.kind}}
		p := config.Point{Name: c.name, Type: config.Bool}
		events, since := 0, time.Time{}
		for at := start; at.Before(start.Add(DemoDay)); at = at.Add(10 * time.Millisecond) {
			switch unusual := w.Value(d, p, at) != c.usual; {
			case unusual && since.IsZero():
				since = at
			case !unusual && !since.IsZero():
				if lasted := at.Sub(since); lasted < c.least-20*time.Millisecond || lasted > c.most+20*time.Millisecond {
					t.Errorf("%s %s lasted %s", c.kind, c.name, lasted)
				}
				events, since = events+1, time.Time{}
			}
		}
		if events < c.events-c.delta || events > c.events {
			t.Errorf("%s %s: %d events in a day", c.kind, c.name, events)
		}
	}
}

func TestUnknownPointStaysInItsRange(t *testing.T) {
	w := demoWorld()
	for _, p := range []config.Point{
		{Name: "rssi", Type: config.U16, Scale: config.Decimal{Mantissa: 1, Exponent: -3}},
		{Name: "rssi", Type: config.S16, Scale: config.Decimal{Mantissa: 1}},
		{Name: "rssi", Type: config.S16, Scale: config.Decimal{Mantissa: -1}},
		{Name: "rssi", Type: config.U64},
		{Name: "rssi", Type: config.F32},
		{Name: "rssi", Type: config.Bool},
	} {
		low, high := valueRange(p)
		seen := map[float64]bool{}
		for n := range 120 {
			d := config.Device{Name: "device-001", Model: &config.Profile{Kind: config.Bin}}
			v := w.Value(d, p, start.Add(time.Duration(n)*time.Second))
			if v < low || v > high {
				t.Fatalf("%s: %v is not in [%v, %v]", p.Type, v, low, high)
			}
			seen[v] = true
		}
		if len(seen) < 2 {
			t.Errorf("%s: never changes", p.Type)
		}
	}
}

// What a profile says of a point that World does not know by name.
func TestPointsByTheirProfile(t *testing.T) {
	w := demoWorld()
	number := func(name string, typ config.Type) config.Point {
		return config.Point{Name: name, Function: config.HoldingRegister, Type: typ}
	}
	codes, counter, power, ratio := number("mode", config.U16), number("starts", config.U16), number("power_sf", config.S16), number("ct", config.U16)
	codes.Codes = []config.Code{{Value: 0}, {Value: 3}, {Value: 7}}
	counter.Counter, counter.Unit = true, "{count}"
	scaled, current, voltage := number("power_active", config.S16), number("current_l1", config.U16), number("voltage_l1", config.U16)
	scaled.ScalePower, scaled.Unit = "power_sf", "W"
	current.ScaleFactor, current.Scale, current.Unit = "ct", config.Decimal{Mantissa: 1, Exponent: -2}, "A"
	voltage.ScaleFactor, voltage.Unit = "vt", "V"
	vt := number("vt", config.U16)
	d := config.Device{Name: "device-001", Model: &config.Profile{ID: "model-1", Kind: config.Meter,
		Points: []config.Point{codes, counter, power, ratio, scaled, current, voltage, vt}}}
	seen, last := map[float64]bool{}, 0.0
	for n := range 2000 {
		at := start.Add(time.Duration(n) * time.Minute)
		seen[w.Value(d, codes, at)] = true
		if v := w.Value(d, counter, at); v < last {
			t.Fatalf("the counter falls from %v to %v", last, v)
		} else {
			last = v
		}
	}
	if len(seen) != 3 || !seen[0] || !seen[3] || !seen[7] {
		t.Errorf("codes seen: %v", seen)
	}
	later := start.Add(time.Hour)
	// Some 6 kW do not fit an s16 in steps of 0.1 W, with room for four times as much, nor in whole watts with less.
	if got := w.Value(d, power, later); got != 0 || w.factor(d, scaled) != 1 {
		t.Errorf("power of ten %v, factor %v", got, w.factor(d, scaled))
	}
	if got := w.Value(d, ratio, later); got != 20 || w.factor(d, current) != 20 {
		t.Errorf("ratio %v, factor %v", got, w.factor(d, current))
	}
	if got := w.Value(d, vt, later); got != 1 {
		t.Errorf("ratio of voltages %v", got)
	}
	for name, want := range map[string]string{"model": "model-1", "location": "device-001", "model_name": "mod"} {
		length := map[bool]int{true: 2, false: 8}[name == "model_name"]
		p := config.Point{Name: name, Type: config.ASCII, Length: length}
		if got := w.Text(d, p); !strings.HasPrefix(got, want) || len(got) > 2*length {
			t.Errorf("%s says %q, want %q", name, got, want)
		}
	}
	serial := config.Point{Name: "serial_number", Type: config.ASCII, Length: 8}
	other := d
	other.Name = "device-002"
	if a, b := w.Text(d, serial), w.Text(other, serial); a == b || strings.Trim(a, "0123456789") != "" || len(a) != 12 {
		t.Errorf("serial numbers %q and %q", a, b)
	}
}

func TestSeedsDiffer(t *testing.T) {
	a, b := demoWorld(), demoWorld()
	b.Seed++
	same := 0
	for n := range 100 {
		at := start.Add(time.Duration(n) * time.Second)
		if value(a, config.Bin, "deposits", "", at) != value(demoWorld(), config.Bin, "deposits", "", at) {
			t.Fatal("one seed, two worlds")
		}
		if value(a, config.Bin, "deposits", "", at) == value(b, config.Bin, "deposits", "", at) {
			same++
		}
	}
	if same > 50 {
		t.Errorf("two seeds agree in %d of 100 values", same)
	}
}
