package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const goodProfile = `id: x-1
kind: meter
model: X 1
manual: X 1 manual, page 7
interval: 10s
modbus:
  max_registers: 4
points:
  - name: power
    title: {zh: 功率, en: power}
    function: input_register
    address: 0x0010
    type: f32
    unit: W
    headline: true
  - name: energy
    title: {zh: 电能, en: energy}
    function: input_register
    address: 0x0012
    type: u64
    unit: kW.h
  - name: door
    title: {zh: 箱门, en: door}
    function: coil
    address: 0
    type: bool
`

func TestProfileProblems(t *testing.T) {
	if d := newDocument("x-1.yaml"); d.profile("x-1", []byte(goodProfile)) == nil || d.problems != nil {
		t.Fatal(d.problems)
	}
	for _, c := range []wrong{
		{"empty", "", "", []string{"1:1: the file has no content; write its keys, as this shows them: hubagent init --reference"}},
		{"id of another file", "id: x-1", "id: x-2", []string{`1:5: id: "x-2" is not the name of the file; write id: x-1, or rename the file`}},
		{"nothing but points", goodProfile[:strings.Index(goodProfile, "points:")], "", []string{
			"1:1: id: this key is missing; write 1 to 64 of a-z 0-9 and -",
			"1:1: kind: this key is missing; write one of: bin, meter, camera, contact",
			"1:1: model: this key is missing; write maker and model",
			"1:1: manual: this key is missing; name the document the register map comes from",
			"1:1: interval: this key is missing; write the time between polls, for example interval: 10s",
		}},
		{"no points", goodProfile[strings.Index(goodProfile, "points:"):], "points: []\n", []string{
			"8:1: points: there are 0 points; list 1 to 256",
		}},
		{"no headline", "    headline: true\n", "", []string{
			"8:1: points: 0 points are headlines; mark one or two with headline: true for the page's list",
		}},
		{"limits", "max_registers: 4", "{max_registers: 126, max_bits: 0, max_hole: -1, response_timeout: 1ms, turnaround: 6s}", []string{
			"7:19: modbus.max_registers: 126 is out of range; write 1 to 125",
			"7:34: modbus.max_bits: 0 is out of range; write 1 to 2000",
			"7:47: modbus.max_hole: -1 is out of range; write 0 to 124",
			"7:69: modbus.response_timeout: 1ms is out of range; write 10ms to 1m",
			"7:86: modbus.turnaround: 6s is out of range; write 0s to 5s",
		}},
		{"title in one language", "{zh: 功率, en: power}", "{en: power}", []string{
			"10:5: points[0].title.zh: this key is missing; write the name in both languages: {zh: 电压, en: voltage}",
		}},
		{"name twice", "name: energy", "name: power", []string{
			`16:11: points[1].name: the point name "power" is already on line 9; give each point a name of its own`,
		}},
		{"misspelt function", "function: coil", "function: coils", []string{
			`24:15: points[2].function: "coils" is not known; did you mean coil?`,
		}},
		{"address in octal", "address: 0x0010", "address: 0020", []string{
			"12:14: points[0].address: 0020 begins with 0 and could be read as octal; write it without leading zeros, or hexadecimal behind 0x",
		}},
		{"address too high", "address: 0x0012", "address: 0xFFFD", []string{
			"19:14: points[1].address: 65533 to 65536 is not inside 0 to 65535; write the zero-based address as sent on the wire",
		}},
		{"odd address of an even model", "  max_registers: 4\npoints:\n  - name: power\n    title: {zh: 功率, en: power}\n    function: input_register\n    address: 0x0010",
			"  even_only: true\npoints:\n  - name: power\n    title: {zh: 功率, en: power}\n    function: input_register\n    address: 0x000F", []string{
				"12:14: points[0].address: 15 is odd, and the model answers even addresses only; correct the address, or modbus.even_only",
			}},
		{"too many registers", "max_registers: 4", "max_registers: 2", []string{
			"19:14: points[1].address: takes 4 registers, and modbus.max_registers is 2; correct one of the two",
		}},
		{"overlap", "address: 0x0012", "address: 0x0011", []string{
			"19:14: points[1].address: overlaps point power at 16 to 17; correct the address or type of one of the two",
		}},
		{"number in a coil", "type: bool", "type: u16", []string{
			"22:5: points[2].unit: this key is missing; write its UCUM unit, 1 for a ratio, {count} for a number of things",
			"26:11: points[2].type: function coil reads one bit and not u16; write type: bool",
		}},
		{"bool in a register", "type: u64\n    unit: kW.h", "type: bool", []string{
			"20:11: points[1].type: function input_register reads no bool; write u16, read a coil or discrete_input, or name the register's bit: bits: 3",
		}},
		{"unit of another spelling", "unit: kW.h", "unit: kWh", []string{
			`21:11: points[1].unit: "kWh" is not a unit known here; did you mean kW.h?`,
		}},
		{"unit that is a number", "unit: kW.h", "unit: 1", []string{
			"21:11: points[1].unit: is the number 1 and should be a text; put it in quotes",
		}},
		{"scale", "unit: kW.h", "unit: kW.h\n    scale: 1e-3", []string{
			`22:12: points[1].scale: "1e-3" is not a plain decimal number; write a plain decimal, for example 0.01, 1 or 10`,
		}},
		{"scale of nothing", "unit: kW.h", "unit: kW.h\n    scale: 0.00", []string{
			"22:12: points[1].scale: a scale of 0 would lose every value; write a plain decimal, for example 0.01, 1 or 10",
		}},
		{"quoted scale", "unit: kW.h", "unit: kW.h\n    scale: \"0.1\"", []string{
			`22:12: points[1].scale: is the quoted text "0.1" and should be a number; write a plain decimal without quotes, for example 0.01`,
		}},
		{"infinite scale", "unit: kW.h", "unit: kW.h\n    scale: .inf", []string{
			"22:12: points[1].scale: is not a number to work with; write a finite number",
		}},
		{"missing too wide", "type: f32\n    unit: W", "type: f32\n    unit: W\n    missing: [0x7FC00000, 0x100000000, -1]", []string{
			"15:27: points[0].missing[1]: 4294967296 does not fit 32 bits; write the raw value as an unsigned number, for example 0xFFFF",
			"15:40: points[0].missing[2]: -1 does not fit 32 bits; write the raw value as an unsigned number, for example 0xFFFF",
		}},
		{"missing of 64 bits", "unit: kW.h", "unit: kW.h\n    missing: [0xFFFFFFFFFFFFFFFF, 0x10000000000000000]", []string{
			"22:35: points[1].missing[1]: 0x10000000000000000 is too large; write at most 16 hexadecimal digits",
		}},
		{"keys of the other kind of point", "type: bool", "type: bool\n    unit: \"1\"\n    debounce: 1s", []string{
			"27:11: points[2].unit: a point of type bool has no unit; remove it",
			"28:15: points[2].debounce: only a point of function line has debounce; remove it",
		}},
		{"event of a number", "unit: kW.h", "unit: kW.h\n    event: true", []string{
			"22:12: points[1].event: a point of type u64 has no event; remove it: it is for bool only",
		}},
		{"text without length", "type: u64\n    unit: kW.h", "type: ascii\n    scale: 2\n    order: cdab", []string{
			"16:5: points[1].length: this key is missing; write the number of registers the text takes",
			"21:12: points[1].scale: a point of type ascii has no scale; remove it",
			"22:12: points[1].order: a text has no order cdab; write abcd, or badc when the second character comes first",
		}},
		{"text too long", "type: u64\n    unit: kW.h", "type: ascii\n    length: 5", []string{
			"19:14: points[1].address: takes 5 registers, and modbus.max_registers is 4; correct one of the two",
			"21:13: points[1].length: 5 is out of range; write 1 to 4",
		}},
		{"bits of a float", "type: f32", "type: f32\n    bits: 3", []string{
			"14:11: points[0].bits: a point of type f32 has no bits; remove it: it is for bool, u16 and u32 only",
		}},
		{"bits beyond the type", "type: u64", "type: u16\n    bits: 12-16", []string{
			"21:11: points[1].bits: u16 has 16 bits; write bits of 0 to 15",
		}},
		{"bits the wrong way round", "type: u64", "type: u16\n    bits: 7-4", []string{
			`21:11: points[1].bits: "7-4" names no bits; write one bit, counted from 0, or the lowest and highest: 3, or 4-7`,
		}},
		{"a bool of two bits", "type: u64\n    unit: kW.h", "type: bool\n    bits: 1-2", []string{
			"21:11: points[1].bits: a bool is one bit of one register; write one of 0 to 15, or type: u16 for a field",
		}},
		{"bits that share a register and overlap", "    function: coil\n    address: 0\n    type: bool\n", `    function: input_register
    address: 0x0020
    type: bool
    bits: 3
  - name: state
    title: {zh: 状态, en: state}
    function: input_register
    address: 0x0020
    type: u16
    bits: 2-4
    unit: "1"
`, []string{
			"33:11: points[3].bits: overlaps those of point door; correct the bits of one of the two",
		}},
		{"scaled by nothing", "unit: kW.h", "unit: kW.h\n    scale_power: sf", []string{
			`22:18: points[1].scale_power: there is no point "sf"; name a point of this profile`,
		}},
		{"a power that is a float", "unit: kW.h", "unit: kW.h\n    scale_power: power", []string{
			"22:18: points[1].scale_power: point power is no plain s16, and a power of ten is one; correct its type, or use scale_factor",
		}},
		{"a factor that is a coil", "unit: kW.h", "unit: kW.h\n    scale_factor: door", []string{
			"22:19: points[1].scale_factor: point door is of type bool and no number to scale by; name a point that is a number",
		}},
		{"scaled by itself", "unit: kW.h", "unit: kW.h\n    scale_factor: energy", []string{
			"22:19: points[1].scale_factor: point energy is scaled by another itself; name a point that stands by itself",
		}},
		{"modulus of no counter", "unit: kW.h", "unit: kW.h\n    modulus: 1000", []string{
			"22:14: points[1].modulus: only a counter begins again at 0; write counter: true, or remove it",
		}},
		{"modulus beyond the type", "type: u64\n    unit: kW.h", "type: bcd16\n    unit: kW.h\n    counter: true\n    modulus: 10001", []string{
			"23:14: points[1].modulus: 10001 is not a size that bcd16 counts to; write 2 to 10000",
		}},
		{"one code twice", "unit: kW.h", "unit: kW.h\n    codes: [{value: 1, title: {zh: 一, en: one}}, {value: 1, title: {zh: 一}}]", []string{
			"22:58: points[1].codes[1].value: the value 1 is already on line 22; give each value one name",
			"22:61: points[1].codes[1].title.en: this key is missing; write the name in both languages: {zh: 电压, en: voltage}",
		}},
		{"polled faster than it stands", "interval: 10s", "interval: 10s\nleast_interval: 11s", []string{
			"5:11: interval: 10s is less than least_interval, 11s; correct one of the two",
		}},
		{"time-out bounds crossed", "max_registers: 4", "{max_registers: 4, response_timeout: 100ms, least_timeout: 200ms}", []string{
			"7:62: modbus.least_timeout: 200ms is out of range; write 10ms to 100ms",
		}},
		{"block cuts a value", "max_registers: 4", "{max_registers: 4, blocks: [{function: input_register, address: 0x11, count: 4}]}", []string{
			"12:14: points[0].address: is only in part inside the block at 17 to 20; correct one of the two",
			"19:14: points[1].address: is only in part inside the block at 17 to 20; correct one of the two",
		}},
		{"identity of nothing", "interval: 10s", "interval: 10s\nidentity: [{point: frequency, least: 45, most: 65}, {point: power, least: 0, most: -1.5}]", []string{
			`6:20: identity[0].point: there is no point "frequency"; name a point of this profile`,
			"6:84: identity[1].most: -1.5 is less than 0; correct one of the two",
		}},
		{"delivered", "interval: 10s", "interval: 10s\ndelivered: {baud: 9601, unit: 248}", []string{
			"6:19: delivered.baud: 9601 is not a usual rate; write one of: 1200 2400 4800 9600 14400 19200 38400 57600 115200",
			"6:31: delivered.unit: 248 is out of range; write 1 to 247",
		}},
		{"writes", "interval: 10s", `interval: 10s
writes:
  - {name: clear, title: {zh: 清零, en: clear}, function: input_register, address: 1, type: u16, allowed: [1]}
  - {name: relay, title: {zh: 继电器, en: relay}, function: coil, address: 1, type: u16}
  - {name: level, title: {zh: 水平, en: level}, function: holding_register, address: 1, type: u16, allowed: [65536]}
  - {name: level, title: {zh: 水平, en: level}, function: holding_register, address: 1, type: u16}`, []string{
			"7:57: writes[0].function: function input_register cannot be written; write one of: coil, holding_register, line",
			"8:82: writes[1].type: a coil is not written as u16; write bool for coil and line, else one of u16, s16, u32, s32",
			"9:108: writes[2].allowed[0]: 65536 does not fit u16; write 0 to 65535",
			"10:5: writes[3].allowed: this key is missing; list the raw values that may be written",
			`10:12: writes[3].name: the name "level" is already on line 9; give each a name of its own`,
		}},
		{"line among registers", "function: coil\n    address: 0\n", "function: line\n    address: 0\n", []string{
			"8:1: points: a point of function line is not alone; a device on a line has that one point; make a profile for each",
			"25:14: points[2].address: a line has no address; remove it: the device's entry in hub.yaml names the line",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := c.new
			if c.old != "" {
				if strings.Count(goodProfile, c.old) != 1 {
					t.Fatalf("%q is not in the good profile once", c.old)
				}
				text = strings.Replace(goodProfile, c.old, c.new, 1)
			}
			d := newDocument("x-1.yaml")
			d.profile("x-1", []byte(text))
			got := ""
			if err := d.problems.err(); err != nil {
				got = err.Error()
			}
			want := ""
			if c.want != nil {
				want = "x-1.yaml:" + strings.Join(c.want, "\nx-1.yaml:")
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestShippedProfiles(t *testing.T) {
	profiles, err := Profiles()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("profiles/*.yaml")
	if err != nil || len(files) != len(profiles) {
		t.Fatalf("%d files make %d profiles: %v", len(files), len(profiles), err)
	}
	for _, p := range profiles {
		if file := filepath.Join("profiles", p.ID+".yaml"); !slices.Contains(files, file) {
			t.Errorf("profile %s is not %s", p.ID, file)
		}
	}
}

func TestSiteProfiles(t *testing.T) {
	dir := t.TempDir()
	profiles := filepath.Join(dir, ProfileFolder)
	if err := os.Mkdir(profiles, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	hub := filepath.Join(dir, "hub.yaml")
	write("hub.yaml", strings.Replace(good, "profile: hub-bin", "profile: x-1", 1))
	if _, err := Load(hub); err == nil || !strings.Contains(err.Error(), `"x-1" is not a known profile`) {
		t.Fatalf("without the profile: %v", err)
	}
	write("profiles/x-1.yaml", goodProfile)
	first, err := Load(hub)
	if err != nil || first.Buses[0].Devices[0].Model.Model != "X 1" {
		t.Fatalf("with the profile: %v", err)
	}
	write("profiles/x-1.yaml", goodProfile+"# changed\n")
	second, err := Load(hub)
	if err != nil || second.Hash == first.Hash {
		t.Errorf("a change to a profile leaves the hash as it was: %v", err)
	}
	override := strings.Replace(goodProfile, "id: x-1", "id: eastron-sdm630", 1)
	write("profiles/eastron-sdm630.yaml", override)
	third, err := Load(hub)
	if err != nil || third.Buses[1].Devices[0].Model.Model != "X 1" {
		t.Errorf("a site's profile does not take the place of the shipped one: %v", err)
	}
	// Problems of all files come together, and a faulty profile is not unknown.
	write("profiles/x-1.yaml", strings.Replace(goodProfile, "unit: W", "unit: Watt", 1))
	write("profiles/y.yml", goodProfile)
	write("hub.yaml", strings.Replace(strings.Replace(good, "profile: hub-bin", "profile: x-1", 1), "version: 1", "version: 2", 1))
	_, err = Load(hub)
	want := strings.Join([]string{
		hub + ":1:10: version: version 2 is not known to this program; write version: 1",
		filepath.Join(profiles, "x-1.yaml") + `:14:11: points[0].unit: "Watt" is not a unit known here; write one of: ` + strings.Join(ucum(), ", "),
		filepath.Join(profiles, "y.yml") + ":1:1: a profile's file ends in .yaml; rename it",
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}
