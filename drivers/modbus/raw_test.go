package modbus

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/sim"
)

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// peer is a server that answers one request with the given bytes and then keeps silent. before is sent at once.
func peer(t *testing.T, before, answer []byte) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Write(before)
		var request [256]byte
		if _, err := conn.Read(request[:]); err != nil {
			return
		}
		conn.Write(answer)
		io.Copy(io.Discard, conn)
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// The answers are those of the SDM630's manual, with what a line may bring beside them.
func TestRawExchange(t *testing.T) {
	const refused = "01 84 02 C2 C1"
	const foreign = "05 03 00 00 00 01 85 8E" // another master asks unit 5
	const tcpAnswer = "00 01 00 00 00 07 01 04 04 43 66 33 34"
	for _, c := range []struct {
		name           string
		kind           config.BusKind
		before, answer string
		err            string // how it begins; "" for none
		data           string
		code           byte
		others         int
		noise          int
	}{
		{name: "good", answer: answer, data: "43663334"},
		{name: "refused", answer: refused, err: "cannot read input register 0-1 of unit 1: exception 2", code: 2},
		{name: "silent", err: "cannot read input register 0-1 of unit 1: timeout"},
		{name: "echo", answer: ask + answer, data: "43663334"},
		{name: "garbage", answer: "FF 00 81 C3 7E 10 22", err: "cannot read input register 0-1 of unit 1: crc", noise: 7},
		{name: "a wrong checksum", answer: "01 04 04 43 66 33 34 1B 39", err: "cannot read input register 0-1 of unit 1: crc", noise: 9},
		{name: "noise before", answer: "00 FF" + answer, data: "43663334", noise: 2},
		{name: "another master's request before", answer: foreign + answer, data: "43663334", others: 1},
		{name: "another master heard before", before: foreign, answer: answer, data: "43663334", others: 1},
		{name: "TCP, good", kind: config.ModbusTCP, answer: tcpAnswer, data: "43663334"},
		{name: "TCP, a stray answer before", kind: config.ModbusTCP, answer: "77" + tcpAnswer[2:] + tcpAnswer, data: "43663334"},
		{name: "TCP, refused", kind: config.ModbusTCP, answer: "00 01 00 00 00 03 01 84 0B", err: "cannot read input register 0-1 of unit 1: exception 11", code: 11},
		{name: "TCP, short", kind: config.ModbusTCP, answer: "00 01 00 00 00 05 01 04 02 43 66", err: "cannot read input register 0-1 of unit 1: frame"},
		{name: "TCP, RTU comes back", kind: config.ModbusTCP, answer: answer, err: "cannot read input register 0-1 of unit 1: frame: header is not Modbus TCP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			kind := c.kind
			if kind == "" {
				kind = config.ModbusRTUTCP
			}
			raw, err := OpenRaw(t.Context(), config.Bus{Kind: kind, Address: peer(t, unhex(t, c.before), unhex(t, c.answer))})
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			if c.before != "" { // what was sent at once must be there before the line is found silent
				first := make([]byte, 8)
				line := raw.bus.line.(*rtuLine)
				if _, err := io.ReadFull(line.port.(tapedStream).stream, first); err != nil {
					t.Fatal(err)
				}
				line.port = tapedStream{&prefixed{line.port.(tapedStream).stream, first}, raw.tape}
			}
			x, err := raw.Exchange(t.Context(), Query{Unit: 1, Function: config.InputRegister, Count: 2, Timeout: 100 * time.Millisecond})
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			var failed *drivers.Error
			if err != nil && !errors.As(err, &failed) {
				t.Errorf("%v is no *drivers.Error", err)
			}
			if got := hex.EncodeToString(x.Data); got != c.data || x.Code != c.code {
				t.Errorf("data %s, code %d; want %s, %d", got, x.Code, c.data, c.code)
			}
			if x.Unit != 1 || x.Function != config.InputRegister || x.Start != 0 || x.Count != 2 {
				t.Errorf("asked unit %d, %s %d, count %d", x.Unit, x.Function, x.Start, x.Count)
			}
			if kind != config.ModbusTCP && !bytes.Equal(x.Sent, unhex(t, ask)) {
				t.Errorf("sent % x", x.Sent)
			}
			if got := unhex(t, c.answer); !bytes.HasPrefix(got, x.Received) || len(got) > 0 && (len(x.Received) == 0 || x.Took <= 0) {
				t.Errorf("received % x in %v, want % x", x.Received, x.Took, got)
			}
			others, noise := x.Sift()
			if len(others) != c.others || noise != c.noise {
				t.Errorf("others %v, noise %d; want %d, %d", others, noise, c.others, c.noise)
			}
			for _, f := range others {
				if f.Unit != 5 || f.Function != 3 || !f.Request {
					t.Errorf("other's frame is %+v", f)
				}
			}
		})
	}
}

// prefixed is a stream at whose beginning some bytes have come in already.
type prefixed struct {
	stream
	first []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) == 0 {
		return p.stream.Read(b)
	}
	n := copy(b, p.first)
	p.first = p.first[n:]
	return n, nil
}

