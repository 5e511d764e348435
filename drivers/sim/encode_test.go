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
