package gpio

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"periph.io/x/conn/v3/driver/driverreg"
	periph "periph.io/x/conn/v3/gpio"
	"periph.io/x/host/v3/gpioioctl"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
)

// simChip is a chip of the kernel module gpio-sim: scripts/gpio-vm runs these tests where it is.
type simChip struct {
	t      *testing.T
	folder string         // in configfs
	lines  map[int]string // their folders in sysfs, when it is live
}

const configfs = "/sys/kernel/config/gpio-sim"

// newSimChip makes a chip of 8 lines, with names, and brings it to life.
func newSimChip(t *testing.T, name, label string, names map[int]string) *simChip {
	t.Helper()
	if os.Getenv("HUB_GPIO_SIM") == "" {
		t.Skip("needs a kernel with gpio-sim: make gpio-vm")
	}
	c := &simChip{t: t, folder: filepath.Join(configfs, name)}
	bank := filepath.Join(c.folder, "bank0")
	c.must(os.MkdirAll(bank, 0o755))
	c.put(filepath.Join(bank, "num_lines"), "8")
	c.put(filepath.Join(bank, "label"), label)
	for offset, name := range names {
		line := filepath.Join(bank, fmt.Sprintf("line%d", offset))
		c.must(os.Mkdir(line, 0o755))
		c.put(filepath.Join(line, "name"), name)
	}
	c.bring()
	t.Cleanup(func() {
		c.remove()
		for offset := range names {
			c.must(os.Remove(filepath.Join(bank, fmt.Sprintf("line%d", offset))))
		}
		c.must(os.Remove(bank))
		c.must(os.Remove(c.folder))
	})
	return c
}

func (c *simChip) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *simChip) put(path, text string) {
	c.t.Helper()
	c.must(os.WriteFile(path, []byte(text), 0))
}

func (c *simChip) get(path string) string {
	c.t.Helper()
	raw, err := os.ReadFile(path)
	c.must(err)
	return strings.TrimSpace(string(raw))
}

func (c *simChip) bring() {
	c.t.Helper()
	c.put(filepath.Join(c.folder, "live"), "1")
	device, chip := c.get(filepath.Join(c.folder, "dev_name")), c.get(filepath.Join(c.folder, "bank0", "chip_name"))
	c.lines = map[int]string{}
	for offset := range 8 {
		c.lines[offset] = filepath.Join("/sys/devices/platform", device, chip, "sim_gpio"+strconv.Itoa(offset))
	}
}

func (c *simChip) remove() {
	c.t.Helper()
	if c.lines != nil {
		c.put(filepath.Join(c.folder, "live"), "0")
	}
	c.lines = nil
}

// pull moves an input line.
func (c *simChip) pull(offset int, level periph.Level) {
	c.t.Helper()
	c.puller(offset)(level)
}

// puller is pull for a line that moves often.
func (c *simChip) puller(offset int) func(periph.Level) {
	c.t.Helper()
	f, err := os.OpenFile(filepath.Join(c.lines[offset], "pull"), os.O_WRONLY, 0)
	c.must(err)
	c.t.Cleanup(func() { f.Close() })
	return func(level periph.Level) {
		c.t.Helper()
		to := "pull-down"
		if level {
			to = "pull-up"
		}
		_, err := f.WriteAt([]byte(to), 0)
		c.must(err)
	}
}

// level is what the far end of an output line sees.
func (c *simChip) level(offset int) periph.Level {
	c.t.Helper()
	return c.get(filepath.Join(c.lines[offset], "value")) == "1"
}

// rig is a bus on a chip, with its log.
type rig struct {
	*bus
	t   *testing.T
	log bytes.Buffer
}

func openRig(t *testing.T, chip string, count func(device, point string) (uint64, bool), devices ...config.Device) *rig {
	t.Helper()
	r := &rig{t: t}
	opened, err := Open(config.Bus{Chip: chip, Devices: devices}, drivers.With{Log: slog.New(slog.NewTextHandler(&r.log, nil)), Count: count})
	if err != nil {
		t.Fatal(err)
	}
	r.bus = opened.(*bus)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) read(d config.Device) string {
	r.t.Helper()
	s, err := r.Read(r.t.Context(), d)
	drivertest.CheckSample(r.t, d, s)
	if err != nil {
		return err.Error()
	}
	var read []string
	for _, reading := range s.Readings {
		read = append(read, strings.TrimSpace(reading.Value.String()+" "+reading.Why))
	}
	return strings.Join(read, ", ")
}

func (r *rig) expect(d config.Device, want string) {
	r.t.Helper()
	if got := r.read(d); got != want {
		r.t.Errorf("%s: %s, want %s", d.Name, got, want)
	}
}

