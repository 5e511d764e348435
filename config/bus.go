package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	leastInterval = 100 * time.Millisecond
	mostInterval  = 24 * time.Hour
	mostLine      = 1023
	nameMend      = "write 1 to 64 of a-z 0-9 and -"
)

// busKey is a key of a bus that not every kind has.
type busKey struct {
	name     string
	kinds    []BusKind
	required bool
	mend     string
}

func busKeys() []busKey {
	return []busKey{
		{"address", []BusKind{ModbusTCP, ModbusRTUTCP}, true, "write the server's address, for example address: 192.168.1.10:502"},
		{"port", []BusKind{ModbusRTU}, true, "name the serial port, for example port: /dev/serial/by-id/..."},
		{"baud", modbusKinds(), false, ""},
		{"parity", modbusKinds(), false, ""},
		{"stop_bits", modbusKinds(), false, ""},
		{"rs485", []BusKind{ModbusRTU}, false, ""},
		{"rts_before", []BusKind{ModbusRTU}, false, ""},
		{"rts_after", []BusKind{ModbusRTU}, false, ""},
		{"chip", []BusKind{GPIO}, true, "write the chip's label as gpioinfo prints it, for example chip: pinctrl-bcm2711"},
		{"dir", []BusKind{GPIOSim}, true, "name the folder of the line files, for example dir: gpio"},
	}
}

func modbusKinds() []BusKind { return []BusKind{ModbusTCP, ModbusRTU, ModbusRTUTCP} }

// standardBauds are the rates that serial ports and meters have in common.
func standardBauds() []int { return []int{1200, 2400, 4800, 9600, 14400, 19200, 38400, 57600, 115200} }

func bauds() string { return "write one of: " + strings.Trim(fmt.Sprint(standardBauds()), "[]") }

func (k BusKind) isModbus() bool { return slices.Contains(modbusKinds(), k) }

// unique holds the line of each value's first appearance.
type unique map[string]int

// check notes a value that was there before; what names it in a sentence. An empty value has a problem already.
func (u unique) check(d *document, path, value, what, mend string) {
	if value == "" {
		return
	}
	if line, ok := u[value]; ok {
		d.report(path, fmt.Sprintf("%s is already on line %d", what, line), mend)
		return
	}
	u[value] = d.where(path).line
}

func (v *validation) buses(buses []Bus) {
	busNames, deviceNames, ends := unique{}, unique{}, unique{}
	for i := range buses {
		b, path := &buses[i], fmt.Sprintf("buses[%d]", i)
		v.name(path+".name", b.Name, nameForm, nameMend)
		busNames.check(v.document, path+".name", b.Name, "the bus name "+quote(b.Name), "give each bus a name of its own")
		v.bus(b, path, ends)
		v.devices(b, path, deviceNames)
	}
}

func (v *validation) bus(b *Bus, path string, ends unique) {
	if v.require(path+".kind", "write one of: "+strings.Join(b.Kind.choices(), ", ")) && b.Kind != "" {
		for _, k := range busKeys() {
			inner := path + "." + k.name
			switch {
			case slices.Contains(k.kinds, b.Kind):
				if k.required {
					v.require(inner, k.mend)
				}
			case v.given(inner):
				v.report(inner, fmt.Sprintf("a bus of kind %s has no %s, only %s has", b.Kind, k.name, strings.Trim(fmt.Sprint(k.kinds), "[]")), "remove it, or correct the kind")
			}
		}
	}
	end, key := "", ""
	switch b.Kind {
	case ModbusTCP, ModbusRTUTCP:
		if key = path + ".address"; v.given(key) {
			b.Address = v.address(key, b.Address, "502", 1)
		}
		end = b.Address
		v.serial(b, path, 0)
	case ModbusRTU:
		if key = path + ".port"; v.given(key) {
			b.Port = v.absolute(key, b.Port)
		}
		end = b.Port
		v.serial(b, path, 9600)
	case GPIO:
		key = path + ".chip"
		if v.given(key) && b.Chip == "" {
			v.report(key, "is empty", "write the chip's label as gpioinfo prints it")
		}
		end = b.Chip
	case GPIOSim:
		if key = path + ".dir"; v.given(key) {
			b.Dir = v.absolute(key, b.Dir)
		}
		end = b.Dir
	}
	ends.check(v.document, key, end, fmt.Sprintf("another bus with %s", quote(end)), "put the devices of both under one bus")
}

func (v *validation) serial(b *Bus, path string, baud int) {
	if key := path + ".baud"; !v.given(key) {
		b.Baud = baud
	} else if !slices.Contains(standardBauds(), b.Baud) {
		v.report(key, fmt.Sprintf("%d is not a usual rate", b.Baud), bauds())
	}
	if b.Parity == "" {
		b.Parity = ParityNone
	}
	v.integer(path+".stop_bits", &b.StopBits, 1, 1, 2)
	if b.RS485 == "" {
		b.RS485 = RS485Adapter
	}
	for key, delay := range map[string]*time.Duration{path + ".rts_before": &b.RTSBefore, path + ".rts_after": &b.RTSAfter} {
		if v.duration(key, delay, 0, 0, 100*time.Millisecond); v.given(key) && b.RS485 == RS485Adapter {
			v.report(key, "the adapter switches by itself", "write rs485: rts-high or rts-low, or remove it")
		}
	}
}

