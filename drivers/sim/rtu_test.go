package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goburrow/modbus"

	"hubagent/config"
)

func frame(unit byte, pdu []byte) []byte {
	b := append([]byte{unit}, pdu...)
	return binary.LittleEndian.AppendUint16(b, crc16(b))
}

func TestCRC(t *testing.T) {
	// The check value of CRC-16/MODBUS, and a frame printed in many manuals.
	if got := crc16([]byte("123456789")); got != 0x4B37 {
		t.Errorf("crc %04x, want 4b37", got)
	}
	if b := []byte{0x11, 0x03, 0x00, 0x6B, 0x00, 0x03, 0x76, 0x87}; !valid(b) {
		t.Errorf("% x is not valid", b)
	}
}

func TestCutRTU(t *testing.T) {
	one, two := frame(1, request(3, 0, 2)), frame(2, request(4, 0, 2))
	write := frame(1, append(request(16, 0, 2), 4, 1, 2, 3, 4))
	odd := frame(1, []byte{0x2B, 14, 1, 0})
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name        string
		in          []byte
		silent      bool
		frame, rest []byte
	}{
		{"nothing", nil, true, nil, nil},
		{"whole", one, false, one, nil},
		{"two", join(one, two), false, one, two},
		{"part", one[:7], false, nil, one[:7]},
		{"part, then silence", one[:7], true, nil, nil},
		{"noise before", join([]byte{0xFF, 0, 7}, one), false, one, nil},
		{"a frame cut short before", join(one[:5], two), false, two, nil},
		{"noise that looks like a long write", join([]byte{1, 16, 0, 0, 0, 0, 200}, one), false, one, nil},
		{"noise alone", []byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, true, nil, nil},
		{"write", write, false, write, nil},
		{"unknown function", odd, false, nil, odd},
		{"unknown function, then silence", odd, true, odd, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, rest := cutRTU(c.in, c.silent)
			if !bytes.Equal(got, c.frame) || !bytes.Equal(rest, c.rest) {
				t.Errorf("cutRTU(% x) = % x, % x; want % x, % x", c.in, got, rest, c.frame, c.rest)
			}
		})
	}
}

func FuzzCutRTU(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add(frame(1, request(3, 0, 2)), true)
	f.Add([]byte{1, 16, 0, 0, 0, 0, 200, 1, 15}, false)
	last := frame(9, request(4, 52, 2))
	f.Fuzz(func(t *testing.T, noise []byte, silent bool) {
		b := append(bytes.Clone(noise), last...)
		found := false
		for {
			before := len(b)
			var got []byte
			got, b = cutRTU(b, silent)
			if len(b) > before || (got != nil && (len(got) < 4 || len(b) == before || !valid(got))) {
				t.Fatalf("frame % x, rest % x", got, b)
			}
			found = found || bytes.Equal(got, last)
			if got == nil {
				break
			}
		}
		if len(b) > maxFrame || (silent && len(b) > 0) {
			t.Errorf("keeps %d bytes", len(b))
		}
		// Noise that ends in half of a frame with a right checksum can swallow the request; no other may.
		if !found && !bytes.Contains(noise, last) && !swallows(noise, last) {
			t.Errorf("request lost after % x", noise)
		}
	})
}

// swallows says whether a frame with a right checksum runs from the noise into the request.
func swallows(noise, last []byte) bool {
	b := append(bytes.Clone(noise), last...)
	for i := range noise {
		if n := requestSize(b[i:]); n > len(noise)-i && i+n <= len(b) && valid(b[i:i+n]) {
			return true
		}
	}
	return false
}

func TestLineSpeed(t *testing.T) {
	for _, baud := range []int{0, 1200, 9600, 115200} {
		synctest.Test(t, func(t *testing.T) {
			_, meters, _ := demoBuses()
			meters.Baud = baud
			s := New(World{Seed: 7, Start: time.Now(), Day: DemoDay})
			master := wire(t, s, meters)
			began := time.Now()
			answer := ask(t, master, frame(11, request(4, 0, 60)), 125)
			took := time.Since(began)
			if !valid(answer) || answer[0] != 11 || answer[2] != 120 {
				t.Errorf("answer % x", answer)
			}
			want := responseDelay
			if baud > 0 {
				want += time.Duration((8 + 3.5 + 125) * 10 / float64(baud) * float64(time.Second))
			}
			if took < want-time.Millisecond || took > want+time.Millisecond {
				t.Errorf("at %d Bd a poll took %s, want %s", baud, took, want)
			}
		})
	}
}

