package sim

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hubagent/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 4, 1, 7, 0, 0, 0, time.UTC)

func demoWorld() World { return World{Seed: 7, Start: start, Day: DemoDay} }

// testProfiles are small stand-ins for the profiles that come with the agent, with every function code among them.
func testProfiles() map[string]*config.Profile {
	meter := &config.Profile{
		ID: "eastron-sdm630", Kind: config.Meter,
		Modbus: config.ModbusLimits{MaxRegisters: 60, EvenOnly: true, MaxHole: 40},
	}
	for i, name := range []string{
		"voltage_l1", "voltage_l2", "voltage_l3", "current_l1", "current_l2", "current_l3",
		"power_active_l1", "power_active_l2", "power_active_l3",
	} {
		meter.Points = append(meter.Points, config.Point{Name: name, Function: config.InputRegister, Address: 2 * i, Type: config.F32})
	}
	meter.Points = append(meter.Points,
		config.Point{Name: "frequency", Function: config.InputRegister, Address: 70, Type: config.F32, Unit: "Hz"},
		config.Point{Name: "energy_import", Function: config.InputRegister, Address: 72, Type: config.F32, Unit: "kW.h"},
		config.Point{Name: "power_active", Function: config.InputRegister, Address: 52, Type: config.F32, Unit: "W"},
	)
	camera := &config.Profile{ID: "waveshare-io-8ch-camera", Kind: config.Camera, Points: []config.Point{
		{Name: "alarm", Function: config.DiscreteInput, Address: 0, Type: config.Bool},
		{Name: "power_ok", Function: config.DiscreteInput, Address: 1, Type: config.Bool},
		{Name: "lamp", Function: config.Coil, Address: 9, Type: config.Bool, Invert: true},
	}}
	holding := func(name string, address int, typ config.Type, scale config.Decimal) config.Point {
		return config.Point{Name: name, Function: config.HoldingRegister, Address: address, Type: typ, Scale: scale, Order: config.ABCD}
	}
	one := config.Decimal{Mantissa: 1}
	return map[string]*config.Profile{
		"hub-bin": {ID: "hub-bin", Kind: config.Bin, Modbus: config.ModbusLimits{MaxRegisters: 20, MaxHole: 1}, Points: []config.Point{
			holding("deposits", 0, config.U32, one),
			holding("correct", 2, config.U32, one),
			holding("fill", 4, config.U16, one),
			holding("weight", 6, config.U16, config.Decimal{Mantissa: 1, Exponent: -2}),
			holding("temperature", 7, config.S16, config.Decimal{Mantissa: 1, Exponent: -1}),
			holding("firmware", 20, config.U16, one),
		}},
		"eastron-sdm630":          meter,
		"waveshare-io-8ch-camera": camera,
		"facility-contact": {ID: "facility-contact", Kind: config.Contact, Points: []config.Point{
			{Name: "fault", Function: config.Line, Type: config.Bool, Invert: true},
		}},
	}
}

func demoBuses() (bins, meters, contacts config.Bus) {
	buses := Demo(testProfiles(), "127.0.0.1:0", "", "")
	return buses[0], buses[1], buses[2]
}

// begin runs a task until the test is over, and fails the test if it ended with an error.
func begin(t *testing.T, task func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- task(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("task ended: %v", err)
		}
	})
}

// listen serves a bus on TCP for the length of the test.
func listen(t *testing.T, s *Site, bus config.Bus) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begin(t, func(ctx context.Context) error { return s.ServeTCP(ctx, listener, bus) })
	return listener.Addr().String()
}

// wire serves a bus on one end of a pipe and gives the other to be its master.
func wire(t *testing.T, s *Site, bus config.Bus) net.Conn {
	t.Helper()
	master, line := net.Pipe()
	t.Cleanup(func() { master.Close(); line.Close() })
	begin(t, func(ctx context.Context) error { return s.ServeRTU(ctx, line, bus) })
	return master
}

func TestDemoSite(t *testing.T) {
	bins, meters, contacts := demoBuses()
	if len(bins.Devices) != 8 || len(meters.Devices) != 6 || len(contacts.Devices) != 1 {
		t.Fatalf("devices: %d, %d, %d", len(bins.Devices), len(meters.Devices), len(contacts.Devices))
	}
	names, units := map[string]bool{}, map[int]bool{}
	for _, bus := range []config.Bus{bins, meters, contacts} {
		for _, d := range bus.Devices {
			if names[d.Name] || units[d.Unit] || d.Model == nil || d.Label == "" || d.Interval <= 0 {
				t.Errorf("device %+v is not complete and unique", d)
			}
			names[d.Name], units[d.Unit] = true, true
		}
	}
	if contacts.Devices[0].Line != 17 || meters.Baud != 9600 {
		t.Errorf("lift on line %d, meters at %d Bd", contacts.Devices[0].Line, meters.Baud)
	}
}

func ExampleWorld() {
	world := World{Seed: 7, Start: time.Date(2026, 4, 1, 7, 0, 0, 0, time.UTC)}
	bin := config.Device{Name: "bin-001", Model: &config.Profile{Kind: config.Bin}}
	for _, hour := range []int{0, 1, 12} {
		at := world.Start.Add(time.Duration(hour) * time.Hour)
		deposits := world.Value(bin, config.Point{Name: "deposits", Type: config.U32}, at)
		correct := world.Value(bin, config.Point{Name: "correct", Type: config.U32}, at)
		fmt.Printf("%s: %v deposits, %v correct\n", at.Format(time.TimeOnly), deposits, correct)
	}
	// Output:
	// 07:00:00: 1302 deposits, 1198 correct
	// 08:00:00: 1315 deposits, 1210 correct
	// 19:00:00: 1392 deposits, 1280 correct
}
