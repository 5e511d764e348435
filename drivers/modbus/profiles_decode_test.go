package modbus

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hubagent/config"
	"hubagent/drivers"
)

// Each shipped profile has a table in testdata/decode of what its registers mean, worked out by other means than this
// package. Behind a # it says where the bytes come from; each other line is one reading:
//
//	energy_import 0000 3039 = 123.45 kW.h         registers as on the wire
//	alarm 1 = 1                                   a coil or discrete input
//	weight FFFF = missing
//	mode 0009 = suspect 9 1                       a code the profile does not know
//	power 0C35 with power_sf FFFE = 31.25 W       scaled by another point
const decodeTables = "testdata/decode"

// shipped are the profiles that come with the agent and are read over Modbus: one on a line of the gateway has no
// registers.
func shipped(t *testing.T) []*config.Profile {
	all, err := config.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(p *config.Profile) bool { return p.Points[0].Function == config.Line })
}

func TestProfilesDecode(t *testing.T) {
	for _, p := range shipped(t) {
		t.Run(p.ID, func(t *testing.T) {
			path := filepath.Join(decodeTables, p.ID+".txt")
			table, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("the profile has no table: %v", err)
			}
			lines, sentinels := map[string]int{}, map[string]int{}
			for n, line := range strings.Split(string(table), "\n") {
				if line == "" || strings.HasPrefix(line, "#") {
					continue
				}
				given, want, _ := strings.Cut(line, " = ")
				r, err := readAs(p, given)
				if err != nil {
					t.Errorf("%s:%d: %v", path, n+1, err)
					continue
				}
				if got := meaningOf(r); got != want {
					t.Errorf("%s:%d: %s is %s, want %s", path, n+1, given, got, want)
				}
				lines[r.Point]++
				if r.Why == "sentinel" {
					sentinels[r.Point]++
				}
			}
			for _, point := range p.Points {
				if lines[point.Name] == sentinels[point.Name] {
					t.Errorf("%s: no line with a value of point %s", path, point.Name)
				}
				if sentinels[point.Name] < len(point.Missing) {
					t.Errorf("%s: %d values of point %s mean missing, and %d lines say so", path, len(point.Missing), point.Name, sentinels[point.Name])
				}
			}
			if !bytes.HasPrefix(table, []byte("# ")) {
				t.Errorf("%s does not begin with where its bytes come from", path)
			}
		})
	}
}

// A table that no profile has would test nothing, and nobody would know.
func TestProfilesDecodeTablesAreOfProfiles(t *testing.T) {
	tables, err := filepath.Glob(filepath.Join(decodeTables, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tables {
		id, ok := strings.CutSuffix(filepath.Base(path), ".txt")
		if !ok || !slices.ContainsFunc(shipped(t), func(p *config.Profile) bool { return p.ID == id }) {
			t.Errorf("%s is the table of no shipped profile", path)
		}
	}
}

// readAs decodes what a table's line gives: a point and its registers, and behind "with" the same of the point it is
// scaled by.
func readAs(p *config.Profile, given string) (drivers.Reading, error) {
	first, second, scaled := strings.Cut(given, " with ")
	var points []config.Point
	var readings []drivers.Reading
	for _, text := range []string{first, second} {
		if text == "" {
			continue
		}
		name, registers, _ := strings.Cut(text, " ")
		k := slices.IndexFunc(p.Points, func(p config.Point) bool { return p.Name == name })
		if k < 0 {
			return drivers.Reading{}, fmt.Errorf("the profile has no point %q", name)
		}
		r, err := readOne(p.Points[k], strings.ReplaceAll(registers, " ", ""))
		if err != nil {
			return r, err
		}
		points, readings = append(points, p.Points[k]), append(readings, r)
	}
	if by := points[0].ScalePower + points[0].ScaleFactor; by != "" && !scaled || scaled && points[1].Name != by {
		return drivers.Reading{}, fmt.Errorf("point %s is scaled by %q", points[0].Name, by)
	}
	scaleBy(&config.Profile{Points: points}, readings)
	return readings[0], nil
}

func readOne(p config.Point, digits string) (drivers.Reading, error) {
	if n := p.Registers(); n > 0 {
		raw, err := hex.DecodeString(digits)
		if err == nil && len(raw) != 2*n {
			err = fmt.Errorf("point %s takes %d registers", p.Name, n)
		}
		if err != nil {
			return drivers.Reading{}, err
		}
		return decode(p, raw), nil
	}
	if digits != "0" && digits != "1" {
		return drivers.Reading{}, fmt.Errorf("point %s is one bit, not %q", p.Name, digits)
	}
	return decodeBit(p, digits == "1"), nil
}

// meaningOf is a reading as a table writes it.
func meaningOf(r drivers.Reading) string {
	text := strings.TrimSpace(r.Value.String() + " " + r.Unit)
	switch r.Quality {
	case drivers.Good:
		return text
	case drivers.Missing:
		return "missing"
	}
	return "suspect " + text
}

// What config does not ask of a site's own profile, but the ones that come with the agent have. One line each says what
// a poll of the device costs on a line at 9600 Bd, 8N1; make profiles shows them.
func TestProfilesLint(t *testing.T) {
	for _, p := range shipped(t) {
		path := filepath.Join("../../config/profiles", p.ID+".yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := lint(p, text); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		took, requests := PollTime(at9600(), p, DefaultLatency)
		fmt.Fprintf(t.Output(), "%-26s %3d points %3d requests %5d ms\n", p.ID, len(p.Points), requests, took.Milliseconds())
	}
}

// lint says what a shipped profile lacks. What is wrong in any profile config has found already: unknown keys and units,
// titles in one language, too many headlines.
func lint(p *config.Profile, text []byte) error {
	var problems []error
	if !bytes.HasPrefix(text, []byte("# ")) {
		problems = append(problems, errors.New("begins without a comment on sources, quirks and what to check"))
	}
	if p.Kind == config.Meter && len(p.Identity) == 0 {
		problems = append(problems, errors.New("a meter without identity is not recognised by scan"))
	}
	for _, point := range p.Points {
		energy := strings.HasSuffix(point.Unit, ".h") && !strings.HasSuffix(point.Name, "_net") // import less export may fall
		if energy && !point.Counter {
			problems = append(problems, fmt.Errorf("point %s is an energy and no counter", point.Name))
		}
		if point.Interval > 0 && point.Interval%p.Interval != 0 {
			problems = append(problems, fmt.Errorf("point %s: interval %s is no multiple of the profile's %s", point.Name, point.Interval, p.Interval))
		}
	}
	return errors.Join(problems...)
}

func TestLintFindsWhatIsMissing(t *testing.T) {
	p := &config.Profile{Kind: config.Meter, Interval: 10e9, Points: []config.Point{
		{Name: "energy_import", Unit: "kW.h", Interval: 15e9}, {Name: "energy_net", Unit: "kW.h"}, {Name: "power", Unit: "kW"},
	}}
	err := lint(p, []byte("id: x\n"))
	if want := `begins without a comment on sources, quirks and what to check
a meter without identity is not recognised by scan
point energy_import is an energy and no counter
point energy_import: interval 15s is no multiple of the profile's 10s`; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}
