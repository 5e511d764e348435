package modbus

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"hubagent/config"
	"hubagent/drivers"
)

// decode makes a reading of a point's registers. raw has exactly the bytes of the point's registers, as they came, each
// register high byte first. Values that the profile names as missing, floats that are no number and decimal digits
// above 9 are Missing; a code that the profile does not know, and a count that its counter cannot show, are Suspect.
func decode(p config.Point, raw []byte) drivers.Reading {
	r := drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Good}
	if p.Type == config.ASCII {
		text, ok := characters(arrange(raw, p.Order))
		if !ok {
			return missing(r, "encoding")
		}
		r.Value = drivers.Text(text)
		return r
	}
	bits := word(arrange(raw, p.Order))
	if p.Type == config.Bool {
		return decodeBit(p, bits>>p.Bits.Low&1 == 1)
	}
	if slices.ContainsFunc(p.Missing, func(m int64) bool { return truncate(uint64(m), p.Type) == bits }) {
		return missing(r, "sentinel")
	}
	t := p.Type
	if p.Bits.Width > 0 {
		bits = bits >> p.Bits.Low & (1<<p.Bits.Width - 1)
	}
	if t == config.BCD16 || t == config.BCD32 || t == config.BCD64 {
		number, ok := decimalDigits(bits)
		if !ok {
			return missing(r, "digits")
		}
		bits, t = number, config.U64
	}
	if p.Modulus > 0 && bits >= uint64(p.Modulus) {
		r.Quality, r.Why = drivers.Suspect, "modulus"
	}
	if len(p.Codes) > 0 && !slices.ContainsFunc(p.Codes, func(c config.Code) bool { return c.Value == whole(t, bits) }) {
		r.Quality, r.Why = drivers.Suspect, "code"
	}
	r.Value = value(t, p.Scale, p.Offset, bits)
	if _, finite := r.Value.Float64(); !finite {
		return missing(r, "nan")
	}
	return r
}

// missing is a reading that could be asked for and has no value.
func missing(r drivers.Reading, why string) drivers.Reading {
	r.Value, r.Quality, r.Why = drivers.Value{}, drivers.Missing, why
	return r
}

// scaleBy multiplies the readings whose points are scaled by other points of the device. A point whose scale could not
// be read has no value either; one whose scale is doubtful is doubtful.
func scaleBy(p *config.Profile, readings []drivers.Reading) {
	for i, point := range p.Points {
		name := point.ScalePower + point.ScaleFactor // one of the two at most
		if name == "" || readings[i].Quality == drivers.Missing {
			continue
		}
		k := slices.IndexFunc(p.Points, func(p config.Point) bool { return p.Name == name })
		by := readings[k]
		factor, ok := by.Value.Float64()
		f, _ := readings[i].Value.Float64()
		switch {
		case !ok:
			readings[i] = missing(readings[i], "scale")
			continue
		case point.ScalePower != "" && (factor < -10 || factor > 10): // SunSpec Information Model, sunssf: -10 to 10
			readings[i] = missing(readings[i], "scale")
			continue
		case point.ScalePower != "":
			f = scaled(f, config.Decimal{Mantissa: 1, Exponent: int(factor)})
		default:
			f *= factor
		}
		readings[i].Value = drivers.Float64(f)
		if by.Quality != drivers.Good && readings[i].Quality == drivers.Good {
			readings[i].Quality, readings[i].Why = by.Quality, "scale"
		}
	}
}

// decodeBit makes a reading of a coil, a discrete input or a bit of a register.
func decodeBit(p config.Point, on bool) drivers.Reading {
	return drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Good, Value: drivers.Bool(on != p.Invert)}
}

// characters is the text up to the first NUL, without blanks around it. Bytes that are no printable ASCII character
// make it none: a text that is not one must not pass for a serial number.
func characters(b []byte) (string, bool) {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	for _, c := range b {
		if c < ' ' || c > '~' {
			return "", false
		}
	}
	return strings.TrimSpace(string(b)), true
}

// decimalDigits reads four bits as one decimal digit each.
func decimalDigits(bits uint64) (number uint64, ok bool) {
	for shift := 60; shift >= 0; shift -= 4 {
		digit := bits >> shift & 0xF
		if digit > 9 {
			return 0, false
		}
		number = 10*number + digit
	}
	return number, true
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

// whole is a whole number of type t, sign extended.
func whole(t config.Type, bits uint64) int64 {
	switch t {
	case config.S16, config.S32, config.S64:
		unused := 64 - 16*t.Registers()
		return int64(bits<<unused) >> unused
	}
	return int64(bits)
}

func value(t config.Type, scale, offset config.Decimal, bits uint64) drivers.Value {
	plain := (scale == config.Decimal{} || scale == config.Decimal{Mantissa: 1}) && offset == config.Decimal{}
	switch t {
	case config.F32:
		f := math.Float32frombits(uint32(bits))
		if plain {
			return drivers.Float32(f)
		}
		return drivers.Float32(float32(linear(float64(f), scale, offset)))
	case config.F64:
		f := math.Float64frombits(bits)
		if plain {
			return drivers.Float64(f)
		}
		return drivers.Float64(linear(f, scale, offset))
	case config.S16, config.S32, config.S64:
		if plain {
			return drivers.Int(whole(t, bits))
		}
		return drivers.Float64(linear(float64(whole(t, bits)), scale, offset))
	}
	if plain {
		return drivers.Uint(bits)
	}
	return drivers.Float64(linear(float64(bits), scale, offset))
}

// linear is f x scale + offset. Both are brought to the smaller power of ten first, so that a raw 655 with scale 0.1 and
// offset -40 is exactly 25.5.
func linear(f float64, scale, offset config.Decimal) float64 {
	if scale == (config.Decimal{}) {
		scale.Mantissa = 1
	}
	if offset.Mantissa == 0 {
		return scaled(f, scale)
	}
	exponent := min(scale.Exponent, offset.Exponent)
	f = f*float64(scale.Mantissa)*math.Pow10(scale.Exponent-exponent) + float64(offset.Mantissa)*math.Pow10(offset.Exponent-exponent)
	return scaled(f, config.Decimal{Mantissa: 1, Exponent: exponent})
}

// scaled multiplies by a decimal with one rounding for the power of ten: dividing by 100 gives the float64 nearest to
// the decimal, multiplying by 0.01 does not.
func scaled(f float64, s config.Decimal) float64 {
	if f == 0 {
		return 0 // a negative scale would make -0 of it
	}
	if s.Mantissa == 0 {
		s.Mantissa = 1
	}
	f *= float64(s.Mantissa)
	if s.Exponent < 0 {
		return f / math.Pow10(-s.Exponent)
	}
	return f * math.Pow10(s.Exponent)
}
