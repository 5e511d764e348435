package modbus

import (
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
)

// chunks is an answer in pieces of n bytes, each after a wait.
func chunks(text string, n int, after time.Duration) []drivertest.Chunk {
	text = strings.ReplaceAll(text, " ", "")
	var all []drivertest.Chunk
	for len(text) > 0 {
		end := min(2*n, len(text))
		all = append(all, drivertest.Chunk{After: after, Bytes: text[:end]})
		text = text[end:]
	}
	return all
}

// Each fault meets the first request. Then the device has another value, and answers well: what the next Read gives
// must be that value, whatever is left on the line.
func TestFaultsOnRTU(t *testing.T) {
	const ms = time.Millisecond
	whole := drivertest.Whole
	exception := frame("01 84 02")
	neighbour := frame("02 04 04 43 99 99 9A")
	join := func(a, b []drivertest.Chunk) []drivertest.Chunk { return append(a[:len(a):len(a)], b...) }
	for _, c := range []struct {
		name   string
		answer []drivertest.Chunk
		want   string        // how the outcome begins
		within time.Duration // how long Read takes at most; 0: the time-out and the wire
	}{
		{"none", nil, "timeout", 0},
		{"byte by byte", chunks(answer, 1, 40*ms), voltage, 0},
		{"byte by byte, past the deadline", chunks(answer, 1, 90*ms), "frame answer cut short: 01 04 04 43 66", 0},
		{"late", []drivertest.Chunk{{After: 700 * ms, Bytes: answer}}, "timeout", 0},
		{"very late, while nobody listens", []drivertest.Chunk{{After: 5 * time.Second, Bytes: answer}}, "timeout", 0},
		{"truncated", whole("01 04 04 43 66"), "frame answer cut short: 01 04 04 43 66", 0},
		{"doubled", whole(answer + answer), voltage, 50 * ms},
		{"doubled, in pieces", []drivertest.Chunk{{Bytes: answer}, {After: 3 * ms, Bytes: answer}}, voltage, 50 * ms},
		{"another unit's first", whole(neighbour + answer), voltage, 50 * ms},
		{"another unit's first, slowly", join(chunks(neighbour, 4, 15*ms), []drivertest.Chunk{{After: 200 * ms, Bytes: answer}}), voltage, 0},
		{"another unit's only", whole(neighbour), "frame an answer of unit 2, function 4, that was not asked for", 0},
		{"another function's", whole(frame("01 03 04 43 66 33 34")), "frame an answer of unit 1, function 3, that was not asked for", 0},
		{"an exception of another function", whole(frame("01 83 02")), "frame an answer of unit 1, function 131", 0},
		{"too few registers", whole(frame("01 04 02 43 66")), "frame an answer of unit 1", 0},
		{"too many registers", whole(frame("01 04 06 43 66 33 34 00 00")), "frame an answer of unit 1", 0},
		{"exception", whole(exception), "exception 2", 50 * ms},
		{"exception in two pieces", chunks(exception, 4, ms), "exception 2", 50 * ms},
		{"noise before", whole("00" + answer), voltage, 50 * ms},
		{"noise before, in pieces", chunks("00 FF 01"+answer, 2, 10*ms), voltage, 150 * ms},
		{"much noise right before", []drivertest.Chunk{{Bytes: "11 22 33 44 55 66 77"}, {After: 10 * ms, Bytes: answer}}, voltage, 50 * ms},
		{"a glitch long before", []drivertest.Chunk{{Bytes: "FF"}, {After: 400 * ms, Bytes: answer}}, voltage, 0},
		{"a glitch only", whole("FF 00"), "timeout only noise came: ff 00", 0},
		{"another answer right behind", whole(answer + frame("01 04 04 43 66 33 35")), "frame two answers that do not agree", 50 * ms},
		{"another answer behind, in pieces", append(chunks(answer, 3, ms), chunks(frame("01 04 04 43 66 33 35"), 3, ms)...), "frame two answers that do not agree", 50 * ms},
		// The first nine bytes have a CRC that fits: it is the value's own second byte, by one chance in 65,536.
		{"begun twice", whole("01 04 04 80" + frame("01 04 04 80 87 12 34")), "frame two answers that do not agree", 50 * ms},
		{"noise right behind", whole(answer + "FF 00 01 04"), voltage, 50 * ms},
		{"echo first", []drivertest.Chunk{{Bytes: ask}, {After: 100 * ms, Bytes: answer}}, voltage, 150 * ms},
		{"echo only", whole(ask), "timeout", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := drivertest.NewPlayback(t,
					drivertest.Exchange{Request: ask, Answer: c.answer}, drivertest.Exchange{Request: ask, Answer: whole(other)})
				bus := rtu(t, func() (net.Conn, error) { return p.Dial(), nil })
				begin := time.Now()
				if got := outcome(t, bus, meter()); !strings.HasPrefix(got, c.want) {
					t.Errorf("got %s, want %s", got, c.want)
				}
				limit := c.within
				if limit == 0 {
					limit = testTimeout + 30*ms
				}
				if took := time.Since(begin); took > limit {
					t.Errorf("took %s, want at most %s", took, limit)
				}
				if strings.Contains(c.name, "nobody listens") {
					time.Sleep(10 * time.Second) // the poll's interval, on the fake clock
				}
				if got := outcome(t, bus, meter()); got != "231.5" {
					t.Errorf("the next value is %s, want 231.5", got)
				}
				bus.Close()
				p.Done()
			})
		})
	}
}

