package sim

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"hubagent/config"
)

func request(function byte, start, count int) []byte {
	b := binary.BigEndian.AppendUint16([]byte{function}, uint16(start))
	return binary.BigEndian.AppendUint16(b, uint16(count))
}

// unit is a device seen from its own side.
func unit(d config.Device) *device {
	return newSlave(config.Bus{Devices: []config.Device{d}}).devices[byte(d.Unit)]
}

func TestSlaveKeepsToItsProfile(t *testing.T) {
	profiles := testProfiles()
	for _, c := range []struct {
		name, profile string
		pdu           []byte
		refused       exception
		size          int
	}{
		{"all of a bin", "hub-bin", request(3, 0, 8), 0, 18},
		{"hole of one", "hub-bin", request(3, 5, 1), 0, 4},
		{"half a value", "hub-bin", request(3, 1, 2), 0, 6},
		{"alone behind a long hole", "hub-bin", request(3, 20, 1), 0, 4},
		{"into a long hole", "hub-bin", request(3, 0, 9), illegalAddress, 0},
		{"over a long hole", "hub-bin", request(3, 7, 14), illegalAddress, 0},
		{"inside a long hole", "hub-bin", request(3, 12, 1), illegalAddress, 0},
		{"past the last address", "hub-bin", request(3, 65535, 2), illegalAddress, 0},
		{"no register", "hub-bin", request(3, 0, 0), illegalValue, 0},
		{"more than the profile allows", "hub-bin", request(3, 0, 21), illegalValue, 0},
		{"other table", "hub-bin", request(4, 0, 2), illegalAddress, 0},
		{"no such function", "hub-bin", request(0x42, 0, 2), illegalFunction, 0},
		{"write", "hub-bin", request(6, 0, 2), illegalAddress, 0},
		{"function alone", "hub-bin", []byte{3}, illegalValue, 0},
		{"too long", "hub-bin", append(request(3, 0, 2), 0), illegalValue, 0},
		{"even", "eastron-sdm630", request(4, 0, 60), 0, 122},
		{"odd start", "eastron-sdm630", request(4, 1, 2), illegalAddress, 0},
		{"odd count", "eastron-sdm630", request(4, 0, 3), illegalValue, 0},
		{"all bits", "waveshare-io-8ch-camera", request(2, 0, 2), 0, 3},
		{"bit that is none", "waveshare-io-8ch-camera", request(2, 0, 3), illegalAddress, 0},
		{"2001 bits", "waveshare-io-8ch-camera", request(2, 0, 2001), illegalValue, 0},
		{"coil", "waveshare-io-8ch-camera", request(1, 9, 1), 0, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := unit(config.Device{Name: "device-001", Model: profiles[c.profile]})
			answer, refused := d.answer(c.pdu, demoWorld(), start)
			if refused != c.refused || (refused == 0 && len(answer) != c.size) {
				t.Errorf("read(% x) = % x, exception %d; want %d bytes, exception %d", c.pdu, answer, refused, c.size, c.refused)
			}
		})
	}
}

func TestSlaveSaysWhatTheWorldSays(t *testing.T) {
	world, profiles := demoWorld(), testProfiles()
	bin := unit(config.Device{Name: "bin-001", Model: profiles["hub-bin"]})
	answer, _ := bin.answer(request(3, 0, 8), world, start)
	register := func(i int) uint16 { return binary.BigEndian.Uint16(answer[2+2*i:]) }
	truth := func(i int) float64 { return world.Value(bin.Device, profiles["hub-bin"].Points[i], start) }
	if got := uint32(register(0))<<16 | uint32(register(1)); float64(got) != truth(0) {
		t.Errorf("deposits %d, want %v", got, truth(0))
	}
	if got := float64(register(6)) / 100; math.Abs(got-truth(3)) > 0.005001 {
		t.Errorf("weight %v, want %v", got, truth(3))
	}
	if register(5) != 0 {
		t.Errorf("a hole reads %d", register(5))
	}

	meter := unit(config.Device{Name: "meter-001", Model: profiles["eastron-sdm630"]})
	answer, _ = meter.answer(request(4, 52, 2), world, start)
	got := math.Float32frombits(binary.BigEndian.Uint32(answer[2:]))
	if want := world.Value(meter.Device, config.Point{Name: "power_active", Type: config.F32}, start); got != float32(want) {
		t.Errorf("power %v, want %v", got, want)
	}

	camera := unit(config.Device{Name: "camera-001", Model: profiles["waveshare-io-8ch-camera"]})
	answer, _ = camera.answer(request(2, 0, 2), world, start)
	if want := []byte{2, 1, 0b10}; !slices.Equal(answer, want) { // no alarm, power_ok
		t.Errorf("inputs % x, want % x", answer, want)
	}
}

