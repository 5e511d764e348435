package config

import "testing"

// The right form, but nothing that could work.
func TestValidateProblems(t *testing.T) { testWrong(t, wrongContent) }

var wrongContent = []wrong{
	{"no version", "version: 1\n", "", []string{
		"1:1: version: this key is missing; write version: 1",
	}},
	{"other version", "version: 1", "version: 2", []string{
		"1:10: version: version 2 is not known to this program; write version: 1",
	}},
	{"no gateway", "gateway:\n  id: hub-1\n", "", []string{
		"1:1: gateway: this key is missing; write it with its id below: id: hub-1",
	}},
	{"no id", "  id: hub-1", "  site: x", []string{
		"2:1: gateway.id: this key is missing; write 1 to 64 of a-z 0-9 and -, for example hub-1",
	}},
	{"capital in id", "id: hub-1", "id: Hub_1", []string{
		`3:7: gateway.id: "Hub_1" cannot be a name here; write 1 to 64 of a-z 0-9 and -, for example hub-1`,
	}},
	{"unknown zone", "id: hub-1", "id: hub-1\n  zone: Asia/Peking", []string{
		`4:9: gateway.zone: "Asia/Peking" is not a time zone; write an IANA name, for example Asia/Shanghai`,
	}},
	{"local zone", "id: hub-1", "id: hub-1\n  zone: Local", []string{
		`4:9: gateway.zone: "Local" is not a time zone; write an IANA name, for example Asia/Shanghai`,
	}},
	{"no state", "state: state\n", "", []string{
		"1:1: state: this key is missing; name the folder for journal and keys, for example state: /var/lib/hubagent",
	}},
	{"two keys", "state: state", "state: state\njournal:\n  key:\n    file: a\n    credential: b\n    command: [c]", []string{
		"8:17: journal.key.credential: the key comes from file already; keep one of file, credential and command",
		"9:5: journal.key.command: the key comes from file already; keep one of file, credential and command",
	}},
	{"key from an empty file", "state: state", "state: state\njournal: {key: {file: \"\"}}", []string{
		"5:23: journal.key.file: is empty; write a path, absolute or from the folder of this file",
	}},
	{"key from a path as credential", "state: state", "state: state\njournal: {key: {credential: ../x}}", []string{
		`5:29: journal.key.credential: "../x" cannot be the name of a credential; write 1 to 255 of letters, digits, . _ and -, as in LoadCredentialEncrypted of the unit`,
	}},
	{"key from no command", "state: state", "state: state\njournal: {key: {command: []}}", []string{
		"5:17: journal.key.command: names no program; write program and arguments as a list, for example [clevis, decrypt]",
	}},
	{"endurance of a worn card", "state: state", "state: state\njournal: {card_endurance: 5GB}", []string{
		"5:27: journal.card_endurance: 5GB is out of range; write 100GB to 100000TB",
	}},
	{"empty state", "state: state", `state: ""`, []string{
		"4:8: state: is empty; write a path, absolute or from the folder of this file",
	}},
	{"broker without origin", "state: state", "state: state\nuplink:\n  brokers: [mqtts://b.example]", []string{
		"5:1: uplink.origin: this key is missing; write the operator's domain, without spaces and +, for example hub.example",
	}},
	{"origin with a space", "state: state", "state: state\nuplink:\n  origin: hub example", []string{
		`6:11: uplink.origin: "hub example" cannot be the origin of a checkpoint; write the operator's domain, without spaces and +, for example hub.example`,
	}},
	{"broker scheme", "state: state", "state: state\nuplink:\n  brokers: [tcp://b.example:1883]\n  origin: hub.example", []string{
		`6:13: uplink.brokers[0]: "tcp" is not a scheme for brokers; write mqtt://host:port or mqtts://host:port`,
	}},
	{"broker without scheme", "state: state", "state: state\nuplink:\n  brokers: [\"b.example:1883\"]\n  origin: hub.example", []string{
		`6:13: uplink.brokers[0]: "b.example:1883" is not a URL; write mqtt://host:port or mqtts://host:port`,
	}},
	{"broker with a password", "state: state", "state: state\nuplink:\n  brokers: [mqtts://user:hunter2@b.example]\n  origin: hub.example", []string{
		"6:13: uplink.brokers[0]: has a user or password in it; write mqtt://host:port or mqtts://host:port: secrets do not belong in this file",
	}},
	{"broker with a path", "state: state", "state: state\nuplink:\n  brokers: [mqtts://b.example/hub]\n  origin: hub.example", []string{
		`6:13: uplink.brokers[0]: "mqtts://b.example/hub" has something behind the port; write mqtt://host:port or mqtts://host:port`,
	}},
	{"broker in plain text", "state: state", "state: state\nuplink:\n  brokers: [mqtt://b.example, mqtt://localhost, mqtt://127.0.0.1]\n  origin: hub.example", []string{
		"6:13: uplink.brokers[0]: mqtt:// to another machine sends everything in plain text; write mqtts://, or set allow_plaintext: true under uplink if the network is trusted",
	}},
	{"broker twice", "state: state", "state: state\nuplink:\n  brokers:\n    - mqtts://b.example\n    - mqtts://b.example:8883\n  origin: hub.example", []string{
		"8:7: uplink.brokers[1]: the same broker is already on line 7; remove one of the two",
	}},
	{"keep alive", "state: state", "state: state\nuplink: {keep_alive: 2m, reconnect_max: 1ms, checkpoint_interval: 1s}", []string{
		"5:22: uplink.keep_alive: 2m is out of range; write 5s to 1m",
		"5:41: uplink.reconnect_max: 1ms is out of range; write 1s to 1h",
		"5:67: uplink.checkpoint_interval: 1s is out of range; write 5s to 24h",
	}},
	{"listen everywhere by omission", "state: state", "state: state\nstatus: {listen: \":8080\"}", []string{
		`5:18: status.listen: ":8080" names no address; write 127.0.0.1:8080 for this machine only, or 0.0.0.0:8080 to open the page to the network`,
	}},
	{"listen on a wrong port", "state: state", "state: state\nstatus: {listen: \"127.0.0.1:80800\"}", []string{
		`5:18: status.listen: "80800" is not a port; write a port from 0 to 65535 behind the colon`,
	}},
	{"bus without name", "  - name: bins\n    kind", "  - kind", []string{
		"6:5: buses[0].name: this key is missing; write 1 to 64 of a-z 0-9 and -",
	}},
	{"bus without kind", "    kind: modbus-rtu\n", "", []string{
		"13:5: buses[1].kind: this key is missing; write one of: modbus-tcp, modbus-rtu, modbus-rtu-tcp, gpio, gpio-sim",
	}},
	{"unknown kind of bus", "kind: modbus-rtu", "kind: modbus_rtu", []string{
		`14:11: buses[1].kind: "modbus_rtu" is not known; did you mean modbus-rtu?`,
	}},
	{"quite unknown kind of bus", "kind: modbus-rtu", "kind: profinet", []string{
		`14:11: buses[1].kind: "profinet" is not known; write one of: modbus-tcp, modbus-rtu, modbus-rtu-tcp, gpio, gpio-sim`,
	}},
	{"bus name twice", "name: meters", "name: bins", []string{
		`13:11: buses[1].name: the bus name "bins" is already on line 6; give each bus a name of its own`,
	}},
	{"no address", "    address: 192.168.1.10\n", "", []string{
		"6:5: buses[0].address: this key is missing; write the server's address, for example address: 192.168.1.10:502",
	}},
	{"no such IP address", "192.168.1.10", "192.168.1.300", []string{
		`8:14: buses[0].address: "192.168.1.300" is not a host; write host:port, for example 192.168.1.10:502`,
	}},
	{"IPv6 without brackets", "192.168.1.10", "fe80::1", []string{
		`8:14: buses[0].address: "fe80::1" has more than one colon; put an IPv6 address in brackets: [fe80::1]:502`,
	}},
	{"port that is none", "192.168.1.10", "192.168.1.10:modbus", []string{
		`8:14: buses[0].address: "modbus" is not a port; write a port from 1 to 65535 behind the colon`,
	}},
	{"key of another kind", "    address: 192.168.1.10", "    address: 192.168.1.10\n    rs485: rts-high\n    chip: x", []string{
		"9:12: buses[0].rs485: a bus of kind modbus-tcp has no rs485, only modbus-rtu has; remove it, or correct the kind",
		"10:11: buses[0].chip: a bus of kind modbus-tcp has no chip, only gpio has; remove it, or correct the kind",
	}},
	{"keys of the right kind missing", "    port: /dev/ttyS1", "    chip: x", []string{
		"13:5: buses[1].port: this key is missing; name the serial port, for example port: /dev/serial/by-id/...",
		"15:11: buses[1].chip: a bus of kind modbus-rtu has no chip, only gpio has; remove it, or correct the kind",
	}},
	{"unusual baud", "    port: /dev/ttyS1", "    port: /dev/ttyS1\n    baud: 9700\n    parity: mark\n    stop_bits: 3", []string{
		"16:11: buses[1].baud: 9700 is not a usual rate; write one of: 1200 2400 4800 9600 14400 19200 38400 57600 115200",
		`17:13: buses[1].parity: "mark" is not known; write one of: none, even, odd`,
		"18:16: buses[1].stop_bits: 3 is out of range; write 1 to 2",
	}},
	{"port used twice", "  - name: contacts\n    kind: gpio-sim\n    dir: gpio\n    devices:\n      - {name: lift-001, profile: facility-contact, line: 17}\n", "  - name: more\n    kind: modbus-rtu\n    port: /dev/../dev/ttyS1\n", []string{
		`20:11: buses[2].port: another bus with "/dev/ttyS1" is already on line 15; put the devices of both under one bus`,
	}},
	{"address used twice", "  - name: contacts\n    kind: gpio-sim\n    dir: gpio\n    devices:\n      - {name: lift-001, profile: facility-contact, line: 17}\n", "  - name: more\n    kind: modbus-tcp\n    address: 192.168.1.10:502\n", []string{
		`20:14: buses[2].address: another bus with "192.168.1.10:502" is already on line 8; put the devices of both under one bus`,
	}},
	{"time-out too short", "    port: /dev/ttyS1", "    port: /dev/ttyS1\n    timeout: 5ms", []string{
		"16:14: buses[1].timeout: 5ms is out of range; write 10ms to 1m",
	}},
	{"device without name, profile and unit", "      - name: bin-001\n        profile: hub-bin\n        unit: 1\n", "      - label: x\n", []string{
		"10:9: buses[0].devices[0].name: this key is missing; write 1 to 64 of a-z 0-9 and -",
		"10:9: buses[0].devices[0].profile: this key is missing; name the device's profile; hubagent check --profiles lists them",
		"10:9: buses[0].devices[0].unit: this key is missing; write the device's Modbus unit id, 1 to 247",
	}},
	{"device name twice", "name: lift-001", "name: bin-001", []string{
		`22:16: buses[2].devices[0].name: the device name "bin-001" is already on line 10; give each device a name of its own`,
	}},
	{"unknown profile", "profile: hub-bin", "profile: hub-bins", []string{
		`11:18: buses[0].devices[0].profile: "hub-bins" is not a known profile; did you mean hub-bin? hubagent check --profiles lists them`,
	}},
	{"quite unknown profile", "profile: hub-bin", "profile: weather-station", []string{
		`11:18: buses[0].devices[0].profile: "weather-station" is not a known profile; hubagent check --profiles lists them`,
	}},
	{"unit 0", "unit: 1\n", "unit: 0\n", []string{
		"12:15: buses[0].devices[0].unit: unit 0 is the broadcast address, no device answers it; write the device's own id, 1 to 247",
	}},
	{"unit 255", "unit: 1\n", "unit: 255\n", []string{
		"12:15: buses[0].devices[0].unit: unit 255 means the server itself, whichever device that is; write the device's own id, 1 to 247",
	}},
	{"unit 248", "unit: 1\n", "unit: 248\n", []string{
		"12:15: buses[0].devices[0].unit: unit 248 is not an address of a device; write the device's own id, 1 to 247",
	}},
	{"unit twice", "        unit: 1\n", "        unit: 1\n      - {name: bin-002, profile: hub-bin, unit: 0x01}\n", []string{
		"13:49: buses[0].devices[1].unit: unit 1 of this bus is already on line 12; give each device of a bus a unit id of its own",
	}},
	{"line on Modbus", "unit: 1\n", "unit: 1\n        line: 3\n", []string{
		"13:15: buses[0].devices[0].line: a Modbus device has no line; remove it, and write its unit id as unit",
	}},
	{"no line", "line: 17", "unit: 3", []string{
		"22:9: buses[2].devices[0].line: this key is missing; write the line's offset on its chip, 0 to 1023, or its name as line_name",
		"22:59: buses[2].devices[0].unit: a device on a bus of kind gpio-sim has no unit; remove it, and write the number of its line as line",
	}},
	{"line too high", "line: 17", "line: 1024", []string{
		"22:59: buses[2].devices[0].line: 1024 is out of range; write 0 to 1023",
	}},
	{"line twice", "line: 17}", "line: 17}\n      - {name: pump-001, profile: facility-contact, line: 17}", []string{
		"23:59: buses[2].devices[1].line: line 17 of this bus is already on line 22; one line carries one device: correct one of the two",
	}},
	{"contact on Modbus", "profile: hub-bin", "profile: facility-contact", []string{
		"11:18: buses[0].devices[0].profile: point fault of facility-contact is a line, and a bus of kind modbus-tcp has none; put the device under a bus of another kind, or correct the profile",
	}},
	{"bin on a line", "profile: facility-contact", "profile: hub-bin", []string{
		"22:35: buses[2].devices[0].profile: point deposits of hub-bin is a holding_register, and a bus of kind gpio-sim has none; put the device under a bus of another kind, or correct the profile",
	}},
	{"interval", "profile: hub-bin", "profile: hub-bin\n        interval: 50ms", []string{
		"12:19: buses[0].devices[0].interval: 50ms is out of range; write 100ms to 24h",
	}},
	{"all together", "", "version: 2\ngateway: {id: A}\nbuses:\n  - kind: x\n    devices: [{unit: 1.5}]\n", []string{
		"1:1: state: this key is missing; name the folder for journal and keys, for example state: /var/lib/hubagent",
		"1:10: version: version 2 is not known to this program; write version: 1",
		`2:15: gateway.id: "A" cannot be a name here; write 1 to 64 of a-z 0-9 and -, for example hub-1`,
		"4:5: buses[0].name: this key is missing; write 1 to 64 of a-z 0-9 and -",
		`4:11: buses[0].kind: "x" is not known; write one of: modbus-tcp, modbus-rtu, modbus-rtu-tcp, gpio, gpio-sim`,
		"5:15: buses[0].devices[0].name: this key is missing; write 1 to 64 of a-z 0-9 and -",
		"5:15: buses[0].devices[0].profile: this key is missing; name the device's profile; hubagent check --profiles lists them",
		"5:22: buses[0].devices[0].unit: 1.5 has a fraction or exponent and should be a whole number; write it without, for example 12",
	}},
}