// Noise is met by asking once more; but only once, and only after the first answer can no longer come.
func TestRetryAfterNoise(t *testing.T) {
	damaged := "01 04 04 43 66 33 35 1B 38"
	for _, c := range []struct {
		name   string
		answer []string
		want   string
	}{
		{"once", []string{damaged, answer}, voltage},
		{"twice", []string{damaged, damaged}, "crc it answers, but with errors: wrong baud rate, parity or stop bits, or noise: 01 04 04 43 66 33 35 1b 38"},
		{"a damaged byte count", []string{"01 04 05 43 66 33 34 1B 38", answer}, voltage},
		{"a damaged unit", []string{"03 04 04 43 66 33 34 1B 38", answer}, voltage},
		{"a damaged exception", []string{"01 84 03 C2 C1", answer}, voltage},
		{"then silence", []string{damaged, ""}, "timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var script []drivertest.Exchange
				for _, a := range c.answer {
					script = append(script, drivertest.Exchange{Request: ask, Answer: drivertest.Whole(a)})
				}
				p := drivertest.NewPlayback(t, append(script, drivertest.Exchange{Request: ask, Answer: drivertest.Whole(other)})...)
				bus := rtu(t, func() (net.Conn, error) { return p.Dial(), nil })
				begin := time.Now()
				if got := outcome(t, bus, meter()); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
				// The damage is known at the silence after it, and not at the deadline; then a late answer is waited out.
				if took := time.Since(begin); c.want == voltage && took > testTimeout+50*time.Millisecond {
					t.Errorf("took %s", took)
				}
				if got := outcome(t, bus, meter()); got != "231.5" {
					t.Errorf("the next value is %s, want 231.5", got)
				}
				bus.Close()
				p.Done()
			})
		})
	}
}

// One request a poll is sent again, not one a block: noise must not double what a poll takes.
func TestOneRetryAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, damaged := frame("01 04 00 00 00 01"), frame("01 04 00 64 00 01"), drivertest.Whole("01 04 02 00 07 00 00")
		p := drivertest.NewPlayback(t,
			drivertest.Exchange{Request: one, Answer: damaged},
			drivertest.Exchange{Request: one, Answer: drivertest.Whole(frame("01 04 02 00 07"))},
			drivertest.Exchange{Request: two, Answer: damaged})
		bus := rtu(t, func() (net.Conn, error) { return p.Dial(), nil })
		s, err := bus.Read(t.Context(), device(1, words(config.InputRegister, 0, 1)[0], words(config.InputRegister, 100, 1)[0]))
		if err == nil || s.Readings[0].Value.String() != "7" || s.Readings[1].Why != "crc" {
			t.Errorf("%v: %+v", err, s.Readings)
		}
		bus.Close()
		p.Done()
	})
}

