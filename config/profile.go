package config

import (
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed profiles/*.yaml
var embedded embed.FS

const (
	defaultTimeout = 500 * time.Millisecond
	maxPoints      = 256
	maxMissing     = 8
	maxProfiles    = 256
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
	m := &p.Modbus
	d.integer("modbus.max_registers", &m.MaxRegisters, 60, 1, 125)
	d.integer("modbus.max_bits", &m.MaxBits, 64, 1, 2000)
	d.integer("modbus.max_hole", &m.MaxHole, 0, 0, 124)
	d.duration("modbus.response_timeout", &m.ResponseTimeout, defaultTimeout, 10*time.Millisecond, time.Minute)
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
	switch {
	case len(p.Points) == 0 || len(p.Points) > maxPoints:
		d.report("points", fmt.Sprintf("there are %d points", len(p.Points)), fmt.Sprintf("list 1 to %d", maxPoints))
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
			tables[p.Function] = append(tables[p.Function], span{p.Address, p.Address + max(1, p.Type.Registers()), i})
		}
	}
	for _, spans := range tables {
		slices.SortStableFunc(spans, func(a, b span) int { return a.first - b.first })
		for k := 1; k < len(spans); k++ {
			before, s := spans[k-1], spans[k]
			if s.first < before.after {
				other := points[before.index]
				d.report(fmt.Sprintf("points[%d].address", s.index),
					fmt.Sprintf("overlaps point %s at %d to %d", other.Name, before.first, before.after-1), "correct the address or type of one of the two")
			}
		}
	}
}
