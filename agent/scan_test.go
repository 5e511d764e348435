package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hubagent/agent/scan"
	"hubagent/config"
	"hubagent/drivers/sim"
)

// command runs hubagent inside the test.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, problems bytes.Buffer
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&problems)
	code = execute(t.Context(), root)
	return code, out.String(), problems.String()
}

// expect runs a command and compares what it prints with a regular expression; the errors that it prints end in wantErr.
func expect(t *testing.T, code int, want, wantErr string, args ...string) (stdout string) {
	t.Helper()
	got, stdout, stderr := command(t, args...)
	if got != code {
		t.Errorf("hubagent %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	if !regexp.MustCompile("(?s)" + want).MatchString(stdout) {
		t.Errorf("hubagent %s printed\n%s\nand not\n%s", strings.Join(args, " "), stdout, want)
	}
	if !strings.HasSuffix(strings.TrimSpace(stderr), wantErr) {
		t.Errorf("hubagent %s said\n%s\nand not\n%s", strings.Join(args, " "), stderr, wantErr)
	}
	return stdout
}

// quickMeter is a profile of the site's own.
const quickMeter = `id: quick-meter
kind: meter
model: meter that needs no pauses
manual: none
interval: 1s
points:
  - name: frequency
    title: {zh: 频率, en: frequency}
    function: input_register
    address: 2
    type: u16
    scale: 0.01
    unit: Hz
    headline: true
  - name: voltage_l1
    title: {zh: 电压, en: voltage}
    function: input_register
    address: 0
    type: f32
    unit: V
  - name: energy_export
    title: {zh: 反向有功电能, en: energy exported}
    function: input_register
    address: 10
    type: u32
    unit: kW.h
`

// hub is a site with two such meters on a serial line, two in the network, and two contacts; the second of each is not
// there.
func hub(t *testing.T) (file, port, address string) {
	t.Helper()
	master, port, closePTY, err := sim.OpenPTY()
	if err != nil {
		t.Skip(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = listener.Addr().String()
	dir := t.TempDir()
	file = filepath.Join(dir, "hub.yaml")
	for name, text := range map[string]string{
		"profiles/quick-meter.yaml": quickMeter,
		"gpio/line17":               "0",
		"hub.yaml": fmt.Sprintf(`version: 1
gateway: {id: hub-1}
state: state
buses:
  - name: line
    kind: modbus-rtu
    port: %s
    baud: 115200
    timeout: 50ms
    devices:
      - {name: meter-001, profile: quick-meter, unit: 1}
      - {name: meter-002, profile: quick-meter, unit: 2}
  - name: network
    kind: modbus-tcp
    address: %s
    devices:
      - {name: meter-003, profile: quick-meter, unit: 3}
      - {name: meter-004, profile: quick-meter, unit: 4}
  - name: contacts
    kind: gpio-sim
    dir: gpio
    devices:
      - {name: lift-001, profile: facility-contact, line: 17}
      - {name: lift-002, profile: facility-contact, line: 18}
`, port, address),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	serial, network := cfg.Buses[0], cfg.Buses[1]
	serial.Baud = 0 // no pacing: not a test of the wire
	serial.Devices, network.Devices = serial.Devices[:1], network.Devices[:1]
	ctx, stop := context.WithCancel(context.Background())
	site := sim.New(sim.World{Start: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)})
	done := make(chan error, 2)
	go func() { done <- site.ServeRTU(ctx, master, serial) }()
	go func() { done <- site.ServeTCP(ctx, listener, network) }()
	t.Cleanup(func() {
		stop()
		closePTY()
		<-done
		<-done
	})
	return file, port, address
}

func TestScanCommand(t *testing.T) {
	file, port, address := hub(t)
	want := fmt.Sprintf(`^%[1]s at 115200 8N1
  unit 1  after \d+ ms \(exception 2\)  (?:peacefair-pzem-017: .*
                                    or )?quick-meter: frequency (50|49\.\d\d|50\.\d\d) Hz, voltage_l1 2\d\d(\.\d\d)? V \(weak\)

For hub.yaml, names and labels as you like them:

buses:
  - name: line-1
    kind: modbus-rtu
    port: %[1]s
    baud: 115200
    parity: none
    stop_bits: 1
    devices:
      - {name: meter-001, profile: [a-z0-9-]+, unit: 1}.*
$`, regexp.QuoteMeta(port))
	expect(t, 0, want, "slow devices; at most 1s to go", "scan", "--port", port, "--baud", "115200", "--parity", "none", "--units", "1,2", "--config", file)

	var result struct {
		Lines []struct {
			Kind    string
			Devices []scan.Device
		}
		Snippet string
		Remarks []string
	}
	out := expect(t, 0, "", "", "scan", "--address", address, "--units", "3,5", "--config", file, "--json")
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(result.Lines) != 1 || result.Lines[0].Kind != "modbus-tcp" || len(result.Lines[0].Devices) != 1 ||
		!suggested(result.Lines[0].Devices[0], "quick-meter") || !strings.Contains(result.Snippet, "address: "+address) || len(result.Remarks) != 0 {
		t.Errorf("%+v", result)
	}

	expect(t, 1, "^$", "no device answers on "+port+": swap A and B, and see that the devices are powered, on this line, and set to Modbus RTU",
		"scan", "--port", port, "--baud", "115200", "--parity", "none", "--units", "2", "--config", file)

	// Another program has the port: who it is comes from the kernel, here this test itself.
	fd, err := unix.Open(port, unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	const mend = " has it, and two masters on a line destroy each other's answers; stop it for as long as you look: systemctl stop hubagent"
	for _, args := range [][]string{{"scan", "--port", port}, {"read", "--port", port}, {"read", "meter-001", "--config", file}} {
		code, out, problem := command(t, args...)
		if code != 1 || out != "" || !strings.Contains(problem, mend) || !strings.Contains(problem, "cannot use "+port+": ") {
			t.Errorf("%q: %d\n%s%s", args, code, out, problem)
		}
		if holder := scan.Holder("/", port); holder != "" && !strings.Contains(problem, holder) {
			t.Errorf("%q does not name %s: %s", args, holder, problem)
		}
	}
}

func TestReadCommand(t *testing.T) {
	file, port, address := hub(t)
	expect(t, 0, `^meter-001, 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d

input register 0-2: answered in \d+ ms
  sent      01 04 00 00 00 03 b0 0b
  received  01 04 06 43 .*
input register 10-11: answered in \d+ ms
  sent      01 04 00 0a 00 02 51 c9
  received  01 04 04 00 00 00 00 fb 84

POINT          AT                     RAW        VALUE  +UNIT  QUALITY
frequency      input_register 0x0002  13..       (50|\d\d\.\d+) +Hz    good
voltage_l1     input_register 0x0000  43.. ....  2\d\d\.\d+ +V     good
energy_export  input_register 0x000A  0000 0000  0 +kW.h  good
$`, "", "read", "meter-001", "--config", file)

	expect(t, 0, `sent +00 01 00 00 00 06 03 04 00 00 00 02
  received +00 01 00 00 00 07 03 04 04 43.*
POINT.*
voltage_l1 .* good

voltage_l1, raw 43.. ....
ORDER  U32 +S32 +F32 +BCD32
abcd .* 2\d\d\.\d+ \*.*
cdab .*
badc .*
dcba .*\n$`, "", "read", "meter-003.voltage_l1", "--config", file)

	expect(t, 1, `input register 0-2: no answer in time\n  sent +02 04 00 00 00 03 b0 38\n  received  nothing.*voltage_l1 +input_register 0x0000  -    -      V     missing: timeout`,
		"hubagent: cannot read input register 0-2 of meter-002: timeout", "read", "meter-002", "--config", file)
	expect(t, 1, `refused in \d+ ms: exception 11, device behind the gateway does not answer`,
		"hubagent: cannot read input register 0-2 of meter-004: exception 11", "read", "meter-004", "--config", file)

	expect(t, 0, `POINT  AT       RAW  VALUE  UNIT  QUALITY\nfault  line 17  low  1            good\n$`, "", "read", "lift-001", "--config", file)
	expect(t, 1, `fault  line 18  -    -            missing: link`, "line18", "read", "lift-002", "--config", file)

	// Without a config.
	expect(t, 1, `input register 8-11: refused in \d+ ms: exception 2, illegal data address`, "exception 2",
		"read", "--port", port, "--baud", "115200", "--unit", "1", "--function", "4", "--start", "0x8", "--count", "4", "--timeout", "50ms")
	out := expect(t, 0, `^unit 3, .*
ADDRESS          RAW   U16 +S16
0        0x0000  43.. +\d+ +\d+
1        0x0001  .... +\d+ +-?\d+
2        0x0002  13.. +\d+ +\d+

0-1, raw 43.. ....
ORDER  U32 .*
abcd .* 2\d\d\.\d+ \*.*
1-2, raw .* 13..\n`, "", "read", "--address", address, "--unit", "3", "--function", "input_register", "--count", "3", "--orders")
	if strings.Count(out, "ORDER") != 2 {
		t.Errorf("three registers have two pairs:\n%s", out)
	}

	var got reading
	out = expect(t, 0, "", "", "read", "meter-003.energy_export", "--json", "--config", file)
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(got.Points) != 1 || string(got.Points[0].Value) != "0" || got.Points[0].Raw != "0000 0000" || len(got.Points[0].Orders) != 16 || got.Exchanges[0].TookMS <= 0 {
		t.Errorf("%+v", got)
	}
}

// read --watch goes on until it is interrupted, whatever the device does.
func TestReadWatch(t *testing.T) {
	file, _, _ := hub(t)
	ctx, stop := context.WithCancel(t.Context())
	lines := make(lineWriter)
	root := newRootCommand()
	root.SetArgs([]string{"read", "meter-004", "--json", "--watch", "1ms", "--config", file})
	root.SetOut(lines)
	root.SetErr(lines)
	code := make(chan int)
	go func() { code <- execute(ctx, root) }()
	for range 3 {
		if line := <-lines; !strings.Contains(line, `"error":"cannot read input register 0-2 of meter-004: exception 11"`) {
			t.Error(line)
		}
	}
	stop()
	for {
		select {
		case <-lines:
		case c := <-code:
			if c != 0 {
				t.Errorf("exit code %d", c)
			}
			return
		}
	}
}

// On a terminal the progress is one line that is written over, and never longer than the terminal is wide.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := &progress{out: &out, width: 60}
	p.show(scan.Progress{Trial: "9600 8N1", Pass: "other units", Unit: 31, Done: time.Minute, Left: 3 * time.Minute, Found: []int{1, 5}})
	p.end()
	if got, want := out.String(), "\r[####............] 25 %  3m0s to go  found: 1,5  now: 9600 \x1b[K\r\x1b[K"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	out.Reset()
	p = &progress{out: &out}
	for unit := range 3 {
		p.show(scan.Progress{Trial: "Modbus TCP", Pass: "likely units", Unit: unit, Left: time.Minute})
	}
	p.end()
	if got, want := out.String(), "Modbus TCP, likely units; at most 1m0s to go\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// suggested says whether a profile is among those suggested: many that are shipped fit a meter that answers everything.
func suggested(d scan.Device, profile string) bool {
	return slices.ContainsFunc(d.Fits, func(f scan.Fit) bool { return f.Profile == profile })
}
