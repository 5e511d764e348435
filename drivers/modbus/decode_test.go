package modbus

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"hubagent/config"
	"hubagent/drivers"
)

func raw(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// Each type in each order, as bytes on the wire.
func TestDecodeTypesAndOrders(t *testing.T) {
	for _, c := range []struct {
		kind                   config.Type
		abcd, cdab, badc, dcba string
		want                   string
	}{
		{config.U16, "12 34", "12 34", "34 12", "34 12", "4660"},
		{config.S16, "FF FE", "FF FE", "FE FF", "FE FF", "-2"},
		{config.U32, "12 34 56 78", "56 78 12 34", "34 12 78 56", "78 56 34 12", "305419896"},
		{config.S32, "FF FF FF 85", "FF 85 FF FF", "FF FF 85 FF", "85 FF FF FF", "-123"},
		{config.F32, "43 66 33 33", "33 33 43 66", "66 43 33 33", "33 33 66 43", "230.2"},
		{config.U64, "00 20 00 00 00 00 00 01", "00 01 00 00 00 00 00 20", "20 00 00 00 00 00 01 00", "01 00 00 00 00 00 20 00", "9007199254740993"},
		{config.S64, "80 00 00 00 00 00 00 01", "00 01 00 00 00 00 80 00", "00 80 00 00 00 00 01 00", "01 00 00 00 00 00 00 80", "-9223372036854775807"},
		{config.F64, "40 4E C7 AE 14 7A E1 48", "E1 48 14 7A C7 AE 40 4E", "4E 40 AE C7 7A 14 48 E1", "48 E1 7A 14 AE C7 4E 40", "61.56"},
	} {
		for order, text := range map[config.Order]string{
			config.ABCD: c.abcd, config.CDAB: c.cdab, config.BADC: c.badc, config.DCBA: c.dcba, "": c.abcd,
		} {
			p := config.Point{Name: "p", Type: c.kind, Order: order, Unit: "V"}
			before := raw(text)
			r := decode(p, before)
			want := drivers.Reading{Point: "p", Unit: "V", Quality: drivers.Good, Value: r.Value}
			if r != want || r.Value.String() != c.want {
				t.Errorf("%s %s %s: %+v with value %s, want %s", c.kind, order, text, r, r.Value, c.want)
			}
			if string(before) != string(raw(text)) {
				t.Errorf("%s %s: decode changed the answer", c.kind, order)
			}
		}
	}
}

func TestDecodeScales(t *testing.T) {
	for _, c := range []struct {
		kind  config.Type
		raw   string
		scale string
		want  string
	}{
		{config.U16, "18 0C", "0.01", "61.56"}, // raw 6156; 6156 x 0.01 in float64 is 61.56 only by luck, 0.07 x 100 is not
		{config.U16, "00 07", "0.01", "0.07"},
		{config.U16, "00 1D", "0.01", "0.29"}, // 29 x 0.01 is 0.29000000000000004
		{config.U16, "08 FF", "0.1", "230.3"},
		{config.S16, "FF 9C", "0.001", "-0.1"},
		{config.S16, "00 00", "-1", "0"}, // a reversed transformer: not -0
		{config.S16, "00 05", "-0.5", "-2.5"},
		{config.U16, "00 07", "10", "70"},
		{config.U16, "00 07", "1", "7"},
		{config.U32, "FF FF FF FF", "0.001", "4294967.295"},
		{config.S32, "80 00 00 00", "0.001", "-2147483.648"},
		{config.U64, "00 00 00 E8 D4 A5 10 01", "0.001", "1000000000.001"},
		{config.F32, "43 66 33 33", "0.001", "0.2302"}, // float32 stays float32: no digits that were not measured
		{config.F32, "43 66 33 33", "1000", "230200"},
		{config.F64, "40 4E C7 AE 14 7A E1 48", "10", "615.6"},
	} {
		scale, err := config.ParseDecimal(c.scale)
		if err != nil {
			t.Fatal(err)
		}
		r := decode(config.Point{Type: c.kind, Scale: scale}, raw(c.raw))
		if got := r.Value.String(); got != c.want || r.Quality != drivers.Good {
			t.Errorf("%s %s x %s: %s, want %s", c.kind, c.raw, c.scale, got, c.want)
		}
	}
}

func TestDecodeMissing(t *testing.T) {
	const u64Max = -1 // 0xFFFFFFFFFFFFFFFF, as config holds it
	for _, c := range []struct {
		name    string
		kind    config.Type
		order   config.Order
		raw     string
		missing []int64
		why     string
	}{
		{"no value named", config.U16, "", "FF FF", nil, ""},
		{"u16", config.U16, "", "FF FF", []int64{0xFFFF}, "sentinel"},
		{"its neighbour", config.U16, "", "FF FE", []int64{0xFFFF}, ""},
		{"s16, as an unsigned number", config.S16, "", "80 00", []int64{0x7FFF, 0x8000}, "sentinel"},
		{"u32", config.U32, "", "7F FF FF FF", []int64{0x7FFFFFFF}, "sentinel"},
		{"u32 in another order", config.U32, config.CDAB, "FF FF 7F FF", []int64{0x7FFFFFFF}, "sentinel"},
		{"the low word is no sentinel of u32", config.U32, "", "00 00 FF FF", []int64{0xFFFFFFFF}, ""},
		{"u64", config.U64, "", "FF FF FF FF FF FF FF FF", []int64{u64Max}, "sentinel"},
		{"s64", config.S64, "", "80 00 00 00 00 00 00 00", []int64{math.MinInt64}, "sentinel"},
		{"zero is a value", config.U16, "", "00 00", []int64{0xFFFF}, ""},
		{"zero may be named", config.U16, "", "00 00", []int64{0}, "sentinel"},
		{"f32 by its bits", config.F32, "", "FF 80 00 00", []int64{0xFF800000}, "sentinel"},
		{"f32 NaN", config.F32, "", "7F C0 00 00", nil, "nan"},
		{"f32 signalling NaN", config.F32, "", "7F 80 00 01", nil, "nan"},
		{"f32 infinity", config.F32, "", "7F 80 00 00", nil, "nan"},
		{"f32 -infinity", config.F32, "", "FF 80 00 00", nil, "nan"},
		{"f64 NaN", config.F64, "", "7F F8 00 00 00 00 00 00", nil, "nan"},
		{"f64 infinity", config.F64, "", "7F F0 00 00 00 00 00 00", nil, "nan"},
	} {
		r := decode(config.Point{Type: c.kind, Order: c.order, Missing: c.missing}, raw(c.raw))
		missing := c.why != ""
		if r.Why != c.why || (r.Quality == drivers.Missing) != missing || r.Value.IsNone() != missing {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
	// A scale that takes a float out of its range makes no number of it either.
	r := decode(config.Point{Type: config.F32, Scale: config.Decimal{Mantissa: 1000}}, raw("7F 7F FF FF"))
	if r.Why != "nan" || !r.Value.IsNone() {
		t.Errorf("beyond float32: %+v", r)
	}
}

// decode against exact arithmetic, on random registers: the value is the nearest there is to raw x scale.
func TestDecodeAgainstExactArithmetic(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	types := []config.Type{config.U16, config.S16, config.U32, config.S32, config.U64, config.S64, config.F32, config.F64}
	orders := []config.Order{config.ABCD, config.CDAB, config.BADC, config.DCBA}
	for range 20_000 {
		p := config.Point{Type: types[random.IntN(len(types))], Order: orders[random.IntN(len(orders))]}
		p.Scale = config.Decimal{Mantissa: 1 + random.Int64N(20), Exponent: -random.IntN(7)}
		if random.IntN(2) == 0 {
			p.Scale = config.Decimal{Mantissa: 1}
		}
		bits := random.Uint64() >> (64 - 16*p.Type.Registers())
		exact, finite := meaning(p.Type, bits)
		got := decode(p, wire(bits, p))
		if !finite {
			if got.Why != "nan" {
				t.Fatalf("%+v %x: %+v", p, bits, got)
			}
			continue
		}
		exact.Mul(exact, big.NewRat(p.Scale.Mantissa, 1))
		exact.Quo(exact, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(-p.Scale.Exponent)), nil)))
		if p.Scale.Mantissa == 1 && p.Scale.Exponent == 0 && p.Type != config.F32 && p.Type != config.F64 {
			if text := exact.RatString(); got.Value.String() != text {
				t.Fatalf("%+v %x: %s, want %s", p, bits, got.Value, text)
			}
			continue
		}
		want, _ := exact.Float64()
		tolerance := math.Abs(want) * 0x1p-51
		if new(big.Int).Abs(exact.Num()).BitLen() < 40 { // raw x mantissa is exact, so there is one rounding only
			tolerance = 0
		}
		f, ok := got.Value.Float64()
		if p.Type == config.F32 {
			narrow, _ := exact.Float32()
			want, tolerance = float64(narrow), math.Abs(want)*0x1p-23
			if math.IsInf(want, 0) {
				ok, f = got.Why == "nan", want
			}
			if math.Abs(want) < 0x1p-120 { // where float32 itself loses digits
				tolerance = 0x1p-140
			}
		}
		if p.Type == config.F64 && (math.Abs(want) > 0x1p990 || math.Abs(want) < 0x1p-990) { // no meter's values
			continue
		}
		if !ok || math.Abs(f-want) > tolerance {
			t.Fatalf("%+v %x: %v, want %v", p, bits, f, want)
		}
	}
}

