package realparts

import (
	"encoding/json"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hubagent/config"
	"hubagent/drivers/sim"
)

// controllerYAML is a model with what no shipped profile lets be written.
const controllerYAML = `
id: controller
kind: contact
model: Training controller
manual: none, made up for this test
interval: 1s
points:
  - {name: serial_number, title: {zh: 序列号, en: serial number}, function: holding_register, address: 0, type: ascii, length: 6}
  - {name: starts, title: {zh: 次数, en: starts}, function: holding_register, address: 6, type: bcd16, counter: true, unit: "{count}", headline: true}
writes:
  - {name: siren, title: {zh: 警笛, en: siren}, function: coil, address: 5, type: bool}
  - {name: level, title: {zh: 等级, en: level}, function: holding_register, address: 10, type: u16, allowed: [0, 7]}
  - {name: limit, title: {zh: 限值, en: limit}, function: holding_register, address: 12, type: u32, allowed: [0, 70000]}
`

// simulation is what sim --json prints at the start.
type simulation struct {
	Start time.Time
	Seed  uint64
	Day   float64 `json:"day_seconds"`
	Buses []struct{ Bus, At string }
}

// mbpoll, a master on libmodbus, reads what hubagent sim says is true, over Modbus TCP and on a serial line.
func TestMbpollReadsTheSimulation(t *testing.T) {
	needRealParts(t)
	dir := t.TempDir()
	bin := filepath.Join(dir, "hubagent")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "hubagent/agent").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Mkdir(filepath.Join(dir, "profiles"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "profiles", "controller.yaml"), controllerYAML)
	hubYAML := write(t, filepath.Join(dir, "hub.yaml"), `
version: 1
gateway: {id: real-hub}
state: state
buses:
  - name: bins
    kind: modbus-tcp
    address: 192.0.2.1
    devices: [{name: bin-1, profile: hub-bin, unit: 1}, {name: controller-2, profile: controller, unit: 2}]
  - name: meters
    kind: modbus-rtu
    port: /dev/ttyUSB7
    baud: 19200
    devices: [{name: meter-11, profile: eastron-sdm630, unit: 11}, {name: camera-21, profile: waveshare-io-8ch-camera, unit: 21}]
`)
	lines := make(chan []byte, 8)
	running := start(t, func(line []byte) { lines <- line }, bin, "sim", "--config", hubYAML, "--dir", filepath.Join(dir, "sim"), "--json", "--seed", "5", "--latency", "5ms")
	var began simulation
	select {
	case line := <-lines:
		if err := json.Unmarshal(line, &began); err != nil || len(began.Buses) != 2 {
			t.Fatalf("%s: %v", line, err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the simulation does not begin")
	}
	cfg, err := config.Load(filepath.Join(dir, "sim", "hub.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(began.Buses[0].At)
	if err != nil {
		t.Fatal(err)
	}
	m := mbpoll{t: t, tcp: []string{"-m", "tcp", "-p", port, "127.0.0.1"}, rtu: []string{"-m", "rtu", "-b", "19200", "-P", "none", began.Buses[1].At},
		world: sim.World{Seed: began.Seed, Start: began.Start, Day: time.Duration(began.Day * float64(time.Second))}}

	bin1, controller := cfg.Buses[0].Devices[0], cfg.Buses[0].Devices[1]
	m.reads(bin1, m.tcp, "4:int", 0, 1, "deposits", "correct")
	m.reads(bin1, m.tcp, "4", 4, 1, "fill")
	m.reads(bin1, m.tcp, "4", 5, 0.01, "weight")
	m.reads(bin1, m.tcp, "4", 6, 0.1, "temperature")
	m.reads(bin1, m.tcp, "4", 7, 0.001, "voltage")
	m.reads(bin1, m.tcp, "4:int", 8, 1, "uptime")
	meter, camera := cfg.Buses[1].Devices[0], cfg.Buses[1].Devices[1]
	m.reads(meter, m.rtu, "3:float", 0, 1, "voltage_l1", "voltage_l2", "voltage_l3", "current_l1", "current_l2", "current_l3")
	m.reads(meter, m.rtu, "3:float", 70, 1, "frequency")
	m.reads(camera, m.rtu, "1", 0, 1, "alarm", "fault")

	// A text and decimal digits, which mbpoll shows as they are on the wire.
	text := ""
	for _, register := range m.run(controller.Unit, m.tcp, "4:hex", 0, 6) {
		word, _ := strconv.ParseUint(register, 0, 16)
		text += string([]byte{byte(word >> 8), byte(word)})
	}
	if want := m.world.Text(controller, controller.Model.Points[0]); text != want {
		t.Errorf("serial number %q, want %q", text, want)
	}
	before := m.world.Value(controller, controller.Model.Points[1], time.Now())
	digits, err := strconv.Atoi(strings.TrimPrefix(m.run(controller.Unit, m.tcp, "4:hex", 6, 1)[0], "0x"))
	if after := m.world.Value(controller, controller.Model.Points[1], time.Now()); err != nil || float64(digits) < math.Floor(before) || float64(digits) > math.Ceil(after) {
		t.Errorf("%d starts (%v), want %v to %v", digits, err, before, after)
	}

	// What the profile lets be written, and what it does not.
	for _, c := range []struct {
		kind, value, want string
		address           int
		refused           string
	}{
		{"0", "1", "1", 5, ""}, {"0", "0", "0", 5, ""}, {"4", "7", "7", 10, ""}, {"4:int", "70000", "70000", 12, ""},
		{"4", "8", "7", 10, "Illegal data value"}, {"4", "1", "", 6, "Illegal data address"}, {"0", "1", "", 6, "Illegal data address"},
	} {
		out, err := m.command(controller.Unit, m.tcp, c.kind, c.address, 0, c.value).CombinedOutput()
		if (err != nil) != (c.refused != "") || !strings.Contains(string(out), c.refused) {
			t.Errorf("writing %s to %d: %v, %s; want %q", c.value, c.address, err, out, c.refused)
		}
		if c.want != "" {
			if got := m.run(controller.Unit, m.tcp, c.kind, c.address, 1); got[0] != c.want {
				t.Errorf("after writing %s to %d it holds %s, want %s", c.value, c.address, got[0], c.want)
			}
		}
	}
	for bus, want := range map[string]string{"tcp": "Target device failed to respond", "rtu": "Connection timed out"} {
		out, err := m.command(99, map[string][]string{"tcp": m.tcp, "rtu": m.rtu}[bus], "4", 0, 1).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("a unit that %s has not: %v, %s", bus, err, out)
		}
	}

	running.cmd.Process.Signal(syscall.SIGINT)
	<-running.done
	if code := running.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the simulation ended with %d", code)
	}
	var ended struct {
		Buses []struct {
			Bus                           string
			Requests, Answers, Exceptions int
		}
	}
	if line := <-lines; json.Unmarshal(line, &ended) != nil || len(ended.Buses) != 2 || ended.Buses[0].Requests != 20 || ended.Buses[0].Answers != 17 || ended.Buses[0].Exceptions != 3 || ended.Buses[1].Answers != 3 {
		t.Errorf("it says at the end: %s", line)
	}
}

// mbpoll is a master to call, and what it should find.
type mbpoll struct {
	t        *testing.T
	tcp, rtu []string
	world    sim.World
}

// command is mbpoll for one read or, with values, one write. kind is what mbpoll calls it: 0 coil, 1 discrete input,
// 3 input register, 4 holding register.
func (m mbpoll) command(unit int, bus []string, kind string, address, count int, values ...string) *exec.Cmd {
	args := []string{"-0", "-1", "-o", "0.5", "-B", "-a", strconv.Itoa(unit), "-t", kind, "-r", strconv.Itoa(address)}
	if len(values) == 0 {
		args = append(args, "-c", strconv.Itoa(count))
	}
	return exec.Command("mbpoll", append(append(args, bus...), values...)...)
}

// value is one line of what mbpoll prints; behind a register above 32767 it adds the signed number.
var value = regexp.MustCompile(`(?m)^\[\d+\]:\s+(\S+)(?: \((-\d+)\))?`)

// run reads, and gives the values as mbpoll prints them.
func (m mbpoll) run(unit int, bus []string, kind string, address, count int) (values []string) {
	m.t.Helper()
	out, err := m.command(unit, bus, kind, address, count).CombinedOutput()
	for _, match := range value.FindAllStringSubmatch(string(out), -1) {
		values = append(values, match[1])
	}
	if err != nil || len(values) != count {
		m.t.Fatalf("unit %d, %d from %d: %v\n%s", unit, count, address, err, out)
	}
	return values
}

// reads compares neighbouring points with what is true between before and after the reading.
func (m mbpoll) reads(d config.Device, bus []string, kind string, address int, scale float64, names ...string) {
	m.t.Helper()
	begin := time.Now()
	values := m.run(d.Unit, bus, kind, address, len(names))
	end := time.Now()
	for i, name := range names {
		for _, p := range d.Model.Points {
			if p.Name != name {
				continue
			}
			got, err := strconv.ParseFloat(values[i], 64)
			low, high := math.Inf(1), math.Inf(-1)
			for n := range 101 {
				v := m.world.Value(d, p, begin.Add(end.Sub(begin)*time.Duration(n)/100))
				low, high = min(low, v), max(high, v)
			}
			step := 0.5001 * scale
			if strings.HasSuffix(kind, "float") { // of which mbpoll prints six digits
				step = 1e-5 * high
			}
			if got *= scale; err != nil || got < low-step || got > high+step {
				m.t.Errorf("%s %s is %s, want %v to %v", d.Name, name, values[i], low, high)
			}
		}
	}
}
