package scan

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"hubagent/config"
	"hubagent/drivers/modbus"
	"hubagent/drivers/sim"
)

// bare is a profile of few points that may be asked without any pause.
func bare(id string, points ...config.Point) *config.Profile {
	return &config.Profile{ID: id, Kind: config.Meter, Points: points}
}

func realMaster(ctx context.Context, b config.Bus) (Master, error) {
	raw, err := modbus.OpenRaw(ctx, b)
	if err != nil {
		return nil, err
	}
	return raw, nil
}

// serve runs a simulated bus until the test ends. Its address or port is in the bus that it returns.
func serve(t *testing.T, kind config.BusKind, profile *config.Profile, units ...int) config.Bus {
	t.Helper()
	return serveWith(t, sim.New(sim.World{Start: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)}), kind, profile, units...)
}

func serveWith(t *testing.T, site *sim.Site, kind config.BusKind, profile *config.Profile, units ...int) config.Bus {
	t.Helper()
	bus := config.Bus{Name: "line", Kind: kind}
	for _, u := range units {
		bus.Devices = append(bus.Devices, config.Device{Name: fmt.Sprintf("meter-%03d", u), Unit: u, Model: profile})
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	closeLine := func() error { return nil }
	served := bus
	switch kind {
	case config.ModbusRTU:
		master, path, closePTY, err := sim.OpenPTY()
		if err != nil {
			t.Skip(err)
		}
		closeLine = closePTY
		go func() { done <- site.ServeRTU(ctx, master, served) }()
		bus.Port = path
	default:
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if bus.Address = l.Addr().String(); kind == config.ModbusTCP {
			go func() { done <- site.ServeTCP(ctx, l, served) }()
			break
		}
		closeLine = l.Close
		go func() { done <- passOn(ctx, site, l, served) }()
	}
	t.Cleanup(func() {
		stop()
		closeLine()
		<-done
	})
	return bus
}

// passOn is a converter that only passes bytes on, of one connection at a time.
func passOn(ctx context.Context, site *sim.Site, l net.Listener, bus config.Bus) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		site.ServeRTU(ctx, conn, bus)
		conn.Close()
	}
}

// Twenty units of a real serial line are asked, four of them are there, and all in less than two seconds.
func TestScanSerialLine(t *testing.T) {
	f32 := func(name, unit string, address int) config.Point {
		return config.Point{Name: name, Unit: unit, Function: config.InputRegister, Address: address, Type: config.F32}
	}
	meter := bare("meter", f32("voltage_l1", "V", 0), f32("frequency", "Hz", 2))
	other := bare("other", f32("frequency", "Hz", 100))
	bus := serve(t, config.ModbusRTU, meter, 1, 4, 9, 20)
	units, err := ParseUnits("1-20")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	r, err := Run(t.Context(), Options{
		Open: realMaster, Trials: Trials(bus.Port, Settings([]int{115200}, nil, nil)), Units: units, Profiles: []*config.Profile{other, meter},
		Fast: 20 * time.Millisecond, Slow: 30 * time.Millisecond,
	})
	if took := time.Since(begun); err != nil || took > 2*time.Second && !testing.Short() {
		t.Errorf("%v after %v", err, took)
	}
	if got := found(r); got != "115200 8N1 1=exception 2 4=exception 2 9=exception 2 20=exception 2" {
		t.Fatal(got)
	}
	for _, d := range r.Lines[0].Devices {
		if len(d.Fits) != 1 || d.Fits[0].Profile != "meter" || len(d.Fits[0].Signs) != 2 || d.Took <= 0 {
			t.Errorf("%+v", d)
		}
	}
}

// The same through the network, in both framings.
func TestScanNetwork(t *testing.T) {
	meter := bare("meter", config.Point{Name: "frequency", Unit: "Hz", Function: config.HoldingRegister, Type: config.U16, Scale: config.Decimal{Mantissa: 1, Exponent: -2}})
	for kind, want := range map[config.BusKind]string{
		config.ModbusTCP:    "Modbus TCP 1=value 3=value",
		config.ModbusRTUTCP: "RTU over TCP 1=value 3=value",
	} {
		t.Run(string(kind), func(t *testing.T) {
			bus := serve(t, kind, meter, 1, 3)
			r, err := Run(t.Context(), Options{
				Open: realMaster, Trials: TrialsAt(bus.Address), Units: []int{1, 2, 3, 4}, Profiles: []*config.Profile{meter},
				Fast: 50 * time.Millisecond, Slow: 60 * time.Millisecond,
			})
			if err != nil || found(r) != want {
				t.Fatal(found(r), err)
			}
			if fits := r.Lines[0].Devices[0].Fits; len(fits) != 1 || !strings.HasPrefix(fits[0].String(), "meter: frequency ") {
				t.Errorf("%v", fits)
			}
		})
	}
}

// A device that answers only when the next ones are asked already is found all the same.
func TestScanSlowDevice(t *testing.T) {
	site := sim.New(sim.World{Start: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)})
	site.SetFaults(sim.Fault{Kind: sim.Late, P: 1, Delay: 60 * time.Millisecond})
	meter := bare("meter", config.Point{Name: "frequency", Unit: "Hz", Function: config.HoldingRegister, Type: config.U16, Scale: config.Decimal{Mantissa: 1, Exponent: -2}})
	bus := serveWith(t, site, config.ModbusRTU, meter, 4)
	r, err := Run(t.Context(), Options{
		Open: realMaster, Trials: Trials(bus.Port, Settings([]int{115200}, []config.Parity{config.ParityNone}, nil)),
		Units: []int{4, 5, 6, 7, 8, 9}, Profiles: []*config.Profile{meter},
		Fast: 20 * time.Millisecond, Slow: 200 * time.Millisecond,
	})
	if err != nil || found(r) != "115200 8N1 4=value(slow)" || r.Foreign != nil {
		t.Errorf("%q, foreign %v, %v", found(r), r.Foreign, err)
	}
}
