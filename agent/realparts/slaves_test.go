package realparts

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/modbus"
	"hubagent/drivers/sim"
)

// exchange asks a bus's unit once, and again while the slave is not there yet.
func exchange(t *testing.T, bus config.Bus, unit int, function config.Function, start, count int) ([]byte, error) {
	t.Helper()
	var data []byte
	var err error
	waitFor(t, 10*time.Second, "the slave of bus "+bus.Name, func() bool {
		var raw *modbus.Raw
		if raw, err = modbus.OpenRaw(t.Context(), bus); err != nil {
			return false
		}
		defer raw.Close()
		var x modbus.Exchange
		x, err = raw.Exchange(t.Context(), modbus.Query{Unit: unit, Function: function, Start: start, Count: count, Timeout: time.Second})
		data = x.Data
		return err == nil || x.Code != 0
	})
	return data, err
}

// A slave on libmodbus is read over Modbus TCP, on a line, and on a line behind a converter in transparent mode, which
// socat is; from every table.
func TestLibmodbusSlave(t *testing.T) {
	needRealParts(t)
	dir := t.TempDir()
	slave := filepath.Join(dir, "slave")
	if out, err := exec.Command("cc", "-I/usr/include/modbus", "-o", slave, "testdata/slave.c", "-lmodbus").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	line := func(name string) (near, far string) {
		near, far = filepath.Join(dir, name+"-near"), filepath.Join(dir, name+"-far")
		start(t, nil, "socat", "pty,raw,echo=0,link="+near, "pty,raw,echo=0,link="+far)
		waitFor(t, 10*time.Second, "socat's line", func() bool { _, err := os.Stat(far); return err == nil })
		return near, far
	}
	port := freePort(t)
	start(t, nil, slave, "tcp", port)
	waitFor(t, 10*time.Second, "the slave on "+port, listening(port))
	rtu, far := line("rtu")
	start(t, nil, slave, "rtu", far)
	converter := freePort(t)
	converted, far := line("converted")
	start(t, nil, slave, "rtu", far)
	start(t, nil, "socat", "-t", "0", "tcp-listen:"+converter+",bind=127.0.0.1,reuseaddr,fork", converted+",raw,echo=0")
	for _, bus := range []config.Bus{
		{Name: "tcp", Kind: config.ModbusTCP, Address: net.JoinHostPort("127.0.0.1", port)},
		{Name: "rtu over tcp", Kind: config.ModbusRTUTCP, Address: net.JoinHostPort("127.0.0.1", converter), Baud: 9600},
		{Name: "rtu", Kind: config.ModbusRTU, Port: rtu, Baud: 9600, Parity: config.ParityNone, StopBits: 1},
	} {
		t.Run(bus.Name, func(t *testing.T) {
			for _, c := range []struct {
				function     config.Function
				start, count int
				bit          func(n int) bool
				word         func(n int) uint16
			}{
				{config.Coil, 3, 37, func(n int) bool { return n%3 == 0 }, nil},
				{config.DiscreteInput, 0, 16, func(n int) bool { return n%2 == 1 }, nil},
				{config.HoldingRegister, 70, 125, nil, func(n int) uint16 { return uint16(1000 + n) }},
				{config.InputRegister, 199, 1, nil, func(n int) uint16 { return uint16(0xFFFF - n) }},
			} {
				data, err := exchange(t, bus, 7, c.function, c.start, c.count)
				if err != nil {
					t.Fatalf("%s: %v", c.function, err)
				}
				for i := range c.count {
					n := c.start + i
					if c.word != nil && binary.BigEndian.Uint16(data[2*i:]) != c.word(n) || c.bit != nil && (data[i/8]>>(i%8)&1 == 1) != c.bit(n) {
						t.Errorf("%s %d is not what the slave holds: % x", c.function, n, data)
					}
				}
			}
			_, err := exchange(t, bus, 7, config.HoldingRegister, 190, 20)
			var refused *drivers.Error
			if !errors.As(err, &refused) || refused.Code != 2 {
				t.Errorf("registers beyond its own: %v", err)
			}
		})
	}
}

