package modbus

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
)

func TestFaultsOnTCP(t *testing.T) {
	const ms = time.Millisecond
	whole := drivertest.Whole
	// good has the header of transaction n; the length field counts unit and PDU.
	good := func(n string) string { return n + " 00 00 00 07 01 04 04 43 66 33 34" }
	request := func(n string) string { return n + " 00 00 00 06 01 04 00 00 00 02" }
	for _, c := range []struct {
		name   string
		answer []drivertest.Chunk
		want   string // how the outcome begins
		stays  bool   // the connection goes on
		hangUp bool
		within time.Duration
	}{
		{name: "silence", want: "timeout", within: testTimeout},
		{name: "byte by byte", answer: chunks(good("00 01"), 1, 30*ms), want: voltage, stays: true, within: testTimeout},
		{name: "byte by byte, past the deadline", answer: chunks(good("00 01"), 1, 60*ms), want: "timeout", within: testTimeout},
		{name: "late", answer: []drivertest.Chunk{{After: 700 * ms, Bytes: good("00 01")}}, want: "timeout", within: testTimeout},
		{name: "another transaction's first", answer: whole(good("77 77") + good("00 01")), want: voltage, stays: true},
		{name: "another transaction's only", answer: whole(good("77 77")), want: "timeout", within: testTimeout},
		{name: "another unit's", answer: whole("00 01 00 00 00 07 02 04 04 43 66 33 34"), want: "frame answer of unit 2, function 4, to a request to unit 1, function 4"},
		{name: "another function's", answer: whole("00 01 00 00 00 07 01 03 04 43 66 33 34"), want: "frame answer of unit 1, function 3"},
		{name: "another function's refusal", answer: whole("00 01 00 00 00 03 01 83 02"), want: "frame answer of unit 1, function 131"},
		{name: "a refusal that is too long", answer: whole("00 01 00 00 00 04 01 84 02 00"), want: "frame"},
		{name: "a length of 255", answer: whole("00 01 00 00 00 FF 01 04 04"), want: "frame header is not Modbus TCP: 00 01 00 00 00 ff 01"},
		{name: "a length of 65535", answer: whole("00 01 00 00 FF FF 01 04 04"), want: "frame header is not Modbus TCP"},
		{name: "a length of 2", answer: whole("00 01 00 00 00 02 01 04"), want: "frame header is not Modbus TCP"},
		{name: "another protocol", answer: whole("00 01 00 01 00 07 01 04 04 43 66 33 34"), want: "frame header is not Modbus TCP"},
		{name: "RTU behind a converter that does not convert", answer: whole(answer), want: "frame header is not Modbus TCP"},
		{name: "too few registers", answer: whole("00 01 00 00 00 05 01 04 02 43 66"), want: "frame answer has 2 bytes of data, not 4", stays: true},
		{name: "too many registers", answer: whole("00 01 00 00 00 09 01 04 06 43 66 33 34 00 00"), want: "frame answer has 6 bytes of data, not 4", stays: true},
		{name: "a byte count that is not the data's", answer: whole("00 01 00 00 00 07 01 04 02 43 66 33 34"), want: "frame", stays: true},
		{name: "nothing but a byte count", answer: whole("00 01 00 00 00 03 01 04 04"), want: "frame", stays: true},
		{name: "exception 2", answer: whole("00 01 00 00 00 03 01 84 02"), want: "exception 2", stays: true},
		{name: "exception 11 of a converter", answer: whole("00 01 00 00 00 03 01 84 0B"), want: "exception 11", stays: true},
		{name: "hang-up in mid-answer", answer: whole("00 01 00 00 00 07 01 04"), want: "link unexpected EOF", hangUp: true},
		{name: "hang-up", want: "link EOF", hangUp: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := drivertest.NewPlayback(t,
					drivertest.Exchange{Request: request("00 01"), Answer: c.answer, HangUp: c.hangUp},
					drivertest.Exchange{Request: request("00 02"), Answer: whole("00 02 00 00 00 07 01 04 04 43 67 80 00")})
				dials := 0
				bus := tcp(t, func() (net.Conn, error) { dials++; return p.Dial(), nil })
				begin := time.Now()
				if got := outcome(t, bus, meter()); !strings.HasPrefix(got, c.want) {
					t.Errorf("got %s, want %s", got, c.want)
				}
				if took := time.Since(begin); took > c.within {
					t.Errorf("took %s, want at most %s", took, c.within)
				}
				time.Sleep(time.Second) // the poll's interval: the peer has written all it has to
				if got := outcome(t, bus, meter()); got != "231.5" {
					t.Errorf("the next value is %s, want 231.5", got)
				}
				if want := map[bool]int{true: 1, false: 2}[c.stays]; dials != want {
					t.Errorf("%d connections, want %d", dials, want)
				}
				bus.Close()
				p.Done()
			})
		})
	}
}

