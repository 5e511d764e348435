package gpio

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	periph "periph.io/x/conn/v3/gpio"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
)

func contactOn(line int, debounce time.Duration) config.Device {
	return config.Device{Name: "lift", Line: line, Model: &config.Profile{
		ID: "test", Kind: config.Contact,
		Points: []config.Point{{Name: "fault", Function: config.Line, Type: config.Bool, Debounce: debounce}},
	}}
}

func pulsesOn(line int) config.Device {
	return config.Device{Name: "meter", Line: line, Model: &config.Profile{
		ID: "test", Kind: config.Meter,
		Points: []config.Point{
			{Name: "water", Function: config.Line, Type: config.Pulses, Unit: "L"},
			{Name: "closed", Function: config.Line, Type: config.Bool},
		},
	}}
}

// horn is an output.
func horn(line int, invert bool) config.Device {
	return config.Device{Name: "horn", Line: line, Writes: []string{"sound"}, Model: &config.Profile{
		ID: "test", Kind: config.Contact,
		Points: []config.Point{{Name: "sounds", Function: config.Line, Type: config.Bool, Invert: invert, Debounce: time.Minute}},
		Writes: []config.Write{{Name: "sound", Function: config.Line, Type: config.Bool, Allowed: []int64{0, 1}}},
	}}
}

