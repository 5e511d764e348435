// Package demo runs a whole system on one machine: simulated devices behind a real Modbus TCP server and a real RTU
// line, a broker, the reference receiver, and the agent itself as a process of its own, so that killing it is real.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"hubagent/config"
	"hubagent/drivers/sim"
)

// Options are the demo's flags.
type Options struct {
	For      time.Duration // 0: until ctx ends
	Outage   time.Duration // the broker is gone for this long; 0: never
	OutageAt time.Duration // from the start; 0: so that the outage lies in the middle of For
	Kill     bool          // SIGKILL the agent in the outage and start it again
	KillAt   time.Duration // from the start; 0: in the middle of the outage
	Listen   string        // status page, host:port; the next free port is taken when it is in use
	State    string        // folder for everything; empty: a fresh temporary one
	Runner   string        // program that runs the agent's binary, e.g. an emulator; empty: none
	Out      io.Writer     // what happens, in plain words
}

// catchUp bounds how long the agent may take at the end to send what is waiting.
const catchUp = 60 * time.Second

// Run plays the demo and judges it. o has passed Check. The error is for a demo that could not be played; what the demo showed is in the
// Summary.
func Run(ctx context.Context, o Options) (Summary, error) {
	d := &demo{o: o, began: time.Now(), handed: map[rowKey]int{}}
	if err := d.prepare(); err != nil {
		return Summary{}, err
	}
	tasks, stop := context.WithCancel(context.Background()) // the world goes on while ctx's end is handled
	defer stop()
	g, tasks := errgroup.WithContext(tasks)
	if err := d.startWorld(tasks, g); err != nil {
		return Summary{}, err
	}
	err := d.play(ctx, tasks)
	stop()
	err = errors.Join(err, ignoreCanceled(g.Wait()), d.platform.close())
	if err != nil {
		return Summary{}, err
	}
	return d.judge()
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Check fills in when outage and kill happen, and says what is wrong with the options.
func (o *Options) Check() error {
	if _, port, err := net.SplitHostPort(o.Listen); err != nil || port == "" {
		return fmt.Errorf("--listen %s is not host:port, like 127.0.0.1:8080", o.Listen)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("--listen %s: the port is not a number from 0 to 65535", o.Listen)
	}
	if o.Outage < 0 || o.OutageAt < 0 || o.KillAt < 0 || o.For < 0 {
		return errors.New("a time cannot be negative")
	}
	if o.For > 0 && o.Outage > 0 && o.OutageAt == 0 {
		o.OutageAt = (o.For - o.Outage) / 2
	}
	if o.For == 0 && o.Outage > 0 && o.OutageAt == 0 {
		o.OutageAt = 10 * time.Second
	}
	if o.Kill && o.KillAt == 0 {
		o.KillAt = o.OutageAt + o.Outage/2
	}
	if o.Kill && o.KillAt == 0 {
		o.KillAt = max(o.For/2, 5*time.Second)
	}
	if end := max(o.OutageAt+o.Outage, o.KillAt); o.For > 0 && end > o.For {
		return fmt.Errorf("the demo ends after %v, before its outage or kill at %v: use a longer --for", o.For, end)
	}
	return nil
}

// demo is the state of one run.
type demo struct {
	o        Options
	began    time.Time
	site     *sim.Site
	platform *platform
	agent    *agent
	page     string // URL
	config   string // path of hub.yaml

	mu     sync.Mutex
	handed map[rowKey]int // rows the receiver handed on
	sum    Summary        // what is known while playing
}

// say prints one line of what happens.
func (d *demo) say(who, format string, a ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.o.Out, "%6.1f s  %-8s %s\n", time.Since(d.began).Seconds(), who, fmt.Sprintf(format, a...))
}

// prepare makes the folder and looks for free ports.
func (d *demo) prepare() (err error) {
	if d.o.State == "" {
		d.o.State, err = os.MkdirTemp("", "hubagent-demo-")
	} else {
		err = os.MkdirAll(d.o.State, 0o755)
	}
	if err != nil {
		return fmt.Errorf("cannot make the demo's folder: %w", err)
	}
	if d.o.State, err = filepath.Abs(d.o.State); err != nil {
		return err
	}
	if entries, err := os.ReadDir(filepath.Join(d.o.State, "state")); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s holds the state of an earlier run: name another folder with --state, or remove it", d.o.State)
	}
	return nil
}

