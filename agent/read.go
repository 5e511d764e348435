package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hubagent/agent/scan"
	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/modbus"
)

// readFlags are what hubagent read is called with.
type readFlags struct {
	config         string
	asJSON, orders bool
	watch          time.Duration

	// Without a config:
	port, parity, address, function    string
	rtu                                bool
	baud, stopBits, unit, start, count int
	timeout                            time.Duration
}

func newReadCommand() *cobra.Command {
	var f readFlags
	c := &cobra.Command{
		Use:   "read [DEVICE[.POINT]]",
		Short: "Read a device now and show every byte of it",
		Long: `read asks a device of hub.yaml once, just as the agent would, and shows the frames that were sent
and received, how long each answer took, the raw words of every point and what they mean. For one
point, or with --orders, it shows the words in every byte order and type side by side, so that the
right one can be picked by eye; values of a readable size are marked with *.

Without a config it reads any registers: of a unit at --port, or at --address.

It only reads, and never writes to a device. It takes as long as one poll, at most the device's
time-out for each request. The agent must not have the port meanwhile: systemctl stop hubagent.`,
		Example: `  hubagent read meter-001
  hubagent read meter-001.energy_import
  hubagent read meter-001 --watch 1s
  hubagent read --port /dev/ttyS1 --baud 9600 --unit 5 --function 3 --start 0x2000 --count 4 --orders
  hubagent read --address 192.168.1.10:502 --unit 1 --function input_register --start 0 --count 2`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("%s takes one device, got %q too\nsee: %s --help", c.CommandPath(), args[1], c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			r, err := f.reader(c, args)
			if err != nil {
				return err
			}
			defer r.close()
			return f.show(c.Context(), c.OutOrStdout(), r)
		},
	}
	flags := c.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.config, "config", "hub.yaml", "config file")
	flags.BoolVar(&f.orders, "orders", false, "show the words in every byte order and type")
	flags.DurationVar(&f.watch, "watch", 0, "read again and again, this long after the last time, until Ctrl-C")
	flags.BoolVar(&f.asJSON, "json", false, "print one JSON object a reading on standard output")
	flags.StringVar(&f.port, "port", "", "without a config: serial port")
	flags.IntVar(&f.baud, "baud", 9600, "its rate")
	flags.StringVar(&f.parity, "parity", "none", "its parity: none, even, odd")
	flags.IntVar(&f.stopBits, "stop-bits", 1, "its stop bits: 1 or 2")
	flags.StringVar(&f.address, "address", "", "without a config: host:port of a Modbus TCP server or converter")
	flags.BoolVar(&f.rtu, "rtu", false, "speak RTU over TCP to --address")
	flags.IntVar(&f.unit, "unit", 1, "unit id")
	flags.StringVar(&f.function, "function", "3", "1 or coil, 2 or discrete_input, 3 or holding_register, 4 or input_register")
	flags.IntVar(&f.start, "start", 0, "first register or bit, zero-based as sent on the wire, e.g. 0x2000")
	flags.IntVar(&f.count, "count", 1, "how many registers or bits")
	flags.DurationVar(&f.timeout, "timeout", 500*time.Millisecond, "longest wait for the answer")
	return c
}

// reader reads one thing again and again.
type reader struct {
	read  func(context.Context) (reading, error)
	close func() error
}

// reading is what one look gave. It is what --json prints.
type reading struct {
	Device    string        `json:"device"`
	At        time.Time     `json:"at"`
	Exchanges []exchangeRow `json:"exchanges"`
	Points    []pointRow    `json:"points,omitempty"`
	Registers []registerRow `json:"registers,omitempty"`
	Error     string        `json:"error,omitempty"`
}

type exchangeRow struct {
	Asked    string  `json:"asked"`
	Outcome  string  `json:"outcome"`
	Heard    string  `json:"heard,omitempty"` // before the request, in hexadecimal as the others
	Sent     string  `json:"sent"`
	Received string  `json:"received"`
	TookMS   float64 `json:"took_ms"`
}

type pointRow struct {
	Point   string          `json:"point"`
	At      string          `json:"at"`
	Raw     string          `json:"raw"`
	Value   json.RawMessage `json:"value"`
	Unit    string          `json:"unit"`
	Quality string          `json:"quality"`
	Orders  []scan.Guess    `json:"orders,omitempty"`
}

// registerRow is a register or bit read without a profile.
type registerRow struct {
	Address int          `json:"address"`
	Words   int          `json:"words"` // 0: a bit
	Raw     string       `json:"raw"`
	Orders  []scan.Guess `json:"orders,omitempty"`
}

