package sim

import (
	"encoding/binary"
	"slices"
	"sync"

	"hubagent/config"
)

// cells are the registers and bits of a device that hold what was last written to them.
type cells struct {
	mu     sync.Mutex
	values map[cell]uint16
}

type cell struct {
	function config.Function
	address  int
}

// newCells gives what can be written but is no point a value to begin with: 0, or the first that is allowed where 0 is
// not. A point shows what World says until it is written.
func newCells(model *config.Profile) *cells {
	c := &cells{values: map[cell]uint16{}}
	for _, w := range model.Writes {
		if !slices.ContainsFunc(model.Points, func(p config.Point) bool {
			return p.Function == w.Function && p.Address < w.Address+size(w) && w.Address < p.Address+width(p)
		}) && len(w.Allowed) > 0 && !slices.Contains(w.Allowed, 0) {
			c.put(w, written(w, w.Allowed[0]))
		}
	}
	return c
}

// each calls do for every cell of a table that has a value.
func (c *cells) each(function config.Function, do func(address int, v uint16)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, v := range c.values {
		if at.function == function {
			do(at.address, v)
		}
	}
}

func (c *cells) put(w config.Write, values []uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, v := range values {
		c.values[cell{w.Function, w.Address + i}] = v
	}
}

// size is the number of addresses a write takes.
func size(w config.Write) int { return max(1, w.Type.Registers()) }

// written is how a raw value lies in the registers of a write, or the one bit; nil if it does not fit.
func written(w config.Write, raw int64) []uint16 {
	values, err := encode(config.Point{Name: w.Name, Type: w.Type, Order: w.Order}, float64(raw), 1)
	if err != nil {
		return nil
	}
	return values
}

// maxWritten is the most registers a request writes (Modbus application protocol V1.1b3, 6.12).
const maxWritten = 123

// write takes a request of function 5 (write single coil), 6 (write single register) or 16 (write multiple registers)
// and confirms it, or says why the device refuses. Only what the profile lists under writes can be written, and in
// whole.
func (d *device) write(pdu []byte) ([]byte, exception) {
	if len(pdu) < 5 {
		return nil, illegalValue
	}
	function, address, values := config.HoldingRegister, int(binary.BigEndian.Uint16(pdu[1:])), []uint16{binary.BigEndian.Uint16(pdu[3:])}
	switch pdu[0] {
	case 5:
		if function = config.Coil; values[0] == 0xFF00 {
			values[0] = 1
		} else if values[0] != 0 {
			return nil, illegalValue
		}
	case 16:
		count := int(values[0])
		if len(pdu) < 6 || count < 1 || count > maxWritten || int(pdu[5]) != 2*count || len(pdu) != 6+2*count {
			return nil, illegalValue
		}
		values = make([]uint16, count)
		for i := range values {
			values[i] = binary.BigEndian.Uint16(pdu[6+2*i:])
		}
	}
	if pdu[0] != 16 && len(pdu) != 5 {
		return nil, illegalValue
	}
	i := slices.IndexFunc(d.Model.Writes, func(w config.Write) bool {
		return w.Function == function && w.Address == address && size(w) == len(values)
	})
	if i < 0 {
		return nil, illegalAddress
	}
	w := d.Model.Writes[i]
	if !slices.ContainsFunc(w.Allowed, func(raw int64) bool { return slices.Equal(written(w, raw), values) }) {
		return nil, illegalValue
	}
	d.written.put(w, values)
	return pdu[:5:5], 0
}