// await reads until the device gives want: edges take their time.
func (r *rig) await(d config.Device, want string) {
	r.t.Helper()
	got := ""
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
		if got = r.read(d); got == want {
			return
		}
	}
	r.t.Errorf("%s: %s, want %s", d.Name, got, want)
}

// meterOn counts both edges of a line.
func meterOn(line int) config.Device {
	return config.Device{Name: "meter", Line: line, Model: &config.Profile{Points: []config.Point{
		{Name: "rises", Function: config.Line, Type: config.Pulses},
		{Name: "falls", Function: config.Line, Type: config.Pulses, Invert: true},
	}}}
}

func TestKernelConformance(t *testing.T) {
	for name, device := range map[string]config.Device{"contact": contactOn(3, 10*time.Millisecond), "pulses": pulsesOn(3)} {
		t.Run(name, func(t *testing.T) {
			drivertest.Run(t, func(t *testing.T) drivertest.Rig {
				c := newSimChip(t, "conformance", "hub-test", nil)
				waiting := contactOn(4, time.Minute)
				waiting.Name = "waiting"
				return drivertest.Rig{
					Open: Open, Config: config.Bus{Kind: config.GPIO, Chip: "hub-test"},
					Device: device, Waiting: waiting, Away: c.remove, Back: c.bring, Failure: drivers.Link,
				}
			})
		})
	}
}

func TestKernelContacts(t *testing.T) {
	c := newSimChip(t, "contacts", "hub-test", nil)
	c.pull(2, periph.High)
	c.pull(3, periph.Low)
	open, closed := contactOn(2, 500*time.Millisecond), contactOn(3, 20*time.Millisecond) // to ground, with a pull-up
	open.Name, closed.Name = "normally-open", "normally-closed"
	open.Model.Points[0].Invert = true
	held := contactOn(4, 5*time.Millisecond)
	held.Name, held.Model.Points[0].Hold = "held", 2*time.Second
	r := openRig(t, "hub-test", nil, open, closed, held)
	r.expect(open, "0")
	r.expect(closed, "0")
	r.expect(held, "0")
	c.pull(2, periph.Low)
	c.pull(3, periph.High)
	r.await(open, "1")
	r.await(closed, "1")
	c.pull(2, periph.High)
	c.pull(3, periph.Low)
	r.await(open, "0")
	r.await(closed, "0")

	for range 10 { // bounces
		c.pull(2, periph.Low)
		c.pull(2, periph.High)
	}
	r.expect(open, "0")

	c.pull(4, periph.High)
	time.Sleep(50 * time.Millisecond)
	c.pull(4, periph.Low)
	time.Sleep(200 * time.Millisecond)
	r.expect(held, "1")
	r.await(held, "0")
	t.Log("an alarm of 50 ms between two polls was seen at the next")
}

func TestKernelCountsEveryEdge(t *testing.T) {
	c := newSimChip(t, "pulses", "hub-test", nil)
	d := meterOn(5)
	r := openRig(t, "hub-test", nil, d)
	r.expect(d, "0, 0")
	pull := c.puller(5)
	const sent = 10000
	begin := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for i := range sent {
		<-tick.C
		pull(i%2 == 0)
	}
	took := time.Since(begin)
	r.await(d, fmt.Sprintf("%d, %d", sent/2, sent/2))
	if r.log.Len() > 0 {
		t.Errorf("log: %s", &r.log)
	}
	t.Logf("%d edges in %s, one each %s, counted as %s", sent, took.Round(time.Millisecond), (took / sent).Round(time.Microsecond), r.read(d))
}

// A device that only counts asks for its one kind of edge only.
func TestKernelCountsOneKindOfEdge(t *testing.T) {
	c := newSimChip(t, "one", "hub-test", nil)
	pulses := config.Point{Function: config.Line, Type: config.Pulses, Invert: true}
	raw, scaled, debounced := pulses, pulses, pulses
	raw.Name, scaled.Name, debounced.Name = "raw", "scaled", "debounced"
	scaled.Scale = config.Decimal{Mantissa: 1, Exponent: -2}
	debounced.Debounce = time.Hour
	d := config.Device{Name: "meter", Line: 6, Model: &config.Profile{Points: []config.Point{raw, scaled, debounced}}}
	r := openRig(t, "hub-test", func(string, string) (uint64, bool) { return 1000, true }, d)
	r.expect(d, "1000 restarted, 10 restarted, 1000 restarted")
	pull := c.puller(6)
	for range 200 {
		pull(periph.High)
		pull(periph.Low)
		time.Sleep(time.Millisecond)
	}
	r.await(d, "1200, 12, 1001")
	w := r.watch(d)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seqno != 200 {
		t.Errorf("the kernel told of %d edges, want 200", w.seqno)
	}
	t.Logf("200 pulses: the kernel told of %d edges", w.seqno)
}

