package scan

import (
	"math"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/modbus"
)

// Guess is some registers taken for a value of one type in one order.
type Guess struct {
	Order    config.Order `json:"order"`
	Type     config.Type  `json:"type"`
	Value    string       `json:"value"`    // "" if they are none: a digit beyond 9, a float that is no number
	Readable bool         `json:"readable"` // of a size that values have which people put on a display
}

// Orders takes one, two or four registers for everything they may be. data has them high byte first; other lengths give
// nothing. Orders that are the same for one register are given once.
func Orders(data []byte) []Guess {
	types := map[int][]config.Type{
		2: {config.U16, config.S16, config.BCD16},
		4: {config.U32, config.S32, config.F32, config.BCD32},
		8: {config.U64, config.S64, config.F64, config.BCD64},
	}[len(data)]
	orders := []config.Order{config.ABCD, config.CDAB, config.BADC, config.DCBA}
	if len(data) == 2 {
		orders = []config.Order{config.ABCD, config.BADC}
	}
	var all []Guess
	for _, o := range orders {
		for _, t := range types {
			v := modbus.Decode(config.Point{Type: t, Order: o, Scale: config.Decimal{Mantissa: 1}}, data).Value
			g := Guess{Order: o, Type: t, Value: v.String(), Readable: readable(v, t)}
			all = append(all, g)
		}
	}
	return all
}

// mostDigits is how many digits before the point values have that people put on a display.
const mostDigits = 7

// readable says whether a value has a size that people would put on a display. A wrong order makes most whole numbers
// huge, and most floats huge or tiny.
func readable(v drivers.Value, t config.Type) bool {
	f, ok := v.Float64()
	size := math.Abs(f)
	switch {
	case !ok:
		return false
	case f == 0:
		return true
	case t == config.F32 || t == config.F64:
		return size >= 1e-3 && size < math.Pow10(mostDigits)
	case t.Registers() == 1:
		return size <= 10000
	}
	return size < math.Pow10(mostDigits)
}