// A device that is silent is not asked for its other blocks, one that refuses a block or garbles it is.
func TestWhatFollowsAFailure(t *testing.T) {
	d := device(1, words(config.InputRegister, 0, 1)[0], words(config.InputRegister, 100, 1)[0])
	const one, two = "01 04 00 00 00 01", "01 04 00 64 00 01"
	for _, c := range []struct {
		name   string
		answer string
		sent   bool
		want   [2]string // why or value
	}{
		{"silence", "", false, [2]string{"timeout", "timeout"}},
		{"a refusal", frame("01 84 04"), true, [2]string{"exception 4", "7"}},
		{"another frame", frame("01 03 02 00 01"), true, [2]string{"frame", "7"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				script := []drivertest.Exchange{{Request: frame(one), Answer: drivertest.Whole(c.answer)}}
				if c.sent {
					script = append(script, drivertest.Exchange{Request: frame(two), Answer: drivertest.Whole(frame("01 04 02 00 07"))})
				}
				p := drivertest.NewPlayback(t, script...)
				bus := rtu(t, func() (net.Conn, error) { return p.Dial(), nil })
				s, err := bus.Read(t.Context(), d)
				if err == nil || !strings.Contains(err.Error(), "input register 0 of meter") {
					t.Errorf("the error is that of the first failure, with its register and device: %v", err)
				}
				for i, r := range s.Readings {
					if got := r.Why + r.Value.String(); got != c.want[i] {
						t.Errorf("point %d: %s, want %s", i, got, c.want[i])
					}
				}
				bus.Close()
				p.Done()
			})
		})
	}
}

func TestErrorsNameDeviceAndRegisters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := drivertest.NewPlayback(t, drivertest.Exchange{Request: ask, Answer: drivertest.Whole(frame("01 84 02"))}, drivertest.Exchange{Request: ask})
		bus := rtu(t, func() (net.Conn, error) { return p.Dial(), nil })
		for _, want := range []string{
			"cannot read input register 0-1 of meter: exception 2",
			"cannot read input register 0-1 of meter: timeout",
		} {
			if _, err := bus.Read(t.Context(), meter()); err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
		bus.Close()
	})
}

func TestHangUpWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := drivertest.NewPlayback(t,
			drivertest.Exchange{Request: ask, Answer: drivertest.Whole("01 04"), HangUp: true},
			drivertest.Exchange{Request: ask, Answer: drivertest.Whole(other)})
		opened := 0
		bus := rtu(t, func() (net.Conn, error) { opened++; return p.Dial(), nil })
		begin := time.Now()
		if got := outcome(t, bus, meter()); !strings.HasPrefix(got, "link") {
			t.Errorf("got %s, want link", got)
		}
		if took := time.Since(begin); took > 20*time.Millisecond {
			t.Errorf("noticed after %s", took)
		}
		if got := outcome(t, bus, meter()); got != "231.5" {
			t.Errorf("got %s after the line came back", got)
		}
		if opened != 2 {
			t.Errorf("opened %d times, want 2", opened)
		}
		bus.Close()
		p.Done()
	})
}

// A late answer is waited out even when the port was lost and opened anew in between.
func TestLateAnswerOnANewPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := drivertest.NewPlayback(t,
			drivertest.Exchange{Request: ask, HangUp: true},
			drivertest.Exchange{Answer: []drivertest.Chunk{{After: 300 * time.Millisecond, Bytes: answer}}},
			drivertest.Exchange{Request: ask, Answer: drivertest.Whole(other)})
		bus := rtu(t, func() (net.Conn, error) { return p.Dial(), nil })
		if got := outcome(t, bus, meter()); !strings.HasPrefix(got, "link") {
			t.Errorf("got %s, want link", got)
		}
		if got := outcome(t, bus, meter()); got != "231.5" {
			t.Errorf("got %s, want 231.5", got)
		}
		bus.Close()
		p.Done()
	})
}