// While nobody reads, the kernel keeps 1024 edges of the burst. The rest must be told.
func TestKernelTellsOfLostEdges(t *testing.T) {
	c := newSimChip(t, "burst", "hub-test", nil)
	d := meterOn(5)
	r := openRig(t, "hub-test", nil, d)
	r.expect(d, "0, 0")
	w, pull := r.watch(d), c.puller(5)
	w.mu.Lock() // the reader waits
	const sent = 3000
	for i := range sent {
		pull(i%2 == 0)
	}
	w.mu.Unlock()
	got := uint64(0)
	for begin := time.Now(); got < queueLength && time.Since(begin) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		w.mu.Lock()
		got = w.points[0].(*counter).count + w.points[1].(*counter).count
		w.mu.Unlock()
	}
	time.Sleep(200 * time.Millisecond) // the rest of the queue
	w.mu.Lock()
	got, lost := w.points[0].(*counter).count+w.points[1].(*counter).count, w.lost
	w.mu.Unlock()
	if got < queueLength || got > queueLength+64 || lost == 0 || got+lost != sent {
		t.Errorf("%d edges: %d counted and %d lost", sent, got, lost)
	}
	if read := r.read(d); strings.Count(read, "lost edges") != 2 {
		t.Errorf("%s, want both counts with lost edges", read)
	}
	if read := r.read(d); strings.Contains(read, "lost") {
		t.Errorf("then %s", read)
	}
	if !strings.Contains(r.log.String(), fmt.Sprintf(`msg="edges lost" device=meter edges=%d`, lost)) {
		t.Errorf("log: %s", &r.log)
	}
	t.Logf("%d edges while nobody read: %d counted, %d told as lost", sent, got, lost)
}

func TestKernelChipRemovedAndReturned(t *testing.T) {
	c := newSimChip(t, "expander", "hub-expander", nil)
	newSimChip(t, "soc", "hub-soc", nil)
	lift, meter, out := contactOn(1, 20*time.Millisecond), meterOn(2), horn(3, true)
	r, other := openRig(t, "hub-expander", nil, lift, meter, out), openRig(t, "hub-soc", nil, lift)
	c.pull(1, periph.High)
	r.await(lift, "1")
	c.pull(2, periph.High)
	r.await(meter, "1, 0")
	for round := range 3 {
		c.remove()
		away := time.Now()
		for _, d := range []config.Device{lift, meter, out} {
			for range 2 {
				if got := r.read(d); !strings.HasPrefix(got, fmt.Sprintf("cannot read line %d of %s: link: ", d.Line, d.Name)) {
					t.Errorf("removed, round %d: %s is %s", round, d.Name, got)
				} else if round == 0 {
					t.Log(got)
				}
			}
		}
		if err := r.Write(t.Context(), out, out.Model.Writes[0], 1); err == nil {
			t.Error("written to a chip that is not there")
		}
		other.expect(lift, "0")
		newcomer := newSimChip(t, fmt.Sprintf("newcomer-%d", round), "hub-newcomer-"+strconv.Itoa(round), nil) // takes its number
		c.bring()
		c.pull(1, periph.High)
		r.expect(lift, "1")
		r.expect(meter, fmt.Sprintf("%d lost edges, 0 lost edges", 1+round))
		r.expect(meter, fmt.Sprintf("%d, 0", 1+round))
		c.pull(2, periph.High)
		r.await(meter, fmt.Sprintf("%d, 0", 2+round))
		r.expect(out, "0")
		if !c.level(3) {
			t.Error("the inverted output is not inactive after its chip came back")
		}
		t.Logf("away for %s: link, then read again; %s is not %s", time.Since(away).Round(time.Millisecond), filepath.Base(filepath.Dir(c.lines[0])), filepath.Base(filepath.Dir(newcomer.lines[0])))
	}
}

