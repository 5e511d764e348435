package poll

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hubagent/drivers"
	"hubagent/drivers/drivertest"
)

func TestPhasesSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, devices(8*time.Second, "a", "b", "c", "d"), 17*time.Second, good)
		var got []string
		for _, p := range s.polls {
			got = append(got, p.device+p.at.String())
		}
		want := []string{"a0s", "b300ms", "c600ms", "d900ms", "d6s", "a8s", "b10s", "c12s", "d14s", "a16s"}
		if !slices.Equal(got, want) {
			t.Errorf("polls %v, want %v", got, want)
		}
		if len(s.samples) != len(want) || s.log.Len() > 0 {
			t.Errorf("%d samples, log %s", len(s.samples), &s.log)
		}
	})
}

func TestDeadDeviceDelaysOthersByItsTimeout(t *testing.T) {
	const deadline = 500 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		s := run(t, devices(time.Second, "dead", "a", "b"), 5*time.Minute, func(device string, _ time.Duration) (time.Duration, *drivers.Error) {
			if device == "dead" {
				return deadline, timeout()
			}
			return 10 * time.Millisecond, nil
		})
		for i, name := range []string{"dead", "a", "b"} {
			samples := of(name, s.samples)
			if len(samples) != 300 {
				t.Errorf("%s has %d samples, want one for each of 300 polls due", name, len(samples))
			}
			for n, e := range samples {
				due := beat(n, i, 3, time.Second)
				if e.at < due || e.at > due+deadline+20*time.Millisecond {
					t.Errorf("%s: sample %d at %s, due at %s", name, n, e.at, due)
				}
				if want := map[bool]string{true: "timeout"}[name == "dead"]; e.why != want {
					t.Errorf("%s: sample %d is %q, want %q", name, n, e.why, want)
				}
			}
		}
		if polls := len(of("dead", s.polls)); polls > 15 {
			t.Errorf("the dead one was asked %d times in 5 minutes", polls)
		}
	})
}

// Whatever devices do, there is one sample for each poll that is due; while a device fails it is asked ever more
// rarely, and when it is asked and answers it is asked at every beat again.
func TestQuarantineProperties(t *testing.T) {
	failures := []*drivers.Error{{Failure: drivers.Timeout}, {Failure: drivers.Link}, {Failure: drivers.CRC}, {Failure: drivers.Exception, Code: 11}}
	for seed := range uint64(15) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 9))
			interval := time.Duration(1+random.IntN(30)) * time.Second
			if seed%5 == 0 {
				interval = 100 * time.Second // longer than the rarest probe
			}
			names := []string{"a", "b", "c"}
			fails := map[string][2]time.Duration{}
			for _, name := range names {
				from := time.Duration(random.IntN(600)) * time.Second
				fails[name] = [2]time.Duration{from, from + time.Duration(random.IntN(3000))*time.Second}
			}
			what := failures[random.IntN(len(failures))]
			const length = 2 * time.Hour
			s := run(t, devices(interval, names...), length, func(device string, at time.Duration) (time.Duration, *drivers.Error) {
				if at >= fails[device][0] && at < fails[device][1] {
					e := *what
					return time.Duration(random.IntN(100)) * time.Millisecond, &e
				}
				return 0, nil
			})
			for i, name := range names {
				samples, polls := of(name, s.samples), of(name, s.polls)
				if want := beats(length, i, 3, interval); len(samples) < want-1 || len(samples) > want { // the end may cut off the last
					t.Errorf("seed %d, %s: %d samples, %d polls were due", seed, name, len(samples), want)
				}
				for n, e := range samples {
					if due := beat(n, i, 3, interval); e.at < due || e.at > due+300*time.Millisecond {
						t.Errorf("seed %d, %s: sample %d at %s, due at %s", seed, name, n, e.at, due)
					}
					if e.why != "" && e.why != what.Why() {
						t.Errorf("seed %d, %s: a sample for %q, want %q", seed, name, e.why, what.Why())
					}
				}
				checkProbes(t, interval, polls, fails[name], what.Failure == drivers.Link)
				st := s.bus.States()[name]
				if st.Polls != uint64(len(samples)) || st.Failing != 0 || !st.RetryAt.IsZero() || st.Err != "" {
					t.Errorf("seed %d, %s: %+v after %d samples", seed, name, st, len(samples))
				}
				missing := len(slices.DeleteFunc(samples, func(e event) bool { return e.why == "" }))
				if st.Failures != uint64(missing) {
					t.Errorf("seed %d, %s: %d failures, %d samples are missing", seed, name, st.Failures, missing)
				}
			}
			if t.Failed() {
				t.FailNow()
			}
		})
	}
}

