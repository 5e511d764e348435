package sim

import (
	"bytes"
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hubagent/config"
)

// converter serves the demo's meters as RTU over TCP, and connects to them.
func converter(t *testing.T, s *Site) (connect func() net.Conn) {
	t.Helper()
	_, meters, _ := demoBuses()
	meters.Baud = 0
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begin(t, func(ctx context.Context) error { return s.ServeRTUTCP(ctx, listener, meters) })
	return func() net.Conn {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		return conn
	}
}

func TestRTUOverTCP(t *testing.T) {
	s := New(World{Seed: 7, Start: time.Now(), Day: DemoDay})
	connect := converter(t, s)
	one, two := connect(), connect()
	power := frame(11, request(4, 52, 2))
	for _, conn := range []net.Conn{one, two, one} {
		if answer := ask(t, conn, power, 9); !valid(answer) || answer[0] != 11 {
			t.Errorf("answer % x", answer)
		}
	}
	one.Close() // that one master hangs up is no concern of the other's
	if answer := ask(t, two, frame(11, request(4, 1, 2)), 5); !bytes.Equal(answer, frame(11, []byte{0x84, 2})) {
		t.Errorf("odd start: % x", answer)
	}
	s.SetFaults(Fault{Kind: Reset, P: 1})
	two.Write(power)
	if _, err := two.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
	s.SetFaults()
	if answer := ask(t, connect(), power, 9); !valid(answer) {
		t.Errorf("after the reset % x", answer)
	}
}

// manyConns is a listener for the connections of a test.
type manyConns struct {
	oneConn
}

func (l *manyConns) dial(t *testing.T) net.Conn {
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close() })
	l.conns <- server
	return client
}

// Behind a converter is one line: it carries one request at a time at its own speed, whichever connection it came by.
func TestLineBehindConverter(t *testing.T) {
	bins, _, _ := demoBuses()
	bins.Baud, bins.Parity, bins.StopBits = 9600, config.ParityEven, 1
	const latency = 20 * time.Millisecond
	// Request and answer as RTU frames of 8 and 7 bytes, each with 3.5 characters of silence, at 11 bits a character.
	exchange := 22*characterTime(bins) + latency
	synctest.Test(t, func(t *testing.T) {
		s := New(World{Seed: 7, Start: time.Now(), Day: DemoDay})
		s.Latency = latency
		listener := &manyConns{oneConn{conns: make(chan net.Conn, 2)}}
		begin(t, func(ctx context.Context) error { return s.ServeTCP(ctx, listener, bins) })
		one, two := listener.dial(t), listener.dial(t)
		began := time.Now()
		ask(t, one, readFill, 11)
		if took := time.Since(began); took != exchange {
			t.Errorf("one request took %v, want %v", took, exchange)
		}
		began = time.Now()
		done := make(chan time.Duration, 2)
		for _, conn := range []net.Conn{one, two} {
			go func() {
				ask(t, conn, readFill, 11)
				done <- time.Since(began)
			}()
		}
		if first, second := <-done, <-done; first != exchange || second != 2*exchange {
			t.Errorf("two at once took %v and %v, want %v and twice that", first, second, exchange)
		}
	})
	if characterTime(bins) != 11*time.Second/9600 || characterTime(config.Bus{Baud: 1200, Parity: config.ParityNone, StopBits: 2}) != 11*time.Second/1200 ||
		characterTime(config.Bus{Baud: 9600}) != 10*time.Second/9600 || characterTime(config.Bus{}) != 0 {
		t.Error("wrong time of a character")
	}
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, meters, _ := demoBuses()
		meters.Baud = 0
		s := New(World{Seed: 7, Start: time.Now(), Day: DemoDay})
		s.Latency = 35 * time.Millisecond
		master := wire(t, s, meters)
		began := time.Now()
		ask(t, master, frame(11, request(4, 52, 2)), 9)
		if took := time.Since(began); took != s.Latency {
			t.Errorf("took %v, want %v", took, s.Latency)
		}
	})
}

// A write whose confirmation is lost has been done all the same; one that the device refuses has not.
func TestFaultsOfWrites(t *testing.T) {
	for kind, want := range map[Kind]byte{Silent: 1, Exception: 0} {
		bus := config.Bus{Name: "bus", Devices: []config.Device{limited(config.ModbusLimits{})}}
		s, units := New(demoWorld()), newSlave(bus)
		s.SetFaults(Fault{Kind: kind, P: 1})
		s.take(bus, units, 1, []byte{5, 0, 1, 0xFF, 0})
		s.SetFaults()
		if got := s.take(bus, units, 1, request(1, 1, 1)).answer; !bytes.Equal(got, []byte{1, 1, want}) {
			t.Errorf("%s: coil reads % x, want % x", kind, got, want)
		}
	}
}