func TestConformanceSim(t *testing.T) {
	named := contactOn(0, 10*time.Millisecond)
	named.LineName = "DOOR"
	for name, c := range map[string]struct {
		device config.Device
		file   string
	}{
		"contact": {contactOn(17, 10*time.Millisecond), "line17"},
		"named":   {named, "line-DOOR"},
		"pulses":  {pulsesOn(17), "line17"},
	} {
		t.Run(name, func(t *testing.T) {
			drivertest.Run(t, func(t *testing.T) drivertest.Rig {
				dir := t.TempDir()
				put := func(name string) {
					if err := os.WriteFile(filepath.Join(dir, name), []byte("1"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				put(c.file)
				put("line18")
				waiting := contactOn(18, time.Minute)
				waiting.Name = "waiting"
				return drivertest.Rig{
					Open: OpenSim, Config: config.Bus{Kind: config.GPIOSim, Dir: dir},
					Device: c.device, Waiting: waiting,
					Away: func() { os.Remove(filepath.Join(dir, c.file)) }, Back: func() { put(c.file) },
					Failure: drivers.Link,
				}
			})
		})
	}
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
		d := contactOn(3, 0)
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

func TestSimNames(t *testing.T) {
	for name, want := range map[string]string{
		"DOOR":  "cannot read line DOOR of lift: link: there is no /no/such/folder/line-DOOR",
		"..":    "cannot read line .. of lift: link: there is no /no/such/folder/line-..",
		"a/b":   `cannot read line a/b of lift: link: "line-a/b" is not the name of a file: choose a line name without /`,
		"/../x": `cannot read line /../x of lift: link: "line-/../x" is not the name of a file: choose a line name without /`,
		"":      "cannot read line 3 of lift: link: there is no /no/such/folder/line3",
	} {
		d := contactOn(3, time.Second)
		d.LineName = name
		bus, err := OpenSim(config.Bus{Dir: "/no/such/folder"}, drivers.With{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := bus.Read(t.Context(), d)
		drivertest.CheckSample(t, d, s)
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", name, err, want)
		}
	}
}

// The twin counts what changed from poll to poll.
func TestSimCounts(t *testing.T) {
	dir := t.TempDir()
	line := file(filepath.Join(dir, "line17"))
	if err := line.set(periph.Low); err != nil {
		t.Fatal(err)
	}
	d := pulsesOn(17)
	opened, err := OpenSim(config.Bus{Dir: dir, Devices: []config.Device{d}}, drivers.With{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"1", "1", "2", "2", "3"} {
		if err := line.set(i%2 == 0); err != nil {
			t.Fatal(err)
		}
		s, err := opened.Read(t.Context(), d)
		drivertest.CheckSample(t, d, s)
		if got := s.Readings[0].Value.String(); err != nil || got != want || s.Readings[1].Value != drivers.Bool(i%2 == 0) {
			t.Errorf("poll %d: %+v, %v; want %s", i, s.Readings, err, want)
		}
	}
}

func TestSimOutput(t *testing.T) {
	for _, invert := range []bool{false, true} {
		dir := t.TempDir()
		path := filepath.Join(dir, "line5")
		d := horn(5, invert)
		opened, err := OpenSim(config.Bus{Dir: dir, Devices: []config.Device{d}}, drivers.With{})
		if err != nil {
			t.Fatal(err)
		}
		check := func(active bool) {
			t.Helper()
			level := "0"
			if active != invert {
				level = "1"
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != level {
				t.Errorf("file holds %q, %v; want %s", got, err, level)
			}
			if s, err := opened.Read(t.Context(), d); err != nil || s.Readings[0].Value != drivers.Bool(active) {
				t.Errorf("invert %t: %+v, %v; want %t", invert, s.Readings, err, active)
			}
		}
		check(false)
		for _, raw := range []int64{1, 1, 0, 1} {
			if err := opened.(drivers.Writer).Write(t.Context(), d, d.Model.Writes[0], raw); err != nil {
				t.Error(err)
			}
			check(raw == 1)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		var failed *drivers.Error
		if err := opened.(drivers.Writer).Write(t.Context(), d, d.Model.Writes[0], 1); !errors.As(err, &failed) || failed.Failure != drivers.Link {
			t.Errorf("without its folder: %v", err)
		}
	}
}

// A machine without the chip, as this one is or not: no panic, and what to look at.
func TestChipThatIsNotThere(t *testing.T) {
	d := contactOn(17, 0)
	bus, err := Open(config.Bus{Chip: "no-such-chip", Devices: []config.Device{d}}, drivers.With{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := bus.Read(t.Context(), d)
		drivertest.CheckSample(t, d, s)
		var failed *drivers.Error
		if !errors.As(err, &failed) || failed.Failure != drivers.Link || s.Readings[0].Why != "link" {
			t.Fatalf("%v, want a link failure", err)
		}
		want := "there is no GPIO chip"
		if chips, _ := filepath.Glob("/dev/gpiochip*"); len(chips) == 0 {
			want = "this machine shows no GPIO chip: there is no /dev/gpiochip0"
		}
		if !strings.HasPrefix(failed.Detail, want) {
			t.Errorf("%v", err)
		}
	}
	if err := bus.Close(); err != nil {
		t.Error(err)
	}
}

// board is a chip in memory. It has one line, which reports its edges when reports is set.
type board struct {
	reports bool
	claims  []request

	mu     sync.Mutex
	away   bool
	at     periph.Level
	stuck  bool // the line does not follow set
	broken error
	line   *wire
}

func (b *board) claim(r request) (line, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.claims = append(b.claims, r)
	if b.away {
		return nil, errors.New("there is no GPIO chip board")
	}
	if r.output {
		b.at = r.initial
	}
	b.line = &wire{board: b, news: make(chan []edge, 100), gone: make(chan struct{})}
	if b.reports {
		return b.line, nil
	}
	return struct{ line }{b.line}, nil
}

// move lets the line go to level, and tells of it by an edge with the number seqno, but for 0.
func (b *board) move(level periph.Level, seqno uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at = level
	if seqno != 0 {
		b.line.news <- []edge{{level, time.Now(), seqno}}
	}
}

// remove takes the chip away; tell says whether its driver wakes who waits for an edge.
func (b *board) remove(tell bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away = true
	if tell {
		close(b.line.gone)
	}
}

func (b *board) bring(level periph.Level) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away, b.at = false, level
}

type wire struct {
	*board
	news   chan []edge
	gone   chan struct{}
	closed sync.Once
}

func (w *wire) level() (periph.Level, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away || w.board.line != w {
		return periph.Low, gone{errors.New("the chip of line 17 is gone")}
	}
	return w.at, w.broken
}

func (w *wire) set(level periph.Level) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stuck {
		w.at = level
	}
	return w.broken
}

func (w *wire) next() ([]edge, error) {
	select {
	case news, ok := <-w.news:
		if !ok {
			return nil, os.ErrClosed
		}
		return news, nil
	case <-w.gone:
		return nil, errors.New("no such device")
	}
}

func (w *wire) close() error { w.closed.Do(func() { close(w.news) }); return nil }

// desk is a bus on a board, with its log.
type desk struct {
	*board
	*bus
	t   *testing.T
	log bytes.Buffer
}

func newDesk(t *testing.T, reports bool, count func(device, point string) (uint64, bool), devices ...config.Device) *desk {
	d := &desk{t: t, board: &board{reports: reports}}
	d.bus = newBus(d.board, devices, drivers.With{Log: slog.New(slog.NewTextHandler(&d.log, nil)), Count: count})
	t.Cleanup(func() {
		if err := d.bus.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// read gives the device's values with why they are suspect, or the error.
func (d *desk) read(device config.Device) string {
	d.t.Helper()
	synctest.Wait() // edges on their way have come
	s, err := d.Read(d.t.Context(), device)
	drivertest.CheckSample(d.t, device, s)
	if err != nil {
		return err.Error()
	}
	var read []string
	for _, r := range s.Readings {
		read = append(read, strings.TrimSpace(r.Value.String()+" "+r.Why))
	}
	return strings.Join(read, ", ")
}

func (d *desk) expect(device config.Device, want string) {
	d.t.Helper()
	if got := d.read(device); got != want {
		d.t.Errorf("%s, want %s", got, want)
	}
}

func TestDebounceOfALineThatReportsNoEdges(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name  string
		until time.Duration // it bounces, 7 ms a level
		away  time.Duration // when the chip goes
		want  string
		took  [2]time.Duration
	}{
		{"at rest", 0, time.Hour, "1", [2]time.Duration{200 * ms, 205 * ms}},
		{"bounces for a while", 60 * ms, time.Hour, "1", [2]time.Duration{250 * ms, 275 * ms}},
		{"bounces long", 1700 * ms, time.Hour, "1", [2]time.Duration{1890 * ms, 1910 * ms}},
		{"never rests", time.Hour, time.Hour, "cannot read line 17 of lift: timeout: the contact does not come to rest", [2]time.Duration{2 * time.Second, 2010 * ms}},
		{"vanishes", 0, 100 * ms, "cannot read line 17 of lift: link: the chip of line 17 is gone", [2]time.Duration{100 * ms, 110 * ms}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, device := time.Now(), contactOn(17, 200*ms)
				d := newDesk(t, false, nil, device)
				ended := make(chan struct{})
				defer func() { <-ended }()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				d.move(periph.High, 0)
				go func() {
					defer close(ended)
					for tick := time.NewTicker(7 * ms); ; {
						select {
						case <-tick.C:
						case <-ctx.Done():
							tick.Stop()
							return
						}
						since := time.Since(begin)
						d.move(since >= c.until || since/(7*ms)%2 == 1, 0)
						if since >= c.away {
							d.remove(false)
						}
					}
				}()
				s, err := d.Read(t.Context(), device)
				drivertest.CheckSample(t, device, s)
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

// A contact that came to rest once takes no time from its neighbours.
func TestReadWaitsOnlyForTheFirstRest(t *testing.T) {
	for _, reports := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			device := contactOn(17, 2*time.Second)
			d := newDesk(t, reports, nil, device)
			begin := time.Now()
			took := func(want string, least, most time.Duration) {
				t.Helper()
				begin := time.Now()
				d.expect(device, want)
				if took := time.Since(begin); took < least || took > most {
					t.Errorf("read after %s, want %s to %s", took, least, most)
				}
			}
			took("0", 2*time.Second, 2*time.Second)
			time.Sleep(time.Minute)
			took("0", 0, 0)
			seqno := uint32(0)
			if reports {
				seqno = 1
			}
			d.move(periph.High, seqno)
			took("0", 0, 0)
			time.Sleep(2 * time.Second)
			took("1", 0, 0)
			d.remove(false)
			d.expect(device, "cannot read line 17 of lift: link: the chip of line 17 is gone")
			d.expect(device, "cannot read line 17 of lift: link: there is no GPIO chip board")
			d.bring(periph.Low)
			took("0", 2*time.Second, 2*time.Second) // what it did meanwhile nobody knows
			if since := time.Since(begin); since != time.Minute+6*time.Second {
				t.Errorf("took %s", since)
			}
		})
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	for _, reports := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			device := contactOn(17, time.Minute)
			d := newDesk(t, reports, nil)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			begin := time.Now()
			s, err := d.Read(ctx, device)
			drivertest.CheckSample(t, device, s)
			if took := time.Since(begin); took != time.Second || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v after %s", err, took)
			}
		})
	}
}

func TestAlarmBetweenTwoPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := contactOn(17, 100*time.Millisecond)
		device.Model.Points[0].Hold = 3 * time.Second
		d := newDesk(t, true, nil, device)
		time.Sleep(time.Second)
		d.expect(device, "0")
		d.move(periph.High, 1)
		time.Sleep(300 * time.Millisecond)
		d.move(periph.Low, 2)
		time.Sleep(10 * time.Second) // no poll came in time
		d.expect(device, "1")
		d.expect(device, "0")
	})
}

// An edge that the chip did not report is no pulse, but the contact is where it is.
func TestLevelWithoutEdge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := pulsesOn(17)
		d := newDesk(t, true, nil, device)
		d.expect(device, "0, 0")
		d.move(periph.High, 0)
		d.expect(device, "0, 1")
		d.move(periph.Low, 1)
		d.expect(device, "0, 0")
		d.move(periph.High, 2)
		d.expect(device, "1, 1")
	})
}

func TestLostEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := pulsesOn(17)
		d := newDesk(t, true, nil, device)
		for seqno := uint32(1); seqno <= 6; seqno++ {
			d.move(seqno%2 == 1, seqno)
		}
		d.expect(device, "3, 0")
		if d.log.Len() > 0 {
			t.Errorf("log: %s", &d.log)
		}
		d.move(periph.High, 1007) // the kernel's queue keeps the newest
		d.move(periph.Low, 1008)
		d.move(periph.High, 1011)
		d.expect(device, "5 lost edges, 1")
		d.expect(device, "5, 1")
		if got := d.log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `level=WARN msg="edges lost" device=meter edges=1002`) {
			t.Errorf("log: %s", got)
		}
	})
}

func TestFirstEdgesLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := pulsesOn(17)
		d := newDesk(t, true, nil, device)
		d.move(periph.High, 5)
		d.expect(device, "1 lost edges, 1")
		d.move(periph.Low, 6)
		d.expect(device, "1, 0")
	})
}

// The count stands over a chip that comes back, and says that it does not know of the time between.
func TestChipThatComesBack(t *testing.T) {
	for _, c := range []struct {
		reports, tell bool
		want          string
	}{
		{false, false, "cannot read line 17 of meter: link: the chip of line 17 is gone"},
		{true, false, "cannot read line 17 of meter: link: the chip of line 17 is gone"},
		{true, true, "cannot read line 17 of meter: link: no such device"},
	} {
		synctest.Test(t, func(t *testing.T) {
			device := pulsesOn(17)
			d := newDesk(t, c.reports, nil, device)
			pulse := func(seqno uint32) {
				t.Helper()
				if !c.reports {
					seqno = 0
				}
				d.move(periph.High, seqno)
				d.read(device)
			}
			pulse(1)
			d.expect(device, "1, 1")
			d.remove(c.tell)
			d.expect(device, c.want)
			d.expect(device, "cannot read line 17 of meter: link: there is no GPIO chip board")
			d.bring(periph.Low)
			d.expect(device, "1 lost edges, 0")
			d.expect(device, "1, 0")
			pulse(1)
			d.expect(device, "2, 1")
		})
	}
}