func TestRTUResynchronises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, meters, _ := demoBuses()
		s := New(World{Seed: 7, Start: time.Now(), Day: DemoDay})
		master := wire(t, s, meters)
		power := frame(11, request(4, 52, 2))
		write := func(b []byte) {
			if _, err := master.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		silence := func() { // longer than a frame's, and nothing came
			master.SetReadDeadline(time.Now().Add(time.Second))
			if n, err := master.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%d bytes, %v; want silence", n, err)
			}
			master.SetReadDeadline(time.Time{})
		}
		good := func() {
			t.Helper()
			if answer := ask(t, master, power, 9); !valid(answer) || answer[0] != 11 {
				t.Fatalf("answer % x", answer)
			}
		}
		good()
		write([]byte{0, 0xFF, 11, 4}) // noise right before
		good()
		write(power[:5]) // a request cut short, then silence
		silence()
		good()
		write(frame(99, request(4, 0, 2))) // somebody else's
		silence()
		write(frame(0, request(4, 0, 2))) // broadcast
		silence()
		bad := bytes.Clone(power)
		bad[7] ^= 1
		write(bad)
		silence()
		for _, b := range power[:7] { // a byte at a time
			write([]byte{b})
		}
		if answer := ask(t, master, power[7:], 9); !valid(answer) {
			t.Errorf("answer % x", answer)
		}
		if answer, want := ask(t, master, frame(11, []byte{0x2B, 14, 1, 0}), 5), frame(11, []byte{0xAB, 1}); !bytes.Equal(answer, want) {
			t.Errorf("unknown function: % x, want % x", answer, want)
		}
		if answer, want := ask(t, master, frame(11, request(4, 0, 62)), 5), frame(11, []byte{0x84, 3}); !bytes.Equal(answer, want) {
			t.Errorf("too many: % x, want % x", answer, want)
		}
	})
}

func TestFaultsOnRTU(t *testing.T) {
	power := frame(11, request(4, 52, 2))
	for _, c := range []struct {
		kind Kind
		want func(answer []byte, took time.Duration) bool
	}{
		{Silent, func(answer []byte, _ time.Duration) bool { return len(answer) == 0 }},
		{Reset, func(answer []byte, _ time.Duration) bool { return len(answer) == 0 }},
		{Truncate, func(answer []byte, _ time.Duration) bool { return len(answer) == 4 }},
		{Noise, func(answer []byte, _ time.Duration) bool { return len(answer) == 9 && !valid(answer) }},
		{Exception, func(answer []byte, _ time.Duration) bool { return bytes.Equal(answer, frame(11, []byte{0x84, 4})) }},
		{Late, func(answer []byte, took time.Duration) bool {
			return len(answer) == 9 && valid(answer) && took == 900*time.Millisecond+responseDelay
		}},
		{Slow, func(answer []byte, took time.Duration) bool {
			return len(answer) == 9 && valid(answer) && took == 900*time.Millisecond+responseDelay
		}},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, meters, _ := demoBuses()
				meters.Baud = 0
				s := New(World{Seed: 7, Start: time.Now(), Day: DemoDay})
				s.SetFaults(Fault{Kind: c.kind, P: 1, Units: []int{11}, Delay: 900 * time.Millisecond})
				master := wire(t, s, meters)
				master.Write(power)
				began, last := time.Now(), time.Now()
				var answer []byte
				master.SetReadDeadline(began.Add(5 * time.Second))
				for b := make([]byte, 16); ; last = time.Now() {
					n, err := master.Read(b)
					if err != nil {
						break
					}
					answer = append(answer, b[:n]...)
				}
				if took := last.Sub(began); !c.want(answer, took) {
					t.Errorf("answer % x after %s", answer, took)
				}
				if s.Counts.Faults.Load() != 1 {
					t.Errorf("counts: %+v", &s.Counts)
				}
				master.SetReadDeadline(time.Time{})
				if answer := ask(t, master, frame(12, request(4, 52, 2)), 9); !valid(answer) || answer[0] != 12 {
					t.Errorf("the neighbour's answer % x", answer)
				}
			})
		})
	}
}

func TestServeRTUEnds(t *testing.T) {
	_, meters, _ := demoBuses()
	t.Run("with its line", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			master, line := net.Pipe()
			go func() {
				synctest.Wait()
				master.Close()
			}()
			if err := New(demoWorld()).ServeRTU(t.Context(), line, meters); !errors.Is(err, io.EOF) {
				t.Errorf("ServeRTU: %v", err)
			}
		})
	})
	t.Run("in the middle of an answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			master, line := net.Pipe()
			defer master.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- New(World{Start: time.Now()}).ServeRTU(ctx, line, meters) }()
			ask(t, master, frame(11, request(4, 0, 60)), 10) // the rest is never read
			if err := <-ended; err != nil {
				t.Errorf("ServeRTU: %v", err)
			}
		})
	})
}

