package drivers

import (
	"encoding/json"
	"math"
	"strconv"
)

// Value is a measured number or state, kept in the type it was measured in so that a 64-bit counter stays exact and a
// 32-bit float travels with the digits it has. The zero Value is no value.
type Value struct {
	kind valueKind
	bits uint64
	text string
}

type valueKind uint8

const (
	noValue valueKind = iota
	intValue
	uintValue
	float32Value
	float64Value
	boolValue
	textValue
)

// Int is a signed whole number.
func Int(v int64) Value { return Value{kind: intValue, bits: uint64(v)} }

// Uint is an unsigned whole number.
func Uint(v uint64) Value { return Value{kind: uintValue, bits: v} }

// Float32 is a number measured with 24 bits of precision.
func Float32(v float32) Value { return Value{kind: float32Value, bits: uint64(math.Float32bits(v))} }

// Float64 is a number measured with 53 bits of precision.
func Float64(v float64) Value { return Value{kind: float64Value, bits: math.Float64bits(v)} }

// Bool is the state of a contact: true is active.
func Bool(v bool) Value {
	if v {
		return Value{kind: boolValue, bits: 1}
	}
	return Value{kind: boolValue}
}

// Text is what a device says in characters, e.g. its serial number.
func Text(v string) Value { return Value{kind: textValue, text: v} }

// AsText returns the text of a Text and whether the value is one.
func (v Value) AsText() (text string, ok bool) { return v.text, v.kind == textValue }

// IsNone says whether there is no value.
func (v Value) IsNone() bool { return v.kind == noValue }

// AsBool returns the state of a Bool and whether the value is one.
func (v Value) AsBool() (state, ok bool) { return v.bits == 1, v.kind == boolValue }

// Float64 is the value as a float64, 0 or 1 for a state, and whether it is a finite number.
func (v Value) Float64() (f float64, ok bool) {
	switch v.kind {
	case intValue:
		f = float64(int64(v.bits))
	case uintValue, boolValue:
		f = float64(v.bits)
	case float32Value:
		f = float64(math.Float32frombits(uint32(v.bits)))
	case float64Value:
		f = math.Float64frombits(v.bits)
	default:
		return 0, false
	}
	return f, !math.IsNaN(f) && !math.IsInf(f, 0)
}

// String is the shortest decimal text that reads back as the same value: what travels and what the page shows.
// States are 0 and 1. A value that is none, NaN or infinite gives "".
func (v Value) String() string {
	if v.kind == textValue {
		return v.text
	}
	return string(v.Append(nil))
}

// Append appends the value as JSON to b: a number, or a string for a Text.
func (v Value) Append(b []byte) []byte {
	if v.kind == textValue {
		quoted, _ := json.Marshal(v.text) // a string cannot fail
		return append(b, quoted...)
	}
	f, ok := v.Float64()
	if !ok {
		return b
	}
	switch v.kind {
	case intValue:
		return strconv.AppendInt(b, int64(v.bits), 10)
	case uintValue, boolValue:
		return strconv.AppendUint(b, v.bits, 10)
	}
	size, format := 64, byte('f')
	if v.kind == float32Value {
		size = 32
	}
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, size)
}
