package scan

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hubagent/config"
)

func TestParseUnits(t *testing.T) {
	for text, want := range map[string]string{
		"1-3": "[1 2 3]", "1,2,5-7": "[1 2 5 6 7]", " 9 , 9": "[9]", "247": "[247]", "3-3,1": "[3 1]",
		"": "is no list", "1-": "is no list", "a": "is no list", "1;2": "is no list", "-3": "is no list", "1-2-3": "is no list",
		"0": "1 to 247", "1-248": "1 to 247", "9-5": "9-5 runs backwards; write 5-9",
	} {
		units, err := ParseUnits(text)
		if got := fmt.Sprint(units); err != nil && !strings.Contains(err.Error(), want) || err == nil && got != want {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
	}
}

func FuzzParseUnits(f *testing.F) {
	f.Add("1-247")
	f.Add("1,2,5-9")
	f.Fuzz(func(t *testing.T, text string) {
		units, err := ParseUnits(text)
		if (err == nil) == (len(units) == 0) || len(units) > 247 {
			t.Errorf("%q: %v, %v", text, units, err)
		}
		for i, u := range units {
			if u < 1 || u > 247 || slices.Contains(units[:i], u) {
				t.Errorf("%q: %v", text, units)
			}
		}
	})
}

func TestSettings(t *testing.T) {
	const even, none = config.ParityEven, config.ParityNone
	delivered := func(baud int, parity config.Parity, stop int) *config.Profile {
		return &config.Profile{Delivered: config.Delivered{Baud: baud, Parity: parity, StopBits: stop}}
	}
	for _, c := range []struct {
		name     string
		bauds    []int
		parities []config.Parity
		profiles []*config.Profile
		want     string // how the list begins
	}{
		{"all", nil, nil, nil, "9600 8N1, 9600 8E1, 19200 8E1, 19200 8N1, 9600 8N2, 2400 8E1, 4800 8N1, 4800 8E1, "},
		{"one rate", []int{19200}, nil, nil, "19200 8E1, 19200 8N1, 19200 8O1"},
		{"one setting", []int{19200}, []config.Parity{even}, nil, "19200 8E1"},
		{"an uncommon one", []int{57600, 1200}, []config.Parity{config.ParityOdd}, nil, "57600 8O1, 1200 8O1"},
		{"one parity", nil, []config.Parity{even}, nil, "9600 8E1, 19200 8E1, 2400 8E1, "},
		{"delivered", nil, nil, []*config.Profile{delivered(115200, none, 1), delivered(9600, even, 1), {}, delivered(19200, none, 2)},
			"9600 8N1, 9600 8E1, 19200 8E1, 19200 8N1, 9600 8N2, 19200 8N2, 115200 8N1, 2400 8E1, "},
	} {
		var got []string
		for _, s := range Settings(c.bauds, c.parities, c.profiles) {
			if got = append(got, s.String()); slices.Contains(got[:len(got)-1], s.String()) {
				t.Errorf("%s: %s twice", c.name, s)
			}
		}
		if text := strings.Join(got, ", "); !strings.HasPrefix(text, c.want) || !strings.HasSuffix(c.want, ", ") && text != c.want {
			t.Errorf("%s: %s, want %s", c.name, text, c.want)
		}
	}
}

// A machine with two adapters without serial numbers, one that has one, a UART on the board and one that is not there.
func TestPorts(t *testing.T) {
	root := t.TempDir()
	if resolved, err := filepath.EvalSymlinks(root); err == nil {
		root = resolved
	}
	put := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, device string) {
		path := filepath.Join(root, "dev/serial", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, "dev", device), path); err != nil {
			t.Fatal(err)
		}
	}
	for _, tty := range []string{"ttyUSB0", "ttyUSB1", "ttyUSB2", "ttyS0", "ttyS1", "ttyAMA0"} {
		put("dev/"+tty, "")
	}
	put("sys/class/tty/ttyS0/type", "4\n")
	put("sys/class/tty/ttyS1/type", "0\n")
	link("by-id/usb-1a86_USB_Serial-if00-port0", "ttyUSB1")
	link("by-id/usb-FTDI_A50285BI-if00-port0", "ttyUSB2")
	link("by-path/usb-0:1:1.0-port0", "ttyUSB0")
	link("by-path/usb-0:2:1.0-port0", "ttyUSB1")
	link("by-path/usb-0:3:1.0-port0", "ttyUSB9") // was pulled out

	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "dev/ttyUSB2"), &st); err != nil {
		t.Fatal(err)
	}
	put("proc/locks", fmt.Sprintf("1: POSIX  ADVISORY  WRITE 7 %02[1]x:%02[2]x:%[3]d 0 EOF\n2: FLOCK  ADVISORY  WRITE 812 %02[1]x:%02[2]x:%[3]d 0 EOF\n",
		unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino))
	put("proc/812/comm", "hubagent\n")

	ports, err := Ports(root)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range ports {
		got = append(got, strings.TrimPrefix(p.Name, root+"/dev/")+" "+filepath.Base(p.Device)+" "+p.Holder)
	}
	want := []string{
		"serial/by-id/usb-1a86_USB_Serial-if00-port0 ttyUSB1 ",
		"serial/by-id/usb-FTDI_A50285BI-if00-port0 ttyUSB2 hubagent (process 812)",
		"serial/by-path/usb-0:1:1.0-port0 ttyUSB0 ",
		"ttyAMA0 ttyAMA0 ",
		"ttyS0 ttyS0 ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if ports, err := Ports(t.TempDir()); err != nil || ports != nil {
		t.Errorf("a machine without ports has %v, %v", ports, err)
	}
}

