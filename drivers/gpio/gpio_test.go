package gpio

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	periph "periph.io/x/conn/v3/gpio"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
)

func contact(line int, debounce time.Duration) config.Device {
	return config.Device{Name: "lift", Line: line, Model: &config.Profile{
		ID: "test", Kind: config.Contact,
		Points: []config.Point{{Name: "fault", Function: config.Line, Type: config.Bool, Debounce: debounce}},
	}}
}

func TestConformanceSim(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Rig {
		dir := t.TempDir()
		put := func(name string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("1"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put("line17")
		put("line18")
		return drivertest.Rig{
			Open: OpenSim, Config: config.Bus{Kind: config.GPIOSim, Dir: dir},
			Device: contact(17, 10*time.Millisecond), Waiting: contact(18, time.Minute),
			Away: func() { os.Remove(filepath.Join(dir, "line17")) }, Back: func() { put("line17") },
			Failure: drivers.Link,
		}
	})
}

func TestSimFiles(t *testing.T) {
	for _, c := range []struct {
		content string
		invert  bool
		want    string // state, or how the error goes on
	}{
		{"0", false, "0"},
		{"1", false, "1"},
		{"0", true, "1"},
		{"1\n", true, "0"},
		{" 1 \n", false, "1"},
		{"", false, `holds "", not 0 or 1`},
		{"2", false, `holds "2", not 0 or 1`},
		{"01", false, `holds "01", not 0 or 1`},
		{"high", true, `holds "high", not 0 or 1`},
		{strings.Repeat("1", 1000), false, `holds "` + strings.Repeat("1", 20) + `", not 0 or 1`},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "line3")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		bus, err := OpenSim(config.Bus{Dir: dir}, drivers.With{})
		if err != nil {
			t.Fatal(err)
		}
		d := contact(3, 0)
		d.Model.Points[0].Invert = c.invert
		s, err := bus.Read(t.Context(), d)
		drivertest.CheckSample(t, d, s)
		if len(c.want) == 1 {
			if got := s.Readings[0].Value.String(); got != c.want || err != nil {
				t.Errorf("%q, invert %t: %s, %v; want %s", c.content, c.invert, got, err, c.want)
			}
			continue
		}
		if want := "cannot read line 3 of lift: link: " + path + " " + c.want; err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", c.content, err, want)
		}
	}
}

func TestSimWithoutFile(t *testing.T) {
	bus, err := OpenSim(config.Bus{Dir: "/no/such/folder"}, drivers.With{})
	if err != nil {
		t.Fatal(err)
	}
	d := contact(3, time.Second)
	s, err := bus.Read(t.Context(), d)
	drivertest.CheckSample(t, d, s)
	if err == nil || err.Error() != "cannot read line 3 of lift: link: there is no /no/such/folder/line3" {
		t.Errorf("%v", err)
	}
}

// A machine without the chip, as this one is or not: no panic, and what to look at.
func TestChipThatIsNotThere(t *testing.T) {
	bus, err := Open(config.Bus{Chip: "no-such-chip"}, drivers.With{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d := contact(17, 0)
		s, err := bus.Read(t.Context(), d)
		drivertest.CheckSample(t, d, s)
		var failed *drivers.Error
		if !errors.As(err, &failed) || failed.Failure != drivers.Link || s.Readings[0].Why != "link" {
			t.Fatalf("%v, want a link failure", err)
		}
		none, others := strings.Contains(failed.Detail, "shows no GPIO chip: is /dev/gpiochip0 there"), strings.Contains(failed.Detail, "there is no GPIO chip no-such-chip; there are: ")
		if chips, _ := filepath.Glob("/dev/gpiochip*"); !none && !others || len(chips) == 0 && !none {
			t.Errorf("%v", err)
		}
	}
	if err := bus.Close(); err != nil {
		t.Error(err)
	}
}

// pulled is a line of a chip that is pulled out before its after-th In; like periph's, its Read then says low.
type pulled struct{ ins, after, closed int }

func (p *pulled) In(periph.Pull, periph.Edge) error {
	if p.ins++; p.ins >= p.after {
		return unix.ENODEV
	}
	return nil
}

func (p *pulled) Read() periph.Level { return periph.Level(p.ins < p.after) }
func (p *pulled) Close()             { p.closed++ }

// The level of a chip that is gone is not low: it is missing, even when the chip goes in the middle of a poll.
func TestChipThatIsPulledOut(t *testing.T) {
	for _, after := range []int{3, 4} { // before the second poll's Read, and during it
		line := &pulled{after: after}
		bus, d := newBus(&chip{label: "expander", claimed: map[int]pin{17: line}}), contact(17, 0)
		if s, err := bus.Read(t.Context(), d); err != nil || s.Readings[0].Value != drivers.Bool(true) {
			t.Errorf("while it is there: %+v, %v", s.Readings, err)
		}
		for range 2 {
			s, err := bus.Read(t.Context(), d)
			drivertest.CheckSample(t, d, s)
			const want = "cannot read line 17 of lift: link: cannot use line 17 of chip expander: no such device; if the chip was away, restart the agent"
			if err == nil || err.Error() != want || s.Readings[0].Why != "link" {
				t.Errorf("pulled out at In %d: %+v, %v; want %s", after, s.Readings, err, want)
			}
		}
		for range 2 {
			if err := bus.Close(); err != nil {
				t.Error(err)
			}
		}
		if line.closed != 1 {
			t.Errorf("line closed %d times", line.closed)
		}
	}
}

// periph closes file descriptor 0 where two nodes are one chip.
func TestFile0IsKept(t *testing.T) {
	if err := keepFile0(func() error { return unix.Close(0) }); err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(0, &stat); err != nil {
		t.Errorf("file descriptor 0: %v", err)
	}
	if err := keepFile0(func() error { return fs.ErrPermission }); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v", err)
	}
}