// startWorld starts devices, broker and receiver, and writes the agent's config.
func (d *demo) startWorld(ctx context.Context, g *errgroup.Group) error {
	profiles, err := config.Profiles()
	if err != nil {
		return err
	}
	byID := map[string]*config.Profile{}
	for _, p := range profiles {
		byID[p.ID] = p
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("cannot open a port for the simulated bins: %w", err)
	}
	line, port, closeLine, err := sim.OpenPTY()
	if err != nil {
		return fmt.Errorf("cannot open a pseudo-terminal for the simulated meters: %w", err)
	}
	buses := sim.Demo(byID, tcp.Addr().String(), port, filepath.Join(d.o.State, "gpio"))
	d.site = sim.New(sim.World{Seed: 1, Start: d.began})
	g.Go(func() error { return d.site.ServeTCP(ctx, tcp, buses[0]) })
	g.Go(func() error {
		defer closeLine()
		return d.site.ServeRTU(ctx, line, buses[1])
	})
	g.Go(func() error { return d.site.WriteLines(ctx, buses[2]) })

	address, taken, err := freePort("127.0.0.1:1883")
	if err != nil {
		return fmt.Errorf("cannot find a port for the broker: %w", err)
	}
	if taken {
		d.say("broker", "port 1883 is taken by another program, using %s", address)
	}
	if d.platform, err = startPlatform(d, address); err != nil {
		return err
	}
	g.Go(func() error { return d.platform.receiver.Run(ctx) })

	page, taken, err := freePort(d.o.Listen)
	if err != nil {
		return fmt.Errorf("cannot find a port for the status page: %w", err)
	}
	if taken {
		d.say("page", "%s is taken by another program, using %s", d.o.Listen, page)
	}
	d.page, d.config = "http://"+page+"/", filepath.Join(d.o.State, "hub.yaml")
	if err := writeConfig(d.config, address, page, buses); err != nil {
		return err
	}
	d.say("demo", "everything is in %s; the agent's config is %s", d.o.State, d.config)
	d.say("demo", "8 bins behind Modbus TCP %s, 4 meters and 2 cameras on RS-485 line %s, 1 lift contact", tcp.Addr(), port)
	d.say("demo", "status page: %s   (English: %s?lang=en)", d.page, d.page)
	return nil
}

// freePort returns the address itself, or the same with the next free port.
func freePort(address string) (free string, taken bool, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", false, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return "", false, err
	}
	for try := range 50 {
		free = net.JoinHostPort(host, strconv.Itoa(port+try))
		l, err := net.Listen("tcp", free)
		if err == nil {
			return l.Addr().String(), try > 0, l.Close()
		}
		if !errors.Is(err, syscall.EADDRINUSE) || port == 0 {
			return "", false, err
		}
	}
	return "", false, fmt.Errorf("%s and the 49 ports after it are taken", address)
}

// play starts the agent and lets happen what the flags ask for.
func (d *demo) play(ctx, tasks context.Context) error {
	var err error
	if d.agent, err = d.startAgent(); err != nil {
		return err
	}
	defer d.agent.kill()
	steps := d.script()
	report := time.NewTicker(2 * time.Second)
	defer report.Stop()
	for {
		var next <-chan time.Time
		if len(steps) > 0 {
			next = time.After(time.Until(d.began.Add(steps[0].at)))
		}
		select {
		case <-next:
			step := steps[0]
			steps = steps[1:]
			if step.do == nil {
				return d.finish()
			}
			if err := step.do(); err != nil {
				return err
			}
		case <-report.C:
			d.reportProgress()
		case <-d.agent.exited:
			return fmt.Errorf("the agent stopped by itself: %v", d.agent.err)
		case <-tasks.Done():
			return errors.New("a part of the simulated world stopped")
		case <-ctx.Done():
			d.say("demo", "stopping")
			if !d.platform.broker.IsUp() {
				if err := d.platform.broker.Up(); err != nil {
					return err
				}
			}
			return d.finish()
		}
	}
}

type step struct {
	at time.Duration
	do func() error // nil: the end
}

// script returns what happens when, in order.
func (d *demo) script() (steps []step) {
	add := func(at time.Duration, do func() error) {
		i := 0
		for i < len(steps) && steps[i].at <= at {
			i++
		}
		steps = append(steps[:i], append([]step{{at, do}}, steps[i:]...)...)
	}
	if d.o.Outage > 0 {
		add(d.o.OutageAt, func() error {
			d.say("broker", "stopped: the way to the platform is cut for %v", d.o.Outage)
			d.sum.OutageSeconds = d.o.Outage.Seconds()
			return d.platform.broker.Cut()
		})
		add(d.o.OutageAt+d.o.Outage, func() error {
			d.say("broker", "back")
			return d.platform.broker.Up()
		})
	}
	if d.o.Kill {
		add(d.o.KillAt, func() (err error) {
			d.say("demo", "killing the agent (SIGKILL, process %d)", d.agent.cmd.Process.Pid)
			d.agent.kill()
			d.sum.Kills++
			d.agent, err = d.startAgent()
			return err
		})
	}
	if d.o.For > 0 {
		add(d.o.For, nil)
	}
	return steps
}

// finish lets the agent catch up and stops it the way a service manager does.
func (d *demo) finish() error {
	for deadline := time.Now().Add(catchUp); time.Now().Before(deadline); {
		p, err := d.progress()
		if err == nil && p.Uplink.State == "online" && p.Uplink.Waiting <= 2 {
			break
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-d.agent.exited:
			return fmt.Errorf("the agent stopped by itself: %v", d.agent.err)
		}
	}
	d.say("demo", "stopping the agent (SIGTERM)")
	return d.agent.stop(&d.sum)
}
