package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"hubagent/agent/poll"
	"hubagent/config"
)

// busBudget is what check says of a bus's time.
type busBudget struct {
	Bus      string  `json:"bus"`
	Load     float64 `json:"load"` // of the line's time; 1 is all of it
	Requests int     `json:"requests"`
	Left     float64 `json:"left_out"` // share of the polls that cannot be made
	Ages     []age   `json:"ages"`
	Fits     bool    `json:"fits"`
	Mend     string  `json:"mend,omitempty"`
}

// age is the greatest age of a reading with so many devices dead.
type age struct {
	Dead       int   `json:"dead"`
	AgeMs      int64 `json:"age_ms"`
	IntervalMs int64 `json:"interval_ms"` // of the device whose reading that is
}

// budgets reckons the buses that have a line to share. latency is the devices' delay, 0 for the usual one.
func budgets(cfg *config.Config, latency time.Duration) []busBudget {
	list := []busBudget{}
	for _, bus := range cfg.Buses {
		if !poll.HasBudget(bus) {
			continue
		}
		f := poll.Predict(bus, 0, latency)
		b := busBudget{Bus: bus.Name, Load: f.Load, Requests: f.Requests, Left: f.Left, Fits: f.Fits()}
		for _, dead := range []float64{0, 0.01, 0.05} {
			f := poll.Predict(bus, dead, latency)
			if n := len(b.Ages); n == 0 || b.Ages[n-1].Dead != f.Dead {
				b.Ages = append(b.Ages, age{f.Dead, f.Age.Milliseconds(), f.Interval.Milliseconds()})
			}
		}
		if !b.Fits {
			b.Mend = remedy(bus, poll.Mend(bus, f, latency))
		}
		list = append(list, b)
	}
	return list
}

func remedy(bus config.Bus, r poll.Remedy) string {
	ways := []string{fmt.Sprintf("make the intervals %.1f times as long", r.Stretch)}
	if r.Baud > 0 {
		ways = append(ways, fmt.Sprintf("set line and devices to %d Bd", r.Baud))
	}
	if r.Lines > 1 {
		ways = append(ways, fmt.Sprintf("share the devices among %d lines", r.Lines))
	}
	return strings.Join(ways, ", or ")
}

// printBudgets shows the buses' budgets as a table, and what to change where a bus cannot do what is asked.
func printBudgets(out io.Writer, list []busBudget) error {
	if len(list) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nBUS TIME\tLOAD\tREQUESTS A ROUND\tAGE OF A READING AT MOST")
	for _, b := range list {
		var ages []string
		for _, a := range b.Ages {
			text := fmt.Sprintf("+ %.1f s", float64(max(a.AgeMs-a.IntervalMs, 0))/1000)
			switch {
			case a.AgeMs == 0:
				continue // none is left
			case a.Dead == 0:
				text = "its interval " + text
			default:
				text += fmt.Sprintf(" with %d dead", a.Dead)
			}
			ages = append(ages, text)
		}
		fmt.Fprintf(w, "%s\t%.0f %%\t%d\t%s\n", b.Bus, 100*b.Load, b.Requests, strings.Join(ages, ", "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, b := range list {
		if !b.Fits {
			fmt.Fprintf(out, "bus %s cannot do what is asked of it: %.0f %% of its time, %.0f %% of the polls would be left out; %s\n", b.Bus, 100*b.Load, 100*b.Left, b.Mend)
		}
	}
	return nil
}
