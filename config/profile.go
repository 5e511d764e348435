package config

import (
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed profiles/*.yaml
var embedded embed.FS

const (
	defaultTimeout      = 500 * time.Millisecond
	defaultLeastTimeout = 200 * time.Millisecond
	maxPoints           = 256
	maxMissing          = 8
	maxProfiles         = 256
)

// Profiles gives the profiles that come with the agent, and those in files of the given folders, by id; a later one
// takes the place of an earlier one with the same id. A folder that does not exist is an empty one. The error is
// Problems, or says which file cannot be read.
func Profiles(folders ...string) ([]*Profile, error) {
	profiles, problems, err := profilesWith(folders...)
	if err == nil {
		err = problems.err()
	}
	if err != nil {
		return nil, err
	}
	return profiles, nil
}

// profilesWith is Profiles, but gives faulty profiles too, so that a config that names one can be judged all the same.
func profilesWith(folders ...string) ([]*Profile, Problems, error) {
	var problems Problems
	byID := map[string]*Profile{}
	shipped, err := fs.Sub(embedded, "profiles")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	if err := readProfiles(shipped, "profiles", byID, &problems); err != nil {
		return nil, nil, err
	}
	for _, folder := range folders {
		err := readProfiles(os.DirFS(folder), folder, byID, &problems)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("cannot read profiles: %w", err)
		}
	}
	profiles := slices.SortedFunc(maps.Values(byID), func(a, b *Profile) int { return strings.Compare(a.ID, b.ID) })
	return profiles, problems, nil
}

// readProfiles reads the profiles among files, which are in folder.
func readProfiles(files fs.FS, folder string, byID map[string]*Profile, problems *Problems) error {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return err
	}
	if len(entries) > maxProfiles {
		return fmt.Errorf("folder %s has %d files, the most is %d", folder, len(entries), maxProfiles)
	}
	for _, entry := range entries {
		d := newDocument(filepath.Join(folder, entry.Name()))
		switch id, ok := strings.CutSuffix(entry.Name(), ".yaml"); {
		case ok:
			f, err := files.Open(entry.Name())
			if err != nil {
				return err
			}
			data, err := readAll(f)
			f.Close()
			if err != nil {
				return err
			}
			byID[id] = d.profile(id, data)
		case strings.HasSuffix(id, ".yml"):
			d.report("", "a profile's file ends in .yaml", "rename it")
		}
		*problems = append(*problems, d.problems...)
	}
	return nil
}

// profile reads the file of the profile id.
func (d *document) profile(id string, data []byte) *Profile {
	p := &Profile{sum: sha256.Sum256(data)}
	d.read(data, p)
	if !d.faulty[""] {
		d.completeProfile(id, p)
	}
	p.ID = id
	return p
}

func (d *document) completeProfile(id string, p *Profile) {
	d.name("id", p.ID, nameForm, nameMend)
	if p.ID != id {
		d.report("id", fmt.Sprintf("%s is not the name of the file", quote(p.ID)), "write id: "+id+", or rename the file")
	}
	d.require("kind", "write one of: "+strings.Join(p.Kind.choices(), ", "))
	d.require("model", "write maker and model")
	d.label("model", p.Model)
	d.require("manual", "name the document the register map comes from")
	if d.require("interval", "write the time between polls, for example interval: 10s") {
		d.duration("interval", &p.Interval, 0, leastInterval, mostInterval)
	}
	d.duration("least_interval", &p.LeastInterval, leastInterval, leastInterval, mostInterval)
	if p.Interval < p.LeastInterval && d.given("interval") && !d.faulty["interval"] {
		d.report("interval", fmt.Sprintf("%s is less than least_interval, %s", short(p.Interval), short(p.LeastInterval)), "correct one of the two")
	}
	m := &p.Modbus
	d.integer("modbus.max_registers", &m.MaxRegisters, 60, 1, 125)
	d.integer("modbus.max_bits", &m.MaxBits, 64, 1, 2000)
	d.integer("modbus.max_hole", &m.MaxHole, 0, 0, 124)
	d.duration("modbus.response_timeout", &m.ResponseTimeout, defaultTimeout, 10*time.Millisecond, time.Minute)
	d.duration("modbus.least_timeout", &m.LeastTimeout, min(defaultLeastTimeout, m.ResponseTimeout), 10*time.Millisecond, max(m.ResponseTimeout, 10*time.Millisecond))
	d.duration("modbus.inter_frame_delay", &m.InterFrameDelay, 0, 0, 5*time.Second)
	d.duration("modbus.turnaround", &m.Turnaround, 0, 0, 5*time.Second)

	if !d.require("points", "list at least one measured value") {
		return
	}
	names, headlines := unique{}, 0
	for i := range p.Points {
		path, point := fmt.Sprintf("points[%d]", i), &p.Points[i]
		d.point(path, point, *m)
		names.check(d, path+".name", point.Name, "the point name "+quote(point.Name), "give each point a name of its own")
		if point.Headline {
			headlines++
		}
	}
	d.overlaps(p.Points)
	d.scales(p.Points)
	d.blocks(p)
	d.delivered(&p.Delivered)
	d.identity(p)
	d.writes(p)
	switch {
	case len(p.Points) == 0 || len(p.Points) > maxPoints:
		d.report("points", fmt.Sprintf("there are %d points", len(p.Points)), fmt.Sprintf("list 1 to %d", maxPoints))
	case !slices.ContainsFunc(p.Points, func(p Point) bool { return p.Interval == 0 }):
		d.report("points", "all points have an interval of their own", "leave it out at those that are read at each poll")
	case headlines < 1 || headlines > 2:
		d.report("points", fmt.Sprintf("%d points are headlines", headlines), "mark one or two with headline: true for the page's list")
	case len(p.Points) > 1 && slices.ContainsFunc(p.Points, func(p Point) bool { return p.Function == Line }):
		d.report("points", "a point of function line is not alone", "a device on a line has that one point; make a profile for each")
	}
}

// overlaps notes points that share a register or bit.
func (d *document) overlaps(points []Point) {
	type span struct {
		first, after, index int
	}
	tables := map[Function][]span{}
	for i, p := range points {
		if p.Function != "" && p.Function != Line && d.given(fmt.Sprintf("points[%d].address", i)) {
			tables[p.Function] = append(tables[p.Function], span{p.Address, p.Address + max(1, p.Registers()), i})
		}
	}
	for _, spans := range tables {
		slices.SortStableFunc(spans, func(a, b span) int { return a.first - b.first })
		for k := 1; k < len(spans); k++ {
			before, s := spans[k-1], spans[k]
			if s.first >= before.after {
				continue
			}
			other, p := points[before.index], points[s.index]
			at := fmt.Sprintf("points[%d]", s.index)
			switch shared := s.first == before.first && s.after == before.after && other.Bits.Width > 0 && p.Bits.Width > 0; {
			case !shared:
				d.report(at+".address", fmt.Sprintf("overlaps point %s at %d to %d", other.Name, before.first, before.after-1), "correct the address or type of one of the two")
			case other.Bits.overlaps(p.Bits):
				d.report(at+".bits", fmt.Sprintf("overlaps those of point %s", other.Name), "correct the bits of one of the two")
			}
		}
	}
}

func (b Bits) overlaps(other Bits) bool {
	return b.Low < other.Low+other.Width && other.Low < b.Low+b.Width
}

// blocks judges the ranges that the model answers only in whole.
func (d *document) blocks(p *Profile) {
	for i, b := range p.Modbus.Blocks {
		path := fmt.Sprintf("modbus.blocks[%d]", i)
		d.require(path+".function", "write one of: coil, discrete_input, holding_register, input_register")
		d.require(path+".address", "write the zero-based address of the first register")
		most := p.Modbus.MaxRegisters
		if !b.Function.isRegister() {
			most = p.Modbus.MaxBits
		}
		if d.require(path+".count", "write how many registers it has") {
			d.integer(path+".count", &b.Count, 0, 1, most)
		}
		end := b.Address + b.Count
		if b.Address < 0 || end > 0x10000 {
			d.report(path+".address", fmt.Sprintf("%d to %d is not inside 0 to 65535", b.Address, end-1), "write the zero-based address as sent on the wire")
		}
		if b.Function == Line {
			d.report(path+".function", "a line has no blocks", "remove it")
		}
		for _, other := range p.Modbus.Blocks[:i] {
			if other.Function == b.Function && b.Address < other.Address+other.Count && other.Address < end {
				d.report(path+".address", fmt.Sprintf("overlaps the block at %d", other.Address), "correct one of the two")
			}
		}
		for k, point := range p.Points {
			after := point.Address + max(1, point.Registers())
			if point.Function == b.Function && point.Address < end && b.Address < after && (point.Address < b.Address || after > end) {
				d.report(fmt.Sprintf("points[%d].address", k), fmt.Sprintf("is only in part inside the block at %d to %d", b.Address, end-1), "correct one of the two")
			}
		}
	}
}

func (d *document) delivered(s *Delivered) {
	if !d.given("delivered") {
		return
	}
	if d.require("delivered.baud", "write the rate the maker sets") && !slices.Contains(standardBauds(), s.Baud) {
		d.report("delivered.baud", fmt.Sprintf("%d is not a usual rate", s.Baud), bauds())
	}
	if s.Parity == "" {
		s.Parity = ParityNone
	}
	d.integer("delivered.stop_bits", &s.StopBits, 1, 1, 2)
	d.integer("delivered.unit", &s.Unit, 0, 1, 247)
}

func (d *document) identity(p *Profile) {
	for i, sign := range p.Identity {
		path := fmt.Sprintf("identity[%d]", i)
		if !d.require(path+".point", "name a point of this profile") {
			continue
		}
		k := slices.IndexFunc(p.Points, func(p Point) bool { return p.Name == sign.Point })
		d.require(path+".least", "write the least value that makes sense")
		d.require(path+".most", "write the largest value that makes sense")
		switch {
		case k < 0:
			d.report(path+".point", fmt.Sprintf("there is no point %s", quote(sign.Point)), "name a point of this profile")
		case p.Points[k].Type == ASCII || p.Points[k].Function == Line:
			d.report(path+".point", fmt.Sprintf("point %s is no number in a register", sign.Point), "name another")
		case sign.Most.less(sign.Least):
			d.report(path+".most", fmt.Sprintf("%s is less than %s", sign.Most, sign.Least), "correct one of the two")
		}
	}
}

// writes judges what may be written.
func (d *document) writes(p *Profile) {
	names := unique{}
	for i := range p.Writes {
		w, path := &p.Writes[i], fmt.Sprintf("writes[%d]", i)
		d.name(path+".name", w.Name, pointForm, "write 1 to 32 of a-z 0-9 and _, for example siren")
		names.check(d, path+".name", w.Name, "the name "+quote(w.Name), "give each a name of its own")
		if d.require(path+".title", "write the name for the page: {zh: 警笛, en: siren}") {
			d.title(path+".title.zh", w.Title.ZH)
			d.title(path+".title.en", w.Title.EN)
		}
		d.require(path+".function", "write one of: coil, holding_register, line")
		d.require(path+".type", "write one of: bool, u16, s16, u32, s32")
		if w.Function == Line && d.given(path+".address") {
			d.report(path+".address", "a line has no address", "remove it: the device's entry in hub.yaml names the line")
		} else if w.Function != Line && d.require(path+".address", "write the zero-based address as sent on the wire") && (w.Address < 0 || w.Address+max(1, w.Type.Registers()) > 0x10000) {
			d.report(path+".address", fmt.Sprintf("%d is not inside 0 to 65535", w.Address), "write the zero-based address as sent on the wire")
		}
		if w.Order == "" {
			w.Order = ABCD
		}
		var least, most int64
		switch ok := true; {
		case w.Function == "" || w.Type == "":
			continue
		case w.Function == DiscreteInput || w.Function == InputRegister:
			d.report(path+".function", fmt.Sprintf("function %s cannot be written", w.Function), "write one of: coil, holding_register, line")
			continue
		default:
			least, most, ok = writable(w.Type)
			if !ok || (w.Type == Bool) == (w.Function == HoldingRegister) {
				d.report(path+".type", fmt.Sprintf("a %s is not written as %s", w.Function, w.Type), "write bool for coil and line, else one of u16, s16, u32, s32")
				continue
			}
		}
		if w.Type == Bool && !d.given(path+".allowed") {
			w.Allowed = []int64{0, 1}
		} else if d.require(path+".allowed", "list the raw values that may be written") && (len(w.Allowed) == 0 || len(w.Allowed) > maxPoints) {
			d.report(path+".allowed", fmt.Sprintf("there are %d values", len(w.Allowed)), fmt.Sprintf("list 1 to %d", maxPoints))
		}
		for k, raw := range w.Allowed {
			if raw < least || raw > most {
				d.report(fmt.Sprintf("%s.allowed[%d]", path, k), fmt.Sprintf("%d does not fit %s", raw, w.Type), fmt.Sprintf("write %d to %d", least, most))
			}
		}
	}
	if len(p.Writes) > maxPoints {
		d.report("writes", fmt.Sprintf("there are %d", len(p.Writes)), fmt.Sprintf("list at most %d", maxPoints))
	}
}

// writable is the range of a type that can be written.
func writable(t Type) (least, most int64, ok bool) {
	switch t {
	case Bool:
		return 0, 1, true
	case U16:
		return 0, math.MaxUint16, true
	case S16:
		return math.MinInt16, math.MaxInt16, true
	case U32:
		return 0, math.MaxUint32, true
	case S32:
		return math.MinInt32, math.MaxInt32, true
	}
	return 0, 0, false
}
