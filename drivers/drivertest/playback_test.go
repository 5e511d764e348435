package drivertest

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is a test whose failures are counted and not the real one's.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func TestPlayback(t *testing.T) {
	script := []Exchange{
		{Request: "01 02 03", Answer: []Chunk{{Bytes: "04"}, {After: time.Second, Bytes: "05 06"}}},
		{Request: "07", HangUp: true},
	}
	for _, c := range []struct {
		name  string
		send  []string
		wants string // failure
	}{
		{"as written", []string{"\x01\x02\x03", "\x07"}, ""},
		{"other byte", []string{"\x01\x02\x04"}, "request 01 02 04, the script has 01 02 03"},
		{"cut short", []string{"\x01\x02"}, "request 01 02, the script has 01 02 03"},
		{"too little", []string{"\x01\x02\x03"}, "request 07 did not come"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{TB: t}
				p := NewPlayback(r, script...)
				conn := p.Dial()
				for i, b := range c.send {
					if _, err := io.WriteString(conn, b); err != nil {
						t.Fatal(err)
					}
					if i == 0 && len(b) == 3 && b[2] == 3 {
						begin, answer := time.Now(), make([]byte, 3)
						if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "\x04\x05\x06" {
							t.Errorf("answer % x, %v", answer, err)
						}
						if took := time.Since(begin); took != time.Second {
							t.Errorf("took %s", took)
						}
					}
				}
				if c.name == "as written" {
					if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("want a hang-up, got %v", err)
					}
				}
				conn.Close()
				synctest.Wait()
				p.Done()
				if got := strings.Join(r.failures, "; "); !strings.Contains(got, c.wants) || (c.wants == "") != (got == "") {
					t.Errorf("failures %q, want %q", got, c.wants)
				}
			})
		})
	}
}

func TestPlaybackOverTCP(t *testing.T) {
	p := NewPlayback(t, Exchange{Request: "01", Answer: Whole("02"), HangUp: true}, Exchange{Request: "03", Answer: Whole("04")})
	address := p.Listen()
	for _, x := range []string{"\x01\x02", "\x03\x04"} { // a connection each
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 1)
		io.WriteString(conn, x[:1])
		if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != x[1] {
			t.Errorf("answer % x, %v", answer, err)
		}
		conn.Close()
	}
	p.Done()
}

func TestWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := Wire()
		for _, b := range []string{"a", "bc", "d"} { // nobody reads, and no write waits
			if _, err := io.WriteString(far, b); err != nil {
				t.Fatal(err)
			}
		}
		near.SetReadDeadline(time.Now().Add(time.Second))
		all := make([]byte, 4)
		if _, err := io.ReadFull(near, all); err != nil || string(all) != "abcd" {
			t.Errorf("got %q, %v", all, err)
		}
		if _, err := near.Read(all); !os.IsTimeout(err) {
			t.Errorf("want the deadline, got %v", err)
		}
		near.SetReadDeadline(time.Time{})
		io.WriteString(far, "e")
		synctest.Wait()
		far.Close()
		if rest, err := io.ReadAll(near); err != nil || string(rest) != "e" {
			t.Errorf("got %q, %v", rest, err)
		}
		near.Close()
	})
}
