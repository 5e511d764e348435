package config

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// ucum are the units known to page and platform, in the case-sensitive symbols of UCUM; var is not in UCUM, but it is
// what IEC 80000-6 calls the unit of reactive power.
func ucum() []string {
	return strings.Fields(`1 % {count} V mV A mA W kW MW VA kVA var kvar W.h kW.h MW.h var.h kvar.h VA.h kVA.h Hz
		g kg t mm cm m L m3 L/min m3/h Cel Pa kPa bar lx dB s ms min h d`)
}

func (d *document) point(path string, p *Point, limits ModbusLimits) {
	d.name(path+".name", p.Name, pointForm, "write 1 to 32 of a-z 0-9 and _, for example power_active")
	if d.require(path+".title", "write the name for the page: {zh: 电压, en: voltage}") {
		d.title(path+".title.zh", p.Title.ZH)
		d.title(path+".title.en", p.Title.EN)
	}
	d.require(path+".function", "write one of: "+strings.Join(p.Function.choices(), ", "))
	d.require(path+".type", "write one of: "+strings.Join(p.Type.choices(), ", "))
	switch {
	case p.Function == Line:
		if d.given(path + ".address") {
			d.report(path+".address", "a line has no address", "remove it: the device's entry in hub.yaml names the line")
		}
	case d.require(path+".address", "write the zero-based address as sent on the wire, for example 0x0034"):
		if p.Type == ASCII && d.require(path+".length", "write the number of registers the text takes") {
			d.integer(path+".length", &p.Length, 0, 1, limits.MaxRegisters)
		}
		d.place(path, p, limits)
	}
	if p.Function != "" && p.Type != "" {
		d.fits(path, p)
	}
	for key, theirs := range foreignKeys(p) {
		if d.given(path + "." + key) {
			d.report(path+"."+key, fmt.Sprintf("a point of type %s has no %s", p.Type, key), "remove it"+theirs)
		}
	}
	for _, key := range []string{"debounce", "hold"} {
		if p.Function != Line && d.given(path+"."+key) {
			d.report(path+"."+key, "only a point of function line has "+key, "remove it")
		}
	}
	d.complete(path, p)
}

// fits sees whether a point of this type can be in this table.
func (d *document) fits(path string, p *Point) {
	path += ".type"
	bit := p.Function == Coil || p.Function == DiscreteInput
	switch {
	case bit && p.Type != Bool:
		d.report(path, fmt.Sprintf("function %s reads one bit and not %s", p.Function, p.Type), "write type: bool")
	case p.Function == Line && p.Type != Bool && p.Type != Pulses:
		d.report(path, fmt.Sprintf("function line reads one bit and not %s", p.Type), "write type: bool, or pulses to count them")
	case p.Function != Line && p.Type == Pulses:
		d.report(path, fmt.Sprintf("function %s counts no pulses", p.Function), "write the type of the device's own counter, for example u32 with counter: true")
	case p.Function.isRegister() && p.Type == Bool && p.Bits.Width == 0 && !d.faulty[strings.TrimSuffix(path, "type")+"bits"]:
		d.report(path, fmt.Sprintf("function %s reads no bool", p.Function), "write u16, read a coil or discrete_input, or name the register's bit: bits: 3")
	}
}

// foreignKeys are the keys that a point of another type or function has; the value ends the sentence on what to do.
func foreignKeys(p *Point) map[string]string {
	keys := map[string]string{}
	add := func(theirs string, names ...string) {
		for _, name := range names {
			keys[name] = theirs
		}
	}
	number := []string{"order", "scale", "offset", "scale_power", "scale_factor", "unit", "missing", "codes", "counter", "modulus"}
	switch p.Type {
	case "":
		return nil
	case Bool:
		add("", number...)
		if !p.Function.isRegister() {
			add(": it is for registers only", "bits")
		}
	case Pulses:
		add("", "order", "offset", "scale_power", "scale_factor", "missing", "codes", "counter", "modulus", "bits", "hold", "event")
	case ASCII:
		add("", number[1:]...) // all but the order
		add(": it is for bool only", "invert", "event")
		add("", "bits")
	default:
		add(": it is for bool only", "invert", "event")
		if p.Type != U16 && p.Type != U32 {
			add(": it is for bool, u16 and u32 only", "bits")
		}
		if p.Type == F32 || p.Type == F64 {
			add(": it is for whole numbers only", "codes", "modulus")
		}
	}
	if p.Type != ASCII {
		add(": it is for ascii only", "length")
	}
	return keys
}

func (d *document) title(path, text string) {
	const mend = "write the name in both languages: {zh: 电压, en: voltage}"
	if d.require(path, mend) && text == "" {
		d.report(path, "is empty", mend)
	}
	d.label(path, text)
}

// place sees whether the point's registers can be asked for.
func (d *document) place(path string, p *Point, limits ModbusLimits) {
	registers := p.Registers()
	path += ".address"
	switch last := p.Address + max(1, registers) - 1; {
	case p.Address < 0 || last > 0xFFFF:
		d.report(path, fmt.Sprintf("%d to %d is not inside 0 to 65535", p.Address, last), "write the zero-based address as sent on the wire")
	case limits.EvenOnly && registers > 1 && p.Address%2 != 0:
		d.report(path, fmt.Sprintf("%d is odd, and the model answers even addresses only", p.Address), "correct the address, or modbus.even_only")
	case registers > limits.MaxRegisters:
		d.report(path, fmt.Sprintf("takes %d registers, and modbus.max_registers is %d", registers, limits.MaxRegisters), "correct one of the two")
	}
}

