package scan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"hubagent/config"
	"hubagent/drivers"
)

// Fit is a profile whose points give sense when they are read from a device.
type Fit struct {
	Profile string `json:"profile"`
	Sure    bool   `json:"sure"`  // every sign that the profile names for its model holds; otherwise only usual values do
	Signs   []Sign `json:"signs"` // what was read

	kind config.DeviceKind
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
	sure    bool // the profile names its signs, and not all are states, which are 0 or 1 on any device
}

// span is what a point must read.
type span struct {
	least, most float64
	named       bool // by the profile itself
}

// sights makes them of the Modbus profiles that can tell anything.
func sights(profiles []*config.Profile) []sight {
	var all []sight
	for _, p := range profiles {
		s := sight{expects: map[string]span{}}
		for _, sign := range p.Identity {
			s.expects[sign.Point] = span{sign.Least.Float64(), sign.Most.Float64(), true}
		}
		seen := map[span]bool{}
		for _, point := range p.Points { // the first of each usual kind is enough
			if usual, ok := usual(p.Kind, point); ok && !seen[usual] {
				seen[usual] = true
				if _, named := s.expects[point.Name]; !named {
					s.expects[point.Name] = usual
				}
			}
		}
		s.model = Only(p, slices.Collect(maps.Keys(s.expects)))
		s.sure = slices.ContainsFunc(s.model.Points, func(point config.Point) bool {
			return s.expects[point.Name].named && point.Type != config.Bool
		})
		if len(s.expects) > 0 && !slices.ContainsFunc(p.Points, func(point config.Point) bool { return point.Function == config.Line }) {
			all = append(all, s)
		}
	}
	return all
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
		return cmp.Or(cmp.Compare(b.worth(), a.worth()), cmp.Compare(a.Profile, b.Profile))
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
	f = Fit{Profile: s.model.ID, Sure: s.sure, kind: s.model.Kind}
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
			if !s.sure {
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
