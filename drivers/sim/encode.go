package sim

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"hubagent/config"
)

// This is written from the profiles' own description and shares nothing with the decoder of package modbus, so that
// each is a check of the other.

// registers are what a point's registers hold at t. Only the bits that are the point's own are set.
func (w World) registers(d config.Device, p config.Point, t time.Time) ([]uint16, error) {
	if p.Type == config.ASCII {
		return encodeText(p, w.Text(d, p)), nil
	}
	return encode(p, w.Value(d, p, t), w.factor(d, p))
}

// encode lays a value out in a point's registers, rounded to what they resolve. factor is what the value is multiplied
// by according to another register, 1 for none. It fails for a value that is none of theirs, and for a type that is
// none. A counter instead begins again at 0, as a real one does.
func encode(p config.Point, v, factor float64) ([]uint16, error) {
	raw := unscale(p, v, factor)
	var word uint64
	switch p.Type {
	case config.Bool:
		if (v != 0) != p.Invert {
			word = 1
		}
	case config.F32:
		word = uint64(math.Float32bits(float32(raw)))
	case config.F64:
		word = math.Float64bits(raw)
	default:
		if p.Type.Registers() == 0 {
			return nil, fmt.Errorf("cannot encode %s: no number has the type %q", p.Name, p.Type)
		}
		low, end := rawRange(p)
		raw = math.Round(raw)
		if p.Counter {
			raw = math.Mod(raw, end)
		}
		if !(raw >= low && raw < end) {
			return nil, fmt.Errorf("cannot encode %v as %s of %s", v, p.Type, p.Name)
		}
		switch {
		case strings.HasPrefix(string(p.Type), "bcd"):
			word = digits(uint64(raw))
		case low < 0:
			word = uint64(int64(raw))
		default:
			word = uint64(raw)
		}
	}
	registers := make([]uint16, width(p))
	word <<= p.Bits.Low
	for i := range registers {
		registers[i] = uint16(word >> (16 * (len(registers) - 1 - i)))
	}
	return arrange(registers, p.Order), nil
}

// encodeText lays a text out in a point's registers, two characters each, and fills up with NUL.
func encodeText(p config.Point, text string) []uint16 {
	b := make([]byte, 2*p.Length)
	copy(b, text)
	registers := make([]uint16, p.Length)
	for i := range registers {
		registers[i] = uint16(b[2*i])<<8 | uint16(b[2*i+1])
	}
	return arrange(registers, p.Order)
}

// arrange brings registers from high word first into an order, and back, in place.
func arrange(registers []uint16, order config.Order) []uint16 {
	if order == config.CDAB || order == config.DCBA {
		slices.Reverse(registers)
	}
	if order == config.BADC || order == config.DCBA {
		for i, r := range registers {
			registers[i] = bits.ReverseBytes16(r)
		}
	}
	return registers
}

// digits writes a number as decimal digits of four bits each.
func digits(n uint64) (word uint64) {
	for shift := 0; n > 0; shift += 4 {
		word |= n % 10 << shift
		n /= 10
	}
	return word
}

// unscale is a value as its registers count it, not yet rounded.
func unscale(p config.Point, v, factor float64) float64 {
	raw := v/factor - p.Offset.Float64()
	m, e := float64(p.Scale.Mantissa), p.Scale.Exponent
	switch {
	case m == 0:
		return raw
	case e < 0:
		return raw * math.Pow10(-e) / m // not by dividing by a fraction that has no exact binary form
	}
	return raw / (m * math.Pow10(e))
}

// rawRange are the whole numbers from low to below end that a point's registers, or the bits of them that are its own,
// can hold; of a counter those that it counts. It is all numbers for floats.
func rawRange(p config.Point) (low, end float64) {
	switch size := p.Type.Registers(); {
	case p.Counter && p.Modulus > 0:
		return 0, float64(p.Modulus)
	case p.Type == config.Bool:
		return 0, 2
	case p.Type == config.F32:
		return -math.MaxFloat32, math.MaxFloat32
	case size == 0 || p.Type == config.F64:
		return -math.MaxFloat64, math.MaxFloat64
	case p.Bits.Width > 0:
		return 0, math.Ldexp(1, p.Bits.Width)
	case strings.HasPrefix(string(p.Type), "bcd"):
		return 0, math.Pow10(4 * size)
	case strings.HasPrefix(string(p.Type), "s"):
		return -math.Ldexp(1, 16*size-1), math.Ldexp(1, 16*size-1)
	default:
		return 0, math.Ldexp(1, 16*size)
	}
}