// meaning is the number that bits are, exactly.
func meaning(t config.Type, bits uint64) (exact *big.Rat, finite bool) {
	exact = new(big.Rat)
	switch t {
	case config.U16, config.U32, config.U64:
		return exact.SetInt(new(big.Int).SetUint64(bits)), true
	case config.S16:
		return exact.SetInt64(int64(int16(bits))), true
	case config.S32:
		return exact.SetInt64(int64(int32(bits))), true
	case config.S64:
		return exact.SetInt64(int64(bits)), true
	case config.F32:
		f := float64(math.Float32frombits(uint32(bits)))
		return exact.SetFloat64(f), !math.IsNaN(f) && !math.IsInf(f, 0)
	}
	f := math.Float64frombits(bits)
	return exact.SetFloat64(f), !math.IsNaN(f) && !math.IsInf(f, 0)
}

// wire puts bits into registers the way a device of the point's order does, word by word.
func wire(bits uint64, p config.Point) []byte {
	n := p.Type.Registers()
	b := make([]byte, 2*n)
	for i := range n {
		word := uint16(bits >> (16 * (n - 1 - i)))
		at := i
		if p.Order == config.CDAB || p.Order == config.DCBA {
			at = n - 1 - i
		}
		if p.Order == config.BADC || p.Order == config.DCBA {
			binary.LittleEndian.PutUint16(b[2*at:], word)
		} else {
			binary.BigEndian.PutUint16(b[2*at:], word)
		}
	}
	return b
}

