package config

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// maxScaleDigits is the most digits of a scale: a float64 and an int64 hold them all.
const maxScaleDigits = 15

// ParseDecimal reads a plain decimal number like 0.01, 1, -2.5 or 10. The Exponent is 0 or less. The error says what is
// wrong with the text.
func ParseDecimal(text string) (Decimal, error) {
	digits, negative := strings.CutPrefix(text, "-")
	whole, fraction, point := strings.Cut(digits, ".")
	isDigits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	if !isDigits(whole) || point && !isDigits(fraction) {
		return Decimal{}, fmt.Errorf("%s is not a plain decimal number", quote(text))
	}
	if len(whole) > 1 && whole[0] == '0' {
		return Decimal{}, fmt.Errorf("%s begins with a needless 0", quote(text))
	}
	fraction = strings.TrimRight(fraction, "0")
	if len(whole)+len(fraction) > maxScaleDigits {
		return Decimal{}, fmt.Errorf("%s has more than %d digits", quote(text), maxScaleDigits)
	}
	mantissa, err := strconv.ParseInt(whole+fraction, 10, 64)
	if err != nil {
		return Decimal{}, fmt.Errorf("%s is not a plain decimal number", quote(text))
	}
	if negative {
		mantissa = -mantissa
	}
	return Decimal{Mantissa: mantissa, Exponent: -len(fraction)}, nil
}

// Bytes is a size. It is written with a decimal unit: 256MB is 256,000,000 bytes.
type Bytes int64

// The units of Bytes.
const (
	MB Bytes = 1_000_000
	GB       = 1000 * MB
	TB       = 1000 * GB
)

// ParseBytes reads a whole number with its unit, MB, GB or TB.
func ParseBytes(text string) (Bytes, error) {
	for _, u := range []struct {
		name string
		size Bytes
	}{{"TB", TB}, {"GB", GB}, {"MB", MB}} {
		digits, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(digits, " "), 10, 64)
		if err == nil && n >= 0 && n <= math.MaxInt64/int64(u.size) {
			return Bytes(n) * u.size, nil
		}
	}
	return 0, fmt.Errorf("%s is not a size", quote(text))
}

// String is the size as ParseBytes reads it; below a megabyte it is rounded down.
func (b Bytes) String() string {
	if b >= TB && b%TB == 0 {
		return fmt.Sprintf("%dTB", b/TB)
	}
	if b >= GB && b%GB == 0 {
		return fmt.Sprintf("%dGB", b/GB)
	}
	return fmt.Sprintf("%dMB", b/MB)
}

// Float64 is the float64 nearest to the scale.
func (s Decimal) Float64() float64 {
	if s.Exponent < 0 { // one rounding only: mantissa and power are exact
		return float64(s.Mantissa) / math.Pow10(-s.Exponent)
	}
	return float64(s.Mantissa) * math.Pow10(s.Exponent)
}

// String is the plain decimal, as ParseDecimal reads it.
func (s Decimal) String() string { return strconv.FormatFloat(s.Float64(), 'f', -1, 64) }

// less compares two decimals exactly.
func (s Decimal) less(other Decimal) bool { return s.rat().Cmp(other.rat()) < 0 }

func (s Decimal) rat() *big.Rat {
	power := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(s.Exponent, -s.Exponent))), nil))
	value := new(big.Rat).SetInt64(s.Mantissa)
	if s.Exponent < 0 {
		return value.Quo(value, power)
	}
	return value.Mul(value, power)
}

// parseBits reads one bit, 3, or a field of them, 4-7.
func parseBits(text string) (Bits, bool) {
	low, high, field := strings.Cut(text, "-")
	if !field {
		high = low
	}
	first, err1 := strconv.ParseUint(low, 10, 5)
	last, err2 := strconv.ParseUint(high, 10, 5)
	if err1 != nil || err2 != nil || last < first || len(low) > 2 || len(high) > 2 {
		return Bits{}, false
	}
	return Bits{Low: int(first), Width: int(last-first) + 1}, true
}

// parseWhole reads a whole number as written: decimal, or hexadecimal as registers stand in manuals.
func parseWhole(text string) (n int64, reason, mend string) {
	digits, negative := strings.CutPrefix(text, "-")
	hex, isHex := strings.CutPrefix(digits, "0x")
	base := 10
	if isHex {
		digits, base = hex, 16
	}
	const decimal, hexadecimal = "0123456789", "0123456789abcdefABCDEF"
	switch {
	case digits != "" && base == 16 && strings.Trim(digits, hexadecimal) == "":
	case digits == "" || base == 16 || strings.Trim(digits, decimal) != "":
		if _, err := strconv.ParseFloat(text, 64); err == nil && strings.ContainsAny(text, ".eE") {
			return 0, shorten(text, 40) + " has a fraction or exponent and should be a whole number", "write it without, for example 12"
		}
		return 0, quote(text) + " is not a whole number", "write decimal digits, or hexadecimal behind 0x"
	case len(digits) > 1 && digits[0] == '0':
		return 0, shorten(text, 40) + " begins with 0 and could be read as octal", "write it without leading zeros, or hexadecimal behind 0x"
	}
	if isHex && !negative { // all 64 bits: 0xFFFFFFFFFFFFFFFF is what a u64 register holds for "no value"
		u, err := strconv.ParseUint(digits, base, 64)
		if err != nil {
			return 0, shorten(text, 40) + " is too large", "write at most 16 hexadecimal digits"
		}
		return int64(u), "", ""
	}
	if negative {
		digits = "-" + digits
	}
	n, err := strconv.ParseInt(digits, base, 64)
	if err != nil {
		return 0, shorten(text, 40) + " is too large", "write a number below 9223372036854775808"
	}
	return n, "", ""
}
