package scan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"hubagent/config"
	"hubagent/drivers"
)

// Fit is a profile whose points give sense when they are read from a device.
type Fit struct {
	Profile string `json:"profile"`
	Sure    bool   `json:"sure"`  // every sign that the profile names for its model holds, and few other devices would show them; otherwise only usual values do
	Signs   []Sign `json:"signs"` // what was read

	kind   config.DeviceKind
	chance float64
}

// Sign is a point that was read to recognise a device by.
type Sign struct {
	Point string `json:"point"`
	Value string `json:"value"`
	Unit  string `json:"unit"`
	Fits  bool   `json:"fits"`
}

// String is the reason in words.
func (f Fit) String() string {
	var all []string
	for _, s := range f.Signs {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", s.Point, s.Value, s.Unit)))
	}
	text := f.Profile + ": " + strings.Join(all, ", ")
	if !f.Sure {
		text += " (weak)"
	}
	return text
}

// sight is how to look at a device with a profile's eyes.
type sight struct {
	model   *config.Profile // with no points but those to look at
	expects map[string]span
	chance  float64 // that registers of any content show all signs that the profile names; 1 if it names none
}

// sureChance is the most that may be left to chance for a profile to be sure of its model. Two signs such as a voltage
// of up to 300 V in a register that goes to 655 V are met by one device in five.
const sureChance = 0.01

func (s sight) sure() bool { return s.chance <= sureChance }

// span is what a point must read.
type span struct {
	least, most float64
	named       bool // by the profile itself
}

// sights makes them of the Modbus profiles that can tell anything.
func sights(profiles []*config.Profile) []sight {
	var all []sight
	for _, p := range profiles {
		s := sight{expects: map[string]span{}, chance: 1}
		for _, sign := range p.Identity {
			s.expects[sign.Point] = span{sign.Least.Float64(), sign.Most.Float64(), true}
		}
		for _, point := range p.Points {
			if want := s.expects[point.Name]; want.named {
				s.chance *= want.chance(point)
			}
		}
		seen := map[span]bool{}
		for _, point := range p.Points {
			// The first of each usual kind is enough. Of a model that is sure, more of them tell it from its smaller
			// relatives: their other phases are zero, or no registers at all.
			if usual, ok := usual(p.Kind, point); ok && (!seen[usual] || s.sure()) {
				seen[usual] = true
				if _, named := s.expects[point.Name]; !named {
					s.expects[point.Name] = usual
				}
			}
		}
		s.model = Only(p, slices.Collect(maps.Keys(s.expects)))
		if len(s.expects) > 0 && !slices.ContainsFunc(p.Points, func(point config.Point) bool { return point.Function == config.Line }) {
			all = append(all, s)
		}
	}
	return all
}

// chance is the part of all contents of a point's registers that lies within the span.
func (s span) chance(p config.Point) float64 {
	bits := 16 * p.Registers()
	if p.Bits.Width > 0 {
		bits = p.Bits.Width
	}
	switch p.Type {
	case config.F32:
		return float64(rank32(s.most)-rank32(s.least)) / (1 << 32)
	case config.F64:
		return float64(rank64(s.most)-rank64(s.least)) / (1 << 64)
	case config.ASCII, config.Bool: // a state is 0 or 1 on any device
		return 1
	}
	contents := math.Exp2(float64(bits))
	if strings.HasPrefix(string(p.Type), "bcd") {
		contents = math.Pow10(bits / 4)
	}
	return min(1, ((s.most-s.least)/math.Abs(p.Scale.Float64())+1)/contents)
}

// rank32 is the place of a value among all 32-bit floats in their order; rank64 is that of a 64-bit one.
func rank32(v float64) uint32 {
	bits := math.Float32bits(float32(v))
	if bits>>31 == 1 {
		return ^bits
	}
	return bits | 1<<31
}

func rank64(v float64) uint64 {
	bits := math.Float64bits(v)
	if bits>>63 == 1 {
		return ^bits
	}
	return bits | 1<<63
}