// A chip that was gone and is back before anyone looked is a fault all the same: its lines must be claimed anew.
func TestChipThatWasGoneForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := pulsesOn(17)
		d := newDesk(t, true, nil, device)
		d.remove(true)
		d.bring(periph.Low)
		if got := d.read(device); !strings.HasPrefix(got, "cannot read line 17 of meter: link: ") {
			t.Error(got)
		}
		d.expect(device, "0 lost edges, 0")
	})
}

// A transfer that failed, as on an I2C expander, does not let go of the line: an output would fall back.
func TestFailedTransferKeepsTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := pulsesOn(17)
		d := newDesk(t, true, nil, device)
		d.move(periph.High, 1)
		d.broken = errors.New("input/output error")
		d.expect(device, "cannot read line 17 of meter: link: input/output error")
		d.broken = nil
		d.expect(device, "1, 1")
		if len(d.claims) != 1 {
			t.Errorf("%d claims", len(d.claims))
		}
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := pulsesOn(17)
		d := newDesk(t, true, func(device, point string) (uint64, bool) { return 4711, device == "meter" && point == "water" }, device)
		d.move(periph.High, 1)
		d.expect(device, "4712 restarted, 1")
		d.expect(device, "4712, 1")
	})
}

func TestRequests(t *testing.T) {
	falling := config.Point{Function: config.Line, Type: config.Pulses, Invert: true}
	rising := config.Point{Function: config.Line, Type: config.Pulses}
	state := config.Point{Function: config.Line, Type: config.Bool}
	named := config.Device{Name: "a", LineName: "DOOR", Model: &config.Profile{Points: []config.Point{state}}}
	refused := horn(5, false)
	refused.Writes = []string{"other"}
	for _, c := range []struct {
		name   string
		device config.Device
		want   request
	}{
		{"contact", contactOn(17, 0), request{device: "lift", offset: 17, initial: periph.Low, edges: periph.BothEdges}},
		{"pulses", config.Device{Name: "a", Line: 3, Model: &config.Profile{Points: []config.Point{rising}}}, request{device: "a", offset: 3, edges: periph.RisingEdge, counts: true}},
		{"falling", config.Device{Name: "a", Model: &config.Profile{Points: []config.Point{falling}}}, request{device: "a", edges: periph.FallingEdge, counts: true}},
		{"both", config.Device{Name: "a", Model: &config.Profile{Points: []config.Point{falling, rising}}}, request{device: "a", edges: periph.BothEdges, counts: true}},
		{"with state", config.Device{Name: "a", Model: &config.Profile{Points: []config.Point{rising, state}}}, request{device: "a", edges: periph.BothEdges, counts: true}},
		{"by name", named, request{device: "a", name: "DOOR", edges: periph.BothEdges}},
		{"output", horn(5, false), request{device: "horn", offset: 5, output: true, edges: periph.BothEdges}},
		{"inverted output", horn(5, true), request{device: "horn", offset: 5, output: true, initial: periph.High, edges: periph.BothEdges}},
		{"output that is not enabled", refused, request{device: "horn", offset: 5, edges: periph.BothEdges}},
	} {
		d := newDesk(t, false, nil, c.device)
		if !slices.Equal(d.claims, []request{c.want}) {
			t.Errorf("%s: %+v, want %+v", c.name, d.claims, c.want)
		}
	}
}