// limited is a model with everything that a profile can say of where it lets itself be read and written.
func limited(limits config.ModbusLimits) config.Device {
	holding := func(name string, address int, typ config.Type, bits config.Bits) config.Point {
		return config.Point{Name: name, Function: config.HoldingRegister, Address: address, Type: typ, Bits: bits}
	}
	return config.Device{Name: "device-001", Unit: 1, Model: &config.Profile{Kind: config.Contact, Modbus: limits,
		Points: []config.Point{
			holding("mode", 3, config.U16, config.Bits{Low: 4, Width: 4}),
			holding("fault", 3, config.Bool, config.Bits{Low: 0, Width: 1}),
			holding("total", 10, config.U32, config.Bits{}),
			holding("inner", 20, config.U16, config.Bits{}),
			{Name: "relay1", Function: config.Coil, Address: 0, Type: config.Bool},
		},
		Writes: []config.Write{
			{Name: "relay1", Function: config.Coil, Address: 0, Type: config.Bool, Allowed: []int64{0, 1}},
			{Name: "relay2", Function: config.Coil, Address: 1, Type: config.Bool, Allowed: []int64{0, 1}},
			{Name: "level", Function: config.HoldingRegister, Address: 30, Type: config.S16, Allowed: []int64{-5, 5}},
			{Name: "limit", Function: config.HoldingRegister, Address: 31, Type: config.U32, Order: config.CDAB, Allowed: []int64{0, 0x10002}},
		},
	}}
}

func TestSlaveKeepsToItsLimits(t *testing.T) {
	whole := config.ModbusLimits{Blocks: []config.Block{{Function: config.HoldingRegister, Address: 18, Count: 4}}}
	holes := config.ModbusLimits{MaxHole: 100, Blocks: whole.Blocks}
	for _, c := range []struct {
		name    string
		limits  config.ModbusLimits
		pdu     []byte
		refused exception
	}{
		{"block", whole, request(3, 18, 4), 0},
		{"a point in a block", whole, request(3, 20, 1), illegalAddress},
		{"more than a block", whole, request(3, 18, 5), illegalAddress},
		{"up to a block over a hole", holes, request(3, 3, 9), 0},
		{"over a block", holes, request(3, 3, 30), illegalAddress},
		{"behind a block", holes, request(3, 30, 3), 0},
		{"one of two", config.ModbusLimits{OneValue: true}, request(3, 31, 2), 0},
		{"two at once", config.ModbusLimits{OneValue: true}, request(3, 30, 3), illegalAddress},
		{"half of one", config.ModbusLimits{OneValue: true}, request(3, 10, 1), illegalAddress},
		{"two points in one register", config.ModbusLimits{OneValue: true}, request(3, 3, 1), 0},
		{"one of two bits", config.ModbusLimits{OneValue: true}, request(1, 1, 1), 0},
		{"two bits at once", config.ModbusLimits{OneValue: true}, request(1, 0, 2), illegalAddress},
		{"odd register from even to even", config.ModbusLimits{EvenOnly: true}, request(3, 2, 2), 0},
		{"odd register", config.ModbusLimits{EvenOnly: true}, request(3, 3, 1), illegalAddress},
		{"odd bit", config.ModbusLimits{EvenOnly: true}, request(1, 1, 1), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if answer, refused := unit(limited(c.limits)).answer(c.pdu, demoWorld(), start); refused != c.refused {
				t.Errorf("answer(% x) = % x, exception %d; want exception %d", c.pdu, answer, refused, c.refused)
			}
		})
	}
}

