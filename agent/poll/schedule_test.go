package poll

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

// Twenty-four hours of a line with 20 meters of three requests each, of which 5 % never answer and 5 % come and go: nobody starves, the
// living stay as fresh as without the dead but for a tenth, and every device has one sample for each beat that was not
// left out.
func TestADayWithDeadAndFlappingDevices(t *testing.T) {
	const (
		count    = 20
		interval = 10 * time.Second
		exchange = 360 * time.Millisecond
		deadline = 500 * time.Millisecond
		day      = 24 * time.Hour
	)
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("meter-%02d", i))
	}
	dead, flapping := names[7:8], names[13:14]
	polled := func(t *testing.T, length time.Duration, faulty bool) *site {
		random := rand.New(rand.NewPCG(3, 0))
		until := map[string]time.Duration{}
		up := map[string]bool{}
		return run(t, devices(interval, names...), length, func(device string, at time.Duration) (time.Duration, *drivers.Error) {
			switch {
			case !faulty:
			case slices.Contains(dead, device):
				return deadline, timeout()
			case slices.Contains(flapping, device):
				if at >= until[device] { // up or down for a minute to an hour
					up[device] = !up[device]
					until[device] = at + time.Minute + time.Duration(random.Int64N(int64(time.Hour)))
				}
				if !up[device] {
					return deadline, timeout()
				}
			}
			return exchange, nil
		})
	}
	// gap is the longest time between two good readings that 99 % of the living keep within, and the very longest.
	gap := func(s *site) (p99, most time.Duration) {
		last := map[string]time.Duration{}
		var gaps []time.Duration
		for _, e := range s.samples {
			if slices.Contains(dead, e.device) || slices.Contains(flapping, e.device) || e.why != "" {
				continue
			}
			if at, seen := last[e.device]; seen && at > interval {
				gaps = append(gaps, e.at-at)
			}
			last[e.device] = e.at
		}
		slices.Sort(gaps)
		return gaps[len(gaps)*99/100], gaps[len(gaps)-1]
	}
	var well, ill [2]time.Duration
	synctest.Test(t, func(t *testing.T) { well[0], well[1] = gap(polled(t, time.Hour, false)) })
	synctest.Test(t, func(t *testing.T) {
		s := polled(t, day, true)
		ill[0], ill[1] = gap(s)
		for _, name := range names {
			st := s.bus.States()[name]
			if got, want := uint64(len(of(name, s.samples)))+st.Overruns, uint64(day/interval); got+1 < want || got > want+1 {
				t.Errorf("%s: %d samples and %d beats left out, %d beats in a day", name, len(of(name, s.samples)), st.Overruns, want)
			}
			if st.Overruns > 0 {
				t.Errorf("%s: %d beats left out", name, st.Overruns)
			}
		}
		for _, name := range dead {
			polls := of(name, s.polls)
			for n := 1; n < len(polls); n++ {
				if wait := polls[n].at - polls[n-1].at; wait > 2*probeMax {
					t.Errorf("%s was not asked for %s", name, wait)
				}
			}
		}
		load := s.bus.Load()
		t.Logf("load %.1f %%", 100*load.Busy.Seconds()/load.Elapsed.Seconds())
	})
	t.Logf("time between two readings of a device that lives: 99 %% within %s, at most %s; with the dead %s and %s", well[0], well[1], ill[0], ill[1])
	if ill[0] > well[0]*11/10 || ill[1] > well[1]*11/10+time.Second {
		t.Errorf("the living wait %s and %s for their turn, without the dead %s and %s", ill[0], ill[1], well[0], well[1])
	}
}

// When half of a bus dies at once, the other half has nine tenths of the time.
func TestManyThatDieTogether(t *testing.T) {
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprint(i))
	}
	synctest.Test(t, func(t *testing.T) {
		s := run(t, devices(5*time.Second, names...), time.Hour, func(device string, at time.Duration) (time.Duration, *drivers.Error) {
			var n int
			fmt.Sscan(device, &n)
			if n%2 == 1 && at > 10*time.Minute {
				return 500 * time.Millisecond, timeout()
			}
			return 200 * time.Millisecond, nil // 20 of them need 80 % of the time
		})
		for i := 0; i < 40; i += 2 {
			late := 0
			samples := of(fmt.Sprint(i), s.samples)
			for n := 1; n < len(samples); n++ {
				if samples[n].at > 12*time.Minute && samples[n].at-samples[n-1].at > 5*time.Second*11/10+700*time.Millisecond {
					late++
				}
			}
			if late > len(samples)/50 {
				t.Errorf("device %d: %d of %d readings came late", i, late, len(samples))
			}
		}
		for i := 1; i < 40; i += 2 {
			polls := of(fmt.Sprint(i), s.polls)
			for n := 1; n < len(polls); n++ {
				if wait := polls[n].at - polls[n-1].at; wait > 5*time.Minute {
					t.Errorf("dead device %d was not asked for %s", i, wait)
				}
			}
		}
	})
}

