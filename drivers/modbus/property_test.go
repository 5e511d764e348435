package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
)

// liar is a far side that answers some requests well and the others in every wrong way. Each answer holds the number
// of its request and the register asked for, so that a value taken from any other answer is known as wrong.
type liar struct {
	build func(request []byte, pdu []byte) []byte // an answer's frame
	tcp   bool

	mu     sync.Mutex
	conns  uint64
	number uint32
	latest map[string]uint32 // unit and address asked for -> number of the last request for it
}

// pdu is the true answer to request: for each two registers the number of the request and their address.
func (l *liar) pdu(unit byte, request []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	start, count := int(binary.BigEndian.Uint16(request[1:])), int(binary.BigEndian.Uint16(request[3:]))
	b := []byte{request[0], byte(2 * count)}
	for at := start; at < start+count; at += 2 {
		l.latest[fmt.Sprint(unit, at)] = l.number
		b = binary.BigEndian.AppendUint32(b, l.number<<12|uint32(unit)<<8|uint32(at))
	}
	return b
}

// lies are the wrong ways. Each writes what the device does instead of answering; good is the true answer.
func (l *liar) lies(random *rand.Rand, conn net.Conn, request, pdu []byte) []func(good []byte) {
	write := func(b []byte) { conn.Write(b) }
	unit := func(u byte) []byte { r := slices.Clone(request); r[l.at()] = u; return r }
	some := func(most int) time.Duration { return time.Duration(random.IntN(most)) * time.Millisecond }
	noise := func(most int) []byte {
		b := make([]byte, 1+random.IntN(most))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	lies := []func(good []byte){
		func([]byte) {}, // silence
		func(good []byte) { time.Sleep(some(450)); write(good) },
		func(good []byte) { time.Sleep(500*time.Millisecond + some(400)); write(good) },        // late
		func(good []byte) { write(good[:1+random.IntN(len(good)-1)]) },                         // cut short
		func(good []byte) { write(l.build(request, []byte{pdu[0] | 0x80, 4})) },                // refused
		func(good []byte) { write(l.build(request, append([]byte{3}, pdu[1:]...))) },           // another function
		func(good []byte) { write(l.build(unit(9), pdu)); time.Sleep(some(100)); write(good) }, // another unit first
		func(good []byte) { write(l.build(unit(9), pdu)) },
		func(good []byte) { write(l.build(request, []byte{pdu[0], 2, 1, 2})) }, // wrong length
		func(good []byte) { // slowly, in pieces
			for len(good) > 0 {
				n := 1 + random.IntN(len(good))
				write(good[:n])
				good = good[n:]
				time.Sleep(some(60))
			}
		},
		func(good []byte) { // any one bit flips; TCP has a checksum of its own below
			if !l.tcp {
				good[random.IntN(len(good))] ^= 1 << random.IntN(8)
			}
			write(good)
		},
	}
	if l.tcp {
		return append(lies,
			func(good []byte) { good[0] ^= 0x40; write(good) },                                // another transaction
			func(good []byte) { time.Sleep(some(5000)); write(good) },                         // late without bound
			func(good []byte) { b := slices.Clone(good); b[4] = 0xFF; write(b); write(good) }, // a header out of step
			func(good []byte) { write(good); write(good) },
			func(good []byte) { write(good[:1+random.IntN(len(good)-1)]); conn.Close() },
		)
	}
	return append(lies,
		func(good []byte) { write(noise(12)); write(good) },
		func(good []byte) { write(noise(12)); time.Sleep(some(100)); write(good) },
		func(good []byte) { write(good); write(noise(12)) },
		func(good []byte) { write(noise(300)) },
		func(good []byte) { write(good); write(good) },     // doubled
		func(good []byte) { write(request); write(good) },  // echo
		func([]byte) { write(request) },                    // echo alone
		func(good []byte) { write(good[:4]); write(good) }, // a false start
	)
}

// at is where the unit id stands.
func (l *liar) at() int {
	if l.tcp {
		return 6
	}
	return 0
}

// serve answers on one connection. Every third request meets a lie.
func (l *liar) serve(conn net.Conn, size int) {
	defer conn.Close()
	l.mu.Lock()
	l.conns++
	random := rand.New(rand.NewPCG(7, l.conns)) // its own: an old connection may still be in a lie
	l.mu.Unlock()
	for {
		request := make([]byte, size)
		if _, err := io.ReadFull(conn, request); err != nil {
			return
		}
		inner := request[l.at()+1:]
		pdu := l.pdu(request[l.at()], inner[:5])
		good := l.build(request, pdu)
		if random.IntN(3) > 0 {
			time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
			conn.Write(good)
			continue
		}
		lies := l.lies(random, conn, request, pdu)
		lies[random.IntN(len(lies))](good)
	}
}

// Through thousands of faults no value is taken that is not the answer to the last request for its register, and none
// is lost without a fault.
func TestNoWrongValueThroughFaults(t *testing.T) {
	buildRTU := func(request, pdu []byte) []byte { return raw(frame(fmt.Sprintf("%02x%x", request[0], pdu))) }
	buildTCP := func(request, pdu []byte) []byte {
		b := binary.BigEndian.AppendUint16(slices.Clone(request[:4]), uint16(1+len(pdu)))
		return append(append(b, request[6]), pdu...)
	}
	for _, c := range []struct {
		name  string
		liar  *liar
		size  int
		make  func(*testing.T, func() (net.Conn, error)) *Bus
		polls int
	}{
		{"RTU", &liar{build: buildRTU}, 8, rtu, 2000},
		{"TCP", &liar{build: buildTCP, tcp: true}, 12, tcp, 2000},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := c.liar
				l.latest = map[string]uint32{}
				var serving sync.WaitGroup
				bus := c.make(t, func() (net.Conn, error) {
					near, far := drivertest.Wire()
					serving.Go(func() { l.serve(far, c.size) })
					return near, nil
				})
				point := func(name string, address int) config.Point {
					return config.Point{Name: name, Function: config.InputRegister, Address: address, Type: config.U32, Unit: "1"}
				}
				var devices []config.Device
				for unit := 1; unit <= 3; unit++ { // blocks of one size, so that only the line's discipline tells them apart
					devices = append(devices, device(unit, point("a", 0), point("b", 10), point("c", 20)))
				}
				good, failed := 0, map[string]int{}
				for n := range c.polls {
					d := devices[n%len(devices)]
					s, err := bus.Read(t.Context(), d)
					drivertest.CheckSample(t, d, s)
					l.mu.Lock()
					for i, r := range s.Readings {
						at := d.Model.Points[i].Address
						if r.Quality == drivers.Missing {
							failed[r.Why]++
							continue
						}
						good++
						want := drivers.Uint(uint64(l.latest[fmt.Sprint(byte(d.Unit), at)]<<12 | uint32(d.Unit)<<8 | uint32(at)))
						if r.Value != want {
							t.Errorf("poll %d: register %d of unit %d is %s, want %s", n, at, d.Unit, r.Value, want)
						}
					}
					l.mu.Unlock()
					var e *drivers.Error
					if err != nil && (!errors.As(err, &e) || e.Device == "" || e.At == "") {
						t.Errorf("poll %d: %v", n, err)
					}
					time.Sleep(200 * time.Millisecond)
				}
				t.Logf("%d good, missing for %v", good, failed)
				if good < c.polls || len(failed) < 4 {
					t.Errorf("%d values came through, missing for %v: the test tests little", good, failed)
				}
				bus.Close()
				serving.Wait()
			})
		})
	}
}