func (v *validation) devices(b *Bus, path string, names unique) {
	lines, units := unique{}, unique{}
	for i := range b.Devices {
		d, inner := &b.Devices[i], fmt.Sprintf("%s.devices[%d]", path, i)
		v.name(inner+".name", d.Name, nameForm, nameMend)
		names.check(v.document, inner+".name", d.Name, "the device name "+quote(d.Name), "give each device a name of its own")
		v.label(inner+".label", d.Label)
		v.model(b.Kind, d, inner)
		if b.Kind.isModbus() {
			v.unit(b.Kind, d.Unit, inner, units)
		} else if b.Kind != "" {
			v.line(b.Kind, d, inner, lines)
		}
		byDefault, least := time.Duration(0), leastInterval
		if d.Model != nil {
			byDefault, least = d.Model.Interval, max(least, d.Model.LeastInterval)
		}
		v.duration(inner+".interval", &d.Interval, byDefault, least, mostInterval)
		v.enabled(d, inner)
	}
	v.duration(path+".timeout", &b.Timeout, 0, 10*time.Millisecond, time.Minute)
}

// enabled sees whether the profile knows what is enabled for the device.
func (v *validation) enabled(d *Device, path string) {
	if d.Model == nil {
		return
	}
	var known []string
	for _, w := range d.Model.Writes {
		known = append(known, w.Name)
	}
	seen := unique{}
	for i, name := range d.Writes {
		inner := fmt.Sprintf("%s.writes[%d]", path, i)
		seen.check(v.document, inner, name, quote(name), "remove one of the two")
		switch {
		case slices.Contains(known, name):
		case known == nil:
			v.report(inner, fmt.Sprintf("profile %s has nothing to write", d.Profile), "remove writes")
		default:
			v.report(inner, fmt.Sprintf("profile %s cannot write %s", d.Profile, quote(name)), oneOf(name, known))
		}
	}
}

// model finds the device's profile and sees whether its points can be read on this kind of bus.
func (v *validation) model(kind BusKind, d *Device, path string) {
	path += ".profile"
	const list = "hubagent check --profiles lists them"
	if !v.require(path, "name the device's profile; "+list) {
		return
	}
	var ids []string
	for _, p := range v.profiles {
		if p.ID == d.Profile {
			d.Model = p
		}
		ids = append(ids, p.ID)
	}
	if d.Model == nil {
		mend := list
		if near := nearest(d.Profile, ids); near != "" {
			mend = "did you mean " + near + "? " + list
		}
		v.report(path, quote(d.Profile)+" is not a known profile", mend)
		return
	}
	for _, p := range d.Model.Points {
		if kind != "" && p.Function != "" && (p.Function == Line) == kind.isModbus() {
			v.report(path, fmt.Sprintf("point %s of %s is a %s, and a bus of kind %s has none", p.Name, d.Profile, p.Function, kind),
				"put the device under a bus of another kind, or correct the profile")
			return
		}
	}
}

func (v *validation) unit(kind BusKind, unit int, path string, units unique) {
	for _, key := range []string{".line", ".line_name"} {
		if v.given(path + key) {
			v.report(path+key, "a Modbus device has no line", "remove it, and write its unit id as unit")
		}
	}
	path += ".unit"
	if !v.require(path, "write the device's Modbus unit id, 1 to 247") {
		return
	}
	switch {
	case unit == 0:
		v.report(path, "unit 0 is the broadcast address, no device answers it", "write the device's own id, 1 to 247")
	case unit == 255 && kind == ModbusTCP:
		v.report(path, "unit 255 means the server itself, whichever device that is", "write the device's own id, 1 to 247")
	case unit < 1 || unit > 247:
		v.report(path, fmt.Sprintf("unit %d is not an address of a device", unit), "write the device's own id, 1 to 247")
	default:
		units.check(v.document, path, fmt.Sprint(unit), fmt.Sprintf("unit %d of this bus", unit), "give each device of a bus a unit id of its own")
	}
}

func (v *validation) line(kind BusKind, d *Device, path string, lines unique) {
	if key := path + ".unit"; v.given(key) {
		v.report(key, fmt.Sprintf("a device on a bus of kind %s has no unit", kind), "remove it, and write the number of its line as line")
	}
	if key := path + ".line_name"; v.given(key) {
		switch {
		case v.given(path + ".line"):
			v.report(key, "the line is given by its offset already", "remove one of the two")
		case !lineForm.MatchString(d.LineName):
			v.report(key, quote(d.LineName)+" cannot be the name of a line", "write it as gpioinfo prints it")
		}
		lines.check(v.document, key, quote(d.LineName), fmt.Sprintf("line %s of this bus", quote(d.LineName)), "one line carries one device: correct one of the two")
		return
	}
	path += ".line"
	if !v.require(path, fmt.Sprintf("write the line's offset on its chip, 0 to %d, or its name as line_name", mostLine)) {
		return
	}
	v.integer(path, &d.Line, 0, 0, mostLine)
	lines.check(v.document, path, fmt.Sprint(d.Line), fmt.Sprintf("line %d of this bus", d.Line), "one line carries one device: correct one of the two")
}
