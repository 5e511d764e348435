package modbus

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hubagent/config"
)

// Telegraf's Modbus plugin groups fields into requests in one of several ways (influxdata/telegraf,
// plugins/inputs/modbus/request.go, and README.md there, option optimization). They are modelled here to compare plans;
// its deprecated "aggressive" is left out. The configuration compared is one that somebody who knows the device would
// write: one request section a table, all its fields, and the most registers the device takes in place of the plugin's
// 125 (max_word_registers_per_request) or one field a request (one_request_per_field). Where the device lets holes be
// read, shrink and rearrange get them as omitted fields, without which they cannot join anything over a hole.

// field is a field of such a section.
type field struct {
	from, to int
	omit     bool
	point    int
}

// telegrafGroupings are the ways, by the name of the option.
func telegrafGroupings() map[string]func(fields []field, most, maxHole int) []request {
	return map[string]func(fields []field, most, maxHole int) []request{
		"none": func(fields []field, most, _ int) []request {
			return perGroup(fields, func(group []field) []request { return telegrafNone(group, most) })
		},
		"shrink": func(fields []field, most, maxHole int) []request {
			return perGroup(fill(fields, maxHole), func(group []field) []request { return telegrafShrink(group, most) })
		},
		"rearrange": func(fields []field, most, maxHole int) []request {
			return perGroup(fill(fields, maxHole), func(group []field) []request { return telegrafRearrange(group, most) })
		},
		"max_insert": func(fields []field, most, _ int) []request {
			return telegrafMaxInsert(fields, most, 50) // optimization_max_register_fill's default
		},
		"max_insert, fill of the device": func(fields []field, most, maxHole int) []request {
			return telegrafMaxInsert(fields, most, max(maxHole, 1)) // 0 is refused
		},
	}
}

// telegraf makes the requests for all points of a profile.
func telegraf(p *config.Profile, grouping func(fields []field, most, maxHole int) []request) []request {
	var requests []request
	for _, function := range []config.Function{config.Coil, config.DiscreteInput, config.HoldingRegister, config.InputRegister} {
		most := min(125, cmp.Or(p.Modbus.MaxRegisters, defaultMaxRegisters))
		if function == config.Coil || function == config.DiscreteInput {
			most = min(2000, cmp.Or(p.Modbus.MaxBits, defaultMaxBits))
		}
		if p.Modbus.OneValue {
			most = 1
		}
		var fields []field
		for i, point := range p.Points {
			if point.Function == function {
				fields = append(fields, field{from: point.Address, to: point.Address + registers(point), point: i})
			}
		}
		slices.SortStableFunc(fields, func(a, b field) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to)) })
		for _, r := range grouping(fields, most, p.Modbus.MaxHole) {
			r.function = function
			requests = append(requests, r)
		}
	}
	return requests
}

// fill puts omitted fields of one register into the holes a device lets be read.
func fill(fields []field, maxHole int) []field {
	var filled []field
	for i, f := range fields {
		if i > 0 && f.from-fields[i-1].to <= maxHole {
			for k := fields[i-1].to; k < f.from; k++ {
				filled = append(filled, field{from: k, to: k + 1, omit: true})
			}
		}
		filled = append(filled, f)
	}
	return filled
}

// perGroup calls optimize for each run of fields that follow one another without a gap. A field that overlaps the one
// before begins a run of its own. Omitted fields make runs longer, and are left out of them then.
func perGroup(fields []field, optimize func(group []field) []request) []request {
	var requests []request
	var group []field
	end := -1
	for _, f := range fields {
		if f.from != end && len(group) > 0 {
			requests = append(requests, optimize(group)...)
			group = nil
		}
		if end = f.to; !f.omit {
			group = append(group, f)
		}
	}
	if len(group) > 0 {
		requests = append(requests, optimize(group)...)
	}
	return requests
}

