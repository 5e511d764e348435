package scan

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/modbus"
)

// site is a line in memory: what happens at each setting, by unit.
type site struct {
	settings map[string]map[int]act
	opened   []string // settings, in the order they were tried
	asked    map[string]int
	openErr  error
}

// act is how a unit behaves.
type act struct {
	err    *drivers.Error // nil: it answers with a value
	bytes  []byte         // that come in
	slow   bool           // answers only to those who wait long
	points map[string]float64
}

func (s *site) open(_ context.Context, b config.Bus) (Master, error) {
	if s.openErr != nil {
		return nil, s.openErr
	}
	if s.asked == nil {
		s.asked = map[string]int{}
	}
	name := Describe(b)
	if n := len(s.opened); n == 0 || s.opened[n-1] != name {
		s.opened = append(s.opened, name)
	}
	return &end{s, name}, nil
}

type end struct {
	*site
	setting string
}

func (e *end) Close() error { return nil }

func (e *end) Exchange(ctx context.Context, q modbus.Query) (modbus.Exchange, error) {
	e.asked[e.setting]++
	x := modbus.Exchange{Unit: q.Unit, Function: q.Function, Count: q.Count, Took: 30 * time.Millisecond}
	a, ok := e.settings[e.setting][q.Unit]
	if !ok || a.slow && q.Timeout < 500*time.Millisecond {
		return x, &drivers.Error{Failure: drivers.Timeout}
	}
	x.RTU, x.Received = true, a.bytes
	if a.err != nil {
		return x, a.err
	}
	return x, ctx.Err()
}

func (e *end) Poll(_ context.Context, d config.Device) (drivers.Sample, []modbus.Exchange, error) {
	s := drivers.Sample{Device: d.Name}
	for _, p := range d.Model.Points {
		r := drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Missing}
		if v, ok := e.settings[e.setting][d.Unit].points[d.Model.ID+"."+p.Name]; ok {
			r.Quality, r.Value = drivers.Good, drivers.Float64(v)
		}
		s.Readings = append(s.Readings, r)
	}
	return s, nil, nil
}

// quick is a scan of a serial port at all settings with no profile but those given.
func quick(s *site, units string, profiles ...*config.Profile) Options {
	ids, err := ParseUnits(units)
	if err != nil {
		panic(err)
	}
	return Options{Open: s.open, Trials: Trials("/dev/ttyS1", Settings(nil, nil, profiles)), Units: ids, Profiles: profiles}
}