// The kernel itself says who holds a file.
func TestHolder(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "port"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := Holder("/", f.Name()); got != "" {
		t.Errorf("nobody holds it, but %q", got)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile("/proc/locks"); err != nil {
		t.Skip(err)
	}
	if got, want := Holder("/", f.Name()), fmt.Sprintf("(process %d)", os.Getpid()); !strings.HasSuffix(got, want) {
		t.Errorf("held by %q, want %s", got, want)
	}
}

// 230.2 as a float32 is 43 66 33 33, 12345678 in decimal digits is 12 34 56 78 (worked out by hand, IEEE 754).
func TestOrders(t *testing.T) {
	at := func(data []byte, o config.Order, typ config.Type) string {
		for _, g := range Orders(data) {
			if g.Order == o && g.Type == typ {
				if g.Readable {
					return g.Value + "*"
				}
				return g.Value
			}
		}
		return "none"
	}
	float := []byte{0x43, 0x66, 0x33, 0x33}
	for _, c := range []struct {
		data  []byte
		order config.Order
		typ   config.Type
		want  string
	}{
		{float, config.ABCD, config.F32, "230.2*"},
		{float, config.ABCD, config.U32, "1130771251"},
		{float, config.CDAB, config.F32, "4.1737984e-08"},
		{[]byte{0x33, 0x33, 0x43, 0x66}, config.CDAB, config.F32, "230.2*"},
		{[]byte{0x66, 0x43, 0x33, 0x33}, config.BADC, config.F32, "230.2*"},
		{[]byte{0x33, 0x33, 0x66, 0x43}, config.DCBA, config.F32, "230.2*"},
		{[]byte{0x12, 0x34, 0x56, 0x78}, config.ABCD, config.BCD32, "12345678"},
		{[]byte{0x00, 0x34, 0x56, 0x78}, config.ABCD, config.BCD32, "345678*"},
		{[]byte{0x12, 0x34, 0x56, 0x7A}, config.ABCD, config.BCD32, ""},
		{[]byte{0x00, 0x00, 0x00, 0x7B}, config.ABCD, config.U32, "123*"},
		{[]byte{0xFF, 0xFF, 0xFF, 0x85}, config.ABCD, config.S32, "-123*"},
		{[]byte{0x09, 0x29}, config.ABCD, config.U16, "2345*"},
		{[]byte{0x29, 0x09}, config.BADC, config.U16, "2345*"},
		{[]byte{0xFF, 0xFE}, config.ABCD, config.S16, "-2*"},
		{[]byte{0xFF, 0xFE}, config.ABCD, config.U16, "65534"},
		{[]byte{0x23, 0x45}, config.ABCD, config.BCD16, "2345*"},
		{[]byte{0x7F, 0xC0, 0, 0}, config.ABCD, config.F32, ""},
		{[]byte{0x40, 0x6C, 0xC6, 0x66, 0x66, 0x66, 0x66, 0x66}, config.ABCD, config.F64, "230.2*"},
		{[]byte{0, 0, 0, 0, 0, 0, 0x30, 0x39}, config.ABCD, config.U64, "12345*"},
		{[]byte{0, 0, 0, 0, 0, 1, 0x23, 0x45}, config.ABCD, config.BCD64, "12345*"},
		{[]byte{1}, config.ABCD, config.U16, "none"},
		{nil, config.ABCD, config.U16, "none"},
	} {
		if got := at(c.data, c.order, c.typ); got != c.want {
			t.Errorf("% x as %s %s: %q, want %q", c.data, c.order, c.typ, got, c.want)
		}
	}
}

// What a scan prints for hub.yaml can be pasted there.
func TestSnippet(t *testing.T) {
	profiles, err := config.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	r := Result{Lines: []Line{
		{Kind: config.ModbusRTU, Port: "/dev/ttyS1", Baud: 1200, Parity: config.ParityNone, StopBits: 1, Devices: []Device{{Unit: 9}}},
		{Kind: config.ModbusRTU, Port: "/dev/ttyS1", Baud: 19200, Parity: config.ParityEven, StopBits: 2, Devices: []Device{
			{Unit: 1, Took: time.Millisecond, Fits: []Fit{{Profile: "eastron-sdm630", Sure: true, kind: config.Meter}}},
			{Unit: 2},
			{Unit: 5, Fits: []Fit{{Profile: "hub-bin", kind: config.Bin}, {Profile: "eastron-sdm630", kind: config.Meter}}},
			{Unit: 7, Fits: []Fit{{Profile: "eastron-sdm630", kind: config.Meter}}},
		}},
	}}
	const head = "version: 1\ngateway: {id: hub-1}\nstate: state\n"
	cfg, err := config.Parse("hub.yaml", []byte(head+r.Snippet()), profiles)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Snippet())
	}
	var got []string
	for _, d := range cfg.Buses[0].Devices {
		got = append(got, fmt.Sprintf("%s %s %d", d.Name, d.Profile, d.Unit))
	}
	if want := []string{"meter-001 eastron-sdm630 1", "bin-001 hub-bin 5", "meter-002 eastron-sdm630 7"}; !reflect.DeepEqual(got, want) {
		t.Errorf("devices %q, want %q", got, want)
	}
	if b := cfg.Buses[0]; b.Port != "/dev/ttyS1" || b.Baud != 19200 || b.Parity != config.ParityEven || b.StopBits != 2 {
		t.Errorf("bus %+v", b)
	}
	tcp := Result{Lines: []Line{{Kind: config.ModbusTCP, Address: "[fe80::1]:502", Devices: r.Lines[1].Devices}}}
	if cfg, err = config.Parse("hub.yaml", []byte(head+tcp.Snippet()), profiles); err != nil || cfg.Buses[0].Address != "[fe80::1]:502" {
		t.Errorf("%v\n%s", err, tcp.Snippet())
	}
	if got := (Result{}).Snippet(); got != "" {
		t.Errorf("nothing found gives %q", got)
	}
}
