package scan

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"hubagent/config"
)

// place names the line in a sentence.
func (l Line) place() string {
	if l.Kind == config.ModbusRTU {
		return l.Port + " at " + l.Setting()
	}
	return l.Address + " by " + l.Setting()
}

// flags are those of hubagent read for the line.
func (l Line) flags() string {
	switch l.Kind {
	case config.ModbusTCP:
		return "--address " + l.Address
	case config.ModbusRTUTCP:
		return "--address " + l.Address + " --rtu"
	}
	return fmt.Sprintf("--port %s --baud %d --parity %s --stop-bits %d", l.Port, l.Baud, l.Parity, l.StopBits)
}

// Print writes the result for people: what was found, what is wrong with the line, and what to put into hub.yaml.
func (r Result) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, l := range r.Lines {
		if len(l.Devices) > 0 {
			fmt.Fprintf(w, "%s\n", l.place())
		}
		for _, d := range l.Devices {
			d.print(w)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, text := range r.Remarks() {
		if _, err := fmt.Fprintln(out, text); err != nil {
			return err
		}
	}
	if snippet := r.Snippet(); snippet != "" {
		_, err := fmt.Fprintf(out, "\nFor hub.yaml, names and labels as you like them:\n\n%s", snippet)
		return err
	}
	return nil
}

func (d Device) print(w io.Writer) {
	answer := fmt.Sprintf("after %d ms", d.Took.Milliseconds())
	if d.Answer != "value" {
		answer += " (" + d.Answer + ")"
	}
	if d.Slow {
		answer += ", slow"
	}
	if len(d.Fits) == 0 {
		fmt.Fprintf(w, "  unit %d\t%s\tanswers, but no profile fits\n", d.Unit, answer)
		return
	}
	fmt.Fprintf(w, "  unit %d\t%s\t%s\n", d.Unit, answer, d.Fits[0])
	for _, f := range d.Fits[1:] {
		fmt.Fprintf(w, "  \t\tor %s\n", f)
	}
}

// Remarks are sentences on what is wrong with a line, or else worth knowing.
func (r Result) Remarks() []string {
	var all []string
	say := func(format string, a ...any) { all = append(all, fmt.Sprintf(format, a...)) }
	if f := r.Foreign; f != nil {
		say("Another master is polling this line (at %s: unit %d, function %d). Stop it first, then scan again.", f.Setting, f.Unit, f.Function)
	}
	var set []string
	for _, l := range r.Lines {
		switch {
		case len(l.Garbled) > 0 && len(l.Devices) > 0:
			say("%s: what comes back for %s is damaged: two devices with the same unit id, noise, or a missing terminator?", l.place(), units(l.Garbled))
		case len(l.Garbled) > 0:
			say("Something answers at %s, but with errors (asked for %s): wrong parity or baud? The driver says: %s", l.Setting(), units(l.Garbled), l.Seen)
		}
		if l.Alike {
			say("%s answers every unit id alike: it is one device, and unit %d is as good as any.", l.Address, l.Devices[0].Unit)
		}
		if l.Kind == config.ModbusRTUTCP && len(l.Devices) > 0 {
			say("%s speaks RTU over TCP: use kind %s.", l.Address, config.ModbusRTUTCP)
		}
		if slices.ContainsFunc(l.Devices, func(d Device) bool { return d.Slow }) {
			say("Devices marked slow took more than %d ms: give the bus a timeout of 1s.", leastSlow(l))
		}
		if i := slices.IndexFunc(l.Devices, func(d Device) bool { return len(d.Fits) == 0 }); i >= 0 {
			say("To look at a device that no profile fits: hubagent read %s --unit %d --function 3 --start 0 --count 10", l.flags(), l.Devices[i].Unit)
		}
		if len(l.Devices) > 0 {
			set = append(set, l.Setting())
		}
	}
	if r.Stopped {
		say("The scan was stopped before its end: there may be more.")
	}
	if len(set) > 1 && r.Lines[0].Kind == config.ModbusRTU {
		say("Devices answer at %s. All devices of a line must be set alike: set the others to %s.", strings.Join(set, ", "), r.best().Setting())
	}
	return all
}

// leastSlow is what the quickest slow device of a line took, in ms.
func leastSlow(l Line) int64 {
	least := time.Duration(1<<63 - 1)
	for _, d := range l.Devices {
		if d.Slow {
			least = min(least, d.Took)
		}
	}
	return least.Milliseconds()
}

// units lists unit ids: "unit 5", "units 1, 2, 3 and 9 more".
func units(ids []int) string {
	const named = 5
	var text []string
	for _, u := range ids[:min(named, len(ids))] {
		text = append(text, strconv.Itoa(u))
	}
	list := strings.Join(text, ", ")
	switch {
	case len(ids) == 1:
		return "unit " + list
	case len(ids) > named:
		return fmt.Sprintf("units %s and %d more", list, len(ids)-named)
	}
	return "units " + list
}

// best is the line with the most devices, the first of several.
func (r Result) best() Line {
	var best Line
	for _, l := range r.Lines {
		if len(l.Devices) > len(best.Devices) {
			best = l
		}
	}
	return best
}

// Snippet is what belongs under buses in hub.yaml for the line with the most devices; "" if none answered. Devices that
// no profile fits are in it as comments.
func (r Result) Snippet() string {
	l := r.best()
	if len(l.Devices) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "buses:\n  - name: line-1\n    kind: %s\n", l.Kind)
	if l.Kind == config.ModbusRTU {
		fmt.Fprintf(&b, "    port: %s\n    baud: %d\n    parity: %s\n    stop_bits: %d\n", l.Port, l.Baud, l.Parity, l.StopBits)
	} else {
		fmt.Fprintf(&b, "    address: %s\n", quoteAddress(l.Address))
	}
	b.WriteString("    devices:\n")
	number := map[config.DeviceKind]int{}
	for _, d := range l.Devices {
		if len(d.Fits) == 0 {
			fmt.Fprintf(&b, "      # - {name: device-%03d, profile: ?, unit: %d} # no profile fits\n", d.Unit, d.Unit)
			continue
		}
		f := d.Fits[0]
		number[f.kind]++
		fmt.Fprintf(&b, "      - {name: %s-%03d, profile: %s, unit: %d}", f.kind, number[f.kind], f.Profile, d.Unit)
		if !f.Sure {
			b.WriteString(" # a guess: compare values with the device's display")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// quoteAddress puts an IPv6 address in quotes: it begins with a bracket.
func quoteAddress(address string) string {
	if strings.HasPrefix(address, "[") {
		return `"` + address + `"`
	}
	return address
}
