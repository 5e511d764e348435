package config

import (
	"fmt"
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
	if p.Function == Line {
		if d.given(path + ".address") {
			d.report(path+".address", "a line has no address", "remove it: the device's entry in hub.yaml names the line")
		}
	} else if d.require(path+".address", "write the zero-based address as sent on the wire, for example 0x0034") {
		d.place(path, p, limits)
	}
	if p.Function != "" && p.Type != "" {
		if bit := p.Function != HoldingRegister && p.Function != InputRegister; bit && p.Type != Bool {
			d.report(path+".type", fmt.Sprintf("function %s reads one bit and not %s", p.Function, p.Type), "write type: bool")
		} else if !bit && p.Type == Bool {
			d.report(path+".type", fmt.Sprintf("function %s reads no bool", p.Function), "write u16, or read a coil or discrete_input")
		}
	}
	if p.Type == Bool {
		d.state(path, p)
	} else if p.Type != "" {
		d.quantity(path, p)
	}
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
	registers := p.Type.Registers()
	path += ".address"
	switch last := p.Address + max(1, registers) - 1; {
	case p.Address < 0 || last > 0xFFFF:
		d.report(path, fmt.Sprintf("%d to %d is not inside 0 to 65535", p.Address, last), "write the zero-based address as sent on the wire")
	case limits.EvenOnly && registers > 0 && p.Address%2 != 0:
		d.report(path, fmt.Sprintf("%d is odd, and the model answers even addresses only", p.Address), "correct the address, or modbus.even_only")
	case registers > limits.MaxRegisters:
		d.report(path, fmt.Sprintf("takes %d registers, and modbus.max_registers is %d", registers, limits.MaxRegisters), "correct one of the two")
	}
}

// state completes a point that is on or off.
func (d *document) state(path string, p *Point) {
	for _, key := range []string{"order", "scale", "unit", "missing"} {
		if d.given(path + "." + key) {
			d.report(path+"."+key, "a bool has no "+key, "remove it")
		}
	}
	p.Order, p.Scale = ABCD, Decimal{Mantissa: 1}
	if p.Function != Line && d.given(path+".debounce") {
		d.report(path+".debounce", "only a point of function line is debounced", "remove it")
		return
	}
	d.duration(path+".debounce", &p.Debounce, 0, 0, time.Minute)
}

// quantity completes a point that is measured or counted.
func (d *document) quantity(path string, p *Point) {
	for _, key := range []string{"invert", "debounce", "event"} {
		if d.given(path + "." + key) {
			d.report(path+"."+key, fmt.Sprintf("a point of type %s has no %s", p.Type, key), "remove it: it is for bool only")
		}
	}
	if p.Order == "" {
		p.Order = ABCD
	}
	if p.Scale.Mantissa == 0 {
		p.Scale = Decimal{Mantissa: 1}
	}
	if key := path + ".unit"; d.require(key, "write its UCUM unit, 1 for a ratio, {count} for a number of things") && !slices.Contains(ucum(), p.Unit) {
		d.report(key, quote(p.Unit)+" is not a unit known here", oneOf(p.Unit, ucum()))
	}
	if len(p.Missing) > maxMissing {
		d.report(path+".missing", fmt.Sprintf("there are %d values", len(p.Missing)), fmt.Sprintf("list at most %d", maxMissing))
	}
	for i, m := range p.Missing {
		if bits := 16 * p.Type.Registers(); bits < 64 && (m < 0 || m >= 1<<bits) {
			d.report(fmt.Sprintf("%s.missing[%d]", path, i), fmt.Sprintf("%d does not fit %d bits", m, bits), "write the raw value as an unsigned number, for example 0xFFFF")
		}
	}
}
