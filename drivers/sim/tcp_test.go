package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goburrow/modbus"

	"hubagent/config"
)

// An independent master, goburrow's, reads a bin and a meter and gets what the world says.
func TestGoburrowReadsTheWorld(t *testing.T) {
	bins, meters, _ := demoBuses()
	world := World{Seed: 7, Start: time.Now(), Day: DemoDay}
	s := New(world)
	type service struct {
		device string
		at     time.Time
	}
	served := make(chan service, 1) // Served comes after the answer: the master may have it before
	s.Served = func(device string, at time.Time) { served <- service{device, at} }
	client := func(bus config.Bus, unit byte) modbus.Client {
		handler := modbus.NewTCPClientHandler(listen(t, s, bus))
		handler.SlaveId, handler.Timeout, handler.IdleTimeout = unit, 5*time.Second, 0
		t.Cleanup(func() { handler.Close() })
		return modbus.NewClient(handler)
	}

	data, err := client(bins, 3).ReadHoldingRegisters(0, 8)
	if err != nil {
		t.Fatal(err)
	}
	bin := <-served
	for i, got := range []float64{
		float64(binary.BigEndian.Uint32(data)), float64(binary.BigEndian.Uint32(data[4:])), float64(binary.BigEndian.Uint16(data[8:])),
	} {
		if want := world.Value(bins.Devices[2], bins.Devices[2].Model.Points[i], bin.at); got != want {
			t.Errorf("%s: %v, want %v", bins.Devices[2].Model.Points[i].Name, got, want)
		}
	}

	master := client(meters, 12)
	if data, err = master.ReadInputRegisters(0, 18); err != nil {
		t.Fatal(err)
	}
	meter := <-served
	for i := range 9 {
		p := meters.Devices[1].Model.Points[i]
		got, want := math.Float32frombits(binary.BigEndian.Uint32(data[4*i:])), float32(world.Value(meters.Devices[1], p, meter.at))
		if got != want {
			t.Errorf("%s: %v, want %v", p.Name, got, want)
		}
	}

	var refused *modbus.ModbusError
	if _, err = master.ReadInputRegisters(1, 2); !errors.As(err, &refused) || refused.ExceptionCode != 2 {
		t.Errorf("odd start: %v", err)
	}
	if bin.device != "bin-003" || meter.device != "meter-002" {
		t.Errorf("served %s and %s", bin.device, meter.device)
	}
	c := &s.Counts
	if c.Connections.Load() != 2 || c.Requests.Load() != 3 || c.Answers.Load() != 2 || c.Exceptions.Load() != 1 || c.Faults.Load() != 0 {
		t.Errorf("counts: %+v", c)
	}
}

// dial opens a raw connection that no test can hang on.
func dial(t *testing.T, s *Site) net.Conn {
	t.Helper()
	bins, _, _ := demoBuses()
	conn, err := net.Dial("tcp", listen(t, s, bins))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

func ask(t *testing.T, conn net.Conn, request []byte, size int) []byte {
	t.Helper()
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, size)
	if n, err := io.ReadFull(conn, answer); err != nil {
		t.Fatalf("answer % x: %v", answer[:n], err)
	}
	return answer
}

var readFill = []byte{0x12, 0x34, 0, 0, 0, 6, 1, 3, 0, 4, 0, 1} // transaction 0x1234, fill of unit 1

func TestMBAP(t *testing.T) {
	s := New(demoWorld())
	conn := dial(t, s)
	answer := ask(t, conn, readFill, 11)
	if want := []byte{0x12, 0x34, 0, 0, 0, 5, 1, 3, 2, 0}; !bytes.Equal(answer[:10], want) {
		t.Errorf("answer % x, want % x and a fill", answer, want)
	}
	if answer, want := ask(t, conn, []byte{0, 1, 0, 0, 0, 2, 1, 0x2B}, 9), []byte{0, 1, 0, 0, 0, 3, 1, 0xAB, 1}; !bytes.Equal(answer, want) {
		t.Errorf("unknown function: % x, want % x", answer, want)
	}
	if answer, want := ask(t, conn, []byte{0, 2, 0, 0, 0, 6, 99, 3, 0, 4, 0, 1}, 9), []byte{0, 2, 0, 0, 0, 3, 99, 0x83, 0x0B}; !bytes.Equal(answer, want) {
		t.Errorf("unknown unit: % x, want % x", answer, want)
	}
	// In pieces and two at once: the stream has no frames but those of its headers.
	if _, err := conn.Write(readFill[:5]); err != nil {
		t.Fatal(err)
	}
	if answer := ask(t, conn, append(slices.Clone(readFill[5:]), readFill...), 22); !bytes.Equal(answer[:10], answer[11:21]) {
		t.Errorf("two answers % x", answer)
	}
	// Not Modbus: the connection is closed.
	conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("after HTTP: %d bytes, %v", n, err)
	}
}

