package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// agent is the agent's process.
type agent struct {
	cmd    *exec.Cmd
	began  time.Time
	exited chan struct{} // closed when the process is gone and its log was read
	err    error         // how it ended, once exited
}

// startAgent runs `hubagent run` with the written config: the same code path as on a gateway.
func (d *demo) startAgent() (*agent, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find the agent's own binary: %w", err)
	}
	args := []string{self, "run", "--config", d.config, "--log-format", "json"}
	if d.o.Runner != "" {
		args = append([]string{d.o.Runner}, args...)
	}
	a := &agent{cmd: exec.Command(args[0], args[1:]...), began: time.Now(), exited: make(chan struct{})}
	// Ctrl-C in the terminal is for the demo, which then stops the agent in order; and the agent must not outlive us.
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	log, err := a.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	a.cmd.Stdout = d.o.Out
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is sent when the thread that started the process ends
		defer runtime.UnlockOSThread()
		err := a.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		d.tell(log)
		a.err = a.cmd.Wait()
		close(a.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start the agent: %w", err)
	}
	d.say("agent", "started (process %d)", a.cmd.Process.Pid)
	return a, nil
}

// kill ends the agent at once, as a power cut or the kernel's out-of-memory killer would.
func (a *agent) kill() {
	a.cmd.Process.Kill() // an error means that it is gone already
	<-a.exited
}

// stopTime is how long the agent may take after SIGTERM.
const stopTime = 5 * time.Second

func (a *agent) stop(sum *Summary) error {
	begin := time.Now()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("cannot stop the agent: %w", err)
	}
	select {
	case <-a.exited:
		sum.StopSeconds = time.Since(begin).Seconds()
		if a.err != nil {
			return fmt.Errorf("the agent ended with an error: %w", a.err)
		}
		return nil
	case <-time.After(3 * stopTime): // an emulator is slow; the summary says how long it took
		return fmt.Errorf("the agent did not stop within %v", 3*stopTime)
	}
}

// tell passes on the agent's log in plain words.
func (d *demo) tell(log io.Reader) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var entry map[string]any
		if json.Unmarshal(lines.Bytes(), &entry) != nil {
			d.say("agent", "%s", lines.Text())
			continue
		}
		text := fmt.Sprint(entry["msg"])
		for _, level := range []string{"time", "level", "msg"} {
			if level == "level" && entry["level"] != "INFO" {
				text = strings.ToLower(fmt.Sprint(entry["level"])) + ": " + text
			}
			delete(entry, level)
		}
		d.say("agent", "%s", text+attributes(entry))
	}
}

func attributes(entry map[string]any) string {
	var parts []string
	for k, v := range entry {
		parts = append(parts, fmt.Sprintf("%s=%v", k, v))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// progress is the part of /api/v1/status that the demo needs.
type progress struct {
	Journal struct {
		Leaves   int64
		Readings uint64
		AtRisk   int `json:"at_risk"`
	}
	Uplink struct {
		State        string
		Waiting      int64
		Acknowledged int64
		Republished  uint64
	}
}

func (d *demo) progress() (p progress, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.page+"api/v1/status", nil)
	if err != nil {
		return p, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return p, err
	}
	defer resp.Body.Close()
	return p, json.NewDecoder(resp.Body).Decode(&p)
}

// reportProgress says where the readings are.
func (d *demo) reportProgress() {
	p, err := d.progress()
	if err != nil {
		return // between kill and start; the agent's log tells
	}
	d.mu.Lock()
	d.sum.SentAgain = max(d.sum.SentAgain, p.Uplink.Republished)
	d.mu.Unlock()
	way := map[string]string{"online": "", "silent": ", the platform is silent", "offline": ", no broker: readings are kept"}[p.Uplink.State]
	d.say("agent", "devices gave %d answers; journaled %d readings in %d leaves; platform acknowledged %d, %d waiting%s",
		d.site.Counts.Answers.Load(), p.Journal.Readings, p.Journal.Leaves, p.Uplink.Acknowledged, p.Uplink.Waiting, way)
}
