package sim

import (
	"cmp"
	"context"
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

// slave is one bus seen from its devices' side.
type slave struct {
	devices map[byte]*device // by unit id
	line    chan struct{}    // holds a token while a request and its answer are on the serial line, where there is one
}

// seize waits for the serial line; release gives it back. It fails when ctx ends first.
func (s *slave) seize(ctx context.Context) (release func(), err error) {
	select {
	case s.line <- struct{}{}:
		return func() { <-s.line }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// device is one Modbus slave: its points, and what can be written to it, as areas that can be read.
type device struct {
	config.Device
	areas   map[config.Function][]area
	written *cells
}

// area is a run of addresses [start, end) that a device answers for, holes it lets through included.
type area struct {
	start, end int
	whole      bool // it answers for all of it only
	points     []config.Point
}

// holds says whether a request may ask for [start, end).
func (a area) holds(start, end int) bool {
	if a.whole {
		return a.start == start && a.end == end
	}
	return a.start <= start && end <= a.end
}

func newSlave(bus config.Bus) *slave {
	s := &slave{devices: map[byte]*device{}, line: make(chan struct{}, 1)}
	for _, d := range bus.Devices {
		s.devices[byte(d.Unit)] = &device{Device: d, areas: areas(d.Model), written: newCells(d.Model)}
	}
	return s
}

// areas are what a model answers for: its points and what can be written to it, in blocks and with holes as its limits
// say, from even address to even address where it takes no others.
func areas(model *config.Profile) map[config.Function][]area {
	limits := model.Modbus
	all := map[config.Function][]area{}
	for _, b := range limits.Blocks {
		all[b.Function] = append(all[b.Function], area{start: b.Address, end: b.Address + b.Count, whole: true})
	}
	single := map[config.Function][]area{} // one point or write each
	add := func(function config.Function, start, size int, points ...config.Point) {
		end := start + size
		for i, block := range all[function] {
			if block.start <= start && end <= block.end {
				all[function][i].points = append(block.points, points...)
				return
			}
		}
		if limits.EvenOnly && !isBit(function) {
			start, end = start-start%2, end+end%2
		}
		single[function] = append(single[function], area{start, end, limits.OneValue, points})
	}
	for _, p := range model.Points {
		add(p.Function, p.Address, width(p), p)
	}
	for _, w := range model.Writes {
		add(w.Function, w.Address, max(1, w.Type.Registers()))
	}
	for function, list := range single {
		slices.SortStableFunc(list, func(a, b area) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end)) })
		blocks := all[function]
		joinable := func(before, a area) bool {
			if limits.OneValue {
				return before.start == a.start && before.end == a.end
			}
			return a.start-before.end <= limits.MaxHole && !slices.ContainsFunc(blocks, func(block area) bool {
				return before.end <= block.start && block.end <= a.start
			})
		}
		for i, a := range list {
			if last := len(all[function]) - 1; i > 0 && joinable(all[function][last], a) {
				joined := &all[function][last]
				joined.end = max(joined.end, a.end)
				joined.points = append(joined.points, a.points...)
				continue
			}
			all[function] = append(all[function], a)
		}
	}
	return all
}

func isBit(function config.Function) bool {
	return function == config.Coil || function == config.DiscreteInput
}

// width is the number of addresses a point takes.
func width(p config.Point) int { return max(1, p.Registers()) }

// answer answers a request PDU with what is true at the instant, or says why the device refuses.
func (d *device) answer(pdu []byte, world World, at time.Time) ([]byte, exception) {
	switch pdu[0] {
	case 5, 6, 16:
		return d.write(pdu)
	}
	return d.read(pdu, world, at)
}

func (d *device) read(pdu []byte, world World, at time.Time) ([]byte, exception) {
	limits := d.Model.Modbus
	limit := cmp.Or(min(limits.MaxRegisters, maxRegisters), maxRegisters)
	var function config.Function
	switch pdu[0] {
	case 1:
		function = config.Coil
	case 2:
		function = config.DiscreteInput
	case 3:
		function = config.HoldingRegister
	case 4:
		function = config.InputRegister
	default:
		return nil, illegalFunction
	}
	bits := isBit(function)
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
	i := slices.IndexFunc(list, func(a area) bool { return a.holds(start, start+count) })
	if i < 0 {
		return nil, illegalAddress
	}
	if bits {
		return append([]byte{pdu[0]}, d.bits(function, list[i].points, start, count, world, at)...), 0
	}
	data, refused := d.registers(function, list[i].points, start, count, world, at)
	return append([]byte{pdu[0]}, data...), refused
}

// bits is the byte count and the bits [start, start+count), the first in the lowest bit of the first byte.
func (d *device) bits(function config.Function, points []config.Point, start, count int, world World, at time.Time) []byte {
	data := make([]byte, 1+(count+7)/8)
	data[0] = byte(len(data) - 1)
	put := func(address int, on bool) {
		if i := address - start; i >= 0 && i < count {
			data[1+i/8] &^= 1 << (i % 8)
			if on {
				data[1+i/8] |= 1 << (i % 8)
			}
		}
	}
	for _, p := range points {
		put(p.Address, world.level(d.Device, p, at))
	}
	d.written.each(function, func(address int, v uint16) { put(address, v != 0) })
	return data
}

// registers is the byte count and the registers [start, start+count). A value that its registers cannot hold makes
// the device fail: that is a fault of the profile or of World, and must not pass for a reading.
func (d *device) registers(function config.Function, points []config.Point, start, count int, world World, at time.Time) ([]byte, exception) {
	values := make([]uint16, count)
	for _, p := range points {
		if p.Address >= start+count || p.Address+width(p) <= start {
			continue
		}
		own, err := world.registers(d.Device, p, at)
		if err != nil {
			return nil, deviceFailure
		}
		for k, v := range own {
			if i := p.Address + k - start; i >= 0 && i < count {
				values[i] |= v // points may share a register, each with bits of its own
			}
		}
	}
	d.written.each(function, func(address int, v uint16) {
		if i := address - start; i >= 0 && i < count {
			values[i] = v
		}
	})
	data := []byte{byte(2 * count)}
	for _, v := range values {
		data = binary.BigEndian.AppendUint16(data, v)
	}
	return data, 0
}
