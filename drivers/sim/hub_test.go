package sim

import (
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"hubagent/config"
)

// A config that HubYAML wrote is the config it was given, with every key there is.
func TestHubYAML(t *testing.T) {
	profiles, err := config.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"reference": config.Reference(), "starter": config.Starter("hub-1"),
		"least": "version: 1\ngateway: {id: hub-1}\nstate: s\nstatus: {listen: off}\n",
		"rare": `
version: 1
gateway: {id: hub-1, site: "a \"quoted\" name: # 小区"}
state: "with blank"
buses:
  - {name: none, kind: modbus-tcp, address: "[fe80::1]:502"}
  - name: line
    kind: modbus-rtu
    port: /dev/ttyS1
    rs485: rts-low
    rts_before: 1ms
    rts_after: 2ms
    parity: even
    timeout: 2s
    devices: [{name: m, profile: hub-bin, unit: 247, label: 'it''s "m"'}]
  - name: lines
    kind: gpio-sim
    dir: d
    devices: [{name: zero, profile: facility-contact, line: 0}, {name: named, profile: facility-contact, line_name: "A:B"}]
`,
	} {
		t.Run(name, func(t *testing.T) {
			want, err := config.Parse("hub.yaml", []byte(text), profiles)
			if err != nil {
				t.Fatal(err)
			}
			written, err := HubYAML("a comment", want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := config.Parse("hub.yaml", written, profiles)
			if err != nil {
				t.Fatalf("%v\n%s", err, written)
			}
			got.Hash = want.Hash
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v\nwant %+v\nby\n%s", got, want, written)
			}
			if !strings.HasPrefix(string(written), "# a comment\n") {
				t.Errorf("begins %.20q", written)
			}
		})
	}
}

func TestHubPlaces(t *testing.T) {
	dir := t.TempDir()
	port := filepath.Join(dir, "ttyReal")
	buses := []config.Bus{
		{Name: "bins", Kind: config.ModbusTCP, Address: "127.0.0.1:0"},
		{Name: "meters", Kind: config.ModbusRTU, Port: port, Baud: 9600, RS485: config.RS485RTSHigh, RTSBefore: time.Millisecond},
		{Name: "contacts", Kind: config.GPIO, Chip: "pinctrl"},
		{Name: "trial", Kind: config.GPIOSim, Dir: filepath.Join(dir, "own")},
	}
	open := func(s Setup) *Hub {
		t.Helper()
		s.Dir = dir
		hub, err := s.Open(buses)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { hub.Close() })
		return hub
	}

	first := open(Setup{Host: "127.0.0.1"})
	line := filepath.Join(dir, "line-meters")
	want := []config.Bus{
		{Name: "bins", Kind: config.ModbusTCP, Address: first.Buses[0].Address},
		{Name: "meters", Kind: config.ModbusRTU, Port: line, Baud: 9600, RS485: config.RS485Adapter},
		{Name: "contacts", Kind: config.GPIOSim, Dir: filepath.Join(dir, "lines-contacts")},
		{Name: "trial", Kind: config.GPIOSim, Dir: filepath.Join(dir, "lines-trial")},
	}
	if !reflect.DeepEqual(first.Buses, want) {
		t.Errorf("buses %+v\nwant %+v", first.Buses, want)
	}
	if host, _, err := net.SplitHostPort(first.Buses[0].Address); err != nil || host != "127.0.0.1" {
		t.Errorf("server at %s", first.Buses[0].Address)
	}

	// A second one takes the line over; the first lets go of its own things only.
	second := open(Setup{Host: "127.0.0.1", Before: map[string]string{"bins": first.Buses[0].Address}})
	if second.Buses[0].Address == first.Buses[0].Address {
		t.Error("one port twice")
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Readlink(line); err != nil {
		t.Error(err)
	}
	address := first.Buses[0].Address
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(line); err == nil {
		t.Error("the link is still there")
	}

	// Another run gets the same port again; one that listens everywhere is reached by the loopback.
	if again := open(Setup{Host: "0.0.0.0", Before: map[string]string{"bins": address}}); again.Buses[0].Address != address {
		t.Errorf("server at %s, before at %s", again.Buses[0].Address, address)
	} else {
		again.Close()
	}

	// The config's own places.
	same := open(Setup{SameAddresses: true})
	if same.Buses[1].Port != port || same.Buses[3].Dir != buses[3].Dir || same.Buses[2].Kind != config.GPIOSim {
		t.Errorf("buses %+v", same.Buses)
	}
	same.Close()
	// A stable name under /dev/serial/by-id is a link, too.
	if err := os.Symlink("../../ttyUSB0", port); err != nil {
		t.Fatal(err)
	}
	if _, err := (Setup{Dir: dir, SameAddresses: true}).Open(buses); err == nil || !strings.Contains(err.Error(), "cannot simulate bus meters: "+port+" is there already") {
		t.Errorf("over a real port: %v", err)
	}
	if to, _ := os.Readlink(port); to != "../../ttyUSB0" {
		t.Errorf("the real port's name now leads to %q", to)
	}
}
