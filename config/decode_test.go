package config

import (
	"strings"
	"testing"
)

// good is a config without a problem, which each of the wrong ones differs from in one place.
const good = `version: 1
gateway:
  id: hub-1
state: state
buses:
  - name: bins
    kind: modbus-tcp
    address: 192.168.1.10
    devices:
      - name: bin-001
        profile: hub-bin
        unit: 1
  - name: meters
    kind: modbus-rtu
    port: /dev/ttyS1
    devices:
      - {name: meter-001, profile: eastron-sdm630, unit: 2}
  - name: contacts
    kind: gpio-sim
    dir: gpio
    devices:
      - {name: lift-001, profile: facility-contact, line: 17}
`

// wrong is a change to good, or with an empty old a whole file, and every problem it must give.
type wrong struct {
	name, old, new string
	want           []string // line:column: path: reason; mend
}

func testWrong(t *testing.T, cases []wrong) {
	t.Helper()
	profiles, err := Profiles()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			text := c.new
			if c.old != "" {
				if strings.Count(good, c.old) != 1 {
					t.Fatalf("%q is not in good once", c.old)
				}
				text = strings.Replace(good, c.old, c.new, 1)
			}
			cfg, err := Parse("hub.yaml", []byte(text), profiles)
			if cfg != nil || err == nil {
				t.Fatal("no problem found")
			}
			want := "hub.yaml:" + strings.Join(c.want, "\nhub.yaml:")
			if err.Error() != want {
				t.Errorf("got\n%v\nwant\n%s", err, want)
			}
		})
	}
}

// Not YAML, or not of the right form.
func TestDecodeProblems(t *testing.T) { testWrong(t, wrongForm) }

