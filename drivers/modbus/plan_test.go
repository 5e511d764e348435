package modbus

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"hubagent/config"
)

// checkPlan reports what a plan must never do.
func checkPlan(t *testing.T, p *config.Profile, requests []request) {
	t.Helper()
	limits, seen := p.Modbus, make([]int, len(p.Points))
	for _, r := range requests {
		most := cmp.Or(limits.MaxRegisters, defaultMaxRegisters)
		if r.isBits() {
			most = cmp.Or(limits.MaxBits, defaultMaxBits)
		}
		if r.count < 1 || r.count > most {
			t.Errorf("%s: %d, the most is %d", r, r.count, most)
		}
		if r.start < 0 || r.start+r.count > 0x10000 {
			t.Errorf("%s is outside the address space", r)
		}
		if limits.EvenOnly && !r.isBits() && (r.start%2 != 0 || r.count%2 != 0) {
			t.Errorf("%s: start %d and count %d, both must be even", r, r.start, r.count)
		}
		needed := make([]bool, r.count)
		for _, i := range r.points {
			seen[i]++
			point := p.Points[i]
			at, size := point.Address-r.start, max(1, point.Type.Registers())
			if point.Function != r.function || at < 0 || at+size > r.count {
				t.Errorf("%s does not hold all of %s %d", r, point.Function, point.Address)
				continue
			}
			for k := range size {
				needed[at+k] = true
			}
		}
		hole := 0
		for k, n := range needed {
			hole++
			if n {
				hole = 0
			}
			allowed := limits.MaxHole
			if limits.EvenOnly && !r.isBits() {
				allowed += 2 // a register at each side of the hole that evenness takes along
			}
			if hole > allowed {
				t.Errorf("%s: hole of %d at %d, the most is %d", r, hole, r.start+k, limits.MaxHole)
				break
			}
		}
	}
	for i, n := range seen {
		if n != 1 {
			t.Errorf("point %d is in %d requests", i, n)
		}
	}
	if len(requests) > len(p.Points) {
		t.Errorf("%d requests for %d points", len(requests), len(p.Points))
	}
}

func TestPlanProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	types := []config.Type{config.U16, config.S16, config.U32, config.F32, config.U64, config.F64}
	for n := range 3000 {
		p := &config.Profile{Modbus: config.ModbusLimits{
			MaxRegisters: []int{0, 4, 10, 60, 125}[random.IntN(5)], MaxBits: []int{0, 1, 8, 2000}[random.IntN(4)],
			EvenOnly: random.IntN(2) == 0, MaxHole: random.IntN(5) * random.IntN(5),
		}}
		base := random.IntN(2) * (0x10000 - 300)
		for address := 0; len(p.Points) < 1+random.IntN(60) && address < 290; address += random.IntN(8) {
			point := config.Point{Function: config.HoldingRegister, Address: base + address, Type: types[random.IntN(len(types))]}
			switch random.IntN(4) {
			case 0:
				point.Function = config.InputRegister
			case 1:
				point.Function, point.Type = config.Coil, config.Bool
			case 2:
				point.Function, point.Type = config.DiscreteInput, config.Bool
			}
			if p.Modbus.EvenOnly && point.Type != config.Bool {
				point.Address -= point.Address % 2 // config takes no other
			}
			p.Points = append(p.Points, point)
			address += max(1, point.Type.Registers()) - 1
		}
		random.Shuffle(len(p.Points), func(i, j int) { p.Points[i], p.Points[j] = p.Points[j], p.Points[i] })
		checkPlan(t, p, plan(p))
		if t.Failed() {
			t.Fatalf("profile %d: %+v", n, p)
		}
	}
}

func TestPlansOfShippedProfiles(t *testing.T) {
	profiles, err := config.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	most := map[string]string{ // what a poll costs; more requests would not be wrong, but slow
		"acrel-adl400": "7", "eastron-sdm630": "3", "hub-bin": "1", "waveshare-io-8ch-camera": "1",
	}
	for _, p := range profiles {
		if p.Points[0].Function == config.Line {
			continue
		}
		t.Run(p.ID, func(t *testing.T) {
			requests := plan(p)
			checkPlan(t, p, requests)
			var texts []string
			for _, r := range requests {
				texts = append(texts, r.String())
			}
			if got := fmt.Sprint(len(requests)); most[p.ID] != "" && got != most[p.ID] {
				t.Errorf("%s requests, want %s: %s", got, most[p.ID], strings.Join(texts, ", "))
			}
		})
	}
}

func TestPlanJoins(t *testing.T) {
	point := func(f config.Function, address int, kind config.Type) config.Point {
		return config.Point{Function: f, Address: address, Type: kind}
	}
	const in, hold = config.InputRegister, config.HoldingRegister
	for _, c := range []struct {
		name   string
		limits config.ModbusLimits
		points []config.Point
		want   []string
	}{
		{"neighbours", config.ModbusLimits{}, []config.Point{point(in, 2, config.F32), point(in, 0, config.F32)}, []string{"input register 0-3"}},
		{"a hole, forbidden", config.ModbusLimits{}, []config.Point{point(in, 0, config.U16), point(in, 2, config.U16)}, []string{"input register 0", "input register 2"}},
		{"a hole, allowed", config.ModbusLimits{MaxHole: 1}, []config.Point{point(in, 0, config.U16), point(in, 2, config.U16)}, []string{"input register 0-2"}},
		{"two tables", config.ModbusLimits{MaxHole: 9}, []config.Point{point(in, 0, config.U16), point(hold, 1, config.U16)}, []string{"holding register 1", "input register 0"}},
		{"the most", config.ModbusLimits{MaxRegisters: 4}, []config.Point{point(in, 0, config.F32), point(in, 2, config.F32), point(in, 4, config.F32)}, []string{"input register 0-3", "input register 4-5"}},
		{"never torn", config.ModbusLimits{MaxRegisters: 5}, []config.Point{point(in, 0, config.U64), point(in, 4, config.U32)}, []string{"input register 0-3", "input register 4-5"}},
		{"even", config.ModbusLimits{EvenOnly: true}, []config.Point{point(in, 2, config.U16), point(in, 4, config.U16)}, []string{"input register 2-5"}},
		{"one point twice", config.ModbusLimits{}, []config.Point{point(in, 0, config.U32), point(in, 1, config.U16)}, []string{"input register 0-1"}},
		{"bits", config.ModbusLimits{MaxBits: 8}, bits(config.Coil, 3, 10), []string{"coil 3-10", "coil 11-12"}},
	} {
		p := &config.Profile{Modbus: c.limits, Points: c.points}
		var got []string
		for _, r := range plan(p) {
			got = append(got, r.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