func TestKernelOutputs(t *testing.T) {
	c := newSimChip(t, "outputs", "hub-test", nil)
	plain, inverted, input := horn(1, false), horn(2, true), horn(3, false)
	inverted.Name, input.Name, input.Writes, input.Model.Points[0].Debounce = "inverted", "input", nil, 0
	c.pull(1, periph.High) // what the board does with the line while nobody drives it
	r := openRig(t, "hub-test", nil, plain, inverted, input)
	check := func(d config.Device, active bool) {
		t.Helper()
		r.expect(d, map[bool]string{false: "0", true: "1"}[active])
		if want := periph.Level(active) == activeLevel(d); c.level(d.Line) != periph.Level(want) {
			t.Errorf("%s: the far end sees %s", d.Name, c.level(d.Line))
		}
	}
	for _, d := range []config.Device{plain, inverted} {
		check(d, false)
		for _, raw := range []int64{1, 0, 0, 1} {
			if err := r.Write(t.Context(), d, d.Model.Writes[0], raw); err != nil {
				t.Error(err)
			}
			check(d, raw == 1)
		}
	}
	err := r.Write(t.Context(), input, input.Model.Writes[0], 1)
	if err == nil || !strings.Contains(err.Error(), "list sound under the device's writes") {
		t.Error(err)
	}
	check(input, false)
	c.pull(3, periph.High)
	r.await(input, "1")
	t.Log("outputs inactive from the start, set and read back; one that is not enabled stays an input:", err)
}

func TestKernelNamesAndUsers(t *testing.T) {
	c := newSimChip(t, "names", "hub-test", map[int]string{1: "DOOR", 4: "TWICE", 6: "TWICE"})
	d := contactOn(0, 0)
	d.LineName = "DOOR"
	r := openRig(t, "hub-test", nil, d)
	r.expect(d, "0")
	c.pull(1, periph.High)
	r.await(d, "1")

	again := contactOn(1, 0)
	again.Name = "again"
	for _, f := range []struct {
		name, chip, want string
		device           config.Device
	}{
		{"two users", "hub-test", "cannot read line 1 of again: link: line 1 of chip hub-test is in use by hubagent lift: one line carries one device", again},
		{"two lines of one name", "hub-test", "cannot read line TWICE of lift: link: lines 4 and 6 of chip hub-test are both named TWICE: write line: 4 or line: 6 instead of the name", named(d, "TWICE")},
		{"no such name", "hub-test", "cannot read line WINDOW of lift: link: chip hub-test has no line named WINDOW: gpioinfo prints the names", named(d, "WINDOW")},
		{"beyond the chip", "hub-test", "cannot read line 8 of lift: link: chip hub-test has lines 0 to 7, and no line 8", contactOn(8, 0)},
		{"no such chip", "hub-tset", "cannot read line 1 of again: link: there is no GPIO chip hub-tset; there are: ", again},
	} {
		if got := openRig(t, f.chip, nil).read(f.device); !strings.HasPrefix(got, f.want) {
			t.Errorf("%s: %s, want %s", f.name, got, f.want)
		} else {
			t.Log(got)
		}
	}
	newSimChip(t, "twin", "hub-test", nil)
	if got := openRig(t, "hub-test", nil).read(contactOn(7, 0)); !strings.Contains(got, "two chips are labelled hub-test: write the name of one, gpiochip") {
		t.Errorf("two chips of one label: %s", got)
	} else {
		t.Log(got)
	}
	byName := filepath.Base(filepath.Dir(c.lines[7]))
	openRig(t, byName, nil).expect(contactOn(7, 0), "0")
}

func named(d config.Device, name string) config.Device {
	d.LineName = name
	return d
}

// Close lets go of lines and leaves nothing running.
func TestKernelClose(t *testing.T) {
	newSimChip(t, "close", "hub-test", nil)
	running := goleak.IgnoreCurrent()
	d := meterOn(1)
	for range 20 {
		opened, err := Open(config.Bus{Chip: "hub-test", Devices: []config.Device{d}}, drivers.With{})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := opened.Read(t.Context(), d); err != nil {
			t.Fatalf("%+v, %v", s, err)
		}
		if err := errors.Join(opened.Close(), opened.Close()); err != nil {
			t.Fatal(err)
		}
	}
	goleak.VerifyNone(t, running)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil || len(files) > 20 {
		t.Errorf("%d files are open, %v", len(files), err)
	}
}

// periph sees the kernel's chips and lines with code of its own: both must see the same.
func TestKernelAsPeriphSeesIt(t *testing.T) {
	newSimChip(t, "periph", "hub-test", map[int]string{1: "DOOR"})
	d := contactOn(1, 0)
	r := openRig(t, "hub-test", nil, d)
	r.expect(d, "0")
	if _, err := driverreg.Init(); err != nil {
		t.Fatal(err)
	}
	n, err := chip("hub-test").find()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for _, c := range gpioioctl.Chips {
		if c.Label() != "hub-test" {
			continue
		}
		line := c.ByName("DOOR")
		if c.Name() != n.name || c.LineCount() != n.lines || line == nil || line.Number() != 1 || line.Consumer() != "hubagent lift" {
			t.Errorf("periph: %s of %d lines, %v; we: %s of %d lines", c.Name(), c.LineCount(), line, n.name, n.lines)
		}
		return
	}
	t.Error("periph sees no chip hub-test")
}