// The requests are built by hand from the Modbus application protocol V1.1b3, 6.5, 6.6 and 6.12.
func TestWrites(t *testing.T) {
	d := unit(limited(config.ModbusLimits{}))
	for _, c := range []struct {
		name    string
		pdu     []byte
		refused exception
		read    []byte // a request, and in the next row what it must give
		want    []byte
	}{
		{"not yet", nil, 0, request(1, 1, 1), []byte{1, 1, 0}},
		{"not yet either: the first allowed", nil, 0, request(3, 30, 1), []byte{3, 2, 0xFF, 0xFB}},
		{"coil on", []byte{5, 0, 1, 0xFF, 0}, 0, request(1, 1, 1), []byte{1, 1, 1}},
		{"coil half on", []byte{5, 0, 1, 0x12, 0}, illegalValue, request(1, 1, 1), []byte{1, 1, 1}},
		{"coil off", []byte{5, 0, 1, 0, 0}, 0, request(1, 1, 1), []byte{1, 1, 0}},
		{"coil that is a point", []byte{5, 0, 0, 0xFF, 0}, 0, request(1, 0, 2), []byte{1, 1, 1}},
		{"no such coil", []byte{5, 0, 2, 0xFF, 0}, illegalAddress, nil, nil},
		{"register", []byte{6, 0, 30, 0, 5}, 0, request(3, 30, 1), []byte{3, 2, 0, 5}},
		{"value that is not allowed", []byte{6, 0, 30, 0, 6}, illegalValue, request(3, 30, 1), []byte{3, 2, 0, 5}},
		{"half of a value", []byte{6, 0, 31, 0, 2}, illegalAddress, nil, nil},
		{"measured register", []byte{6, 0, 3, 0, 0}, illegalAddress, nil, nil},
		{"two registers", []byte{16, 0, 31, 0, 2, 4, 0, 2, 0, 1}, 0, request(3, 31, 2), []byte{3, 4, 0, 2, 0, 1}},
		{"one register by 16", []byte{16, 0, 30, 0, 1, 2, 0xFF, 0xFB}, 0, request(3, 30, 3), []byte{3, 6, 0xFF, 0xFB, 0, 2, 0, 1}},
		{"byte count that is wrong", []byte{16, 0, 31, 0, 2, 3, 0, 2, 0, 1}, illegalValue, nil, nil},
		{"nothing", []byte{16, 0, 31, 0, 0, 0}, illegalValue, nil, nil},
		{"many coils", []byte{15, 0, 0, 0, 2, 1, 3}, illegalFunction, nil, nil},
		{"too short", []byte{6, 0, 30}, illegalValue, nil, nil},
		{"too long", []byte{5, 0, 1, 0xFF, 0, 0}, illegalValue, nil, nil},
	} {
		if c.pdu != nil {
			answer, refused := d.answer(c.pdu, demoWorld(), start)
			if refused != c.refused || refused == 0 && !slices.Equal(answer, c.pdu[:5]) {
				t.Errorf("%s: % x, exception %d; want exception %d", c.name, answer, refused, c.refused)
			}
		}
		if c.read != nil {
			if answer, refused := d.answer(c.read, demoWorld(), start); refused != 0 || !slices.Equal(answer, c.want) {
				t.Errorf("%s: reads back % x, exception %d; want % x", c.name, answer, refused, c.want)
			}
		}
	}
}

// Points that share a register each keep to their own bits.
func TestSharedRegister(t *testing.T) {
	model := config.Device{Name: "device-001", Model: &config.Profile{Kind: config.Contact, Points: []config.Point{
		{Name: "mode", Function: config.HoldingRegister, Type: config.U16, Bits: config.Bits{Low: 4, Width: 4},
			Codes: []config.Code{{Value: 9}}},
		{Name: "running", Function: config.HoldingRegister, Type: config.Bool, Bits: config.Bits{Low: 0, Width: 1}},
		{Name: "healthy", Function: config.HoldingRegister, Type: config.Bool, Bits: config.Bits{Low: 15, Width: 1}, Invert: true},
	}}}
	answer, refused := unit(model).answer(request(3, 0, 1), demoWorld(), start)
	if want := []byte{3, 2, 0x00, 0x91}; refused != 0 || !slices.Equal(answer, want) {
		t.Errorf("% x, exception %d; want % x", answer, refused, want)
	}
}

// A value its registers cannot hold must not pass for a reading.
func TestValueThatDoesNotFitFailsTheDevice(t *testing.T) {
	profile := &config.Profile{Kind: config.Bin, Points: []config.Point{{Name: "deposits", Function: config.HoldingRegister, Type: "u9"}}}
	d := unit(config.Device{Name: "bin-001", Model: profile})
	if _, refused := d.answer(request(3, 0, 1), demoWorld(), start); refused != deviceFailure {
		t.Errorf("exception %d, want %d", refused, deviceFailure)
	}
}

func FuzzSlave(f *testing.F) {
	f.Add(request(3, 0, 8))
	f.Add(request(1, 9, 1))
	f.Add([]byte{0x2B})
	f.Add([]byte{16, 0, 31, 0, 2, 4, 0, 2, 0, 1})
	f.Add([]byte{5, 0, 1, 0xFF, 0})
	writable := unit(limited(config.ModbusLimits{}))
	units := newSlave(Demo(testProfiles(), "", "", "")[1])
	bins := newSlave(Demo(testProfiles(), "", "", "")[0])
	f.Fuzz(func(t *testing.T, pdu []byte) {
		if len(pdu) == 0 {
			return
		}
		for _, d := range []*device{units.devices[11], units.devices[21], bins.devices[1], writable} {
			answer, refused := d.answer(pdu, demoWorld(), start)
			if refused == 0 && pdu[0] < 5 && (len(answer) > maxPDU || int(answer[1]) != len(answer)-2) {
				t.Errorf("read(% x) = % x", pdu, answer)
			}
		}
	})
}
