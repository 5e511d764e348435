// Package scan finds the Modbus devices on a line nobody has papers of: how the line is set, which units answer and what
// they may be. It only reads.
package scan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/modbus"
)

// Master asks the devices of a line: a modbus.Raw.
type Master interface {
	Exchange(context.Context, modbus.Query) (modbus.Exchange, error)
	Poll(context.Context, config.Device) (drivers.Sample, []modbus.Exchange, error)
	Close() error
}

// Options say what to look for. Open, Trials and Units must be given.
type Options struct {
	Open     func(context.Context, config.Bus) (Master, error)
	Trials   []config.Bus // as Trials or TrialsAt give them, likely ones first
	Units    []int
	All      bool // go on with the other trials when devices answered at one
	Profiles []*config.Profile
	Progress func(Progress) // called before each request; nil: nobody looks

	Fast, Slow time.Duration // waits for an answer in the first and the second pass; 0: by the kind of line
}

// Progress is where a scan is.
type Progress struct {
	Trial      string        // what is tried, as Describe has it
	Pass       string        // "likely units", "other units", "slow devices"
	Unit       int           // that is asked
	Done, Left time.Duration // time spent, and what is left if nobody else answers
	Found      []int         // units that answered so far
}

// Device is a unit that answered.
type Device struct {
	Unit   int           `json:"unit"`
	Answer string        `json:"answer"`   // "value" or "exception 2": a refusal is a sign of life, too
	Took   time.Duration `json:"took_ns"`  // from the request to the last byte of the answer
	Slow   bool          `json:"slow"`     // only the second pass, which waits longer, heard it
	Fits   []Fit         `json:"profiles"` // the best first; none: no profile fits
}

// Line is a trial at which something came back.
type Line struct {
	Kind     config.BusKind `json:"kind"`
	Port     string         `json:"port,omitempty"`
	Address  string         `json:"address,omitempty"`
	Baud     int            `json:"baud,omitempty"`
	Parity   config.Parity  `json:"parity,omitempty"`
	StopBits int            `json:"stop_bits,omitempty"`
	Devices  []Device       `json:"devices"`
	Garbled  []int          `json:"garbled"`        // units whose answers came back damaged
	Seen     string         `json:"seen,omitempty"` // what was seen of the first of them, in the driver's words
	Alike    bool           `json:"alike"`          // a server that answers every unit id: it is one device
}

// Setting is what was tried: "9600 8N1", "Modbus TCP".
func (l Line) Setting() string {
	return Describe(config.Bus{Kind: l.Kind, Baud: l.Baud, Parity: l.Parity, StopBits: l.StopBits})
}

// Result is what a scan came to.
type Result struct {
	Lines   []Line    `json:"lines"`             // in the order they were tried
	Foreign *Stranger `json:"foreign,omitempty"` // another master on the line
	Stopped bool      `json:"stopped"`           // it was ended before its time
}

// Stranger is another master, and what it was heard asking, or being answered.
type Stranger struct {
	Setting  string `json:"setting"`
	Unit     int    `json:"unit"`
	Function byte   `json:"function"`
}

// Found says whether any device answered.
func (r Result) Found() bool {
	return slices.ContainsFunc(r.Lines, func(l Line) bool { return len(l.Devices) > 0 })
}

// Run scans until all that is worth asking was asked, another master is heard, or ctx ends: the result has what was
// found so far then. The error says why the line cannot be used; what was found before is given all the same.
//
// The likely units are asked at every trial first. Once a device has answered, only that trial is gone on with, over all
// units and then with more patience, unless All is set.
func Run(ctx context.Context, o Options) (Result, error) {
	s := &scan{Options: o, sights: sights(o.Profiles)}
	err := s.run(ctx)
	r := Result{Foreign: s.foreign, Stopped: ctx.Err() != nil}
	if r.Stopped {
		err = nil
	}
	for _, t := range s.trials {
		slices.SortFunc(t.line.Devices, func(a, b Device) int { return a.Unit - b.Unit })
		if len(t.line.Devices) > 0 || len(t.line.Garbled) > 0 {
			r.Lines = append(r.Lines, t.line)
		}
	}
	return r, err
}

