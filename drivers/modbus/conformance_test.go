package modbus

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
	"hubagent/drivers/sim"
)

func profile(t testing.TB, id string) *config.Profile {
	t.Helper()
	profiles, err := config.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range profiles {
		if p.ID == id {
			return p
		}
	}
	t.Fatalf("no profile %s", id)
	return nil
}

// The units of simulated buses.
const (
	talker = 11 // answers
	mute   = 12 // never does
)

// simulated is a bus with two of a model's devices in software.
type simulated struct {
	*sim.Site
	bus config.Bus
}

func newSimulated(t testing.TB, kind config.BusKind, id string) simulated {
	model := profile(t, id)
	s := simulated{Site: sim.New(sim.World{Seed: 7, Start: time.Now(), Day: sim.DemoDay}), bus: config.Bus{
		Name: "test", Kind: kind, Baud: 115200, Timeout: 200 * time.Millisecond,
		Devices: []config.Device{
			{Name: "talker", Unit: talker, Model: model, Interval: time.Second},
			{Name: "mute", Unit: mute, Model: model, Interval: time.Second},
		},
	}}
	s.silence(mute)
	return s
}

func (s simulated) silence(units ...int) {
	s.SetFaults(sim.Fault{Kind: sim.Silent, Units: units, P: 1})
}

