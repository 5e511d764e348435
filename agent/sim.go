package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hubagent/config"
	"hubagent/drivers/sim"
)

// simOptions are the flags of hubagent sim.
type simOptions struct {
	path   string
	length time.Duration // 0: until Ctrl-C
	faults []string
	replay string // a recording
	setup  sim.Setup
	json   bool
}

func newSimCommand() *cobra.Command {
	o := simOptions{}
	c := &cobra.Command{
		Use:   "sim",
		Short: "Simulate all devices of a hub.yaml, with faults on request",
		Long: `sim stands in for every device of a hub.yaml, each as its profile describes it: Modbus TCP and
RTU-over-TCP servers on free ports, RS-485 lines on pseudo-terminals at the speed of the real
ones, GPIO lines as files. It writes a hub.yaml that points to them, so that the agent can be run
against the whole site without any hardware, for a trial, a training or a test; what that agent
journals stays beside it, and nothing is sent. What the profiles allow to be written can be.

A fault is silent, slow, late, exception, noise, reset or truncate, and behind a colon what it
hits and when: bus=NAME, units=3+7, p=0.05 (of the requests), delay=1300ms (of slow and late),
from=10s, to=40s (since the start), repeat=1m. Several --fault flags: the first that fits plays.

A recording is what hubagent read --json wrote at the real device. The units in it answer each
request that was recorded as they did then, in turn and from the first again, and stay silent to
all else; the other devices are simulated as ever.`,
		Example: `  hubagent sim --config hub.yaml
  hubagent sim --fault "silent:bus=meters,units=3+7,from=30s,to=90s" --fault "late:p=0.05,delay=1300ms"
  hubagent read meter-001 --watch 1s --json > meter.json    # at the site
  hubagent sim --replay meter.json                          # at the desk, with the same hub.yaml`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.StringVar(&o.path, "config", "hub.yaml", "config file of the site")
	f.StringVar(&o.setup.Dir, "dir", "sim", "folder for hub.yaml, serial lines and line files; made if there is none")
	f.StringVar(&o.setup.Host, "listen", "127.0.0.1", "address of this machine that TCP servers listen on")
	f.BoolVar(&o.setup.SameAddresses, "same-addresses", false, "use the addresses, serial ports and line folders of the config itself")
	f.StringArrayVar(&o.faults, "fault", nil, "a fault, as above; may be given several times")
	f.StringVar(&o.replay, "replay", "", "recording of hubagent read --json whose units answer as they did then")
	f.DurationVar(&o.setup.Latency, "latency", 0, "time a device takes until it answers (0: 2 ms on a serial line, none behind Modbus TCP)")
	f.BoolVar(&o.setup.Fast, "fast", false, "let serial lines carry everything at once, whatever their speed")
	f.Uint64Var(&o.setup.World.Seed, "seed", 1, "another number is another community, and other chances of faults")
	f.DurationVar(&o.setup.World.Day, "day", 24*time.Hour, "how long a simulated day takes")
	f.DurationVar(&o.length, "for", 0, "end by itself after this time (0: at Ctrl-C)")
	f.BoolVar(&o.json, "json", false, "print where the buses are, and at the end what was asked of them, as one JSON object each")
	return c
}

// madeBySim begins a hub.yaml that sim may replace.
const madeBySim = "Written by hubagent sim: the simulated twin of a site."

func (o *simOptions) run(c *cobra.Command) error {
	cfg, err := loadConfig(c, o.path)
	if err != nil {
		return err
	}
	if err := o.check(cfg); err != nil {
		return usageError{err}
	}
	if o.setup.SameAddresses && c.Flags().Changed("listen") {
		return usageError{errors.New("--listen and --same-addresses exclude each other: the config's own addresses say where to listen")}
	}
	if o.replay != "" {
		if o.setup.Recording, err = recording(o.replay); err != nil {
			return usageError{fmt.Errorf("--replay: %w", err)}
		}
	}
	path := filepath.Join(o.setup.Dir, "hub.yaml")
	if err := o.before(path); err != nil {
		return err
	}
	if o.setup.Dir, err = filepath.Abs(o.setup.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.setup.Dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the folder of the simulated site: %w", err)
	}
	o.setup.World.Start = time.Now().In(cfg.Gateway.Zone)
	hub, err := o.setup.Open(cfg.Buses)
	if err != nil && o.setup.SameAddresses {
		err = fmt.Errorf("%w; without --same-addresses each bus gets a place of its own", err)
	}
	if err != nil {
		return err
	}
	defer hub.Close()
	twin := *cfg
	twin.Buses, twin.State, twin.Uplink = hub.Buses, filepath.Join(o.setup.Dir, "state"), config.Uplink{}
	if err := o.write(path, &twin); err != nil {
		return err
	}
	if err := o.begun(c.OutOrStdout(), path, hub); err != nil {
		return err
	}
	ctx, begun := c.Context(), time.Now()
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	if err := hub.Serve(ctx); err != nil {
		return err
	}
	return o.ended(c.OutOrStdout(), time.Since(begun), hub)
}

func recording(path string) (*sim.Recording, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := sim.ReadRecording(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// check judges the flags against the config.
func (o *simOptions) check(cfg *config.Config) error {
	if o.length < 0 || o.setup.Latency < 0 {
		return errors.New("a time cannot be negative")
	}
	if o.setup.World.Day < time.Minute {
		return fmt.Errorf("--day %v is too short a day: write at least 1m", o.setup.World.Day)
	}
	if _, _, err := net.SplitHostPort(o.setup.Host); err == nil || o.setup.Host == "" {
		return fmt.Errorf("--listen %q is not an address alone, like 127.0.0.1: each bus gets a port of its own", o.setup.Host)
	}
	if len(cfg.Buses) == 0 {
		return fmt.Errorf("%s has no buses, so there is nothing to simulate", o.path)
	}
	for _, text := range o.faults {
		fault, err := sim.ParseFault(text)
		if err == nil {
			err = fits(fault, cfg.Buses)
		}
		if err != nil {
			return fmt.Errorf("--fault %q: %w", text, err)
		}
		o.setup.Faults = append(o.setup.Faults, fault)
	}
	return nil
}

// fits says whether there is anything that a fault could hit.
func fits(fault sim.Fault, buses []config.Bus) error {
	var names []string
	units := map[int]bool{}
	for _, b := range buses {
		if b.Kind == config.GPIO || b.Kind == config.GPIOSim {
			continue
		}
		names = append(names, b.Name)
		for _, d := range b.Devices {
			if fault.Bus == "" || fault.Bus == b.Name {
				units[d.Unit] = true
			}
		}
	}
	if fault.Bus != "" && !slices.Contains(names, fault.Bus) {
		return fmt.Errorf("there is no Modbus bus %q; write one of: %s", fault.Bus, cmp.Or(strings.Join(names, ", "), "(the config has none)"))
	}
	for _, unit := range fault.Units {
		if !units[unit] {
			return fmt.Errorf("no device there has unit %d; correct units or bus", unit)
		}
	}
	return nil
}

// before sees whether the hub.yaml at path may be replaced, and takes over the ports of an earlier simulation, so that
// an agent that still runs finds its devices again.
func (o *simOptions) before(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the hub.yaml of an earlier simulation: %w", err)
	}
	if !bytes.HasPrefix(text, []byte("# "+madeBySim)) {
		return usageError{fmt.Errorf("%s was not written by hubagent sim, and stays as it is: name another folder with --dir", path)}
	}
	cfg, err := config.Load(path)
	if err != nil {
		return nil // by an earlier version, or changed by hand: there is nothing to take over
	}
	o.setup.Before = map[string]string{}
	for _, b := range cfg.Buses {
		o.setup.Before[b.Name] = b.Address
	}
	return nil
}

// write writes the twin's hub.yaml, and the site's own profiles beside it.
func (o *simOptions) write(path string, twin *config.Config) error {
	text, err := sim.HubYAML(madeBySim, twin)
	if err != nil {
		return err
	}
	from, err := filepath.Abs(filepath.Join(filepath.Dir(o.path), config.ProfileFolder))
	if err != nil {
		return err
	}
	profiles, err := filepath.Glob(filepath.Join(from, "*.yaml"))
	if err != nil {
		return err
	}
	to := filepath.Join(o.setup.Dir, config.ProfileFolder)
	if from == to {
		profiles = nil
	}
	if len(profiles) > 0 {
		err = os.MkdirAll(to, 0o755)
	}
	for _, profile := range profiles {
		data, e := os.ReadFile(profile)
		if e == nil {
			e = os.WriteFile(filepath.Join(to, filepath.Base(profile)), data, 0o644)
		}
		err = errors.Join(err, e)
	}
	temporary := path + ".new" // renamed, so that an agent that starts just now reads the one or the other
	err = errors.Join(err, os.WriteFile(temporary, text, 0o644))
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return fmt.Errorf("cannot write the config of the simulated site: %w", err)
	}
	return nil
}

// simBegun is what sim --json prints at the start. With start, seed and day World says what every reading should be.
type simBegun struct {
	Config string    `json:"config"`
	Start  time.Time `json:"start"`
	Seed   uint64    `json:"seed"`
	Day    float64   `json:"day_seconds"`
	Buses  []simBus  `json:"buses"`
}

type simBus struct {
	Bus     string         `json:"bus"`
	Kind    config.BusKind `json:"kind"`
	At      string         `json:"at"`
	Devices int            `json:"devices"`
}

func (o *simOptions) begun(out io.Writer, path string, hub *sim.Hub) error {
	r := simBegun{Config: path, Start: o.setup.World.Start, Seed: o.setup.World.Seed, Day: o.setup.World.Day.Seconds()}
	for _, b := range hub.Buses {
		r.Buses = append(r.Buses, simBus{b.Name, b.Kind, b.Address + b.Port + b.Dir, len(b.Devices)})
	}
	if o.json {
		return json.NewEncoder(out).Encode(r)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BUS\tKIND\tAT\tDEVICES")
	for i, b := range r.Buses {
		var devices []string
		for _, d := range hub.Buses[i].Devices {
			switch {
			case d.LineName != "":
				devices = append(devices, fmt.Sprintf("%s line %s", d.Name, d.LineName))
			case d.Unit == 0:
				devices = append(devices, fmt.Sprintf("%s line %d", d.Name, d.Line))
			default:
				devices = append(devices, fmt.Sprintf("%s unit %d", d.Name, d.Unit))
			}
		}
		if most := 4; len(devices) > most {
			devices = append(devices[:most-1], fmt.Sprintf("and %d more", len(devices)-most+1))
		}
		fmt.Fprintf(w, "%s\t%s\t%s%s\t%s\n", b.Bus, b.Kind, b.At, speed(hub.Buses[i]), strings.Join(devices, ", "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, text := range o.faults {
		fmt.Fprintf(out, "fault %s\n", text)
	}
	end := "Ctrl-C ends the simulation."
	if o.length > 0 {
		end = fmt.Sprintf("The simulation ends after %v, or at Ctrl-C.", o.length)
	}
	_, err := fmt.Fprintf(out, "\nNext, in another terminal:\n  hubagent check --config %[1]s\n  hubagent run --config %[1]s\n%[2]s\n", path, end)
	return err
}

// speed says how a master has to set its end of a serial line up.
func speed(b config.Bus) string {
	if b.Baud == 0 {
		return ""
	}
	return fmt.Sprintf(", %d Bd 8%s%d", b.Baud, strings.ToUpper(string(cmp.Or(b.Parity, config.ParityNone))[:1]), b.StopBits)
}

// simEnded is what sim --json prints at the end.
type simEnded struct {
	Seconds float64     `json:"seconds"`
	Buses   []simCounts `json:"buses"`
}

type simCounts struct {
	Bus        string `json:"bus"`
	Requests   int64  `json:"requests"`
	Answers    int64  `json:"answers"`
	Exceptions int64  `json:"exceptions"`
	Faults     int64  `json:"faults"`
}

func (o *simOptions) ended(out io.Writer, length time.Duration, hub *sim.Hub) error {
	r := simEnded{Seconds: length.Seconds()}
	for i, b := range hub.Buses {
		if b.Kind == config.GPIOSim {
			continue // files are not asked
		}
		n := &hub.Sites[i].Counts
		r.Buses = append(r.Buses, simCounts{b.Name, n.Requests.Load(), n.Answers.Load(), n.Exceptions.Load(), n.Faults.Load()})
	}
	if o.json {
		return json.NewEncoder(out).Encode(r)
	}
	fmt.Fprintf(out, "\nsimulated for %v\n", length.Round(100*time.Millisecond))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BUS\tREQUESTS\tANSWERS\tEXCEPTIONS\tFAULTS")
	for _, b := range r.Buses {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\n", b.Bus, b.Requests, b.Answers, b.Exceptions, b.Faults)
	}
	return w.Flush()
}
