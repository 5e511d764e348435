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
	units := newSlave(Demo(testProfiles(), "", "", "")[1])
	bins := newSlave(Demo(testProfiles(), "", "", "")[0])
	f.Fuzz(func(t *testing.T, pdu []byte) {
		if len(pdu) == 0 {
			return
		}
		for _, d := range []*device{units.devices[11], units.devices[21], bins.devices[1]} {
			answer, refused := d.answer(pdu, demoWorld(), start)
			if refused == 0 && (len(answer) > maxPDU || int(answer[1]) != len(answer)-2) {
				t.Errorf("read(% x) = % x", pdu, answer)
			}
		}
	})
}