// Somebody else talks on the line without end.
func TestBabbleEnds(t *testing.T) {
	for _, when := range []string{"before the request", "after the request"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := drivertest.Wire()
				var running sync.WaitGroup
				running.Go(func() {
					if when == "after the request" {
						far.Read(make([]byte, 8))
					}
					for {
						time.Sleep(time.Millisecond)
						if _, err := far.Write([]byte{0xA5, 0x5A}); err != nil {
							return
						}
					}
				})
				bus := rtu(t, func() (net.Conn, error) { return near, nil })
				begin := time.Now()
				if got := outcome(t, bus, meter()); !strings.HasPrefix(got, "frame the line does not fall silent") {
					t.Errorf("got %s", got)
				}
				// The deadline, then the time for a late answer before the retry, then that for the line to fall silent.
				if took := time.Since(begin); took > 3*testTimeout+50*time.Millisecond {
					t.Errorf("took %s", took)
				}
				bus.Close()
				far.Close()
				running.Wait()
			})
		})
	}
}

func TestDelaysBetweenRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, other := meter(), meter()
		d.Model.Modbus.InterFrameDelay, d.Model.Modbus.Turnaround = 100*time.Millisecond, 200*time.Millisecond
		other.Model, other.Unit = d.Model, 2
		near, far := drivertest.Wire()
		asked := make(chan time.Time, 3)
		go func() {
			request := make([]byte, 8)
			for {
				if _, err := far.Read(request); err != nil {
					return
				}
				asked <- time.Now()
				far.Write(reply(request, 0x4366_3334))
			}
		}()
		bus := rtu(t, func() (net.Conn, error) { return near, nil })
		for _, next := range []config.Device{d, d, other} {
			if got := outcome(t, bus, next); got != voltage {
				t.Fatal(got)
			}
		}
		first, second, third := <-asked, <-asked, <-asked
		if pause := second.Sub(first); pause < 100*time.Millisecond || pause > 110*time.Millisecond {
			t.Errorf("%s between two requests, want 100ms", pause)
		}
		if pause := third.Sub(second); pause < 300*time.Millisecond || pause > 310*time.Millisecond {
			t.Errorf("%s on the change of unit, want 300ms", pause)
		}
		bus.Close()
	})
}

func TestAbsentPort(t *testing.T) {
	opened, err := OpenRTU(config.Bus{Port: "/dev/no-such-port", Baud: 9600}, drivers.With{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := outcome(t, opened.(*Bus), meter()), "link cannot open /dev/no-such-port: no such file or directory"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
	if _, err := OpenRTU(config.Bus{Port: "/dev/ttyS0", Baud: 12345}, drivers.With{}); err == nil {
		t.Error("no port has 12345 Bd, and Open must say so")
	}
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openPort(config.Bus{Port: file, Baud: 9600}); err == nil || !strings.Contains(err.Error(), "not a serial port") {
		t.Errorf("a plain file: %v", err)
	}
}

func TestPortThatCannotBeOpenedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := drivertest.NewPlayback(t, drivertest.Exchange{Request: ask, Answer: drivertest.Whole(answer)})
		there := false
		bus := rtu(t, func() (net.Conn, error) {
			if !there {
				return nil, errors.New("unplugged")
			}
			return p.Dial(), nil
		})
		if got := outcome(t, bus, meter()); got != "link unplugged" {
			t.Errorf("got %s", got)
		}
		there = true
		if got := outcome(t, bus, meter()); got != voltage {
			t.Errorf("got %s", got)
		}
		bus.Close()
	})
}