func TestDecodeBit(t *testing.T) {
	for _, c := range []struct{ on, invert, want bool }{{false, false, false}, {true, false, true}, {false, true, true}, {true, true, false}} {
		r := decodeBit(config.Point{Name: "alarm", Invert: c.invert}, c.on)
		if state, ok := r.Value.AsBool(); !ok || state != c.want || r.Quality != drivers.Good || r.Point != "alarm" {
			t.Errorf("%+v: %+v", c, r)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint64(0x43663334), byte(6), byte(0), int64(1), byte(0))
	f.Add(uint64(math.MaxUint64), byte(4), byte(3), int64(-1), byte(15))
	types := []config.Type{config.U16, config.S16, config.U32, config.S32, config.U64, config.S64, config.F32, config.F64}
	orders := []config.Order{config.ABCD, config.CDAB, config.BADC, config.DCBA}
	f.Fuzz(func(t *testing.T, bits uint64, kind, order byte, mantissa int64, exponent byte) {
		p := config.Point{Name: "p", Unit: "V", Type: types[int(kind)%len(types)], Order: orders[int(order)%len(orders)]}
		p.Scale = config.Decimal{Mantissa: mantissa % 1e15, Exponent: -int(exponent % 16)}
		bits >>= 64 - 16*p.Type.Registers()
		r := decode(p, wire(bits, p))
		switch {
		case r.Quality == drivers.Good && (r.Why != "" || r.Value.String() == ""):
			t.Errorf("good without a value: %+v", r)
		case r.Quality == drivers.Missing && (r.Why != "nan" || !r.Value.IsNone()):
			t.Errorf("missing with a value: %+v", r)
		case r.Quality == drivers.Missing && p.Type != config.F32 && p.Type != config.F64:
			t.Errorf("a whole number is missing: %+v", r)
		case bits == 0 && r.Value.String() != "0":
			t.Errorf("a measured zero is %s: %+v", r.Value, p)
		}
		p.Missing = []int64{int64(bits)}
		if r := decode(p, wire(bits, p)); r.Why != "sentinel" {
			t.Errorf("the value named as missing is %+v", r)
		}
	})
}

func TestDecodeOfOtherForms(t *testing.T) {
	decimal := func(text string) config.Decimal {
		d, err := config.ParseDecimal(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	idle := []config.Code{{Value: 0}, {Value: 3}}
	for _, c := range []struct {
		name  string
		point config.Point
		raw   string
		want  string
		flag  drivers.Quality
		why   string
	}{
		{"offset", config.Point{Type: config.U16, Scale: decimal("0.1"), Offset: decimal("-40")}, "02 8F", "25.5", drivers.Good, ""},
		{"offset of a negative number", config.Point{Type: config.S16, Scale: decimal("0.1"), Offset: decimal("0.05")}, "FF FF", "-0.05", drivers.Good, ""},
		{"offset alone", config.Point{Type: config.U16, Offset: decimal("-100")}, "00 64", "0", drivers.Good, ""},
		{"offset of a float", config.Point{Type: config.F32, Offset: decimal("1")}, "3F C0 00 00", "2.5", drivers.Good, ""},
		{"one bit of a register", config.Point{Type: config.Bool, Bits: config.Bits{Low: 9, Width: 1}}, "02 00", "1", drivers.Good, ""},
		{"one bit, inverted", config.Point{Type: config.Bool, Bits: config.Bits{Low: 9, Width: 1}, Invert: true}, "02 00", "0", drivers.Good, ""},
		{"field of bits", config.Point{Type: config.U16, Bits: config.Bits{Low: 4, Width: 4}}, "12 34", "3", drivers.Good, ""},
		{"field over the words, low word first", config.Point{Type: config.U32, Order: config.CDAB, Bits: config.Bits{Low: 12, Width: 8}}, "56 78 12 34", "69", drivers.Good, ""},
		{"all bits", config.Point{Type: config.U32, Bits: config.Bits{Width: 32}}, "FF FF FF FF", "4294967295", drivers.Good, ""},
		{"scaled field", config.Point{Type: config.U16, Bits: config.Bits{Low: 8, Width: 8}, Scale: decimal("0.5")}, "07 FF", "3.5", drivers.Good, ""},
		{"sentinel of the whole register", config.Point{Type: config.U16, Bits: config.Bits{Low: 8, Width: 8}, Missing: []int64{0xFFFF}}, "FF FF", "", drivers.Missing, "sentinel"},
		{"bcd", config.Point{Type: config.BCD32, Scale: decimal("0.01")}, "00 12 34 56", "1234.56", drivers.Good, ""},
		{"bcd, low word first", config.Point{Type: config.BCD32, Order: config.CDAB}, "34 56 00 12", "123456", drivers.Good, ""},
		{"bcd of sixteen digits", config.Point{Type: config.BCD64}, "99 99 99 99 99 99 99 99", "9999999999999999", drivers.Good, ""},
		{"bcd with a digit above nine", config.Point{Type: config.BCD16}, "12 3A", "", drivers.Missing, "digits"},
		{"text", config.Point{Type: config.ASCII, Length: 4}, "53 4E 30 30 37 00 FF FF", "SN007", drivers.Good, ""},
		{"text, second character first", config.Point{Type: config.ASCII, Length: 2, Order: config.BADC}, "4E 53 20 37", "SN7", drivers.Good, ""},
		{"no text", config.Point{Type: config.ASCII, Length: 1}, "E4 B8", "", drivers.Missing, "encoding"},
		{"empty text", config.Point{Type: config.ASCII, Length: 1}, "00 00", "", drivers.Good, ""},
		{"known code", config.Point{Type: config.U16, Codes: idle}, "00 03", "3", drivers.Good, ""},
		{"unknown code", config.Point{Type: config.U16, Codes: idle}, "00 04", "4", drivers.Suspect, "code"},
		{"negative code", config.Point{Type: config.S16, Codes: []config.Code{{Value: -1}}}, "FF FF", "-1", drivers.Good, ""},
		{"beyond the counter", config.Point{Type: config.U32, Counter: true, Modulus: 1000}, "00 00 03 E8", "1000", drivers.Suspect, "modulus"},
		{"the counter's last", config.Point{Type: config.U32, Counter: true, Modulus: 1000}, "00 00 03 E7", "999", drivers.Good, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := decode(c.point, raw(c.raw))
			if got := r.Value.String(); got != c.want || r.Quality != c.flag || r.Why != c.why || (r.Value.IsNone()) != (c.flag == drivers.Missing) {
				t.Errorf("%q, flag %d, %q; want %q, flag %d, %q", got, r.Quality, r.Why, c.want, c.flag, c.why)
			}
		})
	}
}

// SunSpec Information Model Specification, "sunssf": the value is the register x 10^sf, and 0x8000 means that the point
// is not there. A register of volts 2405 with sf -1 is 240.5 V.
func TestScaleFromAnotherRegister(t *testing.T) {
	profile := &config.Profile{Points: []config.Point{
		{Name: "voltage", Type: config.S16, ScalePower: "voltage_sf"},
		{Name: "voltage_sf", Type: config.S16, Missing: []int64{0x8000}},
		{Name: "current", Type: config.U16, Scale: config.Decimal{Mantissa: 1, Exponent: -3}, ScaleFactor: "ct"},
		{Name: "ct", Type: config.U16},
	}}
	for _, c := range []struct {
		name                     string
		voltage, sf, current, ct string
		want                     []string
		flags                    []drivers.Quality
	}{
		{"both good", "09 65", "FF FF", "13 88", "00 28", []string{"240.5", "-1", "200", "40"}, []drivers.Quality{1, 1, 1, 1}},
		{"a positive power", "00 07", "00 02", "00 00", "00 28", []string{"700", "2", "0", "40"}, []drivers.Quality{1, 1, 1, 1}},
		{"power not there", "09 65", "80 00", "13 88", "00 28", []string{"", "", "200", "40"}, []drivers.Quality{9, 9, 1, 1}},
		{"power out of its range", "09 65", "00 0B", "13 88", "00 28", []string{"", "11", "200", "40"}, []drivers.Quality{9, 1, 1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var readings []drivers.Reading
			for i, text := range []string{c.voltage, c.sf, c.current, c.ct} {
				readings = append(readings, decode(profile.Points[i], raw(text)))
			}
			scaleBy(profile, readings)
			for i, r := range readings {
				if r.Value.String() != c.want[i] || r.Quality != c.flags[i] {
					t.Errorf("%s is %q, flag %d, %q; want %q, flag %d", r.Point, r.Value, r.Quality, r.Why, c.want[i], c.flags[i])
				}
			}
		})
	}
}
