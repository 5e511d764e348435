package sim

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"hubagent/config"
)

// encode lays a value out in a point's registers, rounded to what they resolve. It fails for a value that is none of
// theirs, and for a type or order that is none.
func encode(p config.Point, v float64) ([]uint16, error) {
	raw := v
	if m, e := float64(p.Scale.Mantissa), p.Scale.Exponent; m != 0 && e < 0 {
		raw = v * math.Pow10(-e) / m // not by dividing by a fraction that has no exact binary form
	} else if m != 0 {
		raw = v / (m * math.Pow10(e))
	}
	size := width(p)
	limit := math.Ldexp(1, 16*size) // 2^16, 2^32, 2^64
	var word uint64
	switch p.Type {
	case config.F32:
		word = uint64(math.Float32bits(float32(raw)))
	case config.F64:
		word = math.Float64bits(raw)
	case config.Bool, config.U16, config.U32, config.U64:
		if raw = math.Round(raw); !(raw >= 0 && raw < limit) {
			return nil, fmt.Errorf("cannot encode %v as %s of %s", v, p.Type, p.Name)
		}
		word = uint64(raw)
	case config.S16, config.S32, config.S64:
		if raw = math.Round(raw); !(raw >= -limit/2 && raw < limit/2) {
			return nil, fmt.Errorf("cannot encode %v as %s of %s", v, p.Type, p.Name)
		}
		word = uint64(int64(raw))
	default:
		return nil, fmt.Errorf("cannot encode %s: no type %q", p.Name, p.Type)
	}
	registers := make([]uint16, size)
	for i := range registers {
		registers[i] = uint16(word >> (16 * (size - 1 - i)))
	}
	if p.Order == config.CDAB || p.Order == config.DCBA {
		slices.Reverse(registers)
	}
	if p.Order == config.BADC || p.Order == config.DCBA {
		for i, r := range registers {
			registers[i] = bits.ReverseBytes16(r)
		}
	}
	return registers, nil
}