// moving is a line that moves by the clock.
type moving struct {
	begin time.Time
	at    func(since time.Duration) (bool, error)
	looks int
}

func (m *moving) level(int) (bool, error) { m.looks++; return m.at(time.Since(m.begin)) }
func (m *moving) close() error            { return nil }

func TestDebounce(t *testing.T) {
	const ms = time.Millisecond
	bounce := func(until time.Duration) func(time.Duration) (bool, error) {
		return func(since time.Duration) (bool, error) { return since >= until || since/(7*ms)%2 == 1, nil }
	}
	for _, c := range []struct {
		name  string
		level func(time.Duration) (bool, error)
		want  string
		took  [2]time.Duration
	}{
		{"at rest", bounce(0), "1", [2]time.Duration{200 * ms, 205 * ms}},
		{"bounces for a while", bounce(60 * ms), "1", [2]time.Duration{250 * ms, 270 * ms}},
		{"bounces long", bounce(1700 * ms), "1", [2]time.Duration{1900 * ms, 1910 * ms}},
		{"never rests", bounce(time.Hour), "cannot read line 17 of lift: timeout: the contact does not come to rest", [2]time.Duration{2 * time.Second, 2010 * ms}},
		{"vanishes", func(since time.Duration) (bool, error) {
			if since > 100*ms {
				return false, errors.New("unplugged")
			}
			return true, nil
		}, "cannot read line 17 of lift: link: unplugged", [2]time.Duration{100 * ms, 110 * ms}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				bus, d := newBus(&moving{begin: begin, at: c.level}), contact(17, 200*ms)
				s, err := bus.Read(t.Context(), d)
				drivertest.CheckSample(t, d, s)
				got := s.Readings[0].Value.String()
				if err != nil {
					got = err.Error()
				}
				if took := time.Since(begin); got != c.want || took < c.took[0] || took > c.took[1] {
					t.Errorf("%s after %s, want %s after %s to %s", got, took, c.want, c.took[0], c.took[1])
				}
			})
		})
	}
}

// A contact at rest takes no time from its neighbours, one that changes takes its debounce time once, and a glitch
// shorter than that is no change.
func TestDebounceWaitsOnlyForAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var high atomic.Bool
		line := &moving{begin: time.Now(), at: func(time.Duration) (bool, error) { return high.Load(), nil }}
		bus, d := newBus(line), contact(17, 2*time.Second)
		read := func(want string, least, most time.Duration) {
			t.Helper()
			begin := time.Now()
			s, err := bus.Read(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			if took, got := time.Since(begin), s.Readings[0].Value.String(); got != want || took < least || took > most {
				t.Errorf("%s after %s, want %s after %s to %s", got, took, want, least, most)
			}
		}
		read("0", 2*time.Second, 2010*time.Millisecond)
		for range 3 {
			read("0", 0, 0)
		}
		high.Store(true)
		read("1", 2*time.Second, 2010*time.Millisecond)
		read("1", 0, 0)
		high.Store(false)
		time.AfterFunc(time.Second, func() { high.Store(true) })
		read("1", time.Second, 1010*time.Millisecond)
		line.at = func(time.Duration) (bool, error) { return false, errors.New("unplugged") }
		if _, err := bus.Read(t.Context(), d); err == nil {
			t.Error("read without a line")
		}
		line.at = func(time.Duration) (bool, error) { return true, nil }
		read("1", 2*time.Second, 2010*time.Millisecond) // what it did meanwhile nobody knows
	})
}

func TestDebounceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := &moving{begin: time.Now(), at: func(time.Duration) (bool, error) { return true, nil }}
		bus, d := newBus(line), contact(17, time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		s, err := bus.Read(ctx, d)
		drivertest.CheckSample(t, d, s)
		if took := time.Since(begin); took != time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v after %s", err, took)
		}
		if line.looks > 300 {
			t.Errorf("looked %d times in a second", line.looks)
		}
	})
}
