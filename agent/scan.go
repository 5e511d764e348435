package main

import (
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
	"golang.org/x/sys/unix"

	"hubagent/agent/scan"
	"hubagent/config"
	"hubagent/drivers/modbus"
)

// scanFlags are what hubagent scan is called with.
type scanFlags struct {
	port, address, units, config string
	bauds                        []int
	parities                     []string
	all, asJSON                  bool
}

func newScanCommand() *cobra.Command {
	var f scanFlags
	c := &cobra.Command{
		Use:   "scan",
		Short: "Find the Modbus devices on a serial line or behind a converter",
		Long: `scan asks a line for devices, at the usual settings of serial lines or by both ways to speak to a
converter. It says which unit ids answer and what they may be, by reading what the profiles say
their models are recognised by, and prints what belongs under buses in hub.yaml. Without --port
and --address it lists the serial ports of this machine.

It only reads, and never writes to a device. Each unit is asked for one register; a refusal is a
sign of life, too. Once a device has answered, the other settings are left out unless --all is
given. It takes about 1 minute where the devices have low unit ids, 1 minute more for each 100
units that are waited for with patience, and up to 15 minutes where nothing answers at all:
--baud, --parity and --units make it shorter. Ctrl-C ends it with what was found so far.

Nothing else may poll the line meanwhile: systemctl stop hubagent, if the agent runs.`,
		Example: `  hubagent scan
  hubagent scan --port /dev/ttyS1
  hubagent scan --port /dev/ttyS1 --baud 9600,19200 --parity none,even --units 1-32
  hubagent scan --address 192.168.1.10:502`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.port == "" && f.address == "" {
				return listPorts(c, f.asJSON)
			}
			return f.scan(c)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.port, "port", "", "serial port to scan")
	flags.StringVar(&f.address, "address", "", "host:port of a Modbus TCP server or converter to scan; port 502 when left out")
	flags.IntSliceVar(&f.bauds, "baud", nil, "only these rates (default: all that are usual)")
	flags.StringSliceVar(&f.parities, "parity", nil, "only these parities: none, even, odd (default: all that are usual)")
	flags.StringVar(&f.units, "units", "1-247", "only these unit ids: 1-247, or 1,2,5-9")
	flags.BoolVar(&f.all, "all", false, "go on with the other settings when devices answered at one")
	flags.StringVar(&f.config, "config", "hub.yaml", "config file; only the site's own profiles beside it are used")
	flags.BoolVar(&f.asJSON, "json", false, "print one JSON object on standard output")
	return c
}

// listPorts is what scan does when nobody said where.
func listPorts(c *cobra.Command, asJSON bool) error {
	ports, err := scan.Ports("/")
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(append([]scan.Port{}, ports...))
	}
	return printPorts(c.OutOrStdout(), ports)
}

func printPorts(out io.Writer, ports []scan.Port) error {
	if len(ports) == 0 {
		_, err := fmt.Fprint(out, `This machine has no serial port. Plug the RS-485 adapter in, and see what the kernel says to it: dmesg | tail
A converter or server in the network is scanned by: hubagent scan --address 192.168.1.10:502
`)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PORT\tDEVICE\tUSED BY")
	example := ports[0].Name
	for _, p := range ports {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, p.Device, cmp.Or(p.Holder, "-"))
	}
	if i := slices.IndexFunc(ports, func(p scan.Port) bool { return p.Holder == "" }); i >= 0 {
		example = ports[i].Name
	}
	fmt.Fprintf(w, "\nScan one:              hubagent scan --port %s\n", example)
	fmt.Fprint(w, "Scan in the network:   hubagent scan --address 192.168.1.10:502\n")
	return w.Flush()
}

func (f scanFlags) scan(c *cobra.Command) error {
	o := scan.Options{All: f.all, Open: openMaster}
	var err error
	if o.Profiles, err = config.Profiles(filepath.Join(filepath.Dir(f.config), config.ProfileFolder)); err != nil {
		return reportProblems(c, err)
	}
	if o.Units, err = scan.ParseUnits(f.units); err != nil {
		return usageError{fmt.Errorf("--units: %w", err)}
	}
	parities, err := f.serial(c)
	if err != nil {
		return err
	}
	if f.port != "" {
		o.Trials = scan.Trials(f.port, scan.Settings(f.bauds, parities, o.Profiles))
	} else {
		o.Trials = scan.TrialsAt(withPort(f.address))
	}
	show := newProgress(c.ErrOrStderr())
	o.Progress = show.show
	result, err := scan.Run(c.Context(), o)
	show.end()
	if e := f.print(c.OutOrStdout(), result); e != nil {
		return e
	}
	switch {
	case err != nil:
		return lineProblem(err, f.port)
	case result.Foreign != nil:
		return reported{errors.New("another master is polling the line")}
	case !result.Found() && result.Stopped:
		return errors.New("stopped before anything answered")
	case !result.Found():
		return nothing(f)
	}
	return nil
}

