package sim

import (
	"math"
	"strconv"
	"strings"
	"time"

	"hubagent/config"
)

// A meter's load: a constant part, one that follows the simulated day and one, of lifts and pumps, that anyone who
// looks for a minute sees. The shares add up to less than 1, so power is never negative and energy never falls.
const (
	dayShare   = 0.35
	pumpShare  = 0.25
	pumpPeriod = 47.0 // seconds
)

// meter gives the quantities of a single- or three-phase meter by names like voltage_l1, current_l2, power_active,
// energy_import, in the point's unit: a unit that begins with k is a thousand of the base unit.
func (w World) meter(device string, p config.Point, t time.Time) (v float64, known bool) {
	what, phases := phasesOf(p.Name)
	factor := w.between(device, "power factor", 0.90, 0.98)
	seconds := w.seconds(t)
	// sum adds a quantity up over the phases asked for.
	sum := func(of func(phase int) float64) (total float64) {
		for _, phase := range phases {
			total += of(phase)
		}
		return total
	}
	power := sum(func(phase int) float64 { return w.power(device, phase, t) })
	switch what {
	case "voltage":
		v = w.voltage(device, phases[0], seconds)
	case "current":
		v = sum(func(phase int) float64 {
			return w.power(device, phase, t) / (w.voltage(device, phase, seconds) * factor)
		})
	case "power", "power_active":
		v = power
	case "power_apparent":
		v = power / factor
	case "power_reactive":
		v = power * math.Sqrt(1-factor*factor) / factor
	case "power_factor":
		v = factor
	case "frequency":
		v = 50 + 0.03*math.Sin(2*math.Pi*seconds/31)
	case "energy", "energy_import", "energy_total", "energy_active":
		v = sum(func(phase int) float64 { return w.energy(device, phase, t) })
	case "energy_export":
		v = 0
	default:
		return 0, false
	}
	if strings.HasPrefix(p.Unit, "k") {
		v /= 1000
	}
	return v, true
}

// phasesOf parts a name like current_l2 into quantity and phases; without a phase it is all three.
func phasesOf(name string) (what string, phases []int) {
	if i := strings.LastIndex(name, "_l"); i > 0 {
		if n, err := strconv.Atoi(name[i+2:]); err == nil && n >= 1 && n <= 3 {
			return name[:i], []int{n}
		}
	}
	return name, []int{1, 2, 3}
}

// voltage of a phase in V: 230 give or take 3.
func (w World) voltage(device string, phase int, seconds float64) float64 {
	n := int64(phase)
	slow := math.Sin(2 * math.Pi * (seconds/600 + w.chance(device, "voltage", n)))
	fast := math.Sin(2 * math.Pi * (seconds/13 + w.chance(device, "flicker", n)))
	return 230 + 2.4*slow + 0.6*fast
}

// load of a phase: its mean in W, and where in the day and in the pumps' period it begins.
func (w World) load(device string, phase int) (mean, dayTurn, pumpTurn float64) {
	n := int64(phase)
	return 400 + 2600*w.chance(device, "load", n), 0.5 + 0.2*w.chance(device, "day", n), w.chance(device, "pump", n)
}

// power of a phase in W.
func (w World) power(device string, phase int, t time.Time) float64 {
	mean, dayTurn, pumpTurn := w.load(device, phase)
	return mean * (1 + dayShare*math.Sin(2*math.Pi*(w.days(t)-dayTurn)) +
		pumpShare*math.Sin(2*math.Pi*(w.seconds(t)/pumpPeriod+pumpTurn)))
}

// energy of a phase in W.h: what the meter showed at Start and the integral of power since then, in closed form.
func (w World) energy(device string, phase int, t time.Time) float64 {
	mean, dayTurn, pumpTurn := w.load(device, phase)
	// The integral of sin(2 pi (s/period + turn)) from 0 to s.
	wave := func(s, period, turn float64) float64 {
		return period / (2 * math.Pi) * (math.Cos(2*math.Pi*turn) - math.Cos(2*math.Pi*(s/period+turn)))
	}
	seconds := w.seconds(t)
	wattSeconds := mean * (seconds + dayShare*wave(seconds, w.day().Seconds(), w.days(w.Start)-dayTurn) +
		pumpShare*wave(seconds, pumpPeriod, pumpTurn))
	atStart := 1e6 * (1 + 3*w.chance(device, "energy", int64(phase)))
	return atStart + wattSeconds/3600
}