// reader decides what is to be read, and opens it.
func (f readFlags) reader(c *cobra.Command, args []string) (*reader, error) {
	raw := ""
	for _, name := range []string{"port", "baud", "parity", "stop-bits", "address", "rtu", "unit", "function", "start", "count", "timeout"} {
		if c.Flags().Changed(name) {
			raw = name
		}
	}
	switch {
	case len(args) == 1 && raw != "":
		return nil, usageError{fmt.Errorf("--%s goes without a device: %s is read as hub.yaml says", raw, args[0])}
	case len(args) == 1:
		cfg, err := loadConfig(c, f.config)
		if err != nil {
			return nil, err
		}
		return f.device(c.Context(), cfg, args[0])
	case f.port == "" && f.address == "":
		return nil, usageError{errors.New("say what to read: a device of hub.yaml, or --port or --address\nsee: hubagent read --help")}
	}
	return f.registers(c.Context())
}

// device opens a device of the config, or one point of it.
func (f readFlags) device(ctx context.Context, cfg *config.Config, name string) (*reader, error) {
	name, point, one := strings.Cut(name, ".")
	var names []string
	for _, bus := range cfg.Buses {
		for _, d := range bus.Devices {
			if names = append(names, d.Name); d.Name != name {
				continue
			}
			if one {
				if !slices.ContainsFunc(d.Model.Points, func(p config.Point) bool { return p.Name == point }) {
					return nil, usageError{fmt.Errorf("%s has no point %q; profile %s has: %s", name, point, d.Profile, pointNames(d.Model))}
				}
				d.Model = scan.Only(d.Model, []string{point})
			}
			if bus.Kind == config.GPIO || bus.Kind == config.GPIOSim {
				return openLine(bus, d)
			}
			m, err := modbus.OpenRaw(ctx, bus)
			if err != nil {
				return nil, lineProblem(err, bus.Port)
			}
			return &reader{func(ctx context.Context) (reading, error) { return f.poll(ctx, m, d, f.orders || one) }, m.Close}, nil
		}
	}
	return nil, usageError{fmt.Errorf("%s has no device %q; it has: %s", f.config, name, strings.Join(names, ", "))}
}

func pointNames(p *config.Profile) string {
	var names []string
	for _, point := range p.Points {
		names = append(names, point.Name)
	}
	return strings.Join(names, ", ")
}

