package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"

	"hubagent/agent/broker/embedded"
	"hubagent/agent/contract"
	"hubagent/agent/receiver"
)

// TestClockOnAKernel sets the clock of the machine that it runs on, so it runs only where scripts/clock-vm has booted one
// for it. HUB_CLOCK_VM is the agent's binary there: it runs as a process of its own, with a broker and the receiver, while
// the clock starts in 2001, is set, jumps forward and back, loses its server, and lies.
//
// At the end the platform's leaves must tell of each row when it was really measured, through the clock leaves, and show
// that no jump held up a poll, a commit or the uplink, or made one happen twice.
func TestClockOnAKernel(t *testing.T) {
	binary := os.Getenv("HUB_CLOCK_VM")
	if binary == "" {
		t.Skip("sets the machine's clock: run make clock-vm")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "hub.yaml")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("gpio/line1", "1\n")
	write("gpio/line2", "1\n")
	write("hub.yaml", `version: 1
gateway: {id: clock-vm}
state: state
journal: {sync_interval: 500ms, leaf_interval: 2s, quota: 64MB}
uplink: {brokers: ["mqtt://127.0.0.1:1883"], origin: hub.example, checkpoint_interval: 5s}
status: {listen: "127.0.0.1:8080"}
buses:
  - name: contacts
    kind: gpio-sim
    dir: gpio
    devices:
      - {name: lift-001, profile: facility-contact, line: 1, interval: 1s}
      - {name: pump-001, profile: facility-contact, line: 2, interval: 1s}
`)
	broker := embedded.New("127.0.0.1:1883")
	if err := broker.Up(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := broker.Cut(); err != nil {
			t.Error(err)
		}
		t.Logf("%v: the broker has ended", sinceBootVM())
	}()
	var leaves []contract.Leaf
	var raw [][]byte
	platform, err := receiver.New(receiver.Options{
		Broker: "mqtt://127.0.0.1:1883", ClientID: "platform", Dir: filepath.Join(dir, "platform"), Credit: 8, Log: slog.New(slog.DiscardHandler),
		Key: func(string) (note.Verifier, error) {
			public, err := os.ReadFile(filepath.Join(dir, "state", "keys", "log.pub"))
			if err != nil {
				return nil, err
			}
			return note.NewVerifier(string(public[:len(public)-1]))
		},
		Handle: func(l contract.Leaf, text []byte) { leaves, raw = append(leaves, l), append(raw, text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	received := make(chan error, 1)
	go func() { received <- platform.Run(ctx) }()

	var agent *exec.Cmd
	start := func() {
		t.Helper()
		agent = exec.Command(binary, "run", "--config", config)
		agent.Stderr = os.Stderr
		if err := agent.Start(); err != nil {
			t.Fatal(err)
		}
	}
	type page struct {
		Clock      string
		ClockFacts struct{ Doubt string } `json:"clock_facts"`
		Journal    struct{ Leaves, Readings int64 }
		Uplink     struct{ Acknowledged int64 }
	}
	look := func() (p page) {
		resp, err := http.Get("http://127.0.0.1:8080/api/v1/status")
		if err != nil {
			return p
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	// until waits for a state of the clock and then for two more leaves that the platform has.
	until := func(clock, doubt string) {
		t.Helper()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		deadline := time.After(3 * time.Minute)
		acknowledged := int64(-1)
		for p := look(); ; p = look() {
			there := p.Clock == clock && p.ClockFacts.Doubt == doubt
			switch {
			case there && acknowledged < 0:
				t.Logf("%v: clock is %s %s", sinceBootVM(), clock, doubt)
				acknowledged = p.Uplink.Acknowledged
			case acknowledged >= 0 && p.Uplink.Acknowledged >= acknowledged+2:
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("clock did not become %s %s, or no leaf was acknowledged after that: %+v", clock, doubt, p)
			}
		}
	}

	boot := time.Date(2027, 3, 1, 8, 0, 0, 0, time.UTC) // when the guest was really switched on
	set := func(off time.Duration, synced bool) {
		t.Helper()
		now := boot.Add(sinceBootVM()).Add(off)
		ts := unix.NsecToTimespec(now.UnixNano())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			t.Fatal(err)
		}
		vouch := unix.Timex{Modes: unix.ADJ_STATUS | unix.ADJ_MAXERROR, Status: unix.STA_PLL, Maxerror: 1000}
		if !synced {
			vouch.Status = unix.STA_UNSYNC
		}
		if _, err := unix.Adjtimex(&vouch); err != nil {
			t.Fatal(err)
		}
	}
	in2001 := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC).Sub(boot)

	start()
	until("unsync", "kernel")
	set(0, true) // as timesyncd does
	until("step", "")
	until("ok", "")
	set(7*24*time.Hour, true) // a wrong server
	until("step", "")
	set(0, true)
	until("step", "")
	until("ok", "")
	set(-time.Hour, false) // by hand
	until("unsync", "kernel")
	set(0, true)
	until("step", "")
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	agent.Wait() // an error: it was killed
	set(in2001, false)
	start()
	until("unsync", "kernel")
	set(in2001, true)
	until("unsync", "past")
	set(0, true)
	until("step", "")
	until("ok", "")
	if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := agent.Wait(); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	t.Logf("%v: the agent has ended", sinceBootVM())
	stop()
	if err := <-received; err != nil {
		t.Error(err)
	}
	t.Logf("%v: the receiver has ended", sinceBootVM())
	if s := platform.Stats(); s.Refused+s.Equivocations+s.WrongRoots > 0 || s.Checkpoints == 0 {
		t.Errorf("platform %+v", s)
	}

	var fixes []contract.ClockFix
	for i, l := range leaves {
		if l.Kind == contract.KindClock {
			fix, err := contract.ParseClock(raw[i])
			if err != nil {
				t.Fatal(err)
			}
			fixes = append(fixes, fix)
			t.Logf("%s", raw[i])
		}
	}
	// Rows of a device in the order of their leaves, by the time since boot.
	at := map[string][]time.Duration{}
	rows := 0
	for _, l := range leaves {
		for _, row := range l.Rows {
			ms, known := contract.RepairedTime(l.Stamp, row.At, fixes)
			if !known {
				t.Fatalf("leaf %d: nobody knows when its rows were measured: %+v", l.Seq, l.Stamp)
			}
			rows++
			at[row.Device] = append(at[row.Device], time.UnixMilli(ms).Sub(boot))
		}
	}
	// An emulated machine is slow at times: a poll may be a second late and the next one close behind it.
	const most, window = 12, 10 * time.Second
	for device, times := range at {
		pauses := 0
		for i := 1; i < len(times); i++ {
			switch gap := times[i] - times[i-1]; {
			case gap <= 0 || gap > 30*time.Second:
				t.Errorf("%s was polled at %v since boot and then at %v", device, times[i-1], times[i])
			case gap > 4*time.Second:
				t.Logf("%s was not polled from %v to %v since boot", device, times[i-1], times[i])
				pauses++
			}
			if i >= most && times[i]-times[i-most] < window {
				t.Errorf("%s was polled %d times in the %v before %v since boot", device, most+1, times[i]-times[i-most], times[i])
			}
		}
		if pauses > 1 {
			t.Errorf("%s was not polled for %d times, and the agent was away once", device, pauses)
		}
		t.Logf("%s: %d rows from %v to %v since boot", device, len(times), times[0], times[len(times)-1])
	}
	t.Logf("%d leaves, %d rows, %d clock leaves", len(leaves), rows, len(fixes))
	if len(fixes) < 8 {
		t.Errorf("%d clock leaves, want one a jump and one each time the clock has become good", len(fixes))
	}
}

func sinceBootVM() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}