func TestFaultsOnTCP(t *testing.T) {
	good := func(t *testing.T, conn net.Conn) { ask(t, conn, readFill, 11) }
	for _, c := range []struct {
		kind Kind
		want func(t *testing.T, conn net.Conn)
	}{
		{Exception, func(t *testing.T, conn net.Conn) {
			if answer, want := ask(t, conn, readFill, 9), []byte{0x12, 0x34, 0, 0, 0, 3, 1, 0x83, 4}; !bytes.Equal(answer, want) {
				t.Errorf("answer % x, want % x", answer, want)
			}
		}},
		{Noise, func(t *testing.T, conn net.Conn) {
			answer := ask(t, conn, readFill, 22)
			if bytes.Equal(answer[:2], readFill[:2]) || !bytes.Equal(answer[11:13], readFill[:2]) {
				t.Errorf("answers % x", answer)
			}
		}},
		{Truncate, func(t *testing.T, conn net.Conn) { ask(t, conn, readFill, 5) }},
		{Reset, func(t *testing.T, conn net.Conn) {
			conn.Write(readFill)
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read: %v, want a reset", err)
			}
		}},
		{Silent, func(t *testing.T, conn net.Conn) {
			conn.Write(readFill)
			conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v, want a time-out", err)
			}
		}},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			s := New(demoWorld())
			s.SetFaults(Fault{Kind: c.kind, P: 1, Bus: "bins", Units: []int{1}})
			c.want(t, dial(t, s))
			if s.Counts.Faults.Load() != 1 || s.Counts.Answers.Load() != 0 || s.Counts.Requests.Load() != 1 {
				t.Errorf("counts: %+v", &s.Counts)
			}
			s.SetFaults(Fault{Kind: c.kind, P: 1, Units: []int{2}}, Fault{Kind: c.kind, P: 0}, Fault{Kind: c.kind, P: 1, Bus: "meters"})
			good(t, dial(t, s))
		})
	}
}

// oneConn is a listener that gives one connection.
type oneConn struct {
	conns chan net.Conn
	once  sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	conn, open := <-l.conns
	if !open {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.conns) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

func TestFaultsOfTimeOnTCP(t *testing.T) {
	for kind, counted := range map[Kind]int64{Slow: 1, Late: 0} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bins, _, _ := demoBuses()
				s := New(World{Seed: 7, Start: time.Now(), Day: DemoDay})
				s.SetFaults(Fault{Kind: kind, P: 1, Delay: 1100 * time.Millisecond})
				client, server := net.Pipe()
				defer client.Close()
				listener := &oneConn{conns: make(chan net.Conn, 1)}
				listener.conns <- server
				begin(t, func(ctx context.Context) error { return s.ServeTCP(ctx, listener, bins) })
				began := time.Now()
				ask(t, client, readFill, 1)
				first := time.Since(began)
				if _, err := io.ReadFull(client, make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
				want := map[Kind]time.Duration{Slow: 100 * time.Millisecond, Late: 1100 * time.Millisecond}[kind]
				if whole := time.Since(began); first != want || whole != 1100*time.Millisecond {
					t.Errorf("first byte after %s, want %s; all after %s", first, want, whole)
				}
				synctest.Wait()
				if s.Counts.Answers.Load() != counted {
					t.Errorf("%d answers counted, want %d", s.Counts.Answers.Load(), counted)
				}
			})
		})
	}
}

func TestFaultsHitAsOftenAsTheySay(t *testing.T) {
	draws := func(seed uint64) (hits int, pattern []bool) {
		s := New(World{Seed: seed})
		s.SetFaults(Fault{Kind: Silent, P: 0.3})
		for range 2000 {
			hit := s.draw("bins", 1, time.Time{}).Kind == Silent
			if hit {
				hits++
			}
			pattern = append(pattern, hit)
		}
		return hits, pattern
	}
	hits, first := draws(1)
	if hits < 520 || hits > 680 {
		t.Errorf("%d of 2000 at P 0.3", hits)
	}
	if _, again := draws(1); !slices.Equal(first, again) {
		t.Error("one seed, two patterns of faults")
	}
}

func TestServeTCPEndsWithItsListener(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := New(demoWorld()).ServeTCP(t.Context(), listener, config.Bus{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ServeTCP: %v", err)
	}
}

func FuzzReadADU(f *testing.F) {
	f.Add(readFill)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{0, 0, 0, 0, 0xFF, 0xFF, 1})
	f.Fuzz(func(t *testing.T, stream []byte) {
		adu, err := readADU(bytes.NewReader(stream))
		if err != nil {
			return
		}
		if len(adu) < mbapSize+1 || len(adu) > mbapSize+maxPDU || !bytes.HasPrefix(stream, adu) ||
			int(binary.BigEndian.Uint16(adu[4:])) != len(adu)-6 {
			t.Errorf("readADU(% x) = % x", stream, adu)
		}
	})
}
