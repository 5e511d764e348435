// Package realparts holds tests against programs that nobody here wrote: pymodbus slaves, socat lines, mosquitto.
//
// They run where HUB_REALPARTS is set, as scripts/test does once the Debian packages are there. Elsewhere they say that
// they did not run.
package realparts

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hubagent/agent/contract"
	"hubagent/agent/keys"
	"hubagent/agent/record"
	"hubagent/buffer"
	"hubagent/config"
)

// outage is how long mosquitto is gone.
const outage = 30 * time.Second

func needRealParts(t *testing.T) {
	t.Helper()
	if os.Getenv("HUB_REALPARTS") == "" {
		t.Skip("NOT RUN: real parts; run make test, which installs them")
	}
}

// process is a program that runs until it is ended.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs a program. Each line it prints on standard output goes to out; standard error goes to a file that is
// shown when the test fails.
func start(t *testing.T, out func(line []byte), name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(name, args...), done: make(chan struct{})}
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			if out != nil {
				out(bytes.Clone(lines.Bytes()))
			}
		}
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%s %s said:\n%s", name, strings.Join(args, " "), text)
		}
		log.Close()
	})
	return p
}

func (p *process) kill() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func waitFor(t *testing.T, most time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(most)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen within %v: %s", most, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func listening(port string) func() bool {
	return func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// The slaves' values, as Python packs them.
const tcpSite = `{
 "1": {"holding": [["I",0,70000],["I",2,65537],["clock",4,0],["H",5,6156],["h",6,-123],["H",7,3301],["I",8,86400]]},
 "2": {"holding": [["I",0,1],["I",2,1],["H",4,65535],["H",5,65535],["H",6,32767],["H",7,0],["I",8,1]]},
 "3": {"holding": [["H",97,2301],["H",98,2302],["H",99,2303],["H",100,512],["H",119,5001],["i",362,-1234],["I",0,123456789]]}
}`

const rtuSite = `{
 "11": {"input": [["f",0,230.5],["f",2,231.25],["f",4,229.75],["f",52,-1234.5],["f",70,49.98],["f",342,98765.4]]},
 "21": {"discrete": [["bit",0,1],["bit",1,0]]}
}`

// want are values that must arrive, by device and point. Units stand in the meta leaf.
var want = map[string]map[string]float64{
	"bin-1":    {"deposits": 70000, "correct": 65537, "weight": 61.56, "temperature": -12.3, "voltage": 3.301},
	"bin-2":    {"deposits": 1},
	"meter-3":  {"voltage_l1": 230.1, "voltage_l3": 230.3, "current_l1": 5.12, "frequency": 50.01, "power_active": -1.234, "energy_total": 1234567.89},
	"meter-11": {"voltage_l1": 230.5, "voltage_l2": 231.25, "power_active": -1234.5, "frequency": 49.98, "energy_total": 98765.4},
	"camera-1": {"alarm": 1},
}

var wantUnit = map[string]map[string]string{
	"bin-1":    {"weight": "kg", "temperature": "Cel", "voltage": "V"},
	"meter-3":  {"energy_total": "kW.h", "power_active": "kW", "voltage_l1": "V"},
	"meter-11": {"energy_total": "kW.h", "power_active": "W", "frequency": "Hz"},
}

// rows is what came out at the far end.
type rows struct {
	mu   sync.Mutex
	list []contract.Row
	n    map[rowKey]int
	meta json.RawMessage
}

type rowKey struct {
	device string
	at     int64
}

func (r *rows) take(t *testing.T, line []byte) {
	var l struct {
		contract.Leaf
		Meta json.RawMessage `json:"meta"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		t.Errorf("receiver printed %.200s: %v", line, err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.Meta != nil {
		r.meta = l.Meta
	}
	for _, row := range l.Rows {
		r.list = append(r.list, row)
		r.n[rowKey{row.Device, row.At}]++
	}
}

// last returns the newest row of a device.
func (r *rows) last(device string) (row contract.Row, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.list {
		if x.Device == device && x.At >= row.At {
			row, ok = x, true
		}
	}
	return row, ok
}

func (r *rows) good(device, point string) bool {
	row, ok := r.last(device)
	_, there := row.Measured[point]
	return ok && there
}

func TestRealSlavesRealBroker(t *testing.T) {
	needRealParts(t)
	dir := t.TempDir()
	bin := filepath.Join(dir, "hubagent")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "hubagent/agent").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const python = "/usr/bin/python3" // Debian's: another one first on PATH has no pymodbus

	// The line and its slaves.
	lineA, lineB := filepath.Join(dir, "lineA"), filepath.Join(dir, "lineB")
	start(t, nil, "socat", "pty,raw,echo=0,link="+lineA, "pty,raw,echo=0,link="+lineB)
	waitFor(t, 10*time.Second, "socat's line", func() bool {
		_, a := os.Stat(lineA)
		_, b := os.Stat(lineB)
		return a == nil && b == nil
	})
	rtuJSON, tcpJSON := write(t, filepath.Join(dir, "rtu.json"), rtuSite), write(t, filepath.Join(dir, "tcp.json"), tcpSite)
	rtuSlave := func() *process { return start(t, nil, python, "testdata/slave.py", "rtu", lineB, rtuJSON) }
	tcpPort := freePort(t)
	tcpSlave := func() *process { return start(t, nil, python, "testdata/slave.py", "tcp", tcpPort, tcpJSON) }
	rtu, tcp := rtuSlave(), tcpSlave()
	waitFor(t, 20*time.Second, "pymodbus listens", listening(tcpPort))

	// The broker, an independent subscriber and the receiver.
	mqttPort := freePort(t)
	conf := write(t, filepath.Join(dir, "mosquitto.conf"), "listener "+mqttPort+" 127.0.0.1\nallow_anonymous true\npersistence false\n")
	mosquitto := func() *process {
		p := start(t, nil, "mosquitto", "-c", conf)
		waitFor(t, 10*time.Second, "mosquitto listens", listening(mqttPort))
		return p
	}
	broker := mosquitto()
	heard := &subscriber{leaves: map[int64][]byte{}}
	start(t, func(line []byte) { heard.take(t, line) }, "mosquitto_sub", "-p", mqttPort, "-q", "1", "-i", "watcher", "-t", "hub/v1/#", "-F", "%t %x")
	arrived := &rows{n: map[rowKey]int{}}
	registered := filepath.Join(dir, "registered")
	if err := os.Mkdir(registered, 0o755); err != nil {
		t.Fatal(err)
	}
	start(t, func(line []byte) { arrived.take(t, line) }, bin, "receive",
		"--broker", "mqtt://127.0.0.1:"+mqttPort, "--dir", filepath.Join(dir, "received"), "--keys", registered)

	// The agent.
	hubYAML := write(t, filepath.Join(dir, "hub.yaml"), fmt.Sprintf(`
version: 1
gateway: {id: real-hub, site: test}
state: state
journal: {sync_interval: 500ms, leaf_interval: 2s}
uplink:
  brokers: ["mqtt://127.0.0.1:%s"]
  origin: hub.example
  checkpoint_interval: 5s
  keep_alive: 5s
  reconnect_max: 2s
status: {listen: "127.0.0.1:%s"}
buses:
  - name: converter
    kind: modbus-tcp
    address: "127.0.0.1:%s"
    devices:
      - {name: bin-1, profile: hub-bin, unit: 1, interval: 1s}
      - {name: bin-2, profile: hub-bin, unit: 2, interval: 1s}
      - {name: meter-3, profile: acrel-adl400, unit: 3, interval: 2s}
  - name: line
    kind: modbus-rtu
    port: %q
    baud: 9600
    devices:
      - {name: meter-11, profile: eastron-sdm630, unit: 11, interval: 2s}
      - {name: camera-1, profile: waveshare-io-8ch-camera, unit: 21, interval: 1s}
`, mqttPort, freePort(t), tcpPort, lineA))
	agent := start(t, nil, bin, "run", "--config", hubYAML)
	waitFor(t, 10*time.Second, "the log key", func() bool {
		public, err := os.ReadFile(filepath.Join(dir, "state", "keys", "log.pub"))
		return err == nil && os.WriteFile(filepath.Join(registered, "real-hub.pub"), public, 0o644) == nil
	})

	waitFor(t, 30*time.Second, "every device's values arrive", func() bool {
		return arrived.good("bin-1", "weight") && arrived.good("bin-2", "deposits") && arrived.good("meter-3", "power_active") &&
			arrived.good("meter-11", "power_active") && arrived.good("camera-1", "alarm")
	})
	checkValues(t, arrived)

	// The slaves die and come back.
	rtu.kill()
	waitFor(t, 30*time.Second, "the dead line shows as missing", func() bool {
		row, _ := arrived.last("meter-11")
		return row.Quality["voltage_l1"].Why == "timeout"
	})
	if !arrived.good("bin-1", "weight") {
		t.Error("a dead line took the other bus with it")
	}
	rtuSlave()
	waitFor(t, 60*time.Second, "the line is back", func() bool { return arrived.good("meter-11", "voltage_l1") })
	tcp.kill()
	waitFor(t, 30*time.Second, "the dead converter shows as missing", func() bool {
		row, _ := arrived.last("bin-1")
		return row.Quality["weight"].Why == "link"
	})
	tcpSlave()
	waitFor(t, 60*time.Second, "the converter is back", func() bool { return arrived.good("bin-1", "weight") })

	// The broker is gone for a while.
	broker.kill()
	time.Sleep(outage) // what is tested is this long an outage in real time
	mosquitto()
	back := time.Now().UnixMilli()
	waitFor(t, 60*time.Second, "fresh readings arrive after the outage", func() bool {
		row, ok := arrived.last("bin-1")
		return ok && row.At > back
	})

	// The end: everything journaled has arrived once.
	begin := time.Now()
	agent.cmd.Process.Signal(syscall.SIGTERM)
	<-agent.done
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("the agent took %v to stop", d)
	}
	if code := agent.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
	checkNothingLost(t, hubYAML, arrived, heard)
	checkValues(t, arrived)
	checkClock(t, arrived)
}

// checkValues compares every good row with what the slaves serve.
func checkValues(t *testing.T, arrived *rows) {
	t.Helper()
	arrived.mu.Lock()
	defer arrived.mu.Unlock()
	var meta struct {
		Devices map[string]struct {
			Points map[string]struct{ Unit string }
		}
	}
	if err := json.Unmarshal(arrived.meta, &meta); err != nil {
		t.Fatalf("meta leaf %s: %v", arrived.meta, err)
	}
	for device, points := range wantUnit {
		for point, unit := range points {
			if got := meta.Devices[device].Points[point].Unit; got != unit {
				t.Errorf("%s.%s has unit %q, want %q", device, point, got, unit)
			}
		}
	}
	for _, row := range arrived.list {
		for point, value := range want[row.Device] {
			text, there := row.Measured[point]
			got, err := json.Number(text).Float64()
			if there && (err != nil || got != value && math.Abs(got-value) > 1e-6*math.Abs(value)) {
				t.Fatalf("%s.%s is %s, want %v", row.Device, point, text, value)
			}
		}
		for _, point := range []string{"fill", "weight", "temperature"} {
			if text, there := row.Measured[point]; there && row.Device == "bin-2" {
				t.Fatalf("bin-2.%s is %s, and its registers say that there is no value", point, text)
			}
		}
	}
}

// checkClock compares the time of each row with the second that the slave served in it.
func checkClock(t *testing.T, arrived *rows) {
	t.Helper()
	arrived.mu.Lock()
	defer arrived.mu.Unlock()
	n := 0
	for _, row := range arrived.list {
		text, there := row.Measured["fill"]
		if !there {
			continue
		}
		n++
		served, _ := json.Number(text).Int64()
		// The answer may have been made in the second before it came in.
		if d := ((row.At/1000-served)%100 + 100) % 100; d > 1 {
			t.Fatalf("row at %d holds what was served in second %d", row.At, served)
		}
	}
	if n < 20 {
		t.Errorf("only %d rows with a clock", n)
	}
}

// checkNothingLost opens the journal and compares it with what the receiver printed, and what mosquitto_sub heard.
func checkNothingLost(t *testing.T, hubYAML string, arrived *rows, heard *subscriber) {
	t.Helper()
	cfg, err := config.Load(hubYAML)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.Load(cfg)
	if err != nil {
		t.Fatal(err)
	}
	store, err := buffer.Open(buffer.Options{Dir: keys.JournalDir(cfg), Key: k.Journal})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	journaled := map[rowKey]int{}
	for n := range store.Size() {
		leaf, err := store.Leaf(n)
		if err != nil {
			t.Fatal(err)
		}
		l, err := contract.ParseLeaf(leaf.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range l.Rows {
			journaled[rowKey{row.Device, row.At}]++
		}
		heard.compare(t, n, leaf.Data)
	}
	counts, err := record.ReadCounts(store)
	if err != nil || counts.Rows != uint64(len(journaled)) {
		t.Errorf("counters say %d rows, the leaves hold %d (%v)", counts.Rows, len(journaled), err)
	}
	waitFor(t, 10*time.Second, "the receiver has everything", func() bool {
		arrived.mu.Lock()
		defer arrived.mu.Unlock()
		return maps.Equal(journaled, arrived.n)
	})
	heard.mu.Lock()
	t.Logf("%d rows journaled in %d leaves, each arrived once; mosquitto_sub heard %d leaves and %d checkpoints; lanes %v",
		len(journaled), store.Size(), len(heard.leaves), heard.checkpoints, heard.lanes)
	if len(heard.leaves) < int(store.Size())/2 || heard.checkpoints == 0 {
		t.Error("the independent subscriber heard too little")
	}
	heard.mu.Unlock()
}

// subscriber keeps what mosquitto_sub prints: topic and payload in hex.
type subscriber struct {
	mu          sync.Mutex
	leaves      map[int64][]byte
	checkpoints int
	lanes       []string
}

func (s *subscriber) take(t *testing.T, line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	topic, text, _ := strings.Cut(string(line), " ")
	payload, err := hex.DecodeString(text)
	if err != nil {
		t.Errorf("mosquitto_sub printed %.100s", line)
		return
	}
	gateway, lane, packed, err := contract.ParseUpTopic(topic)
	if err != nil {
		return // acknowledgements
	}
	if gateway != "real-hub" {
		t.Errorf("gateway %q", gateway)
	}
	if !slices.Contains(s.lanes, string(lane)) {
		s.lanes = append(s.lanes, string(lane))
	}
	if packed {
		if payload, err = contract.Unpack(payload); err != nil {
			t.Error(err)
			return
		}
	}
	switch lane {
	case contract.LaneStatus:
	case contract.LaneCheckpoint:
		s.checkpoints++
	default:
		for _, leaf := range contract.SplitLines(payload) {
			l, err := contract.ParseLeaf(leaf)
			if err != nil {
				t.Errorf("%s: %v", lane, err)
				continue
			}
			if before, again := s.leaves[l.Seq]; again && !bytes.Equal(before, leaf) {
				t.Errorf("leaf %d was sent with two different contents", l.Seq)
			}
			s.leaves[l.Seq] = leaf
		}
	}
}

func (s *subscriber) compare(t *testing.T, n int64, leaf []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if got, ok := s.leaves[n]; ok && !bytes.Equal(got, leaf) {
		t.Errorf("leaf %d went over the wire with other bytes than the journal's", n)
	}
}