// goburrow's own RTU master on a pseudo-terminal, closed and opened again as by an agent that restarts.
func TestGoburrowReadsThePTY(t *testing.T) {
	master, path, closePTY, err := OpenPTY()
	if err != nil {
		t.Fatal(err)
	}
	defer closePTY()
	_, meters, _ := demoBuses()
	meters.Baud = 115200
	world := World{Seed: 7, Start: time.Now(), Day: DemoDay}
	s := New(world)
	served := make(chan time.Time, 1)
	s.Served = func(_ string, at time.Time) { served <- at }
	t.Run("agents", func(t *testing.T) {
		begin(t, func(ctx context.Context) error { return s.ServeRTU(ctx, master, meters) })
		for range 3 {
			handler := modbus.NewRTUClientHandler(path)
			handler.BaudRate, handler.Parity, handler.SlaveId = 115200, "N", 13
			handler.Timeout, handler.IdleTimeout = 5*time.Second, 0
			data, err := modbus.NewClient(handler).ReadInputRegisters(52, 2)
			if err != nil {
				t.Fatal(err)
			}
			want := float32(world.Value(meters.Devices[2], config.Point{Name: "power_active", Type: config.F32}, <-served))
			if got := math.Float32frombits(binary.BigEndian.Uint32(data)); got != want {
				t.Errorf("power %v, want %v", got, want)
			}
			handler.Close()
		}
	})
}

func TestLineFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, contacts := demoBuses()
		contacts.Dir = filepath.Join(t.TempDir(), "lines")
		world := World{Seed: 7, Start: time.Now(), Day: DemoDay}
		begin(t, func(ctx context.Context) error { return New(world).WriteLines(ctx, contacts) })
		lift := contacts.Devices[0]
		time.Sleep(lineInterval / 2) // the fake clock's: to look between two writes
		faults := 0
		for range 1200 {
			synctest.Wait()
			level, err := os.ReadFile(filepath.Join(contacts.Dir, "line17"))
			if err != nil {
				t.Fatal(err)
			}
			fault := world.Value(lift, lift.Model.Points[0], time.Now().Add(-lineInterval/2)) == 1
			if want := map[bool]string{false: "1", true: "0"}[fault]; string(level) != want { // energised when healthy
				t.Fatalf("line is %q, want %q", level, want)
			}
			if fault {
				faults++
			}
			time.Sleep(lineInterval)
		}
		if faults == 0 {
			t.Error("no fault in two minutes")
		}
		if files, _ := os.ReadDir(contacts.Dir); len(files) != 1 {
			t.Errorf("files left: %v", files)
		}
	})
}

// A line by name has a file by name, a pulse counter's line one active phase a pulse, and an output no file at all.
func TestKindsOfLineFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pulses := config.Point{Name: "volume", Function: config.Line, Type: config.Pulses, Scale: config.Decimal{Mantissa: 1, Exponent: -3}, Unit: "m3"}
		siren := config.Write{Name: "siren", Function: config.Line, Type: config.Bool}
		bus := config.Bus{Name: "lines", Dir: t.TempDir(), Devices: []config.Device{
			{Name: "water", LineName: "DI:1", Model: &config.Profile{ID: "water", Kind: config.Meter, Points: []config.Point{pulses}}},
			{Name: "siren", Line: 3, Writes: []string{"siren"}, Model: &config.Profile{ID: "siren", Kind: config.Contact,
				Points: []config.Point{{Name: "siren", Function: config.Line, Type: config.Bool}}, Writes: []config.Write{siren}}},
		}}
		world := World{Seed: 7, Start: time.Now()}
		begin(t, func(ctx context.Context) error { return New(world).WriteLines(ctx, bus) })
		time.Sleep(lineInterval / 2) // the fake clock's: to look between two writes
		count := func() float64 { return math.Floor(unscale(pulses, world.Value(bus.Devices[0], pulses, time.Now()), 1)) }
		began, counted, was := count(), 0.0, "?"
		for range 3000 {
			synctest.Wait()
			level, err := os.ReadFile(filepath.Join(bus.Dir, "line-DI:1"))
			if err != nil {
				t.Fatal(err)
			}
			if was == "0" && string(level) == "1" {
				counted++
			}
			was = string(level)
			time.Sleep(lineInterval)
		}
		if want := count() - began; want < 100 || math.Abs(counted-want) > 1 {
			t.Errorf("%v pulses, want %v", counted, want)
		}
		if files, _ := os.ReadDir(bus.Dir); len(files) != 1 {
			t.Errorf("files: %v", files)
		}
	})
}

func TestDeviceWithoutLine(t *testing.T) {
	bins, _, _ := demoBuses()
	bins.Dir = t.TempDir()
	if err := New(demoWorld()).WriteLines(t.Context(), bins); err == nil {
		t.Error("a bin has no line")
	}
}
