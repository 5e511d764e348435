package sim

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"hubagent/config"
)

// exception is a Modbus exception code (Modbus application protocol V1.1b3, section 7).
type exception byte

const (
	illegalFunction exception = 1
	illegalAddress  exception = 2
	illegalValue    exception = 3
	deviceFailure   exception = 4
	noTarget        exception = 0x0B // gateway target device failed to respond
)

func (e exception) answer(function byte) []byte { return []byte{function | 0x80, byte(e)} }

// Limits of the protocol itself, for profiles that name none.
const (
	maxRegisters = 125
	maxBits      = 2000
)

// slave is one bus seen from its devices' side, by unit id.
type slave map[byte]device

// device is one Modbus slave: its points as areas that can be read.
type device struct {
	config.Device
	areas map[config.Function][]area
}

// area is a run of addresses [start, end) that a device answers for, holes it lets through included.
type area struct {
	start, end int
	points     []config.Point
}

func newSlave(bus config.Bus) slave {
	units := slave{}
	for _, d := range bus.Devices {
		units[byte(d.Unit)] = newDevice(d)
	}
	return units
}

func newDevice(d config.Device) device {
	points := slices.Clone(d.Model.Points)
	slices.SortStableFunc(points, func(a, b config.Point) int { return cmp.Compare(a.Address, b.Address) })
	areas := map[config.Function][]area{}
	for _, p := range points {
		list := areas[p.Function]
		if n := len(list); n > 0 && p.Address-list[n-1].end <= d.Model.Modbus.MaxHole {
			last := &list[n-1]
			last.end = max(last.end, p.Address+width(p))
			last.points = append(last.points, p)
			continue
		}
		areas[p.Function] = append(list, area{p.Address, p.Address + width(p), []config.Point{p}})
	}
	return device{d, areas}
}

// width is the number of addresses a point takes.
func width(p config.Point) int { return max(1, p.Type.Registers()) }

// read answers a request PDU with what is true at the instant, or says why the device refuses.
func (d device) read(pdu []byte, world World, at time.Time) ([]byte, exception) {
	limits := d.Model.Modbus
	bits, limit := false, cmp.Or(min(limits.MaxRegisters, maxRegisters), maxRegisters)
	var function config.Function
	switch pdu[0] {
	case 1:
		function, bits = config.Coil, true
	case 2:
		function, bits = config.DiscreteInput, true
	case 3:
		function = config.HoldingRegister
	case 4:
		function = config.InputRegister
	default:
		return nil, illegalFunction
	}
	if bits {
		limit = cmp.Or(min(limits.MaxBits, maxBits), maxBits)
	}
	if len(pdu) != 5 {
		return nil, illegalValue
	}
	start, count := int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
	if count < 1 || count > limit {
		return nil, illegalValue
	}
	if limits.EvenOnly && !bits {
		if start%2 != 0 {
			return nil, illegalAddress
		}
		if count%2 != 0 {
			return nil, illegalValue
		}
	}
	list := d.areas[function]
	i := slices.IndexFunc(list, func(a area) bool { return a.start <= start && start+count <= a.end })
	if i < 0 {
		return nil, illegalAddress
	}
	if bits {
		return append([]byte{pdu[0]}, d.bits(list[i].points, start, count, world, at)...), 0
	}
	data, refused := d.registers(list[i].points, start, count, world, at)
	return append([]byte{pdu[0]}, data...), refused
}

// bits is the byte count and the bits [start, start+count), the first in the lowest bit of the first byte.
func (d device) bits(points []config.Point, start, count int, world World, at time.Time) []byte {
	data := make([]byte, 1+(count+7)/8)
	data[0] = byte(len(data) - 1)
	for _, p := range points {
		if i := p.Address - start; i >= 0 && i < count && world.level(d.Device, p, at) {
			data[1+i/8] |= 1 << (i % 8)
		}
	}
	return data
}

// registers is the byte count and the registers [start, start+count). A value that its registers cannot hold makes
// the device fail: that is a fault of the profile or of World, and must not pass for a reading.
func (d device) registers(points []config.Point, start, count int, world World, at time.Time) ([]byte, exception) {
	data := make([]byte, 1+2*count)
	data[0] = byte(2 * count)
	for _, p := range points {
		if p.Address >= start+count || p.Address+width(p) <= start {
			continue
		}
		values, err := encode(p, world.Value(d.Device, p, at))
		if err != nil {
			return nil, deviceFailure
		}
		for k, v := range values {
			if i := p.Address + k - start; i >= 0 && i < count {
				binary.BigEndian.PutUint16(data[1+2*i:], v)
			}
		}
	}
	return data, 0
}