func (f scanFlags) print(out io.Writer, r scan.Result) error {
	if !f.asJSON {
		return r.Print(out)
	}
	return json.NewEncoder(out).Encode(struct {
		scan.Result
		Remarks []string `json:"remarks"`
		Snippet string   `json:"snippet"`
	}{r, append([]string{}, r.Remarks()...), r.Snippet()})
}

// serial checks the flags that only a serial port takes.
func (f scanFlags) serial(c *cobra.Command) (parities []config.Parity, err error) {
	if f.port != "" && f.address != "" {
		return nil, usageError{errors.New("give --port or --address, not both")}
	}
	for _, name := range []string{"baud", "parity"} {
		if f.address != "" && c.Flags().Changed(name) {
			return nil, usageError{fmt.Errorf("--%s goes with --port only: a converter's line is set in the converter", name)}
		}
	}
	for _, baud := range f.bauds {
		if !modbus.HasSpeed(baud) {
			return nil, usageError{fmt.Errorf("--baud: %d is not a rate that serial ports have; write one of 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200", baud)}
		}
	}
	for _, text := range f.parities {
		p, err := parity(text)
		if err != nil {
			return nil, err
		}
		parities = append(parities, p)
	}
	return parities, nil
}

func parity(text string) (config.Parity, error) {
	p := config.Parity(text)
	if !slices.Contains([]config.Parity{config.ParityNone, config.ParityEven, config.ParityOdd}, p) {
		return "", usageError{fmt.Errorf("--parity: %q is not a parity; write none, even or odd", text)}
	}
	return p, nil
}

func openMaster(ctx context.Context, b config.Bus) (scan.Master, error) {
	raw, err := modbus.OpenRaw(ctx, b)
	if err != nil {
		return nil, err // not a nil *Raw in an interface
	}
	return raw, nil
}

// withPort completes host:port with the port of Modbus TCP.
func withPort(address string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), "502")
}

// lineProblem says the mend of a line that cannot be used. port is "" for one in the network.
func lineProblem(err error, port string) error {
	switch {
	case errors.Is(err, modbus.ErrInUse):
		return fmt.Errorf("cannot use %s: %s has it, and two masters on a line destroy each other's answers; stop it for as long as you look: systemctl stop hubagent",
			port, cmp.Or(scan.Holder("/", port), "another program"))
	case port != "" && errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; put sudo before the command, or your user into the group of the port: ls -l %s", err, port)
	case port != "" && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; hubagent scan lists the ports there are", err)
	case port == "":
		return fmt.Errorf("%w; many converters take one connection only: if the agent has it, systemctl stop hubagent", err)
	}
	return err
}

// nothing says what to look at when no device answered.
func nothing(f scanFlags) error {
	if f.address != "" {
		return fmt.Errorf("no device answers behind %s: is the converter's line wired and set like its devices (baud, parity), and are they powered?", f.address)
	}
	return fmt.Errorf("no device answers on %s: swap A and B, and see that the devices are powered, on this line, and set to Modbus RTU", f.port)
}

// progress shows how far a scan is: on a terminal in one line that is written over, else in a line for each step.
type progress struct {
	out   io.Writer
	width int    // of the terminal; 0: out is none
	last  string // the step that was shown
	at    time.Time
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out}
	if f, ok := out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			p.width = cmp.Or(int(size.Col), 80)
		}
	}
	return p
}

func (p *progress) show(now scan.Progress) {
	step := fmt.Sprintf("%s, %s", now.Trial, now.Pass)
	if p.width == 0 {
		if step != p.last {
			fmt.Fprintf(p.out, "%s; at most %s to go\n", step, now.Left.Round(time.Second))
		}
		p.last = step
		return
	}
	if time.Since(p.at) < 100*time.Millisecond {
		return
	}
	p.at, p.last = time.Now(), step
	found := "none"
	if len(now.Found) > 0 {
		found = strings.Trim(strings.Join(strings.Fields(fmt.Sprint(now.Found)), ","), "[]")
		if len(found) > 24 {
			found = fmt.Sprintf("%d units", len(now.Found))
		}
	}
	share := float64(now.Done) / float64(max(now.Done+now.Left, 1))
	bar := strings.Repeat("#", int(share*barWidth)) + strings.Repeat(".", barWidth-int(share*barWidth))
	line := fmt.Sprintf("[%s] %2.0f %%  %s to go  found: %s  now: %s, unit %d", bar, 100*share, now.Left.Round(time.Second), found, step, now.Unit)
	fmt.Fprintf(p.out, "\r%s\x1b[K", line[:min(len(line), p.width-1)]) // a longer one would not be written over
}

const barWidth = 16

// end takes the line away.
func (p *progress) end() {
	if p.width > 0 && p.last != "" {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
