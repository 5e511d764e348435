package modbus

import (
	"encoding/binary"
	"math"
	"slices"

	"hubagent/config"
	"hubagent/drivers"
)

// decode makes a reading of a point's registers. raw has exactly the bytes of the point's type, as they came, each
// register high byte first. Values that the profile names as missing, and floats that are no number, are Missing.
func decode(p config.Point, raw []byte) drivers.Reading {
	r := drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Good}
	bits := word(arrange(raw, p.Order))
	if slices.ContainsFunc(p.Missing, func(m int64) bool { return truncate(uint64(m), p.Type) == bits }) {
		r.Quality, r.Why = drivers.Missing, "sentinel"
		return r
	}
	r.Value = value(p.Type, p.Scale, bits)
	if _, finite := r.Value.Float64(); !finite {
		r.Value, r.Quality, r.Why = drivers.Value{}, drivers.Missing, "nan"
	}
	return r
}

// decodeBit makes a reading of a coil or discrete input.
func decodeBit(p config.Point, on bool) drivers.Reading {
	return drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Good, Value: drivers.Bool(on != p.Invert)}
}

// arrange returns the bytes most significant first.
func arrange(raw []byte, order config.Order) []byte {
	b := slices.Clone(raw)
	if order == config.DCBA || order == config.BADC { // bytes swapped in each register
		for i := 0; i+1 < len(b); i += 2 {
			b[i], b[i+1] = b[i+1], b[i]
		}
	}
	if order == config.DCBA || order == config.CDAB { // low word first
		for i, j := 0, len(b)-2; i < j; i, j = i+2, j-2 {
			b[i], b[i+1], b[j], b[j+1] = b[j], b[j+1], b[i], b[i+1]
		}
	}
	return b
}

// word reads 2, 4 or 8 bytes as one unsigned number.
func word(b []byte) uint64 {
	var whole [8]byte
	copy(whole[8-len(b):], b)
	return binary.BigEndian.Uint64(whole[:])
}

// truncate keeps the bits that a type has.
func truncate(bits uint64, t config.Type) uint64 {
	return bits & (math.MaxUint64 >> (64 - 16*t.Registers()))
}

func value(t config.Type, scale config.Decimal, bits uint64) drivers.Value {
	plain := scale == config.Decimal{} || scale == config.Decimal{Mantissa: 1}
	switch t {
	case config.F32:
		f := math.Float32frombits(uint32(bits))
		if plain {
			return drivers.Float32(f)
		}
		return drivers.Float32(float32(scaled(float64(f), scale)))
	case config.F64:
		f := math.Float64frombits(bits)
		if plain {
			return drivers.Float64(f)
		}
		return drivers.Float64(scaled(f, scale))
	case config.S16, config.S32, config.S64:
		unused := 64 - 16*t.Registers()
		n := int64(bits<<unused) >> unused // sign extended
		if plain {
			return drivers.Int(n)
		}
		return drivers.Float64(scaled(float64(n), scale))
	}
	if plain {
		return drivers.Uint(bits)
	}
	return drivers.Float64(scaled(float64(bits), scale))
}

// scaled multiplies by a decimal scale with one rounding for the power of ten: dividing by 100 gives the float64
// nearest to the decimal, multiplying by 0.01 does not.
func scaled(f float64, s config.Decimal) float64 {
	if f == 0 {
		return 0 // a negative scale would make -0 of it
	}
	f *= float64(s.Mantissa)
	if s.Exponent < 0 {
		return f / math.Pow10(-s.Exponent)
	}
	return f * math.Pow10(s.Exponent)
}