// usual is what points of common names read on any device that is well.
func usual(kind config.DeviceKind, p config.Point) (span, bool) {
	name := p.Name
	switch {
	case name == "frequency" && p.Unit == "Hz":
		return span{45, 65, false}, true
	case kind == config.Meter && p.Unit == "V" && (name == "voltage" || strings.HasPrefix(name, "voltage_l") && len(name) == len("voltage_l1")):
		return span{80, 280, false}, true
	case name == "fill" && p.Unit == "%":
		return span{0, 100, false}, true
	}
	return span{}, false
}

// Only is a profile with no points but the named ones, and those that they are scaled by.
func Only(p *config.Profile, names []string) *config.Profile {
	wanted := map[string]bool{}
	for _, point := range p.Points {
		if slices.Contains(names, point.Name) {
			wanted[point.Name], wanted[point.ScalePower], wanted[point.ScaleFactor] = true, true, true
		}
	}
	model := *p
	model.Points = slices.DeleteFunc(slices.Clone(p.Points), func(point config.Point) bool { return !wanted[point.Name] })
	return &model
}

// suggest reads from a unit what each profile is recognised by, and gives those that fit, the best first. Profiles that
// were sure for other devices of the line are tried first, and if one is sure again the rest is not asked for: devices
// of a site are much alike.
func suggest(ctx context.Context, m Master, unit int, sights []sight, known []string) ([]Fit, error) {
	before, rest := []sight{}, []sight{}
	for _, s := range sights {
		if slices.Contains(known, s.model.ID) {
			before = append(before, s)
		} else {
			rest = append(rest, s)
		}
	}
	fits := []Fit{}
	for _, group := range [][]sight{before, rest} {
		for _, s := range group {
			f, ok, err := s.look(ctx, m, unit)
			if err != nil {
				return fits, err
			}
			if ok {
				fits = append(fits, f)
			}
		}
		if slices.ContainsFunc(fits, func(f Fit) bool { return f.Sure }) {
			break
		}
	}
	slices.SortStableFunc(fits, func(a, b Fit) int {
		return cmp.Or(cmp.Compare(b.worth(), a.worth()), cmp.Compare(a.chance, b.chance), cmp.Compare(a.Profile, b.Profile))
	})
	return fits, nil
}

// worth orders fits: a sure one before any other, then by the signs that hold less those that do not.
func (f Fit) worth() int {
	n := 0
	if f.Sure {
		n = 100
	}
	for _, s := range f.Signs {
		if n--; s.Fits {
			n += 2
		}
	}
	return n
}

// look reads a unit with a profile's eyes and says whether the profile fits. The error is that of ctx.
func (s sight) look(ctx context.Context, m Master, unit int) (f Fit, ok bool, err error) {
	sample, _, err := m.Poll(ctx, config.Device{Name: "unit " + strconv.Itoa(unit), Unit: unit, Model: s.model})
	var failed *drivers.Error
	if err != nil && !errors.As(err, &failed) {
		return f, false, err
	}
	f = Fit{Profile: s.model.ID, Sure: s.sure(), kind: s.model.Kind, chance: s.chance}
	good := 0
	for _, r := range sample.Readings {
		want, expected := s.expects[r.Point]
		if !expected {
			continue
		}
		v, number := r.Value.Float64()
		fits := number && v >= want.least && v <= want.most
		switch {
		case fits:
			good++
		case want.named:
			return f, false, nil
		case number && v == 0: // a phase that is not connected tells nothing
			continue
		default:
			if !s.sure() {
				return f, false, nil
			}
		}
		if number {
			f.Signs = append(f.Signs, Sign{r.Point, strconv.FormatFloat(v, 'f', digits(v), 64), r.Unit, fits})
		}
	}
	return f, good > 0, nil
}

// digits after the point that are worth showing.
func digits(v float64) int {
	if v == float64(int64(v)) {
		return 0
	}
	return 2
}