// A slave on pymodbus that speaks RTU over TCP, as behind a converter in transparent mode.
func TestPymodbusRTUOverTCP(t *testing.T) {
	needRealParts(t)
	dir, port := t.TempDir(), freePort(t)
	site, err := json.Marshal(map[string]any{"5": map[string]any{"holding": [][]any{{"f", 0, 230.5}, {"H", 2, 50}}}})
	if err != nil {
		t.Fatal(err)
	}
	start(t, nil, "/usr/bin/python3", "testdata/slave.py", "rtutcp", port, write(t, filepath.Join(dir, "site.json"), string(site)))
	bus := config.Bus{Name: "annex", Kind: config.ModbusRTUTCP, Address: net.JoinHostPort("127.0.0.1", port), Baud: 9600}
	data, err := exchange(t, bus, 5, config.HoldingRegister, 0, 3)
	if want := "\x43\x66\x80\x00\x00\x32"; err != nil || string(data) != want {
		t.Errorf("% x, %v; want % x", data, err, want)
	}
}

// A slave on pymodbus behind the fault proxy: what comes through is what the slave holds at that unit and address, or a
// fault, over Modbus TCP and RTU over TCP.
func TestPymodbusThroughFaults(t *testing.T) {
	needRealParts(t)
	const units, span = 3, 20
	holds := func(unit, address int) uint16 { return uint16(unit<<12 | address<<4 | 5) }
	site := map[string]map[string][][]any{}
	for unit := 1; unit <= units; unit++ {
		var registers [][]any
		for address := range 3 * span {
			registers = append(registers, []any{"H", address, holds(unit, address)})
		}
		site[strconv.Itoa(unit)] = map[string][][]any{"holding": registers}
	}
	held, err := json.Marshal(site)
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, filepath.Join(t.TempDir(), "site.json"), string(held))
	for _, c := range []struct {
		kind config.BusKind
		mode string
		open drivers.OpenFunc
	}{
		{config.ModbusTCP, "tcp", modbus.OpenTCP},
		{config.ModbusRTUTCP, "rtutcp", modbus.OpenRTUTCP},
	} {
		t.Run(c.mode, func(t *testing.T) {
			port := freePort(t)
			start(t, nil, "/usr/bin/python3", "testdata/slave.py", c.mode, port, path)
			waitFor(t, 20*time.Second, "pymodbus", listening(port))
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			proxy := &sim.Proxy{TCP: c.kind == config.ModbusTCP, Odds: 3, Late: 40 * time.Millisecond, Seed: 3}
			served := make(chan error, 1)
			go func() {
				served <- proxy.Serve(listener, func() (net.Conn, error) { return net.Dial("tcp", net.JoinHostPort("127.0.0.1", port)) })
			}()
			bus, err := c.open(config.Bus{Name: c.mode, Kind: c.kind, Address: listener.Addr().String(), Timeout: 40 * time.Millisecond}, drivers.With{})
			if err != nil {
				t.Fatal(err)
			}
			good, wrong, missing := 0, 0, map[string]int{}
			for n := range 200 {
				d := config.Device{Name: "meter", Unit: 1 + n%units, Model: &config.Profile{}}
				for _, address := range []int{n % span, span + n%span, 2*span + n%span} {
					d.Model.Points = append(d.Model.Points, config.Point{Name: "register" + strconv.Itoa(address), Function: config.HoldingRegister, Address: address, Type: config.U16, Unit: "1"})
				}
				s, _ := bus.Read(t.Context(), d) // the readings tell what failed
				for i, r := range s.Readings {
					address := d.Model.Points[i].Address
					switch {
					case r.Quality == drivers.Missing:
						missing[r.Why]++
					case r.Value != drivers.Uint(uint64(holds(d.Unit, address))):
						wrong++
						t.Errorf("register %d of unit %d is %s, want %d", address, d.Unit, r.Value, holds(d.Unit, address))
					default:
						good++
					}
				}
			}
			t.Logf("%d values, %d wrong; missing for %v; faults %v", good, wrong, missing, proxy.Told())
			if good < 100 || len(missing) < 3 || len(proxy.Told()) < 10 {
				t.Error("the test tests little")
			}
			bus.Close()
			listener.Close()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}