// When all are silent because the line is cut, nobody needs the time, and the first that answers is found soon.
func TestAllDeadAreProbedAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, devices(5*time.Second, "a", "b", "c"), time.Hour, func(_ string, at time.Duration) (time.Duration, *drivers.Error) {
			if at < 30*time.Minute {
				return 500 * time.Millisecond, timeout()
			}
			return 0, nil
		})
		for _, name := range []string{"a", "b", "c"} {
			i := slices.IndexFunc(s.samples, func(e event) bool { return e.device == name && e.why == "" })
			if at := s.samples[i].at; at > 30*time.Minute+probeMax+5*time.Second {
				t.Errorf("%s was found back at %s", name, at)
			}
		}
	})
}

// Devices with alarms go before others that wait, whatever their place in the config; meters do not starve.
func TestAlarmsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := devices(2*time.Second, "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8")
		alarm := b.Devices[0]
		model := *alarm.Model
		model.Points = slices.Clone(model.Points)
		model.Points[0].Event = true
		alarm.Name, alarm.Model, alarm.Interval = "alarm", &model, time.Second
		b.Devices = append(b.Devices, alarm)
		s := run(t, b, 10*time.Minute, func(device string, _ time.Duration) (time.Duration, *drivers.Error) {
			if device == "alarm" {
				return 20 * time.Millisecond, nil
			}
			return 300 * time.Millisecond, nil // 8 need 2.4 s of 2 s: too much
		})
		polls := of("alarm", s.polls)
		for n := 2; n < len(polls); n++ {
			if gap := polls[n].at - polls[n-1].at; gap > time.Second+300*time.Millisecond {
				t.Errorf("alarm: %s between two polls", gap)
			}
		}
		least, most := math.MaxInt, 0
		for i := 1; i <= 8; i++ {
			n := len(of(fmt.Sprint("m", i), s.polls))
			least, most = min(least, n), max(most, n)
		}
		if least < most*3/4 || least < 200 {
			t.Errorf("meters were polled %d to %d times", least, most)
		}
		if st := s.bus.States()["m1"]; st.Overruns == 0 {
			t.Error("a bus that cannot keep up has left nothing out")
		}
		if got := s.log.String(); strings.Count(got, "bus cannot keep up") != 1 {
			t.Errorf("log %s", got)
		}
	})
}

// Behind a plain connection devices of one interval are polled one right after the other.
func TestBurstOverTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := devices(10*time.Second, "a", "b", "c", "d")
		b.Kind = config.ModbusTCP
		s := run(t, b, 25*time.Second, func(string, time.Duration) (time.Duration, *drivers.Error) { return time.Millisecond, nil })
		var got []string
		for _, p := range s.polls {
			got = append(got, p.device+p.at.String())
		}
		want := []string{"a0s", "b1ms", "c2ms", "d3ms", "a10s", "b10.001s", "c10.002s", "d10.003s", "a20s", "b20.001s", "c20.002s", "d20.003s"}
		if !slices.Equal(got, want) {
			t.Errorf("polls %v, want %v", got, want)
		}
	})
}

// Points with an interval of their own are in the samples of every so many polls, and in no others.
func TestSlowPoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := devices(2*time.Second, "a")
		b.Devices[0].Model.Points = []config.Point{
			{Name: "power", Unit: "W"}, {Name: "energy", Unit: "kW.h", Interval: 6 * time.Second},
			{Name: "serial", Unit: "1", Interval: time.Minute}, {Name: "fast", Unit: "1", Interval: time.Second},
		}
		var got []string
		models := map[*config.Profile]bool{}
		emit := func(_ context.Context, s drivers.Sample) {
			row := ""
			for _, r := range s.Readings {
				row += r.Point[:1]
			}
			got = append(got, row)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 62*time.Second-1)
		defer cancel()
		New(b, keeps{models}, emit, slog.New(slog.DiscardHandler)).Run(ctx)
		var want []string
		for n := range 31 {
			row := "p"
			if n%3 == 0 {
				row += "e"
			}
			if n%30 == 0 {
				row += "s"
			}
			want = append(want, row+"f")
		}
		if !slices.Equal(got, want) {
			t.Errorf("rows %v, want %v", got, want)
		}
		if len(models) != 3 {
			t.Errorf("%d models for 3 sets of points", len(models))
		}
	})
}

// keeps is a bus that notes by which models it was read.
type keeps struct{ models map[*config.Profile]bool }

func (k keeps) Read(_ context.Context, d config.Device) (drivers.Sample, error) {
	k.models[d.Model] = true
	s := drivers.Sample{Device: d.Name, At: time.Now()}
	for _, p := range d.Model.Points {
		s.Readings = append(s.Readings, drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Good, Value: drivers.Int(1)})
	}
	return s, nil
}

func (keeps) Close() error { return nil }

// A device counts as down from its third failure on, since its first; in every sample until it answers.
func TestDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		f := &fake{begin: begin, does: func(_ string, at time.Duration) (time.Duration, *drivers.Error) {
			if at >= 3*time.Second && at < 20*time.Second {
				return 0, timeout()
			}
			return 0, nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		emit := func(_ context.Context, s drivers.Sample) {
			at, want := s.At.Sub(begin), time.Time{}
			back := f.polls[len(f.polls)-1].at >= 20*time.Second
			if at >= 5*time.Second && !back {
				want = begin.Add(3 * time.Second)
			}
			if !s.Down.Equal(want) {
				t.Errorf("at %s down since %s, want %s", at, s.Down, want)
			}
		}
		New(devices(time.Second, "a"), f, emit, slog.New(slog.DiscardHandler)).Run(ctx)
	})
}
