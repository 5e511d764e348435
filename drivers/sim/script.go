package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kinds are the kinds of fault, in the order of their constants.
func kinds() []Kind { return []Kind{Silent, Slow, Late, Exception, Noise, Reset, Truncate} }

// ParseFault reads a fault as a command line gives it: its kind, and behind a colon what else is to be said, as in
// late:bus=meters,units=3+7,p=0.05,delay=1300ms,from=10s,to=40s,repeat=1m. Without p every request that matches meets
// it. The error says which word is wrong, and what may stand there.
func ParseFault(text string) (Fault, error) {
	kind, rest, more := strings.Cut(text, ":")
	f := Fault{Kind: Kind(kind), P: 1}
	if !slices.Contains(kinds(), f.Kind) {
		return Fault{}, fmt.Errorf("%.40q is no fault; write one of: %s", kind, strings.Trim(fmt.Sprint(kinds()), "[]"))
	}
	given := map[string]bool{}
	for word := range strings.SplitSeq(rest, ",") {
		if !more {
			break
		}
		key, value, _ := strings.Cut(word, "=")
		if given[key] {
			return Fault{}, fmt.Errorf("%s is there twice; keep one", key)
		}
		given[key] = true
		if err := f.set(key, value); err != nil {
			return Fault{}, err
		}
	}
	switch timed := f.Kind == Slow || f.Kind == Late; {
	case timed && f.Delay == 0:
		return Fault{}, fmt.Errorf("%s needs to know how much; add delay=1300ms", f.Kind)
	case !timed && given["delay"]:
		return Fault{}, fmt.Errorf("%s has no delay; only %s and %s have", f.Kind, Slow, Late)
	case given["to"] && f.To <= f.From:
		return Fault{}, fmt.Errorf("it ends at %v, before it begins at %v; write a later to", f.To, f.From)
	case given["repeat"] && !given["to"]:
		return Fault{}, fmt.Errorf("it is never off, so it cannot repeat; add to, for example to=%v", f.From+10*time.Second)
	case given["repeat"] && f.Repeat < f.To:
		return Fault{}, fmt.Errorf("it repeats every %v, before it ends at %v; write a longer repeat", f.Repeat, f.To)
	}
	return f, nil
}

// set takes in one key=value.
func (f *Fault) set(key, value string) error {
	var err error
	switch key {
	case "bus":
		if f.Bus = value; value == "" {
			return fmt.Errorf("bus is empty; write the bus's name, or leave it out for every bus")
		}
	case "units":
		for text := range strings.SplitSeq(value, "+") {
			unit, err := strconv.Atoi(text)
			if err != nil || unit < 1 || unit > 247 {
				return fmt.Errorf("units: %.40q is no unit id; write 1 to 247, several with + between them", text)
			}
			f.Units = append(f.Units, unit)
		}
	case "p":
		if f.P, err = strconv.ParseFloat(value, 64); err != nil || !(f.P > 0 && f.P <= 1) {
			return fmt.Errorf("p: %.40q is no probability; write a number above 0, at most 1", value)
		}
	case "delay":
		f.Delay, err = positive(key, value)
	case "from":
		if f.From, err = time.ParseDuration(value); err != nil || f.From < 0 {
			return fmt.Errorf("from: %.40q is no time since the start; write for example 10s", value)
		}
	case "to":
		f.To, err = positive(key, value)
	case "repeat":
		f.Repeat, err = positive(key, value)
	default:
		return fmt.Errorf("%.40q is nothing that a fault has; write bus, units, p, delay, from, to or repeat, each with = and a value", key)
	}
	return err
}

func positive(key, value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s: %.40q is no time above 0; write for example 10s", key, value)
	}
	return d, nil
}
