package sim

import (
	"fmt"
	"hash/fnv"
	"math"
	"strings"
	"time"

	"hubagent/config"
)

// World is what is true in a simulated community: a pure function of device, point and time, without state, so that
// anybody can ask it what a reading should have been. Counters only grow with time, and what belongs together agrees
// at every instant: correct deposits with deposits, weight with fill, energy with power. It may be used by any number
// of goroutines.
type World struct {
	Seed  uint64        // another seed is another community
	Start time.Time     // the time of day at Start is that of the simulated day
	Day   time.Duration // how long a simulated day takes; 0 means 24 h. Electricity keeps to real time within it
}

// DemoDay is a World.Day in which something visibly changes every few seconds.
const DemoDay = 10 * time.Minute

// Value is the true value of a device's point at t in the point's unit; of a state, 1 for active and 0 for not; of a
// text, 0. What a point means follows from the kind of the device's profile and the point's name. Of the others, states
// have events now and then, codes change every few minutes, counters grow, and what other points are scaled by stays
// as it is; what is left gets a slow wave inside the range of the point's type. A counter's value grows beyond what its
// registers can hold: those show it from 0 again.
func (w World) Value(d config.Device, p config.Point, t time.Time) float64 {
	if p.Type == config.ASCII {
		return 0
	}
	v, factor := w.unclamped(d, p, t), w.factor(d, p)
	if p.Counter || p.Type == config.Pulses {
		return v
	}
	low, high := valueRange(p)
	return min(max(v, low*factor), high*factor)
}

// Text is what a device's point of type ascii says, cut to its length: a serial number of digits, the profile's id for
// a model, a version, and for any other name the device's own.
func (w World) Text(d config.Device, p config.Point) string {
	text := d.Name
	switch {
	case strings.Contains(p.Name, "serial"):
		text = fmt.Sprintf("%012.0f", math.Floor(1e12*w.chance(d.Name, p.Name, 0)))
	case strings.Contains(p.Name, "model"):
		text = d.Model.ID
	case strings.Contains(p.Name, "version"), strings.Contains(p.Name, "firmware"):
		text = fmt.Sprintf("1.%02.0f", math.Floor(w.between(d.Name, p.Name, 0, 100)))
	}
	return text[:min(len(text), 2*p.Length)]
}

// unclamped is Value whether or not the point can express it.
func (w World) unclamped(d config.Device, p config.Point, t time.Time) float64 {
	if v, known := w.setting(d, p); known {
		return v
	}
	if len(p.Codes) > 0 {
		slot := int64(math.Floor(w.seconds(t) / 300))
		n := int(w.chance(d.Name, p.Name, slot) * float64(len(p.Codes)))
		return linear(p, float64(p.Codes[n].Value))
	}
	if v, known := w.known(d, p, t); known {
		return v
	}
	if p.Counter || p.Type == config.Pulses {
		return w.growth(d.Name, p, t)
	}
	_, high := valueRange(p)
	return w.wave(d.Name, p, high, t)
}

// known is the value of a point whose meaning World knows.
func (w World) known(d config.Device, p config.Point, t time.Time) (v float64, known bool) {
	switch {
	case p.Type == config.Bool:
		return w.contact(d, p, t), true
	case d.Model.Kind == config.Bin:
		return w.bin(d.Name, p.Name, t)
	case d.Model.Kind == config.Meter:
		v, known = w.meter(d.Name, p, t)
	}
	if !known && p.Unit == "Cel" {
		return w.bin(d.Name, "temperature", t)
	}
	return v, known
}

// level is the electric level of a state's line or bit, or of a pulse counter's line: each pulse is active until half of
// the next one is measured.
func (w World) level(d config.Device, p config.Point, t time.Time) bool {
	v := w.Value(d, p, t)
	if p.Type == config.Pulses {
		_, part := math.Modf(unscale(p, v, 1))
		return (part < 0.5) != p.Invert
	}
	return (v != 0) != p.Invert
}

// wave is the value of a point nobody knows the meaning of: it stays well inside the upper half of its range, as far
// as that is of a readable size, so that it is no sentinel.
func (w World) wave(device string, p config.Point, high float64, t time.Time) float64 {
	share := (1 + math.Sin(2*math.Pi*(w.seconds(t)/60+w.chance(device, p.Name, 0)))) / 2
	if p.Unit == "%" {
		high = min(high, 100)
	}
	return min(high, 1000) * (0.1 + 0.8*share)
}

// growth is the value of a counter nobody knows the meaning of: things are counted faster than what has a unit.
func (w World) growth(device string, p config.Point, t time.Time) float64 {
	perSecond := w.between(device, p.Name+" growth", 0.0005, 0.003)
	if p.Unit == "{count}" {
		perSecond *= 50
	}
	return w.between(device, p.Name, 100, 10000) + perSecond*w.seconds(t)
}

// pulse says whether t lies in an event. There is one in each slot of time, at an instant that nobody can foresee; a
// slot is a share of the day, but long enough for the event to be rare.
func (w World) pulse(device, stream string, slotsPerDay int, length time.Duration, t time.Time) bool {
	slot := max(w.day()/time.Duration(slotsPerDay), 4*length).Seconds()
	n := math.Floor(w.seconds(t) / slot)
	begin := n*slot + w.chance(device, stream, int64(n))*(slot-length.Seconds())
	since := w.seconds(t) - begin
	return since >= 0 && since < length.Seconds()
}

// seconds is the real time since Start.
func (w World) seconds(t time.Time) float64 { return t.Sub(w.Start).Seconds() }

// days is the simulated time in days since the midnight before Start; its fraction is the time of day.
func (w World) days(t time.Time) float64 {
	hour, minute, second := w.Start.Clock()
	atStart := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second
	return atStart.Hours()/24 + w.seconds(t)/w.day().Seconds()
}

func (w World) day() time.Duration {
	if w.Day > 0 {
		return w.Day
	}
	return 24 * time.Hour
}

// chance is the n-th draw of a stream of chance that belongs to a device: evenly in [0, 1), the same every time.
func (w World) chance(device, stream string, n int64) float64 {
	h := fnv.New64a()
	h.Write([]byte(device))
	h.Write([]byte{0})
	h.Write([]byte(stream))
	// FNV alone leaves neighbouring draws alike; this is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
	x := h.Sum64() ^ w.Seed*0x9E3779B97F4A7C15 ^ uint64(n)*0xD1342543DE82EF95
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return float64((x^x>>31)>>11) / (1 << 53)
}

// between is a constant of a device, from low to high.
func (w World) between(device, stream string, low, high float64) float64 {
	return low + (high-low)*w.chance(device, stream, 0)
}

// valueRange is what a point's registers can express, before a factor that another register holds.
func valueRange(p config.Point) (low, high float64) {
	low, high = rawRange(p)
	if p.Type != config.F32 && p.Type != config.F64 {
		high--
	}
	low, high = linear(p, low), linear(p, high)
	return min(low, high), max(low, high)
}

// linear is the value of a raw number by the point's own scale and offset.
func linear(p config.Point, raw float64) float64 {
	if p.Scale.Mantissa != 0 {
		raw *= p.Scale.Float64()
	}
	return raw + p.Offset.Float64()
}