// complete fills in a point's defaults and judges its values.
func (d *document) complete(path string, p *Point) {
	if p.Order == "" {
		p.Order = ABCD
	}
	if !d.given(path + ".scale") {
		p.Scale = Decimal{Mantissa: 1}
	} else if p.Scale.Mantissa == 0 && !d.faulty[path+".scale"] {
		d.report(path+".scale", "a scale of 0 would lose every value", "write a plain decimal, for example 0.01, 1 or 10")
	}
	d.duration(path+".debounce", &p.Debounce, 0, 0, time.Minute)
	d.duration(path+".hold", &p.Hold, 0, 0, time.Hour)
	d.duration(path+".interval", &p.Interval, 0, leastInterval, mostInterval)
	switch p.Type {
	case ASCII:
		if p.Order == CDAB || p.Order == DCBA {
			d.report(path+".order", fmt.Sprintf("a text has no order %s", p.Order), "write abcd, or badc when the second character comes first")
		}
	case Bool:
		if p.Bits.Width > 1 || p.Bits.Low > 15 {
			d.report(path+".bits", "a bool is one bit of one register", "write one of 0 to 15, or type: u16 for a field")
		}
	case "":
	default:
		d.quantity(path, p)
	}
}

// quantity judges a point that is measured or counted.
func (d *document) quantity(path string, p *Point) {
	if key := path + ".unit"; d.require(key, "write its UCUM unit, 1 for a ratio, {count} for a number of things") && !slices.Contains(ucum(), p.Unit) {
		d.report(key, quote(p.Unit)+" is not a unit known here", oneOf(p.Unit, ucum()))
	}
	width := 16 * p.Type.Registers()
	if p.Bits.Low+p.Bits.Width > width {
		d.report(path+".bits", fmt.Sprintf("%s has %d bits", p.Type, width), fmt.Sprintf("write bits of 0 to %d", width-1))
	}
	if len(p.Missing) > maxMissing {
		d.report(path+".missing", fmt.Sprintf("there are %d values", len(p.Missing)), fmt.Sprintf("list at most %d", maxMissing))
	}
	for i, m := range p.Missing {
		if width < 64 && (m < 0 || m >= 1<<width) {
			d.report(fmt.Sprintf("%s.missing[%d]", path, i), fmt.Sprintf("%d does not fit %d bits", m, width), "write the raw value as an unsigned number, for example 0xFFFF")
		}
	}
	codes := unique{}
	for i := range p.Codes {
		inner := fmt.Sprintf("%s.codes[%d]", path, i)
		if d.require(inner+".value", "write the value that has this name") {
			codes.check(d, inner+".value", fmt.Sprint(p.Codes[i].Value), fmt.Sprintf("the value %d", p.Codes[i].Value), "give each value one name")
		}
		if d.require(inner+".title", "write the name for the page: {zh: 空闲, en: idle}") {
			d.title(inner+".title.zh", p.Codes[i].Title.ZH)
			d.title(inner+".title.en", p.Codes[i].Title.EN)
		}
	}
	if len(p.Codes) > maxPoints {
		d.report(path+".codes", fmt.Sprintf("there are %d values", len(p.Codes)), fmt.Sprintf("list at most %d", maxPoints))
	}
	if key := path + ".modulus"; d.given(key) {
		most := int64(math.MaxInt64)
		switch {
		case strings.HasPrefix(string(p.Type), "bcd"):
			most = int64(math.Pow10(width / 4))
		case width < 64:
			most = 1 << width
		}
		switch {
		case !p.Counter:
			d.report(key, "only a counter begins again at 0", "write counter: true, or remove it")
		case p.Modulus < 2 || p.Modulus > most:
			d.report(key, fmt.Sprintf("%d is not a size that %s counts to", p.Modulus, p.Type), fmt.Sprintf("write 2 to %d", most))
		}
	}
}

// scales sees whether the points that others are scaled by can do that.
func (d *document) scales(points []Point) {
	named := map[string]*Point{}
	for i := range points {
		named[points[i].Name] = &points[i]
	}
	for i, p := range points {
		path := fmt.Sprintf("points[%d]", i)
		if p.ScalePower != "" && p.ScaleFactor != "" {
			d.report(path+".scale_factor", "there is a scale_power already", "remove one of the two")
		}
		for key, name := range map[string]string{"scale_power": p.ScalePower, "scale_factor": p.ScaleFactor} {
			by := named[name]
			switch key := path + "." + key; {
			case name == "":
			case by == nil:
				d.report(key, fmt.Sprintf("there is no point %s", quote(name)), "name a point of this profile")
			case by.ScalePower+by.ScaleFactor != "":
				d.report(key, fmt.Sprintf("point %s is scaled by another itself", name), "name a point that stands by itself")
			case p.ScalePower != "" && (by.Type != S16 || by.Scale != Decimal{Mantissa: 1} || by.Offset != Decimal{}):
				d.report(key, fmt.Sprintf("point %s is no plain s16, and a power of ten is one", name), "correct its type, or use scale_factor")
			case by.Type == Bool || by.Type == ASCII || by.Type == Pulses:
				d.report(key, fmt.Sprintf("point %s is of type %s and no number to scale by", name, by.Type), "name a point that is a number")
			case by.Interval > max(p.Interval, 0) && by.Interval != p.Interval:
				d.report(key, fmt.Sprintf("point %s is read less often", name), "give both the same interval")
			}
		}
	}
}