type scan struct {
	Options
	sights  []sight
	trials  []*trial
	queue   []sweep
	settled bool // one trial was chosen
	foreign *Stranger
	spent   time.Duration
}

// trial is one way to ask, and what came of it.
type trial struct {
	bus    config.Bus
	line   Line
	late   []int // units whose answer came when it was waited for no more
	absent []int // units that a converter says are not there
	links  int   // requests in a row that found the connection lost
	silent int   // units that were asked and are not there
	recent []asked
}

// asked is a request that may still be answered.
type asked struct {
	unit     int
	function byte
	at       time.Time
}

// sweep is some units to be asked at one trial.
type sweep struct {
	trial *trial
	pass  string
	units []int
	wait  time.Duration
}

// cost is what a unit that keeps silent takes.
func (w sweep) cost() time.Duration {
	one := probeTime(w.trial.bus, w.wait)
	switch {
	case w.trial.bus.Kind == config.ModbusTCP:
		return one
	case w.pass == passLikely: // two requests, and between them the wait for a late answer to the first
		return 2*one + w.wait
	case w.pass == passSlow:
		return one + w.turnaround()
	}
	return one
}

const (
	passLikely = "likely units"
	passOthers = "other units"
	passSlow   = "slow devices"
)

func (s *scan) run(ctx context.Context) error {
	first := likely(s.Units, s.Profiles)
	others := slices.DeleteFunc(slices.Clone(s.Units), func(u int) bool { return slices.Contains(first, u) })
	for _, bus := range s.Trials {
		t := &trial{bus: bus, line: Line{
			Kind: bus.Kind, Port: bus.Port, Address: bus.Address, Baud: bus.Baud, Parity: bus.Parity, StopBits: bus.StopBits,
			Devices: []Device{}, Garbled: []int{},
		}}
		s.trials = append(s.trials, t)
		s.queue = append(s.queue, sweep{t, passLikely, first, s.fast(bus)})
	}
	for _, t := range s.trials {
		s.queue = append(s.queue, sweep{t, passOthers, others, s.fast(t.bus)})
	}
	for len(s.queue) > 0 && (s.foreign == nil || s.All) {
		next := s.queue[0]
		s.queue = s.queue[1:]
		if err := s.sweep(ctx, next); err != nil {
			return err
		}
		if next.pass != passSlow {
			s.plan(next.trial)
		}
	}
	return nil
}

// plan decides what is worth asking after a sweep at t.
func (s *scan) plan(t *trial) {
	answered := len(t.late) > 0 || len(t.line.Devices) > 0
	if t.links >= mostLinks || t.line.Alike {
		s.queue = slices.DeleteFunc(s.queue, func(w sweep) bool { return w.trial == t })
	}
	if !answered {
		return
	}
	if !s.All && !s.settled {
		s.settled = true
		s.queue = slices.DeleteFunc(s.queue, func(w sweep) bool { return w.trial != t })
	}
	planned := slices.ContainsFunc(s.queue, func(w sweep) bool { return w.trial == t })
	if !planned && !t.line.Alike {
		s.queue = append(s.queue, sweep{t, passSlow, s.Units, s.slow(t.bus)})
	}
}

func (s *scan) fast(b config.Bus) time.Duration {
	if s.Fast > 0 {
		return s.Fast
	}
	fast, _ := waits(b)
	return fast
}

func (s *scan) slow(b config.Bus) time.Duration {
	if s.Slow > 0 {
		return s.Slow
	}
	_, slow := waits(b)
	return slow
}

// mostLinks is how many lost connections in a row end a trial at an address: the server wants nothing of this framing.
const mostLinks = 3

