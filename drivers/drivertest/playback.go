package drivertest

import (
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Exchange is one request that a Playback waits for, and what it does then.
type Exchange struct {
	Request string  // in hexadecimal, blanks allowed; "" waits for nothing
	Answer  []Chunk // written in turn; none is silence
	HangUp  bool    // close the connection after that; the next exchange comes on the next one
}

// Chunk is a part of an answer that arrives as one.
type Chunk struct {
	After time.Duration // wait before it
	Bytes string        // in hexadecimal, blanks allowed
}

// Whole is an answer that arrives at once and in one piece.
func Whole(bytes string) []Chunk { return []Chunk{{Bytes: bytes}} }

// Playback is a peer that plays its part of a script, byte for byte. Any other request than the script's fails the
// test, and so does a part of the script that was not played.
type Playback struct {
	t testing.TB

	dialed, accepted sync.WaitGroup // those that serve

	mu     sync.Mutex
	script []Exchange
	open   []net.Conn
}

// NewPlayback makes a peer. Serve, Dial or Listen put it in place.
func NewPlayback(t testing.TB, script ...Exchange) *Playback { return &Playback{t: t, script: script} }

// Dial gives the near end of a Wire with the peer at its far end.
func (p *Playback) Dial() net.Conn {
	near, far := Wire()
	p.dialed.Go(func() { p.Serve(far) })
	return near
}

// Listen puts the peer behind a TCP port of this machine until the test ends, and returns its address.
func (p *Playback) Listen() string {
	p.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.accepted.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.accepted.Go(func() { p.Serve(conn) })
		}
	})
	p.t.Cleanup(func() {
		listener.Close()
		p.hangUp()
		p.accepted.Wait()
	})
	return listener.Addr().String()
}

// Serve plays the script on a connection until it hangs up, or the near end closes. What comes after the script's end
// fails the test.
func (p *Playback) Serve(conn net.Conn) {
	p.mu.Lock()
	p.open = append(p.open, conn)
	p.mu.Unlock()
	defer conn.Close()
	for {
		x, ok := p.next()
		if !ok {
			break
		}
		want := p.bytes(x.Request)
		got := make([]byte, len(want))
		n, err := io.ReadFull(conn, got)
		if n == 0 && err != nil { // closed between two exchanges: the next connection goes on from here
			p.giveBack(x)
			return
		}
		if !bytes.Equal(got[:n], want) {
			p.t.Errorf("request % x, the script has % x", got[:n], want)
			return
		}
		for _, c := range x.Answer {
			time.Sleep(c.After)
			if c.Bytes == "" { // to some readers an empty write is a hang-up
				continue
			}
			if _, err := conn.Write(p.bytes(c.Bytes)); err != nil {
				return // given up by the near end
			}
		}
		if x.HangUp {
			return
		}
	}
	if more, _ := io.ReadAll(conn); len(more) > 0 {
		p.t.Errorf("after the script's end came % x", more)
	}
}

// Done fails the test if a part of the script was not played. After Dial, close the near end first: Done waits until
// the peer has seen that.
func (p *Playback) Done() {
	p.t.Helper()
	p.dialed.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.script {
		p.t.Errorf("request %s did not come", x.Request)
	}
}

func (p *Playback) next() (Exchange, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.script) == 0 {
		return Exchange{}, false
	}
	x := p.script[0]
	p.script = p.script[1:]
	return x, true
}

func (p *Playback) giveBack(x Exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.script = append([]Exchange{x}, p.script...)
}

func (p *Playback) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.open {
		conn.Close()
	}
}

func (p *Playback) bytes(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		panic("BUG: script of " + p.t.Name() + ": " + err.Error())
	}
	return b
}
