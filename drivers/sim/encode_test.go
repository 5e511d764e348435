package sim

import (
	"slices"
	"testing"

	"hubagent/config"
)

func TestEncode(t *testing.T) {
	hundredth := config.Decimal{Mantissa: 1, Exponent: -2}
	for _, c := range []struct {
		typ   config.Type
		order config.Order
		scale config.Decimal
		v     float64
		want  []uint16 // nil: does not fit
	}{
		{config.U16, config.ABCD, hundredth, 61.56, []uint16{6156}},
		{config.U16, config.ABCD, config.Decimal{Mantissa: 5, Exponent: 1}, 150, []uint16{3}},
		{config.U16, config.ABCD, config.Decimal{}, 65536, nil},
		{config.U16, config.ABCD, config.Decimal{}, -1, nil},
		{config.S16, config.ABCD, hundredth, -0.01, []uint16{0xFFFF}},
		{config.S16, config.ABCD, config.Decimal{}, 32768, nil},
		{config.U32, config.ABCD, config.Decimal{}, 0x0A0B0C0D, []uint16{0x0A0B, 0x0C0D}},
		{config.U32, config.CDAB, config.Decimal{}, 0x0A0B0C0D, []uint16{0x0C0D, 0x0A0B}},
		{config.U32, config.BADC, config.Decimal{}, 0x0A0B0C0D, []uint16{0x0B0A, 0x0D0C}},
		{config.U32, config.DCBA, config.Decimal{}, 0x0A0B0C0D, []uint16{0x0D0C, 0x0B0A}},
		{config.S32, config.ABCD, config.Decimal{}, -2, []uint16{0xFFFF, 0xFFFE}},
		{config.U64, config.CDAB, config.Decimal{}, 1 << 33, []uint16{0, 0, 2, 0}},
		{config.S64, config.ABCD, config.Decimal{}, -1, []uint16{0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF}},
		{config.F32, config.ABCD, config.Decimal{}, 230.2, []uint16{0x4366, 0x3333}},
		{config.F64, config.ABCD, config.Decimal{}, 1, []uint16{0x3FF0, 0, 0, 0}},
		{config.Bool, config.ABCD, config.Decimal{}, 1, []uint16{1}},
		{"u9", config.ABCD, config.Decimal{}, 1, nil},
	} {
		got, err := encode(config.Point{Name: "point", Type: c.typ, Order: c.order, Scale: c.scale}, c.v, 1)
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("encode(%s %s, %v) = %04x, %v; want %04x", c.typ, c.order, c.v, got, err, c.want)
		}
	}
}

// What profiles can say of a point beyond type, order and scale.
func TestEncodePoint(t *testing.T) {
	tenth := config.Decimal{Mantissa: 1, Exponent: -1}
	for _, c := range []struct {
		name   string
		p      config.Point
		v      float64
		factor float64
		want   []uint16 // nil: does not fit
	}{
		{"four digits", config.Point{Type: config.BCD16}, 1234, 1, []uint16{0x1234}},
		{"most of four digits", config.Point{Type: config.BCD16}, 9999, 1, []uint16{0x9999}},
		{"five digits", config.Point{Type: config.BCD16}, 10000, 1, nil},
		{"eight digits, low word first", config.Point{Type: config.BCD32, Order: config.CDAB, Scale: tenth}, 1234567.8, 1, []uint16{0x5678, 0x1234}},
		{"sixteen digits", config.Point{Type: config.BCD64}, 1234567890123456, 1, []uint16{0x1234, 0x5678, 0x9012, 0x3456}},
		{"negative digits", config.Point{Type: config.BCD16}, -1, 1, nil},
		{"offset", config.Point{Type: config.U16, Scale: tenth, Offset: config.Decimal{Mantissa: -40}}, 25.5, 1, []uint16{655}},
		{"field of bits", config.Point{Type: config.U16, Bits: config.Bits{Low: 4, Width: 4}}, 5, 1, []uint16{0x0050}},
		{"too much for its bits", config.Point{Type: config.U16, Bits: config.Bits{Low: 4, Width: 4}}, 16, 1, nil},
		{"bits over both registers", config.Point{Type: config.U32, Bits: config.Bits{Low: 12, Width: 8}, Order: config.CDAB}, 0xA5, 1, []uint16{0x5000, 0x000A}},
		{"bit of a register", config.Point{Function: config.HoldingRegister, Type: config.Bool, Bits: config.Bits{Low: 3, Width: 1}}, 1, 1, []uint16{8}},
		{"inverted bit", config.Point{Function: config.HoldingRegister, Type: config.Bool, Bits: config.Bits{Low: 3, Width: 1}, Invert: true}, 1, 1, []uint16{0}},
		{"power of ten", config.Point{Type: config.S16}, 23.05, 0.01, []uint16{2305}},
		{"ratio", config.Point{Type: config.U16, Scale: tenth}, 84, 40, []uint16{21}},
		{"counter before its end", config.Point{Type: config.U32, Counter: true, Modulus: 1000000, Scale: tenth}, 99999.9, 1, []uint16{0x000F, 0x423F}},
		{"counter at its end", config.Point{Type: config.U32, Counter: true, Modulus: 1000000, Scale: tenth}, 100000, 1, []uint16{0, 0}},
		{"counter rounded up to its end", config.Point{Type: config.U32, Counter: true, Modulus: 1000000, Scale: tenth}, 99999.97, 1, []uint16{0, 0}},
		{"counter beyond its register", config.Point{Type: config.U16, Counter: true}, 65537, 1, []uint16{1}},
		{"counter beyond its digits", config.Point{Type: config.BCD16, Counter: true}, 10003, 1, []uint16{3}},
		{"no number", config.Point{Type: config.ASCII, Length: 1}, 1, 1, nil},
	} {
		got, err := encode(c.p, c.v, c.factor)
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%s: encode(%v) = %04x, %v; want %04x", c.name, c.v, got, err, c.want)
		}
	}
}

func TestEncodeText(t *testing.T) {
	for _, c := range []struct {
		order config.Order
		text  string
		want  []uint16
	}{
		{config.ABCD, "SDM1", []uint16{0x5344, 0x4D31, 0}},
		{config.BADC, "SDM", []uint16{0x4453, 0x004D, 0}},
		{config.ABCD, "longer than three", []uint16{0x6C6F, 0x6E67, 0x6572}},
	} {
		if got := encodeText(config.Point{Type: config.ASCII, Length: 3, Order: c.order}, c.text); !slices.Equal(got, c.want) {
			t.Errorf("%s %q = %04x, want %04x", c.order, c.text, got, c.want)
		}
	}
}