// A converter closes a connection that rests; the next poll finds that out and must not be lost.
func TestConnectionClosedWhileAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole := drivertest.Whole
		p := drivertest.NewPlayback(t,
			drivertest.Exchange{Request: "00 01 00 00 00 06 01 04 00 00 00 02", Answer: whole("00 01 00 00 00 07 01 04 04 43 66 33 34"), HangUp: true},
			drivertest.Exchange{Request: "00 02 00 00 00 06 01 04 00 00 00 02", Answer: whole("00 02 00 00 00 07 01 04 04 43 67 80 00"), HangUp: true},
			drivertest.Exchange{Request: "00 03 00 00 00 06 01 04 00 00 00 02", HangUp: true}, // a converter that is broken
			drivertest.Exchange{Request: "00 04 00 00 00 06 01 04 00 00 00 02", Answer: whole("00 04 00 00 00 07 01 04 04 43 66 33 34")})
		dials := 0
		bus := tcp(t, func() (net.Conn, error) { dials++; return p.Dial(), nil })
		for _, want := range []string{voltage, "231.5", "link EOF", voltage} {
			if got := outcome(t, bus, meter()); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			synctest.Wait()
		}
		if dials != 4 {
			t.Errorf("%d connections, want 4: one new one a poll, and no more", dials)
		}
		bus.Close()
		p.Done()
	})
}

// A server that is away is not dialled at every request, and its devices say why all the same.
func TestPauseBetweenDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		bus := tcp(t, func() (net.Conn, error) { dials++; return nil, errors.New("no route to host") })
		for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(100 * time.Millisecond) {
			if got := outcome(t, bus, meter()); got != "link no route to host" {
				t.Fatalf("got %s", got)
			}
		}
		if dials != 10 {
			t.Errorf("%d attempts in 10s, want 10", dials)
		}
		bus.Close()
	})
}

// A context that ends while a connection is made says nothing about the server: the next Read dials at once.
func TestEndedContextIsNoFailedDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened, err := OpenTCP(config.Bus{Timeout: testTimeout}, drivers.With{})
		if err != nil {
			t.Fatal(err)
		}
		bus, dials := opened.(*Bus), 0
		bus.line.(*tcpLine).dial = func(ctx context.Context) (net.Conn, error) {
			dials++
			<-ctx.Done()
			return nil, errors.New("operation was canceled")
		}
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if _, err := bus.Read(ctx, meter()); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Read: %v", err)
			}
			cancel()
		}
		if dials != 2 {
			t.Errorf("%d attempts, want 2", dials)
		}
	})
}

// A real reset, which a pipe in memory does not have.
func TestConnectionReset(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 12))
			conn.Write([]byte{0, 1, 0, 0, 0, 7, 1, 4})
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	}()
	bus, err := OpenTCP(config.Bus{Address: listener.Addr().String(), Timeout: 10 * time.Second}, drivers.With{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := outcome(t, bus.(*Bus), meter()); !strings.HasPrefix(got, "link") || !strings.Contains(got, "reset") {
			t.Errorf("got %s, want a reset", got)
		}
	}
	listener.Close()
	<-ended
	if got := outcome(t, bus.(*Bus), meter()); !strings.HasPrefix(got, "link") || !strings.Contains(got, "refused") {
		t.Errorf("got %s, want refused", got)
	}
	bus.Close()
}