func (s *scan) sweep(ctx context.Context, w sweep) error {
	t := w.trial
	if len(w.units) == 0 {
		return nil
	}
	bus := t.bus
	bus.Timeout = max(300*time.Millisecond, s.fast(t.bus)) // for Poll, of devices that have answered
	m, err := s.Open(ctx, bus)
	if err != nil {
		return err
	}
	defer m.Close()
	for i, unit := range w.units {
		if t.has(unit) || slices.Contains(t.absent, unit) {
			continue
		}
		s.report(w, i)
		begun := time.Now()
		err := s.ask(ctx, m, w, unit)
		s.spent += time.Since(begun)
		if err != nil || s.foreign != nil && !s.All || t.links >= mostLinks {
			return err
		}
		if s.alike(ctx, m, t) {
			return nil
		}
	}
	return nil
}

func (s *scan) report(w sweep, at int) {
	if s.Progress == nil {
		return
	}
	left := time.Duration(0)
	for _, q := range append([]sweep{{w.trial, w.pass, w.units[at:], w.wait}}, s.queue...) {
		left += time.Duration(len(q.units)) * q.cost()
	}
	var found []int
	for _, t := range s.trials {
		for _, d := range t.line.Devices {
			found = append(found, d.Unit)
		}
	}
	s.Progress(Progress{Trial: Describe(w.trial.bus), Pass: w.pass, Unit: w.units[at], Done: s.spent, Left: left, Found: found})
}

// ask sees whether a unit is there: by holding register 0, which nearly every device answers or refuses, and where it is
// worth the time by input register 0, for devices that keep silent on functions they do not have.
func (s *scan) ask(ctx context.Context, m Master, w sweep, unit int) error {
	functions := []config.Function{config.HoldingRegister}
	switch {
	case w.trial.bus.Kind == config.ModbusTCP: // a converter answers for those that keep silent
	case w.pass == passLikely, slices.Contains(w.trial.late, unit):
		functions = []config.Function{config.HoldingRegister, config.InputRegister}
	case w.pass == passSlow:
		functions = []config.Function{config.InputRegister}
	}
	t := w.trial
	garbled, seen := false, ""
	for _, f := range functions {
		for try := 0; try < 2; try++ { // what came back damaged is asked for again: it may have been noise
			q := modbus.Query{Unit: unit, Function: f, Count: 1, Timeout: w.wait}
			if w.pass == passSlow {
				q.Limits.Turnaround = w.turnaround()
			}
			t.recent = append(t.recent, asked{unit, functionCode(f), time.Now()})
			x, err := m.Exchange(ctx, q)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			said := detail(err)
			there, damaged, err := s.judge(t, w, x, err)
			if err != nil || s.foreign != nil && !s.All || t.links >= mostLinks {
				return err
			}
			if there {
				return s.look(ctx, m, t, unit)
			}
			if !damaged {
				break
			}
			garbled, seen = true, cmp.Or(seen, said)
		}
	}
	t.silent++
	if garbled && !slices.Contains(t.line.Garbled, unit) {
		t.line.Garbled = append(t.line.Garbled, unit)
		t.line.Seen = cmp.Or(t.line.Seen, seen)
	}
	return nil
}

// turnaround is silence before each request of the slow pass, for devices that fail right after an exchange with another,
// as some of ABB's do: 100 ms where the wait is 500 ms.
func (w sweep) turnaround() time.Duration { return w.wait / 5 }

// Exceptions with which a converter says that nobody answered it (Modbus Application Protocol V1.1b3, 7).
const (
	gatewayPath   = 0x0A
	gatewayTarget = 0x0B
)

// leastNoise is how many bytes that fit no frame are a damaged answer. A transceiver that turns round gives one or two.
const leastNoise = 3