var wrongForm = []wrong{
	{"empty", "", "", []string{
		"1:1: the file has no content; write its keys, as this shows them: hubagent init --reference",
	}},
	{"comment only", "", "# nothing\n", []string{
		"1:1: the file has no content; write its keys, as this shows them: hubagent init --reference",
	}},
	{"byte order mark", "", "\ufeffversion: 1\n", []string{
		"1:1: the file begins with a byte order mark; save it as UTF-8 without BOM",
	}},
	{"GBK", "  id: hub-1", "  id: hub-1\n  site: \xca\xbe\xb7\xb6", []string{
		"4:10: this byte is not UTF-8; save the file as UTF-8 text; an editor may have used GBK or UTF-16",
	}},
	{"control character", "id: hub-1", "id: hub\x001", []string{
		"3:10: this is the control character 0x00; save the file as UTF-8 text; an editor may have used GBK or UTF-16",
	}},
	{"second document", "state: state", "state: state\n---\nversion: 1", []string{
		"5:1: a second document begins here; keep one document a file and remove the line ---",
	}},
	{"directive", "version: 1", "%YAML 1.2\n---\nversion: 1", []string{
		"1:1: directives are not used here; remove the line that begins with %",
	}},
	{"list at the top", "", "- version: 1\n", []string{
		"1:1: the file is a list, not a mapping; begin with a key, for example version: 1",
	}},
	{"text at the top", "", "version 1\n", []string{
		"1:1: the file is the text version 1, not a mapping; begin with a key, for example version: 1",
	}},
	{"tab", "  id: hub-1", "\tid: hub-1", []string{
		"3:1: this line is indented with a tab; indent with spaces",
	}},
	{"open bracket", "", "version: 1\nbuses: [\n", []string{
		"2:8: this is not valid YAML: sequence end token ']' not found; close the bracket or quote that is open here",
	}},
	{"open quote", "", "version: 1\nstate: \"state\n", []string{
		"2:8: this is not valid YAML: could not find end character of double-quoted text; close the bracket or quote that is open here",
	}},
	{"wrong indentation", "  id: hub-1", "  id: hub-1\n   site: x", []string{
		`3:7: this is not valid YAML: mapping value is not allowed in this context; check the indentation, and put a text that holds ": " in quotes`,
	}},
	{"colon in a text", "state: state", "state: a: b", []string{
		`4:8: this is not valid YAML: mapping value is not allowed in this context; check the indentation, and put a text that holds ": " in quotes`,
	}},
	{"brackets too deep", "state: state", "state: " + strings.Repeat("[", 33), []string{
		"4:40: lists or mappings are more than 32 deep in each other; look for text that does not belong here",
	}},
	{"dashes too deep", "", strings.Repeat("- ", 40), []string{
		"1:65: lists or mappings are more than 32 deep in each other; look for text that does not belong here",
	}},
	{"too many keys", "", strings.Repeat("a:\n", 80000), []string{
		"1001:1: a mapping has more than 1000 lines; look for text that does not belong here",
	}},
	{"anchor", "id: hub-1", "id: &hub hub-1", []string{
		"3:7: gateway.id: anchors, aliases and tags are not used here; write the value itself",
	}},
	{"alias", "state: state", "state: &s state\nstatus: *s", []string{
		"4:8: state: anchors, aliases and tags are not used here; write the value itself",
		"5:9: status: anchors, aliases and tags are not used here; write the value itself",
	}},
	{"tag", "id: hub-1", "id: !!str hub-1", []string{
		"3:7: gateway.id: anchors, aliases and tags are not used here; write the value itself",
	}},
	{"merge key", "  id: hub-1", "  id: hub-1\n  <<: {site: x}", []string{
		"4:3: gateway.<<: this key is unknown; write one of: id, site, zone",
	}},
	{"complex key", "  id: hub-1", "  id: hub-1\n  ? site\n  : x", []string{
		"4:3: gateway: this form of key is not used here; write a plain key: id, site, zone",
	}},
	{"key given twice", "state: state", "state: state\nversion: 1", []string{
		"5:1: version: this key is given twice, first on line 1; remove one of the two",
	}},
	{"keys given twice", "  id: hub-1\nstate: state", "  id: hub-1\n  id: hub-2\nstate: state\nstate: other", []string{
		"4:3: gateway.id: this key is given twice, first on line 3; remove one of the two",
		"6:1: state: this key is given twice, first on line 5; remove one of the two",
	}},
	{"misspelt key", "state: state", "stat: state", []string{
		"1:1: state: this key is missing; name the folder for journal and keys, for example state: /var/lib/hubagent",
		"4:1: stat: this key is unknown; did you mean state?",
	}},
	{"unknown key", "    port: /dev/ttyS1", "    port: /dev/ttyS1\n    termination: true", []string{
		"16:5: buses[1].termination: this key is unknown; write one of: name, kind, address, port, baud, parity, stop_bits, rs485, rts_before, rts_after, chip, dir, timeout, devices",
	}},
	{"number for a key", "state: state", "state: state\n7: x", []string{
		"5:1: 7: this key is unknown; write one of: version, gateway, state, journal, uplink, status, buses",
	}},
	{"no value", "state: state", "state:", []string{
		"4:1: state: has no value; write one, or remove the key",
	}},
	{"null", "state: state", "state: ~", []string{
		"4:1: state: has no value; write one, or remove the key",
	}},
	{"number for a text", "name: bin-001", "name: 001", []string{
		"10:15: buses[0].devices[0].name: is the number 001 and should be a text; put it in quotes",
	}},
	{"hexadecimal for a text", "id: hub-1", "id: 0x1F", []string{
		"3:7: gateway.id: is the number 0x1F and should be a text; put it in quotes",
	}},
	{"word for a text", "id: hub-1", "id: true", []string{
		"3:7: gateway.id: is the word true and should be a text; put it in quotes",
	}},
	{"not a number", "id: hub-1", "id: .nan", []string{
		"3:7: gateway.id: is not a number to work with; write a finite number",
	}},
	{"infinity", "unit: 1\n", "unit: -.inf\n", []string{
		"12:15: buses[0].devices[0].unit: is not a number to work with; write a finite number",
	}},
	{"list for a text", "id: hub-1", "id: [hub-1]", []string{
		"3:3: gateway.id: is a list and should be a text; write a single value",
	}},
	{"text for a mapping", "gateway:\n  id: hub-1", "gateway: hub-1", []string{
		"2:10: gateway: is the text hub-1 and should be a mapping; write its keys on the lines below, indented by two spaces",
	}},
	{"mapping for a list", "    devices:\n      - name: bin-001\n        profile", "    devices:\n        name: bin-001\n        profile", []string{
		"9:5: buses[0].devices: is a mapping and should be a list; write each entry on a line of its own that begins with a dash",
	}},
	{"line break in a text", "id: hub-1", `id: "hub\n1"`, []string{
		"3:7: gateway.id: has a line break or control character; write it on one line of plain text",
	}},
	{"text too long", "id: hub-1", "id: hub-1\n  site: " + strings.Repeat("长", 1001), []string{
		"4:9: gateway.site: has 1001 characters, the most is 1000; write a shorter text",
	}},
	{"label too long", "id: hub-1", "id: hub-1\n  site: " + strings.Repeat("长", 101), []string{
		"4:9: gateway.site: has 101 characters, the most is 100; write a shorter text",
	}},
	{"octal", "unit: 1\n", "unit: 010\n", []string{
		"12:15: buses[0].devices[0].unit: 010 begins with 0 and could be read as octal; write it without leading zeros, or hexadecimal behind 0x",
	}},
	{"octal that is none", "unit: 1\n", "unit: 08\n", []string{
		"12:15: buses[0].devices[0].unit: 08 begins with 0 and could be read as octal; write it without leading zeros, or hexadecimal behind 0x",
	}},
	{"fraction", "unit: 1\n", "unit: 1.5\n", []string{
		"12:15: buses[0].devices[0].unit: 1.5 has a fraction or exponent and should be a whole number; write it without, for example 12",
	}},
	{"exponent", "unit: 1\n", "unit: 1e2\n", []string{
		"12:15: buses[0].devices[0].unit: 1e2 has a fraction or exponent and should be a whole number; write it without, for example 12",
	}},
	{"binary", "unit: 1\n", "unit: 0b11\n", []string{
		`12:15: buses[0].devices[0].unit: "0b11" is not a whole number; write decimal digits, or hexadecimal behind 0x`,
	}},
	{"underscore", "unit: 1\n", "unit: 1_0\n", []string{
		`12:15: buses[0].devices[0].unit: "1_0" is not a whole number; write decimal digits, or hexadecimal behind 0x`,
	}},
	{"plus", "unit: 1\n", "unit: +1\n", []string{
		`12:15: buses[0].devices[0].unit: "+1" is not a whole number; write decimal digits, or hexadecimal behind 0x`,
	}},
	{"quoted number", "unit: 1\n", "unit: \"1\"\n", []string{
		`12:15: buses[0].devices[0].unit: is the quoted text "1" and should be a whole number; write it without quotes, for example 12`,
	}},
	{"huge number", "unit: 1\n", "unit: 99999999999999999999\n", []string{
		"12:15: buses[0].devices[0].unit: 99999999999999999999 is too large; write a number below 9223372036854775808",
	}},
	{"hexadecimal is fine, zero is not", "unit: 1\n", "unit: 0x00\n", []string{
		"12:15: buses[0].devices[0].unit: unit 0 is the broadcast address, no device answers it; write the device's own id, 1 to 247",
	}},
	{"duration without unit", "state: state", "state: state\njournal: {sync_interval: 2}", []string{
		"5:26: journal.sync_interval: is the number 2 and should be a duration with its unit; write ms, s, m or h behind the number: 10s",
	}},
	{"duration with a wrong unit", "state: state", "state: state\njournal: {sync_interval: 2sec}", []string{
		`5:26: journal.sync_interval: "2sec" is not a duration; write a number with its unit, ms, s, m or h: 500ms, 10s, 1m30s`,
	}},
	{"duration out of range", "state: state", "state: state\njournal: {sync_interval: 31s}", []string{
		"5:26: journal.sync_interval: 31s is out of range; write 100ms to 30s",
	}},
	{"negative duration", "state: state", "state: state\njournal: {sync_interval: -2s}", []string{
		"5:26: journal.sync_interval: -2s is out of range; write 100ms to 30s",
	}},
	{"quota without unit", "state: state", "state: state\njournal: {quota: 512}", []string{
		"5:18: journal.quota: is the number 512 and should be a size with its unit; write MB, GB or TB behind the number: 512MB",
	}},
	{"quota with a wrong unit", "state: state", "state: state\njournal: {quota: 512mb}", []string{
		`5:18: journal.quota: "512mb" is not a size; write a whole number with its unit, MB, GB or TB: 512MB, 2GB`,
	}},
	{"quota out of range", "state: state", "state: state\njournal: {quota: 65GB}", []string{
		"5:18: journal.quota: 65GB is out of range; write 64MB to 64GB",
	}},
	{"quota beyond all numbers", "state: state", "state: state\njournal: {quota: 9223372036855TB}", []string{
		`5:18: journal.quota: "9223372036855TB" is not a size; write a whole number with its unit, MB, GB or TB: 512MB, 2GB`,
	}},
	{"key as a text", "state: state", "state: state\njournal: {key: journal.key}", []string{
		"5:16: journal.key: is the text journal.key and should be a mapping; write its keys on the lines below, indented by two spaces",
	}},
	{"key command as a text", "state: state", "state: state\njournal: {key: {command: clevis decrypt}}", []string{
		"5:26: journal.key.command: is the text clevis decrypt and should be a list; write each entry on a line of its own that begins with a dash",
	}},
	{"quota too small", "state: state", "state: state\njournal: {quota: 0MB}", []string{
		"5:18: journal.quota: 0MB is out of range; write 64MB to 64GB",
	}},
	{"leaf shorter than sync", "state: state", "state: state\njournal: {sync_interval: 10s, leaf_interval: 5s}", []string{
		"5:46: journal.leaf_interval: 5s is less than sync_interval, 10s; write the same or more: a leaf is made of what is synced",
	}},
	{"leaf shorter than default sync", "state: state", "state: state\njournal: {leaf_interval: 1s}", []string{
		"5:26: journal.leaf_interval: 1s is less than sync_interval, 2s; write the same or more: a leaf is made of what is synced",
	}},
	{"yes for true", "state: state", "state: state\nuplink: {allow_plaintext: yes}", []string{
		"5:27: uplink.allow_plaintext: is the text yes and should be true or false; write true or false, without quotes",
	}},
}
