package sim

import (
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

// Value is the true value of a device's point at t in the point's unit; of a state, 1 for active and 0 for not. What
// a point means follows from the kind of the device's profile and the point's name; a name it does not know gets a
// slow wave inside the range of the point's type.
func (w World) Value(d config.Device, p config.Point, t time.Time) float64 {
	low, high := valueRange(p)
	v, known := w.known(d, p, t)
	if !known {
		v = w.wave(d.Name, p, high, t)
	}
	return min(max(v, low), high)
}

// known is the value of a point whose meaning World knows.
func (w World) known(d config.Device, p config.Point, t time.Time) (v float64, known bool) {
	switch d.Model.Kind {
	case config.Bin:
		return w.bin(d.Name, p.Name, t)
	case config.Meter:
		return w.meter(d.Name, p, t)
	case config.Camera, config.Contact:
		return w.contact(d, p, t)
	}
	return 0, false
}

// level is the electric level of a state's line or bit.
func (w World) level(d config.Device, p config.Point, t time.Time) bool {
	return (w.Value(d, p, t) != 0) != p.Invert
}

// wave is the value of a point nobody knows the meaning of: it stays well inside the upper half of its range, as far
// as that is of a readable size, so that it is no sentinel.
func (w World) wave(device string, p config.Point, high float64, t time.Time) float64 {
	share := (1 + math.Sin(2*math.Pi*(w.seconds(t)/60+w.chance(device, p.Name, 0)))) / 2
	if p.Type == config.Bool {
		return math.Floor(share + 0.2)
	}
	return min(high, 1000) * (0.1 + 0.8*share)
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

// valueRange is what a point's type and scale can express.
func valueRange(p config.Point) (low, high float64) {
	switch p.Type {
	case config.Bool:
		return 0, 1
	case config.F32:
		return -math.MaxFloat32, math.MaxFloat32
	case config.F64:
		return -math.MaxFloat64, math.MaxFloat64
	}
	size := 16 * p.Type.Registers()
	high = math.Ldexp(1, size) - 1
	if strings.HasPrefix(string(p.Type), "s") {
		high = math.Ldexp(1, size-1) - 1
		low = -high - 1
	}
	scale := 1.0
	if p.Scale.Mantissa != 0 {
		scale = float64(p.Scale.Mantissa) * math.Pow10(p.Scale.Exponent)
	}
	return min(low*scale, high*scale), max(low*scale, high*scale)
}