// task runs serve until stop is called, which waits for its end. Stop may be called again.
func task(t testing.TB, serve func(ctx context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := serve(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("simulated side: %v", err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

func (s simulated) rig(open drivers.OpenFunc, failure drivers.Failure, away, back func()) drivertest.Rig {
	return drivertest.Rig{
		Open: open, Config: s.bus, Device: s.bus.Devices[0], Waiting: s.bus.Devices[1],
		Away: away, Back: back, Failure: failure,
	}
}

func TestConformanceTCP(t *testing.T) {
	listen := func(t *testing.T, address string) net.Listener {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return listener
	}
	t.Run("silent device", func(t *testing.T) {
		drivertest.Run(t, func(t *testing.T) drivertest.Rig {
			s, listener := newSimulated(t, config.ModbusTCP, "hub-bin"), listen(t, "127.0.0.1:0")
			s.bus.Address = listener.Addr().String()
			task(t, func(ctx context.Context) error { return s.ServeTCP(ctx, listener, s.bus) })
			return s.rig(OpenTCP, drivers.Timeout, func() { s.silence(talker, mute) }, func() { s.silence(mute) })
		})
	})
	t.Run("server gone", func(t *testing.T) {
		drivertest.Run(t, func(t *testing.T) drivertest.Rig {
			s, listener := newSimulated(t, config.ModbusTCP, "hub-bin"), listen(t, "127.0.0.1:0")
			s.bus.Address = listener.Addr().String()
			start := func(listener net.Listener) func() {
				return task(t, func(ctx context.Context) error { return s.ServeTCP(ctx, listener, s.bus) })
			}
			stop := start(listener)
			return s.rig(OpenTCP, drivers.Link, func() { stop() }, func() { stop = start(listen(t, s.bus.Address)) })
		})
	})
}

// pty serves a simulated bus on a new pseudo-terminal behind the link at port, as udev's stable names are links.
func (s simulated) pty(t *testing.T, port string) (unplug func()) {
	t.Helper()
	master, path, closePTY, err := sim.OpenPTY()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, port); err != nil {
		t.Fatal(err)
	}
	stop := task(t, func(ctx context.Context) error { return s.ServeRTU(ctx, master, s.bus) })
	unplug = sync.OnceFunc(func() {
		stop()
		os.Remove(port)
		closePTY()
	})
	t.Cleanup(unplug)
	return unplug
}

func TestConformanceRTU(t *testing.T) {
	t.Run("silent device", func(t *testing.T) {
		drivertest.Run(t, func(t *testing.T) drivertest.Rig {
			s := newSimulated(t, config.ModbusRTU, "hub-bin")
			s.bus.Port = filepath.Join(t.TempDir(), "port")
			s.pty(t, s.bus.Port)
			return s.rig(OpenRTU, drivers.Timeout, func() { s.silence(talker, mute) }, func() { s.silence(mute) })
		})
	})
	t.Run("adapter unplugged", func(t *testing.T) {
		drivertest.Run(t, func(t *testing.T) drivertest.Rig {
			s := newSimulated(t, config.ModbusRTU, "hub-bin")
			s.bus.Port = filepath.Join(t.TempDir(), "port")
			unplug := s.pty(t, s.bus.Port)
			return s.rig(OpenRTU, drivers.Link, func() { unplug() }, func() { unplug = s.pty(t, s.bus.Port) })
		})
	})
}

// converter passes RTU frames between one TCP connection at a time and a simulated line, until stop is called.
func (s simulated) converter(t *testing.T, address string) (stop func(), at string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return task(t, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { listener.Close() })()
		for {
			conn, err := listener.Accept()
			if err != nil {
				return err
			}
			s.ServeRTU(ctx, conn, s.bus) // until the master hangs up
			conn.Close()
		}
	}), listener.Addr().String()
}

func TestConformanceRTUOverTCP(t *testing.T) {
	t.Run("silent device", func(t *testing.T) {
		drivertest.Run(t, func(t *testing.T) drivertest.Rig {
			s := newSimulated(t, config.ModbusRTUTCP, "hub-bin")
			_, s.bus.Address = s.converter(t, "127.0.0.1:0")
			return s.rig(OpenRTUTCP, drivers.Timeout, func() { s.silence(talker, mute) }, func() { s.silence(mute) })
		})
	})
	t.Run("converter gone", func(t *testing.T) {
		drivertest.Run(t, func(t *testing.T) drivertest.Rig {
			s := newSimulated(t, config.ModbusRTUTCP, "hub-bin")
			stop, address := s.converter(t, "127.0.0.1:0")
			s.bus.Address = address
			return s.rig(OpenRTUTCP, drivers.Link, func() { stop() }, func() { stop, _ = s.converter(t, address) })
		})
	})
}

// Every shipped Modbus model can be read through the whole of it: plan, line, simulated device and back.
func TestShippedProfilesAreRead(t *testing.T) {
	for _, id := range []string{"acrel-adl400", "eastron-sdm630", "hub-bin", "waveshare-io-8ch-camera"} {
		t.Run(id, func(t *testing.T) {
			s := newSimulated(t, config.ModbusRTU, id)
			s.bus.Port = filepath.Join(t.TempDir(), "port")
			s.pty(t, s.bus.Port)
			bus, err := OpenRTU(s.bus, drivers.With{})
			if err != nil {
				t.Fatal(err)
			}
			defer bus.Close()
			if got := outcome(t, bus.(*Bus), s.bus.Devices[0]); strings.ContainsAny(got, "abcdfghijklmnopqrstuvwxyz") {
				t.Errorf("got %s", got)
			}
		})
	}
}

// The trap of goburrow: a line that hangs up while an answer is awaited makes it spin.
func TestHangUpOfARealLine(t *testing.T) {
	master, path, closePTY, err := sim.OpenPTY()
	if err != nil {
		t.Fatal(err)
	}
	bus, err := OpenRTU(config.Bus{Port: path, Baud: 9600, Timeout: time.Minute}, drivers.With{})
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		if _, err := io.ReadFull(master, make([]byte, 8)); err != nil {
			t.Error(err)
		}
		closePTY()
	}()
	begin, before := time.Now(), processorTime(t)
	if got := outcome(t, bus.(*Bus), meter()); !strings.HasPrefix(got, "link") {
		t.Errorf("got %s, want link", got)
	}
	if took, spent := time.Since(begin), processorTime(t)-before; took > 5*time.Second || spent > time.Second {
		t.Errorf("noticed after %s and %s of processor time", took, spent)
	}
	<-asked
	for range 100 { // and again: a port that is gone costs nothing
		if got := outcome(t, bus.(*Bus), meter()); !strings.HasPrefix(got, "link") {
			t.Fatalf("got %s, want link", got)
		}
	}
	if err := bus.Close(); err != nil {
		t.Error(err)
	}
}

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Two masters on a line destroy each other's answers.
func TestPortIsLocked(t *testing.T) {
	s := newSimulated(t, config.ModbusRTU, "hub-bin")
	s.bus.Port = filepath.Join(t.TempDir(), "port")
	s.pty(t, s.bus.Port)
	read := func(bus drivers.Bus) string { return outcome(t, bus.(*Bus), s.bus.Devices[0]) }
	one, err := OpenRTU(s.bus, drivers.With{})
	if err != nil {
		t.Fatal(err)
	}
	two, err := OpenRTU(s.bus, drivers.With{})
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	if got := read(one); strings.HasPrefix(got, "link") {
		t.Errorf("the first: %s", got)
	}
	if got := read(two); !strings.Contains(got, "another program has it") {
		t.Errorf("the second: %s", got)
	}
	one.Close()
	if got := read(two); strings.HasPrefix(got, "link") {
		t.Errorf("the second, when the first has closed: %s", got)
	}
}