// found is a result in a line: setting, and units with what they answered.
func found(r Result) string {
	var all []string
	for _, l := range r.Lines {
		text := l.Setting()
		for _, d := range l.Devices {
			text += fmt.Sprintf(" %d=%s", d.Unit, d.Answer)
			if d.Slow {
				text += "(slow)"
			}
		}
		if len(l.Garbled) > 0 {
			text += fmt.Sprintf(" garbled %v", l.Garbled)
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

func TestScan(t *testing.T) {
	timeout := &drivers.Error{Failure: drivers.Timeout}
	crc := &drivers.Error{Failure: drivers.CRC, Detail: "the port counted 3 parity errors"}
	refused := &drivers.Error{Failure: drivers.Exception, Code: 2}
	foreign := []byte{5, 3, 0, 0, 0, 1, 0x85, 0x8E} // a request of unit 5
	lateAnswer := []byte{1, 3, 2, 0, 7, 0xF9, 0x86} // unit 1, function 3
	garbage := []byte{0xFF, 0x81, 0x7E, 0x10, 0x22}
	for _, c := range []struct {
		name     string
		settings map[string]map[int]act
		units    string
		all      bool
		want     string
		remark   string // what one of the remarks says
		tried    []string
	}{
		{name: "nothing", units: "1-20", want: ""},
		{
			name: "values and refusals", units: "1-20",
			settings: map[string]map[int]act{"9600 8N1": {1: {}, 17: {err: refused}}},
			want:     "9600 8N1 1=value 17=exception 2", tried: []string{"9600 8N1"},
			remark: "To look at a device that no profile fits: hubagent read --port /dev/ttyS1 --baud 9600 --parity none --stop-bits 1 --unit 1 --function 3",
		}, {
			name: "a later setting", units: "1-20",
			settings: map[string]map[int]act{"9600 8E1": {2: {}, 4: {}}, "19200 8E1": {3: {}}},
			want:     "9600 8E1 2=value 4=value", tried: []string{"9600 8N1", "9600 8E1"},
			remark: "--baud 9600 --parity even --stop-bits 1 --unit 2 ",
		}, {
			name: "only at an unlikely unit", units: "1-247",
			settings: map[string]map[int]act{"19200 8E1": {200: {}}},
			want:     "19200 8E1 200=value",
			remark:   "--baud 19200 --parity even --stop-bits 1 --unit 200 ",
		}, {
			name: "all settings", units: "1-20", all: true,
			settings: map[string]map[int]act{"9600 8E1": {2: {}}, "19200 8E1": {3: {}}},
			want:     "9600 8E1 2=value; 19200 8E1 3=value",
			remark:   "Devices answer at 9600 8E1, 19200 8E1. All devices of a line must be set alike: set the others to 9600 8E1.",
		}, {
			name: "a slow one beside a quick one", units: "1-20",
			settings: map[string]map[int]act{"9600 8N1": {1: {}, 9: {slow: true}}},
			want:     "9600 8N1 1=value 9=value(slow)",
			remark:   "Devices marked slow",
		}, {
			name: "an answer that comes while the next unit is asked", units: "1-20",
			settings: map[string]map[int]act{"9600 8N1": {1: {slow: true}, 2: {err: timeout, bytes: lateAnswer}}},
			want:     "9600 8N1 1=value(slow)",
			remark:   "Devices marked slow took more than 30 ms: give the bus a timeout of 1s.",
		}, {
			name: "garbage at the wrong rate", units: "1-20",
			settings: map[string]map[int]act{"9600 8N1": {1: {err: crc, bytes: garbage}}, "19200 8E1": {1: {}}},
			want:     "9600 8N1 garbled [1]; 19200 8E1 1=value",
			remark:   "Something answers at 9600 8N1, but with errors (asked for unit 1): wrong parity or baud? The driver says: the port counted 3 parity errors",
		}, {
			name: "two devices with one unit id", units: "1-20",
			settings: map[string]map[int]act{"9600 8N1": {1: {}, 4: {err: crc, bytes: garbage}}},
			want:     "9600 8N1 1=value garbled [4]",
			remark:   "/dev/ttyS1 at 9600 8N1: what comes back for unit 4 is damaged: two devices with the same unit id",
		}, {
			name: "a transceiver that turns round", units: "1-20",
			settings: map[string]map[int]act{"9600 8N1": {1: {err: timeout, bytes: []byte{0xFF, 0}}}},
			want:     "",
		}, {
			name: "another master", units: "10-20",
			settings: map[string]map[int]act{"9600 8N1": {12: {err: timeout, bytes: foreign}, 14: {}}},
			want:     "", tried: []string{"9600 8N1"},
			remark: "Another master is polling this line (at 9600 8N1: unit 5, function 3). Stop it first",
		}, {
			name: "another master, but go on", units: "10-20", all: true,
			settings: map[string]map[int]act{"9600 8N1": {12: {err: timeout, bytes: foreign}, 14: {}}},
			want:     "9600 8N1 14=value",
			remark:   "Another master is polling this line",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &site{settings: c.settings}
			o := quick(s, c.units)
			o.All = c.all
			r, err := Run(t.Context(), o)
			if err != nil || found(r) != c.want || r.Stopped {
				t.Errorf("found %q, %v; want %q", found(r), err, c.want)
			}
			if c.name == "another master" != (s.tried() == 1 && r.Foreign != nil) {
				t.Errorf("tried %v, foreign %v", s.opened, r.Foreign)
			}
			if c.tried != nil && !slices.Equal(slices.Compact(s.opened), c.tried) {
				t.Errorf("tried %v, want %v", s.opened, c.tried)
			}
			remarks := strings.Join(r.Remarks(), "\n")
			if c.remark == "" && remarks != "" || !strings.Contains(remarks, c.remark) {
				t.Errorf("remarks %q, want %q", remarks, c.remark)
			}
		})
	}
}

func (s *site) tried() int { return len(s.opened) }

// Likely units are asked at every setting before any is searched: a scan must not take minutes to come to 19200 8E1.
func TestScanLikelyFirst(t *testing.T) {
	s := &site{settings: map[string]map[int]act{"1200 8E1": {1: {}}}}
	if r, err := Run(t.Context(), quick(s, "1-247")); err != nil || found(r) != "1200 8E1 1=value" {
		t.Fatal(found(r), err)
	}
	for setting, n := range s.asked {
		if setting != "1200 8E1" && n > 6 { // three units by two functions
			t.Errorf("%d requests at %s", n, setting)
		}
	}
}

func TestScanEnds(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	s := &site{settings: map[string]map[int]act{"9600 8N1": {1: {}}}}
	o := quick(s, "1-247")
	o.Progress = func(p Progress) {
		if p.Unit == 100 {
			stop()
		}
		if p.Left <= 0 || p.Done < 0 {
			t.Errorf("progress %+v", p)
		}
	}
	r, err := Run(ctx, o)
	if err != nil || !r.Stopped || found(r) != "9600 8N1 1=value" {
		t.Errorf("%q, stopped %v, %v", found(r), r.Stopped, err)
	}

	s = &site{settings: map[string]map[int]act{"9600 8N1": {1: {}, 2: {err: &drivers.Error{Failure: drivers.Link, Detail: "input/output error"}}}}}
	r, err = Run(t.Context(), quick(s, "1-9"))
	if err == nil || err.Error() != "/dev/ttyS1 was lost: input/output error" || found(r) != "9600 8N1 1=value" {
		t.Errorf("%q, %v", found(r), err)
	}
	s = &site{openErr: modbus.ErrInUse}
	if _, err = Run(t.Context(), quick(s, "1-9")); err != modbus.ErrInUse {
		t.Errorf("%v", err)
	}
}

// meterProfile is a profile of one family of meters.
func meterProfile(id string, points ...string) *config.Profile {
	p := &config.Profile{ID: id, Kind: config.Meter}
	for i, name := range points {
		point := config.Point{Name: name, Function: config.InputRegister, Address: 2 * i, Type: config.F32, Unit: "V"}
		if name == "frequency" {
			point.Unit = "Hz"
		}
		p.Points = append(p.Points, point)
	}
	return p
}

func TestSuggest(t *testing.T) {
	number := func(v int64) config.Decimal { return config.Decimal{Mantissa: v} }
	known := meterProfile("known", "frequency", "voltage_l1", "serial")
	known.Identity = []config.Identity{{Point: "frequency", Least: number(45), Most: number(65)}, {Point: "serial", Least: number(1000), Most: number(2000)}}
	plain := meterProfile("plain", "frequency", "voltage_l1", "voltage_l2", "energy")
	dumb := meterProfile("dumb", "energy")
	contact := &config.Profile{ID: "contact", Kind: config.Contact, Points: []config.Point{{Name: "fault", Function: config.Line, Type: config.Bool}}}
	inputs := &config.Profile{ID: "inputs", Kind: config.Camera,
		Identity: []config.Identity{{Point: "alarm", Least: number(0), Most: number(1)}},
		Points:   []config.Point{{Name: "alarm", Function: config.DiscreteInput, Type: config.Bool}}}
	profiles := []*config.Profile{contact, dumb, inputs, known, plain}

	for _, c := range []struct {
		name   string
		points map[string]float64
		want   []string
	}{
		{"nothing", nil, nil},
		{"both signs", map[string]float64{"known.frequency": 50.02, "known.serial": 1234, "known.voltage_l1": 229.8},
			[]string{"known: frequency 50.02 Hz, voltage_l1 229.80 V, serial 1234 V"}},
		{"one sign only", map[string]float64{"known.frequency": 50, "known.voltage_l1": 230}, nil},
		{"a sign out of range", map[string]float64{"known.frequency": 50, "known.serial": 3}, nil},
		{"usual values", map[string]float64{"plain.frequency": 60, "plain.voltage_l1": 120}, []string{"plain: frequency 60 Hz, voltage_l1 120 V (weak)"}},
		{"a register that the device does not have", map[string]float64{"plain.frequency": 60, "plain.voltage_l2": 120}, nil},
		{"an unusual value", map[string]float64{"plain.frequency": 60, "plain.voltage_l1": 1e9, "plain.voltage_l2": 0}, nil},
		{"nothing but zeros", map[string]float64{"plain.frequency": 0, "plain.voltage_l1": 0, "plain.voltage_l2": 0}, nil},
		{"the sure one first", map[string]float64{"plain.frequency": 50, "plain.voltage_l1": 230, "plain.voltage_l2": 231, "known.frequency": 50, "known.serial": 1000},
			[]string{"known: frequency 50 Hz, serial 1000 V", "plain: frequency 50 Hz, voltage_l1 230 V (weak)"}},
		{"a state tells little", map[string]float64{"inputs.alarm": 1, "plain.frequency": 50, "plain.voltage_l1": 230, "plain.voltage_l2": 0},
			[]string{"plain: frequency 50 Hz, voltage_l1 230 V (weak)", "inputs: alarm 1 (weak)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &site{settings: map[string]map[int]act{"9600 8N1": {1: {points: c.points}}}}
			r, err := Run(t.Context(), quick(s, "1", profiles...))
			if err != nil || len(r.Lines) != 1 {
				t.Fatal(r, err)
			}
			var got []string
			for _, f := range r.Lines[0].Devices[0].Fits {
				got = append(got, f.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Behind an address the framing is what is tried, and a server that is one device is told from a converter with many.
func TestScanAddress(t *testing.T) {
	gone := &drivers.Error{Failure: drivers.Exception, Code: 0x0B}
	lost := &drivers.Error{Failure: drivers.Link, Detail: "EOF"}
	frame := &drivers.Error{Failure: drivers.Frame, Detail: "header is not Modbus TCP"}
	for _, c := range []struct {
		name     string
		settings map[string]map[int]act
		want     string
		remark   string
	}{
		{"a converter", map[string]map[int]act{"Modbus TCP": all(gone, 4, 5)}, "Modbus TCP 4=value 5=value", "hubagent read --address h:502 --unit 4 "},
		{"one device", map[string]map[int]act{"Modbus TCP": all(nil)}, "Modbus TCP 1=value", "h:502 answers every unit id alike: it is one device, and unit 1 is as good as any."},
		{"RTU over TCP", map[string]map[int]act{"RTU over TCP": {7: {}}}, "RTU over TCP 7=value", "h:502 speaks RTU over TCP: use kind modbus-rtu-tcp."},
		{"RTU over TCP, and the other framing ends the connection", map[string]map[int]act{"Modbus TCP": all(lost), "RTU over TCP": {7: {}}}, "RTU over TCP 7=value", "h:502 speaks RTU over TCP"},
		{"something else", map[string]map[int]act{"Modbus TCP": {1: {err: frame}}}, "Modbus TCP garbled [1]", "Something answers at Modbus TCP, but with errors"},
		{"nothing", map[string]map[int]act{"Modbus TCP": all(gone), "RTU over TCP": all(lost)}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &site{settings: c.settings}
			o := quick(s, "1-247")
			o.Trials = TrialsAt("h:502")
			r, err := Run(t.Context(), o)
			if err != nil || found(r) != c.want {
				t.Errorf("found %q, %v; want %q", found(r), err, c.want)
			}
			if remarks := strings.Join(r.Remarks(), "\n"); c.remark == "" && remarks != "" || !strings.Contains(remarks, c.remark) {
				t.Errorf("remarks %q, want %q", remarks, c.remark)
			}
			if n := s.asked["RTU over TCP"]; strings.HasPrefix(c.name, "nothing") && n > mostLinks {
				t.Errorf("%d requests to a server that ends every connection", n)
			}
		})
	}
}

// all is a line at which every unit behaves alike, but for those that answer.
func all(failed *drivers.Error, there ...int) map[int]act {
	units := map[int]act{}
	for u := 1; u <= 247; u++ {
		if units[u] = (act{err: failed}); slices.Contains(there, u) {
			units[u] = act{}
		}
	}
	return units
}

// A model whose signs many registers would show is never sure, so that it does not keep the scan from looking further.
func TestSureOfShippedProfiles(t *testing.T) {
	all, err := config.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	sure := map[string]bool{}
	for _, s := range sights(all) {
		sure[s.model.ID] = s.sure()
		if s.chance <= 0 || s.chance > 1 {
			t.Errorf("%s: a chance of %g", s.model.ID, s.chance)
		}
	}
	for id, want := range map[string]bool{
		"gavazzi-em340": true, "abb-b23": true, "schneider-iem3155": true, "eastron-sdm630": true, "chint-ddsu666": true, "hub-bin": true,
		"peacefair-pzem-017": false, // 0.05 to 300 V in a register that goes to 655 V
		"eastron-sdm72d":     false, // power and energy, whatever they are
	} {
		if sure[id] != want {
			t.Errorf("%s: sure %v, want %v", id, sure[id], want)
		}
	}
}