// judge takes an exchange for what it shows. The error ends the scan.
func (s *scan) judge(t *trial, w sweep, x modbus.Exchange, err error) (there, damaged bool, fatal error) {
	var failed *drivers.Error
	if err != nil && !errors.As(err, &failed) {
		return false, false, err
	}
	if failed != nil && failed.Failure == drivers.Link {
		if t.bus.Kind == config.ModbusRTU {
			return false, false, fmt.Errorf("%s was lost: %s", t.bus.Port, failed.Detail)
		}
		t.links++
		return false, false, nil
	}
	t.links = 0
	others, noise := x.Sift()
	for _, f := range others {
		if t.ours(f) {
			t.late = append(t.late, f.Unit)
		} else if s.foreign == nil {
			s.foreign = &Stranger{Describe(t.bus), f.Unit, f.Function}
		}
	}
	switch {
	case failed == nil:
		t.line.Devices = append(t.line.Devices, Device{Unit: x.Unit, Answer: "value", Took: x.Took, Slow: w.pass == passSlow})
		return true, false, nil
	case failed.Failure == drivers.Exception && t.bus.Kind == config.ModbusTCP && (failed.Code == gatewayPath || failed.Code == gatewayTarget):
		t.absent = append(t.absent, x.Unit)
		return false, false, nil
	case failed.Failure == drivers.Exception:
		t.line.Devices = append(t.line.Devices, Device{Unit: x.Unit, Answer: failed.Why(), Took: x.Took, Slow: w.pass == passSlow})
		return true, false, nil
	}
	return false, noise >= leastNoise || t.bus.Kind == config.ModbusTCP && failed.Failure == drivers.Frame, nil
}

// detail is what an error says was seen.
func detail(err error) string {
	var failed *drivers.Error
	if errors.As(err, &failed) {
		return failed.Detail
	}
	return ""
}

// lateFor is how long after its request an answer may still be that of a slow device.
const lateFor = 3 * time.Second

// ours says whether a frame is an echo of what was asked a moment ago, or an answer to it that comes too late.
func (t *trial) ours(f modbus.Frame) bool {
	t.recent = slices.DeleteFunc(t.recent, func(a asked) bool { return time.Since(a.at) > lateFor })
	return slices.ContainsFunc(t.recent, func(a asked) bool { return a.unit == f.Unit && a.function == f.Function })
}

func (t *trial) has(unit int) bool {
	return slices.ContainsFunc(t.line.Devices, func(d Device) bool { return d.Unit == unit })
}

// look finds the profiles that fit the device that answered last.
func (s *scan) look(ctx context.Context, m Master, t *trial, unit int) error {
	d := &t.line.Devices[len(t.line.Devices)-1]
	var known []string // what others on this line turned out to be
	for _, other := range t.line.Devices {
		for _, f := range other.Fits {
			if f.Sure {
				known = append(known, f.Profile)
			}
		}
	}
	fits, err := suggest(ctx, m, unit, s.sights, known)
	d.Fits = fits
	return err
}

// alike finds out about servers that are one device and answer whatever unit is asked for: they do at ids that nobody
// would give.
func (s *scan) alike(ctx context.Context, m Master, t *trial) bool {
	if t.bus.Kind != config.ModbusTCP || len(t.line.Devices) != leastAlike || t.silent > 0 {
		return false
	}
	for _, unit := range []int{247, 199, 173} {
		if _, err := m.Exchange(ctx, modbus.Query{Unit: unit, Function: config.HoldingRegister, Count: 1, Timeout: s.fast(t.bus)}); err != nil {
			var failed *drivers.Error
			if !errors.As(err, &failed) || failed.Failure != drivers.Exception || failed.Code == gatewayPath || failed.Code == gatewayTarget {
				return false
			}
		}
	}
	t.line.Alike = true
	t.line.Devices = t.line.Devices[:1]
	return true
}

// leastAlike is how many units must have answered, and none kept silent, for a server to be suspected.
const leastAlike = 4

func functionCode(f config.Function) byte {
	if f == config.InputRegister {
		return 4
	}
	return 3
}
