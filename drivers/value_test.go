package drivers

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

func TestValueText(t *testing.T) {
	for _, c := range []struct {
		value Value
		want  string
	}{
		{Value{}, ""},
		{Int(0), "0"},
		{Int(-12345), "-12345"},
		{Int(math.MinInt64), "-9223372036854775808"},
		{Uint(1<<53 + 1), "9007199254740993"}, // a float64 has no such number
		{Uint(math.MaxUint64), "18446744073709551615"},
		{Bool(false), "0"},
		{Bool(true), "1"},
		{Float32(230.2), "230.2"}, // and not 230.1999969482422
		{Float32(0.1), "0.1"},
		{Float32(16777216), "16777216"},
		{Float32(math.MaxFloat32), "3.4028235e+38"},
		{Float32(1e-7), "1e-07"},
		{Float32(0), "0"},
		{Float64(61.56), "61.56"},
		{Float64(1e-6), "0.000001"},
		{Float64(1e20), "100000000000000000000"},
		{Float64(1e21), "1e+21"},
		{Float64(math.SmallestNonzeroFloat64), "5e-324"},
		{Float32(float32(math.NaN())), ""},
		{Float32(float32(math.Inf(1))), ""},
		{Float64(math.NaN()), ""},
		{Float64(math.Inf(-1)), ""},
	} {
		if got := c.value.String(); got != c.want {
			t.Errorf("%#v is %q, want %q", c.value, got, c.want)
		}
		if got := string(c.value.Append([]byte("v="))); got != "v="+c.want {
			t.Errorf("appended: %q", got)
		}
		_, finite := c.value.Float64()
		if finite != (c.want != "") {
			t.Errorf("%#v: finite %t, text %q", c.value, finite, c.want)
		}
	}
}

// Whatever is measured, its text is a JSON number and reads back as the same value, and no digit can be left out.
func TestValueTextReadsBack(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		bits := random.Uint64()
		f32, f64 := math.Float32frombits(uint32(bits)), math.Float64frombits(bits)
		for _, c := range []struct {
			value Value
			same  func(text string) bool
		}{
			{Int(int64(bits)), func(s string) bool { v, err := strconv.ParseInt(s, 10, 64); return err == nil && v == int64(bits) }},
			{Uint(bits), func(s string) bool { v, err := strconv.ParseUint(s, 10, 64); return err == nil && v == bits }},
			{Float32(f32), func(s string) bool { v, err := strconv.ParseFloat(s, 32); return err == nil && float32(v) == f32 }},
			{Float64(f64), func(s string) bool { v, err := strconv.ParseFloat(s, 64); return err == nil && v == f64 }},
		} {
			text := c.value.String()
			if _, finite := c.value.Float64(); !finite {
				if text != "" {
					t.Fatalf("%#v is %q", c.value, text)
				}
				continue
			}
			if !json.Valid([]byte(text)) || !c.same(text) {
				t.Fatalf("%#v is %q: no JSON number, or another one", c.value, text)
			}
			if digits := significant(text); digits > 20 || c.value.kind == float32Value && digits > 9 || c.value.kind == float64Value && digits > 17 {
				t.Fatalf("%#v is %q: more digits than it has", c.value, text)
			}
		}
	}
}

// significant counts a number's digits without the zeros around them.
func significant(text string) int {
	mantissa, _, _ := strings.Cut(text, "e")
	return len(strings.Trim(strings.NewReplacer("-", "", ".", "").Replace(mantissa), "0"))
}

func TestValueKinds(t *testing.T) {
	if !(Value{}).IsNone() || Int(0).IsNone() || Bool(false).IsNone() || Float64(math.NaN()).IsNone() {
		t.Error("only the zero Value is none: a zero was measured")
	}
	for _, state := range []bool{false, true} {
		if got, ok := Bool(state).AsBool(); got != state || !ok {
			t.Errorf("Bool(%t) is %t, %t", state, got, ok)
		}
	}
	for _, v := range []Value{{}, Int(1), Uint(1), Float32(1), Float64(1)} {
		if _, ok := v.AsBool(); ok {
			t.Errorf("%#v is no state", v)
		}
	}
	if f, ok := Bool(true).Float64(); f != 1 || !ok {
		t.Errorf("true is %v, %t", f, ok)
	}
	if f, ok := Int(-3).Float64(); f != -3 || !ok {
		t.Errorf("-3 is %v, %t", f, ok)
	}
}

func TestErrorText(t *testing.T) {
	for _, c := range []struct {
		err  Error
		want string
	}{
		{Error{Failure: Timeout, Device: "meter", At: "input register 0-1"}, "cannot read input register 0-1 of meter: timeout"},
		{Error{Failure: Exception, Code: 2, Device: "meter", At: "coil 7"}, "cannot read coil 7 of meter: exception 2"},
		{Error{Failure: Link, Device: "lift", At: "line 17", Detail: "there is no port"}, "cannot read line 17 of lift: link: there is no port"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	names := map[string]Failure{}
	for _, f := range []Failure{Link, Timeout, CRC, Frame, Exception} {
		if other, taken := names[f.String()]; taken {
			t.Errorf("%d and %d are both %s", f, other, f)
		}
		names[f.String()] = f
	}
	if got := Failure(99).String(); got != "failure 99" {
		t.Errorf("an unknown failure is %q", got)
	}
}