// beat is when the n-th poll of the i-th of so many devices is due: the first one soon after the start, the others on a
// grid that spreads the devices over the interval. The first beat of the grid is left out when it is close to that poll.
func beat(n, i, devices int, interval time.Duration) time.Duration {
	phase := interval / time.Duration(devices)
	first, grid := time.Duration(i)*min(phase, firstGap), time.Duration(i)*phase
	switch {
	case n == 0:
		return first
	case grid-first >= interval/2:
		n--
	}
	return grid + time.Duration(n)*interval
}

// beats is the number of polls that are due before length is over.
func beats(length time.Duration, i, devices int, interval time.Duration) (n int) {
	for beat(n, i, devices, interval) < length {
		n++
	}
	return n
}

// checkProbes follows the polls of one device that failed for a while.
func checkProbes(t *testing.T, interval time.Duration, polls []event, fails [2]time.Duration, gone bool) {
	t.Helper()
	failing, probe := 0, time.Duration(0)
	for n, p := range polls {
		if n > 0 {
			least, most := interval-300*time.Millisecond, interval+300*time.Millisecond
			if n == 1 { // from the first poll to the grid
				least, most = interval/2-300*time.Millisecond, interval*3/2+300*time.Millisecond
			}
			if failing >= quarantineAfter { // the beat that follows the probe's time
				least, most = probe, probe+interval+300*time.Millisecond
			}
			if gap := p.at - polls[n-1].at; gap < least || gap > most {
				t.Errorf("%s: %s between two polls after %d failures, want %s to %s", p.device, gap, failing, least, most)
			}
		}
		if p.at < fails[0] || p.at >= fails[1] {
			failing = 0
			continue
		}
		switch failing++; {
		case gone: // costs nothing, and is over as soon as the port is back
			probe = time.Second
		case failing == quarantineAfter:
			probe = max(interval, time.Second)
		case failing > quarantineAfter:
			probe = min(2*probe, max(time.Minute, interval))
		}
	}
}

func TestOneLogLineForEachChange(t *testing.T) {
	for _, c := range []struct {
		name  string
		fails time.Duration
		want  []string
	}{
		{"two failures are noise", 2 * time.Second, nil},
		{"three are not", 3 * time.Second, []string{
			`level=WARN msg="device does not answer" bus=line device=a why=timeout polls=3 err="cannot read input register 0 of a: timeout"`,
			`level=INFO msg="device is back" bus=line device=a failures=3`,
		}},
		{"nor are many", 20 * time.Minute, []string{
			`level=WARN msg="device does not answer" bus=line device=a why=timeout polls=3 err="cannot read input register 0 of a: timeout"`,
			`level=INFO msg="device is back" bus=line device=a failures=27`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := run(t, devices(time.Second, "a"), 30*time.Minute, func(_ string, at time.Duration) (time.Duration, *drivers.Error) {
					if at < c.fails {
						return 0, timeout()
					}
					return 0, nil
				})
				var got []string
				for line := range strings.Lines(s.log.String()) {
					_, text, _ := strings.Cut(strings.TrimSpace(line), " ")
					got = append(got, text)
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("log %q, want %q", got, c.want)
				}
			})
		})
	}
}

// In quarantine each point keeps the reason it was missing for at the last poll that was sent.
func TestQuarantinedRowsKeepTheirReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := devices(time.Second, "a")
		var rows []string
		emit := func(_ context.Context, s drivers.Sample) {
			drivertest.CheckSample(t, b.Devices[0], s)
			rows = append(rows, s.Readings[0].Why+"+"+s.Readings[1].Why)
			s.Readings[0].Why = "changed by who got it"
		}
		ctx, cancel := context.WithTimeout(t.Context(), 9500*time.Millisecond)
		defer cancel()
		New(b, mixed{}, emit, slog.New(slog.DiscardHandler)).Run(ctx)
		if got := fmt.Sprint(rows); got != fmt.Sprint(slices.Repeat([]string{"crc+timeout"}, 10)) {
			t.Errorf("rows %s", got)
		}
	})
}