func (f field) alone() request {
	return request{start: f.from, count: f.to - f.from, points: []int{f.point}}
}

// telegrafNone fills request after request. A field longer than a request, and all after it, get lost.
func telegrafNone(group []field, most int) []request {
	var requests []request
	for len(group) > 0 {
		n := 0
		for n < len(group) && group[n].to <= group[0].from+most {
			n++
		}
		if n == 0 {
			return requests
		}
		requests = append(requests, telegrafShrink(group[:n], most)...)
		group = group[n:]
	}
	return requests
}

// telegrafShrink fills request after request with what is in the group.
func telegrafShrink(group []field, most int) []request {
	var requests []request
	for _, f := range group {
		if n := len(requests); n > 0 && f.to <= requests[n-1].start+most {
			r := &requests[n-1]
			r.count = f.to - r.start
			r.points = append(r.points, f.point)
			continue
		}
		requests = append(requests, f.alone())
	}
	return requests
}

// telegrafRearrange tries each hole as the place for a cut, with the fields behind it rearranged in the same way, and
// takes a later one only if it reads fewer registers with no more requests. There is never a cut before the last field.
// The plugin works the same tails out again and again; here each is kept.
func telegrafRearrange(group []field, most int) []request {
	tails := make([][]request, len(group))
	read := func(requests []request) (sum int) {
		for _, r := range requests {
			sum += r.count
		}
		return sum
	}
	for k := len(group) - 1; k >= 0; k-- {
		tail := group[k:]
		best := telegrafShrink(tail, most)
		for i := 1; i < len(tail)-1; i++ {
			if tail[i-1].to == tail[i].from {
				continue
			}
			other := append(telegrafShrink(tail[:i], most), tails[k+i]...)
			if len(other) <= len(best) && read(other) < read(best) {
				best = other
			}
		}
		tails[k] = best
	}
	return tails[0]
}

// telegrafMaxInsert goes through all fields of a table and joins each to the request before it over a gap of at most
// insert. A field that ends within the one before makes the request shorter again.
func telegrafMaxInsert(fields []field, most, insert int) []request {
	var requests []request
	for i, f := range fields {
		if i > 0 {
			r, gap := &requests[len(requests)-1], max(f.from-fields[i-1].to, 0)
			if gap <= insert && r.count+gap+f.to-f.from <= most {
				r.count = f.to - r.start
				r.points = append(r.points, f.point)
				continue
			}
		}
		requests = append(requests, f.alone())
	}
	return requests
}

// refused says why a device does not answer all requests, or why they do not hold all values.
func refused(p *config.Profile, requests []request) string {
	held := 0
	for _, r := range requests {
		if why := refusal(p, r); why != "" {
			return fmt.Sprint(r, " ", why)
		}
		for _, i := range r.points {
			held++
			if from := p.Points[i].Address; from < r.start || from+registers(p.Points[i]) > r.start+r.count {
				return fmt.Sprintf("%s does not hold all of point %d", r, i)
			}
		}
	}
	if held != len(p.Points) {
		return fmt.Sprintf("%d of %d points are asked for", held, len(p.Points))
	}
	return ""
}

