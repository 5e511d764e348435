package poll

import (
	"cmp"
	"log/slog"
	"math"
	"slices"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/modbus"
)

// Forecast says beforehand what a bus will do. It is reckoned by the schedule that Run keeps, on a clock of its own.
type Forecast struct {
	Load     float64       // what all polls need of the line's time, pauses included; 1 is all of it, more does not fit
	Busy     float64       // the share of the time in which the bus is in a poll; pauses that pass while it is idle are not
	Left     float64       // share of the beats that are left out
	Age      time.Duration // of a reading when the next one of its device comes, of the device that is latest; 0: all are dead
	Interval time.Duration // of that device
	Dead     int           // devices taken to be dead
	Requests int           // in one poll of every device
}

// Bounds on a forecast's reckoning: it goes on for so many intervals of the slowest device, but no longer than a day,
// and for at least as long as quarantine takes to settle.
const (
	forecastIntervals = 20
	forecastLeast     = 20 * time.Minute
	forecastMost      = 24 * time.Hour
)

// Predict reckons what a Modbus bus will do when a share of its devices, rounded up, never answers. latency is the time
// a device takes for each answer beside the bytes; 0 stands for modbus.DefaultLatency.
func Predict(bus config.Bus, dead float64, latency time.Duration) Forecast {
	latency = cmp.Or(latency, modbus.DefaultLatency)
	b := New(bus, nil, nil, slog.New(slog.DiscardHandler))
	f := Forecast{Dead: int(math.Ceil(dead * float64(len(b.devices))))}
	line := modbus.LineOf(bus)
	costs := map[*config.Profile]time.Duration{}
	cost := func(model *config.Profile) time.Duration {
		if _, known := costs[model]; !known {
			costs[model], _ = modbus.PollTime(line, model, latency)
		}
		return costs[model]
	}
	length := forecastLeast
	for _, d := range b.devices {
		length = min(max(length, forecastIntervals*d.Interval), forecastMost)
		_, requests := modbus.PollTime(line, d.Model, latency)
		f.Requests += requests
	}
	isDead := map[*device]bool{}
	for i := range f.Dead { // spread over the bus, since which will die nobody knows
		isDead[b.devices[i*len(b.devices)/f.Dead]] = true
	}
	begin := time.Unix(0, 0)
	settled := begin.Add(length / 2)
	end := begin.Add(length)
	last := map[*device]time.Time{}
	beats, left := uint64(0), uint64(0)
	var busy time.Duration
	var free time.Time // when the line was last busy
	b.start(begin)
	for now := begin; len(b.devices) > 0 && now.Before(end); {
		d := b.next(now)
		if d.due.After(now) {
			now = d.due
		}
		began, model := now, d.groups.due(d.beats)
		d.beats++
		before := d.state.Overruns
		if b.allowed(d, now) {
			pause, least := line.Pause(model.Modbus)
			saved := min(max(pause-least, 0), now.Sub(free))
			now = now.Add(b.reckon(d, model, isDead[d], cost(model)-saved, now))
			free = now
			if began.After(settled) {
				busy += now.Sub(began)
			}
			if at, seen := last[d]; !isDead[d] {
				if age := now.Sub(at); seen && at.After(settled) && (f.Interval == 0 || age-d.Interval > f.Age-f.Interval) {
					f.Age, f.Interval = age, d.Interval
				}
				last[d] = now
			}
		}
		b.advance(d, began, now)
		if began.After(settled) {
			beats, left = beats+1, left+d.state.Overruns-before
		}
	}
	f.Busy, f.Load = busy.Seconds()/(length/2).Seconds(), demand(b.devices, cost)
	if left > 0 {
		f.Left = float64(left) / float64(beats+left)
	}
	return f
}

// demand is the share of the line's time that all polls need, though it may be more than there is.
func demand(devices []*device, cost func(*config.Profile) time.Duration) (share float64) {
	for _, d := range devices {
		const polls = 60
		var total time.Duration
		for n := range uint64(polls) {
			total += cost(d.groups.due(n))
		}
		share += total.Seconds() / polls / d.Interval.Seconds()
	}
	return share
}

// reckon is one poll of a forecast: how long it takes, and what it makes of the device's state.
func (b *Bus) reckon(d *device, model *config.Profile, dead bool, cost time.Duration, now time.Time) time.Duration {
	if !dead {
		b.note(d, &drivers.Sample{}, nil, now, cost)
		return cost
	}
	limits := d.Model.Modbus
	took := cmp.Or(b.timeout, limits.ResponseTimeout)
	if d.state.Failing > 0 {
		b.credit -= took
	}
	s := drivers.Sample{Readings: make([]drivers.Reading, len(model.Points))}
	for i := range s.Readings {
		s.Readings[i].Quality, s.Readings[i].Why = drivers.Missing, drivers.Timeout.String()
	}
	b.note(d, &s, &drivers.Error{Failure: drivers.Timeout}, now, took)
	return took
}

// Remedy is what would make a bus fit.
type Remedy struct {
	Stretch float64 // the intervals, by this factor
	Lines   int     // or as many lines
	Baud    int     // or this rate; 0: none is enough
}

// comfortable is how much of a line may be asked for: noise and retries need the rest.
const comfortable = 0.9

// Mend says what would make the bus of a forecast with no dead devices fit.
func Mend(bus config.Bus, f Forecast, latency time.Duration) Remedy {
	r := Remedy{Stretch: max(1.1, math.Ceil(f.Load/comfortable*10)/10), Lines: int(math.Ceil(f.Load / comfortable))}
	for _, baud := range []int{2400, 4800, 9600, 19200, 38400, 57600, 115200} {
		faster := bus
		if faster.Baud = baud; bus.Baud > 0 && baud > bus.Baud && Predict(faster, 0, latency).Load <= comfortable {
			r.Baud = baud
			break
		}
	}
	return r
}

// tolerable is the share of polls that may be left out on a line that is otherwise sufficient: a device that is asked
// each second now and then meets a longer poll of another one.
const tolerable = 0.05

// Fits says whether the bus can do what is asked of it.
func (f Forecast) Fits() bool { return f.Left <= tolerable && f.Load <= 1 }

// HasBudget says whether Predict can say something of a bus: lines of GPIO are read in no time.
func HasBudget(bus config.Bus) bool {
	return len(bus.Devices) > 0 && slices.Contains([]config.BusKind{config.ModbusTCP, config.ModbusRTU, config.ModbusRTUTCP}, bus.Kind)
}