// A device that gives anything at all is not quarantined, and its failures are counted.
func TestPartialAnswersAreAnswers(t *testing.T) {
	for _, why := range []string{"", "sentinel", "nan"} {
		synctest.Test(t, func(t *testing.T) {
			b := devices(time.Second, "a")
			polls := 0
			driver := partial{why: why, polls: &polls}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second-1)
			defer cancel()
			p := New(b, driver, func(context.Context, drivers.Sample) {}, slog.New(slog.DiscardHandler))
			p.Run(ctx)
			st := p.States()["a"]
			if polls != 20 || st.Polls != 20 || st.Failures != 20 || st.Failing != 0 || !st.RetryAt.IsZero() {
				t.Errorf("%q: %d polls sent, state %+v", why, polls, st)
			}
		})
	}
}

// A bus that cannot keep up leaves beats out; it does not make up for them in a burst, and everyone has a turn.
func TestOverrunDoesNotBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(_ string, at time.Duration) (time.Duration, *drivers.Error) {
			if at < time.Minute {
				return 700 * time.Millisecond, nil
			}
			return 0, nil
		}
		s := run(t, devices(time.Second, "a", "b", "c"), 2*time.Minute, slow)
		for _, name := range []string{"a", "b", "c"} {
			polls := of(name, s.polls)
			for n := 1; n < len(polls); n++ {
				// A poll that waited for its turn may be close to the next, which has its own beat: but never two at once.
				if gap := polls[n].at - polls[n-1].at; gap < 300*time.Millisecond || gap > 3*time.Second {
					t.Errorf("%s: %s between two polls", name, gap)
				}
			}
			if during := len(slices.DeleteFunc(slices.Clone(polls), func(e event) bool { return e.at >= time.Minute })); during < 20 {
				t.Errorf("%s was polled %d times in the slow minute", name, during)
			}
			if after := len(slices.DeleteFunc(polls, func(e event) bool { return e.at < time.Minute })); after < 59 || after > 61 {
				t.Errorf("%s was polled %d times in the quick minute, want 60", name, after)
			}
		}
	})
}

func TestEndOfContext(t *testing.T) {
	for _, c := range []struct {
		name string
		does func(string, time.Duration) (time.Duration, *drivers.Error)
	}{
		{"between polls", good},
		{"in a poll", func(string, time.Duration) (time.Duration, *drivers.Error) { return time.Hour, nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := run(t, devices(10*time.Second, "a"), 15*time.Second, c.does)
				for _, e := range s.samples {
					if e.why != "" {
						t.Errorf("a poll that the end cut off became a sample: %+v", e)
					}
				}
				if s.log.Len() > 0 {
					t.Errorf("log: %s", &s.log)
				}
			})
		})
	}
	t.Run("without devices", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { run(t, devices(time.Second), time.Minute, good) })
	})
	t.Run("before the start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { run(t, devices(time.Second, "a"), 0, good) })
	})
}

func TestStatesWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second-1)
		defer cancel()
		f := &fake{begin: time.Now(), does: func(string, time.Duration) (time.Duration, *drivers.Error) { return 0, timeout() }}
		b := New(devices(time.Second, "a"), f, func(context.Context, drivers.Sample) {}, slog.New(slog.DiscardHandler))
		if st := b.States()["a"]; st != (State{}) {
			t.Errorf("before the first poll: %+v", st)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); b.Run(ctx) }()
		synctest.Wait()
		for want := uint64(1); ctx.Err() == nil; want++ {
			st := b.States()["a"]
			if st.Polls != want || st.Failures != want || st.Err != "cannot read input register 0 of a: timeout" {
				t.Errorf("after poll %d: %+v", want, st)
			}
			if quarantined := st.RetryAt.After(time.Now()); quarantined != (want >= 3) && st.RetryAt.IsZero() != (want < 3) {
				t.Errorf("after poll %d: %+v", want, st)
			}
			time.Sleep(time.Second) // the fake clock's
			synctest.Wait()
		}
		<-ended
	})
}