// A tool that can only look must not be talked into anything else.
func TestRawOnlyReads(t *testing.T) {
	raw := &Raw{bus: newBus(config.Bus{}, nil, nil, nil, drivers.With{}), tape: new(tape)}
	for _, q := range []Query{
		{Unit: 1, Function: "write_single_register", Count: 1},
		{Unit: 1, Function: config.Line, Count: 1},
		{Unit: 1, Function: "", Count: 1},
		{Unit: 256, Function: config.Coil, Count: 1},
		{Unit: 1, Function: config.HoldingRegister, Count: 126},
		{Unit: 1, Function: config.HoldingRegister, Count: 0},
		{Unit: 1, Function: config.Coil, Count: 2001},
		{Unit: 1, Function: config.InputRegister, Start: 65535, Count: 2},
		{Unit: 1, Function: config.InputRegister, Start: -1, Count: 2},
	} {
		x, err := raw.Exchange(t.Context(), q)
		var failed *drivers.Error
		if !errors.As(err, &failed) || x.Sent != nil {
			t.Errorf("%+v: %v, sent % x", q, err, x.Sent)
		}
	}
}

func TestRawOpen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	gone := l.Addr().String()
	for _, c := range []struct {
		bus  config.Bus
		want string
	}{
		{config.Bus{Kind: config.ModbusTCP, Address: gone}, "connection refused"},
		{config.Bus{Kind: config.ModbusRTUTCP, Address: gone}, "connection refused"},
		{config.Bus{Kind: config.ModbusRTU, Port: filepath.Join(t.TempDir(), "none"), Baud: 9600}, "no such file"},
		{config.Bus{Kind: config.ModbusRTU, Port: "/dev/null", Baud: 9600}, "not a serial port"},
		{config.Bus{Kind: config.GPIO}, "a bus of kind gpio carries no Modbus"},
	} {
		if _, err := OpenRaw(t.Context(), c.bus); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.bus, err, c.want)
		}
	}
}

// Over a real serial line a poll gives what the agent gets, and the frames that brought it. A second program is told
// that the port is taken.
func TestRawPoll(t *testing.T) {
	master, path, closePTY, err := sim.OpenPTY()
	if err != nil {
		t.Skip(err)
	}
	d := meter()
	bus := config.Bus{Name: "meters", Kind: config.ModbusRTU, Port: path, Devices: []config.Device{d}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func(unpaced config.Bus) { done <- sim.New(sim.World{}).ServeRTU(ctx, master, unpaced) }(bus)
	defer func() { stop(); <-done; closePTY() }()

	bus.Baud = 9600
	raw, err := OpenRaw(t.Context(), bus)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if _, err := OpenRaw(t.Context(), bus); !errors.Is(err, ErrInUse) {
		t.Errorf("the second to open it got %v", err)
	}
	s, all, err := raw.Poll(t.Context(), d)
	if err != nil || len(all) != 1 || len(s.Readings) != 1 {
		t.Fatalf("%v, %d exchanges, %v", s, len(all), err)
	}
	if got := Decode(d.Model.Points[0], all[0].Data); got != s.Readings[0] {
		t.Errorf("the bytes say %v, the sample %v", got, s.Readings[0])
	}
	if !bytes.Equal(all[0].Sent, unhex(t, ask)) {
		t.Errorf("sent % x", all[0].Sent)
	}
	if _, all, err = raw.Poll(t.Context(), config.Device{Name: "b", Unit: 2, Model: d.Model}); err == nil || len(all) != 1 || all[0].Received != nil {
		t.Errorf("of a unit that is not there came %v, %v", all, err)
	}
}

func FuzzSift(f *testing.F) {
	f.Add([]byte{}, []byte{1, 4, 4, 0x43, 0x66, 0x33, 0x34, 0x1B, 0x38}, true)
	f.Add([]byte{5, 3, 0, 0, 0, 1, 0x85, 0x8E}, []byte{0, 1, 0, 0, 0, 3, 1, 0x84, 0x0B}, false)
	f.Fuzz(func(t *testing.T, heard, received []byte, serial bool) {
		x := Exchange{Heard: heard, Received: received, RTU: serial, Sent: []byte{1, 4, 0, 0, 0, 2, 0x71, 0xCB}}
		if !serial {
			x.Sent = []byte{0, 1, 0, 0, 0, 6, 1, 4, 0, 0, 0, 2}
		}
		x.parse()
		if x.Data != nil && (len(x.Data) != 4 || !bytes.Contains(received, x.Data)) {
			t.Errorf("% x is not the data of % x", x.Data, received)
		}
		others, noise := x.Sift()
		for _, frame := range others {
			noise += len(frame.Bytes)
		}
		if noise > len(heard)+len(received) {
			t.Error(fmt.Errorf("%d bytes sorted of %d", noise, len(heard)+len(received)))
		}
	})
}