// On every profile shipped and every line, ours takes no longer than any of Telegraf's groupings that the device would
// answer. The table is for 9600 Bd and 8N1, with each profile's pauses and a latency of 20 ms a request on both sides.
func TestPlansAgainstTelegraf(t *testing.T) {
	profiles, err := config.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	columns := []string{"none", "shrink", "rearrange", "max_insert", "max_insert, fill of the device"}
	table := []string{fmt.Sprintf("%-32s %6s %15s  %-15s %-15s %-15s %-15s %-15s", "requests/ms", "points", "ours", "none", "shrink", "rearrange", "max_insert", "its fill fitted")}
	var notes []string
	for _, p := range profiles {
		if p.Points[0].Function == config.Line {
			continue
		}
		for _, line := range []Line{{Baud: 1200, CharacterBits: 11, RTU: true}, at9600(), {Baud: 19200, CharacterBits: 11, RTU: true}, {Baud: 115200, CharacterBits: 10, RTU: true}, {}} {
			requests := plan(p, line, DefaultLatency)
			checkPlan(t, p, requests)
			took := line.poll(p.Modbus, requests, DefaultLatency)
			row := fmt.Sprintf("%-32s %6d %15s ", p.ID, len(p.Points), cell(requests, took))
			for _, name := range columns {
				theirs := telegraf(p, telegrafGroupings()[name])
				other := line.poll(p.Modbus, theirs, DefaultLatency)
				why := refused(p, theirs)
				if why == "" && other < took {
					t.Errorf("%s on %+v: %s takes %s, ours %s", p.ID, line, name, other, took)
				}
				if why != "" {
					row += fmt.Sprintf(" %-15s", "refused")
					if line == at9600() {
						notes = append(notes, fmt.Sprintf("%s, %s: refused by the device: %s", p.ID, name, why))
					}
					continue
				}
				row += fmt.Sprintf(" %-15s", cell(theirs, other))
			}
			if line == at9600() {
				table = append(table, row)
			}
		}
	}
	t.Logf("\n%s\n\n%s", strings.Join(table, "\n"), strings.Join(notes, "\n"))
}

func cell(requests []request, took time.Duration) string {
	return fmt.Sprintf("%d/%.1f", len(requests), float64(took.Microseconds())/1000)
}

// The groupings as Telegraf's documentation and source have them.
func TestTelegrafGroupings(t *testing.T) {
	words := func(addresses ...int) []config.Point {
		var points []config.Point
		for _, a := range addresses {
			points = append(points, at(hold, a, config.U16))
		}
		return points
	}
	for _, c := range []struct {
		name, grouping string
		limits         config.ModbusLimits
		points         []config.Point
		want           []string
	}{
		{"the example in its source", "none", config.ModbusLimits{}, words(1, 2, 3, 5, 6, 10, 11, 12, 14),
			[]string{"holding register 1-3", "holding register 5-6", "holding register 10-12", "holding register 14"}},
		{"the largest request", "none", config.ModbusLimits{MaxRegisters: 2}, words(1, 2, 3), []string{"holding register 1-2", "holding register 3"}},
		{"a field longer than a request", "none", config.ModbusLimits{OneValue: true}, []config.Point{at(hold, 0, config.U16), at(hold, 1, config.U32), at(hold, 3, config.U16)}, []string{"holding register 0"}},
		{"omitted fields", "shrink", config.ModbusLimits{MaxHole: 1, MaxRegisters: 4}, words(1, 3, 4, 6, 7), []string{"holding register 1-4", "holding register 6-7"}},
		{"a better place for the cut", "rearrange", config.ModbusLimits{MaxHole: 3, MaxRegisters: 6}, words(0, 1, 5, 6, 7, 8), []string{"holding register 0-1", "holding register 5-8"}},
		{"the same, by shrink", "shrink", config.ModbusLimits{MaxHole: 3, MaxRegisters: 6}, words(0, 1, 5, 6, 7, 8), []string{"holding register 0-5", "holding register 6-8"}},
		{"over holes", "max_insert", config.ModbusLimits{}, words(0, 50, 102), []string{"holding register 0-50", "holding register 102"}},
		{"the same register twice", "max_insert", config.ModbusLimits{}, words(0, 0), []string{"holding register 0"}},
		{"the same register twice", "none", config.ModbusLimits{}, words(0, 0), []string{"holding register 0", "holding register 0"}},
	} {
		got := texts(telegraf(&config.Profile{Modbus: c.limits, Points: c.points}, telegrafGroupings()[c.grouping]))
		if !slices.Equal(got, c.want) {
			t.Errorf("%s, %s: %q, want %q", c.grouping, c.name, got, c.want)
		}
	}
}