func TestOutput(t *testing.T) {
	device := horn(5, true)
	d := newDesk(t, false, nil, device)
	write := func(raw int64, want string) {
		t.Helper()
		got := ""
		if err := d.Write(t.Context(), device, device.Model.Writes[0], raw); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("write %d: %s, want %s", raw, got, want)
		}
	}
	level := func(want periph.Level) {
		t.Helper()
		if d.at != want {
			t.Errorf("line is %s, want %s", d.at, want)
		}
	}
	level(periph.High)
	write(1, "")
	level(periph.Low)
	write(0, "")
	level(periph.High)
	d.stuck = true
	write(1, "cannot write line 5 of horn: frame: it was set Low and reads High: look for a short circuit")
	d.stuck, d.broken = false, errors.New("input/output error")
	write(1, "cannot write line 5 of horn: link: input/output error")
	d.broken = nil
	write(1, "")
	d.remove(false)
	write(0, "cannot write line 5 of horn: link: the chip of line 17 is gone")
	d.bring(periph.High)
	write(1, "")
	level(periph.Low)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Write(ctx, device, device.Model.Writes[0], 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	level(periph.Low)

	device = horn(6, false)
	device.Name, device.Writes = "silent", nil
	write(1, "cannot write line 6 of silent: link: it is an input: list sound under the device's writes to make it an output")
	if len(d.claims) != 2 {
		t.Errorf("a write that is not enabled claimed the line: %+v", d.claims)
	}
}

func TestOutputThatCounts(t *testing.T) {
	device := pulsesOn(17)
	device.Writes, device.Model.Writes = []string{"sound"}, horn(5, false).Model.Writes
	d := newDesk(t, false, nil, device)
	s, err := d.Read(t.Context(), device)
	drivertest.CheckSample(t, device, s)
	if err == nil || !strings.Contains(err.Error(), "counts pulses") || len(d.claims) > 0 {
		t.Errorf("%v, claims %+v", err, d.claims)
	}
}