// openLine makes a reader of a contact.
func openLine(bus config.Bus, d config.Device) (*reader, error) {
	driver, err := openers()[bus.Kind](bus, drivers.With{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	read := func(ctx context.Context) (reading, error) {
		s, err := driver.Read(ctx, d)
		r := reading{Device: d.Name, At: s.At}
		for i, got := range s.Readings {
			row := newPointRow(got, "line "+cmp.Or(d.LineName, strconv.Itoa(d.Line)))
			if active, ok := got.Value.AsBool(); ok {
				row.Raw = map[bool]string{false: "low", true: "high"}[active != d.Model.Points[i].Invert]
			}
			r.Points = append(r.Points, row)
		}
		if err != nil && bus.Kind == config.GPIO {
			err = fmt.Errorf("%w; if the agent runs, it has the line: systemctl stop hubagent", err)
		}
		return r, err
	}
	return &reader{read, driver.Close}, nil
}

// poll reads a Modbus device as the agent does.
func (f readFlags) poll(ctx context.Context, m *modbus.Raw, d config.Device, orders bool) (reading, error) {
	s, all, err := m.Poll(ctx, d)
	r := reading{Device: d.Name, At: s.At, Exchanges: exchangeRows(all)}
	for i, got := range s.Readings {
		p := d.Model.Points[i]
		row := newPointRow(got, fmt.Sprintf("%s 0x%04X", p.Function, p.Address))
		if data := rawWords(p, all); data != nil {
			row.Raw = words(data)
			if orders {
				row.Orders = scan.Orders(data)
			}
		}
		r.Points = append(r.Points, row)
	}
	return r, err
}

func newPointRow(got drivers.Reading, at string) pointRow {
	row := pointRow{Point: got.Point, At: at, Unit: got.Unit, Value: json.RawMessage("null")}
	if !got.Value.IsNone() {
		row.Value = got.Value.Append(nil)
	}
	row.Quality = map[drivers.Quality]string{
		drivers.Good: "good", drivers.NotEvaluated: "not evaluated", drivers.Suspect: "suspect", drivers.Bad: "bad", drivers.Missing: "missing",
	}[got.Quality]
	if got.Why != "" {
		row.Quality += ": " + got.Why
	}
	return row
}

// rawWords finds a point's registers, or the byte with its bit alone, in what was received; nil if they did not come.
func rawWords(p config.Point, all []modbus.Exchange) []byte {
	size := max(p.Registers(), 1)
	bits := p.Function == config.Coil || p.Function == config.DiscreteInput
	for _, x := range slices.Backward(all) {
		at := p.Address - x.Start
		if x.Data == nil || x.Function != p.Function || at < 0 || at+size > x.Count {
			continue
		}
		if bits {
			return []byte{x.Data[at/8] >> (at % 8) & 1}
		}
		return x.Data[2*at : 2*(at+size)]
	}
	return nil
}

// registers opens a line to read registers that no profile describes.
func (f readFlags) registers(ctx context.Context) (*reader, error) {
	bus, query, err := f.query()
	if err != nil {
		return nil, err
	}
	m, err := modbus.OpenRaw(ctx, bus)
	if err != nil {
		return nil, lineProblem(err, bus.Port)
	}
	read := func(ctx context.Context) (reading, error) {
		x, err := m.Exchange(ctx, query)
		return reading{
			Device: fmt.Sprintf("unit %d", f.unit), At: time.Now(),
			Exchanges: exchangeRows([]modbus.Exchange{x}), Registers: registerRows(x, f.orders),
		}, err
	}
	return &reader{read, m.Close}, nil
}

// query makes a bus and a request of the flags.
func (f readFlags) query() (bus config.Bus, q modbus.Query, err error) {
	wrong := func(format string, a ...any) (config.Bus, modbus.Query, error) {
		return bus, q, usageError{fmt.Errorf(format, a...)}
	}
	p, err := parity(f.parity)
	if err != nil {
		return bus, q, err
	}
	bus = config.Bus{Kind: config.ModbusRTU, Port: f.port, Baud: f.baud, Parity: p, StopBits: f.stopBits}
	if f.address != "" {
		bus = config.Bus{Kind: config.ModbusTCP, Address: withPort(f.address)}
		if f.rtu {
			bus.Kind = config.ModbusRTUTCP
		}
	}
	function := map[string]config.Function{
		"1": config.Coil, "2": config.DiscreteInput, "3": config.HoldingRegister, "4": config.InputRegister,
	}[f.function]
	if function == "" {
		function = config.Function(f.function)
	}
	most := 125
	switch function {
	case config.Coil, config.DiscreteInput:
		most = 2000
	case config.HoldingRegister, config.InputRegister:
	default:
		return wrong("--function: %q does not read; write 1, 2, 3 or 4", f.function)
	}
	switch {
	case f.port != "" && f.address != "":
		return wrong("give --port or --address, not both")
	case f.rtu && f.address == "":
		return wrong("--rtu goes with --address only")
	case f.port != "" && !modbus.HasSpeed(f.baud):
		return wrong("--baud: %d is not a rate that serial ports have", f.baud)
	case f.stopBits != 1 && f.stopBits != 2:
		return wrong("--stop-bits: write 1 or 2")
	case f.unit < 0 || f.unit > 255 || bus.Kind != config.ModbusTCP && (f.unit < 1 || f.unit > 247):
		return wrong("--unit: %d is not an address of a device; write 1 to 247", f.unit)
	case f.count < 1 || f.count > most:
		return wrong("--count: one request reads 1 to %d, not %d", most, f.count)
	case f.start < 0 || f.start+f.count > 0x10000:
		return wrong("--start: %d to %d is not inside 0 to 65535", f.start, f.start+f.count-1)
	case f.timeout < 10*time.Millisecond:
		return wrong("--timeout: write 10ms or more")
	}
	return bus, modbus.Query{Unit: f.unit, Function: function, Start: f.start, Count: f.count, Timeout: f.timeout}, nil
}

func exchangeRows(all []modbus.Exchange) []exchangeRow {
	rows := []exchangeRow{}
	for _, x := range all {
		took := float64(x.Took.Microseconds()) / 1000
		row := exchangeRow{Asked: x.Asked(), Heard: spaced(x.Heard), Sent: spaced(x.Sent), Received: spaced(x.Received), TookMS: took}
		switch {
		case x.Sent == nil:
			row.Outcome = "was not sent"
		case x.Data != nil:
			row.Outcome = fmt.Sprintf("answered in %.0f ms", took)
		case x.Code != 0:
			row.Outcome = fmt.Sprintf("refused in %.0f ms: exception %d%s", took, x.Code, exceptionName(x.Code))
		case x.Received == nil:
			row.Outcome = "no answer in time"
		default:
			row.Outcome = "something came back, but no answer to it"
		}
		rows = append(rows, row)
	}
	return rows
}

// exceptionName explains an exception code (Modbus Application Protocol V1.1b3, 7).
func exceptionName(code byte) string {
	name := map[byte]string{
		1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "device failure", 5: "acknowledge",
		6: "device busy", 8: "memory parity error", 10: "gateway path unavailable", 11: "device behind the gateway does not answer",
	}[code]
	if name == "" {
		return ""
	}
	return ", " + name
}

// registerRows lists single registers or bits; with orders, each pair and each four of registers as well.
func registerRows(x modbus.Exchange, orders bool) []registerRow {
	var rows []registerRow
	if x.Data == nil {
		return nil
	}
	if x.Function == config.Coil || x.Function == config.DiscreteInput {
		for i := range x.Count {
			rows = append(rows, registerRow{Address: x.Start + i, Raw: strconv.Itoa(int(x.Data[i/8] >> (i % 8) & 1))})
		}
		return rows
	}
	for _, size := range []int{1, 2, 4} {
		for i := 0; i+size <= x.Count; i++ {
			data := x.Data[2*i : 2*(i+size)]
			row := registerRow{Address: x.Start + i, Words: size, Raw: words(data)}
			if orders || size == 1 {
				row.Orders = scan.Orders(data)
			}
			rows = append(rows, row)
		}
		if !orders {
			break
		}
	}
	return rows
}

func spaced(b []byte) string { return fmt.Sprintf("% x", b) }

// words is registers in hexadecimal, four digits each; a single bit is 0 or 1.
func words(b []byte) string {
	if len(b) == 1 {
		return strconv.Itoa(int(b[0]))
	}
	var all []string
	for i := 0; i+1 < len(b); i += 2 {
		all = append(all, hex.EncodeToString(b[i:i+2]))
	}
	return strings.Join(all, " ")
}

// show reads and prints, once or again and again.
func (f readFlags) show(ctx context.Context, out io.Writer, r *reader) error {
	for {
		got, err := r.read(ctx)
		if ctx.Err() != nil {
			return nil // who watches ends it
		}
		if err != nil {
			got.Error = err.Error()
		}
		write := got.print
		if f.asJSON {
			write = func(out io.Writer) error { return json.NewEncoder(out).Encode(got) }
		}
		if e := write(out); e != nil {
			return e
		}
		if f.watch <= 0 {
			return err
		}
		if err != nil && !f.asJSON {
			fmt.Fprintf(out, "%v\n\n", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(f.watch):
		}
	}
}

// print writes a reading for people.
func (r reading) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s, %s\n\n", r.Device, r.At.Format("2006-01-02 15:04:05"))
	for _, x := range r.Exchanges {
		fmt.Fprintf(w, "%s: %s\n", x.Asked, x.Outcome)
		if x.Heard != "" {
			fmt.Fprintf(w, "  heard before\t%s\n", x.Heard)
		}
		fmt.Fprintf(w, "  sent\t%s\n  received\t%s\n", cmp.Or(x.Sent, "nothing"), cmp.Or(x.Received, "nothing"))
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if len(r.Exchanges) > 0 {
		fmt.Fprintln(w)
	}
	if len(r.Points) > 0 {
		fmt.Fprintln(w, "POINT\tAT\tRAW\tVALUE\tUNIT\tQUALITY")
	}
	for _, p := range r.Points {
		value := string(p.Value)
		if value == "null" {
			value = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Point, p.At, cmp.Or(p.Raw, "-"), value, p.Unit, p.Quality)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range r.Points {
		if err := printOrders(out, fmt.Sprintf("%s, raw %s", p.Point, p.Raw), p.Orders); err != nil {
			return err
		}
	}
	return r.printRegisters(out)
}

func (r reading) printRegisters(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(r.Registers) > 0 {
		fmt.Fprint(w, "ADDRESS\t\tRAW")
		if r.Registers[0].Words > 0 {
			fmt.Fprint(w, "\tU16\tS16")
		}
		fmt.Fprintln(w)
	}
	for _, x := range r.Registers {
		if x.Words > 1 {
			continue
		}
		fmt.Fprintf(w, "%d\t0x%04X\t%s", x.Address, x.Address, x.Raw)
		for _, g := range x.Orders {
			if g.Order == config.ABCD && g.Type != config.BCD16 {
				fmt.Fprintf(w, "\t%s", g.Value)
			}
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, x := range r.Registers {
		if x.Words < 2 {
			continue
		}
		if err := printOrders(out, fmt.Sprintf("%d-%d, raw %s", x.Address, x.Address+x.Words-1, x.Raw), x.Orders); err != nil {
			return err
		}
	}
	return nil
}

// printOrders is a table with a line for each order and a column for each type.
func printOrders(out io.Writer, title string, guesses []scan.Guess) error {
	if len(guesses) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\n%s\nORDER", title)
	for _, g := range guesses {
		if g.Order == guesses[0].Order {
			fmt.Fprintf(w, "\t%s", strings.ToUpper(string(g.Type)))
		}
	}
	for i, g := range guesses {
		if i == 0 || g.Order != guesses[i-1].Order {
			fmt.Fprintf(w, "\n%s", g.Order)
		}
		mark := ""
		if g.Readable {
			mark = " *"
		}
		fmt.Fprintf(w, "\t%s%s", cmp.Or(g.Value, "-"), mark)
	}
	fmt.Fprintln(w)
	return w.Flush()
}
