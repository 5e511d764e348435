package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
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
	seed  uint64
	odds  int // one request in so many meets a lie

	mu     sync.Mutex
	told   map[string]int
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

// lie is one wrong way to answer.
type lie struct {
	name string
	tell func(good []byte)
}

// lies are the wrong ways. Each writes what the device does instead of answering; good is the true answer.
func (l *liar) lies(random *rand.Rand, conn net.Conn, request, pdu []byte) []lie {
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
	lies := []lie{
		{"silence", func([]byte) {}},
		{"slow", func(good []byte) { time.Sleep(some(450)); write(good) }},
		{"late", func(good []byte) { time.Sleep(500*time.Millisecond + some(400)); write(good) }},
		{"cut short", func(good []byte) { write(good[:1+random.IntN(len(good)-1)]) }},
		{"refused", func([]byte) { write(l.build(request, []byte{pdu[0] | 0x80, 4})) }},
		{"other function", func([]byte) { write(l.build(request, append([]byte{3}, pdu[1:]...))) }},
		{"other unit first", func(good []byte) { write(l.build(unit(9), pdu)); time.Sleep(some(100)); write(good) }},
		{"other unit", func([]byte) { write(l.build(unit(9), pdu)) }},
		{"wrong length", func([]byte) { write(l.build(request, []byte{pdu[0], 2, 1, 2})) }},
		{"in pieces", func(good []byte) {
			for len(good) > 0 {
				n := 1 + random.IntN(len(good))
				write(good[:n])
				good = good[n:]
				time.Sleep(some(60))
			}
		}},
		{"bit flip", func(good []byte) { // TCP has a checksum of its own below
			if !l.tcp {
				good[random.IntN(len(good))] ^= 1 << random.IntN(8)
			}
			write(good)
		}},
	}
	if l.tcp {
		return append(lies,
			lie{"other transaction", func(good []byte) { good[0] ^= 0x40; write(good) }},
			lie{"late without bound", func(good []byte) { time.Sleep(some(5000)); write(good) }},
			lie{"header out of step", func(good []byte) { b := slices.Clone(good); b[4] = 0xFF; write(b); write(good) }},
			lie{"doubled", func(good []byte) { write(good); write(good) }},
			lie{"hang up", func(good []byte) { write(good[:1+random.IntN(len(good)-1)]); conn.Close() }},
		)
	}
	return append(lies,
		lie{"noise before", func(good []byte) { write(noise(12)); write(good) }},
		lie{"noise long before", func(good []byte) { write(noise(12)); time.Sleep(some(100)); write(good) }},
		lie{"noise after", func(good []byte) { write(good); write(noise(12)) }},
		lie{"noise only", func([]byte) { write(noise(300)) }},
		lie{"doubled", func(good []byte) { write(good); write(good) }},
		lie{"echo", func(good []byte) { write(request); write(good) }},
		lie{"echo only", func([]byte) { write(request) }},
		lie{"false start", func(good []byte) { write(good[:4]); write(good) }},
		lie{"other master", func(good []byte) { // its request and the answer to it, before ours
			write(l.build(unit(9), request[1:6]))
			time.Sleep(some(20))
			write(l.build(unit(9), pdu))
			time.Sleep(some(20))
			write(good)
		}},
	)
}

// at is where the unit id stands.
func (l *liar) at() int {
	if l.tcp {
		return 6
	}
	return 0
}

// serve answers on one connection. On a line each unit is a device of its own, which another one's delay does not hold
// up; behind a connection one server answers for all, and late answers pile up without bound.
func (l *liar) serve(conn net.Conn, size int) {
	units := map[byte]chan []byte{}
	var serving sync.WaitGroup
	defer serving.Wait()
	defer conn.Close()
	defer func() {
		for _, requests := range units {
			close(requests)
		}
	}()
	for {
		request := make([]byte, size)
		if _, err := io.ReadFull(conn, request); err != nil {
			return
		}
		unit := request[l.at()]
		if l.tcp {
			unit = 0
		}
		if units[unit] == nil {
			units[unit] = make(chan []byte, 100)
			requests := units[unit]
			serving.Go(func() { l.answer(conn, requests) })
		}
		units[unit] <- request
	}
}

func (l *liar) answer(conn net.Conn, requests <-chan []byte) {
	l.mu.Lock()
	l.conns++
	random := rand.New(rand.NewPCG(l.seed, l.conns)) // its own: an old connection may still be in a lie
	l.mu.Unlock()
	for request := range requests {
		inner := request[l.at()+1:]
		pdu := l.pdu(request[l.at()], inner[:5])
		good := l.build(request, pdu)
		if random.IntN(l.odds) > 0 {
			time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
			conn.Write(good)
			continue
		}
		lies := l.lies(random, conn, request, pdu)
		chosen := lies[random.IntN(len(lies))]
		l.mu.Lock()
		l.told[chosen.name]++
		l.mu.Unlock()
		chosen.tell(good)
	}
}

// Through thousands of faults no value is taken that is not the answer to the last request for its register. With
// HUB_EXCHANGES set it makes so many exchanges, of which one in ten meets a fault (make faults-million).
func TestNoWrongValueThroughFaults(t *testing.T) {
	buildRTU := func(request, pdu []byte) []byte { return raw(frame(fmt.Sprintf("%02x%x", request[0], pdu))) }
	buildTCP := func(request, pdu []byte) []byte {
		b := binary.BigEndian.AppendUint16(slices.Clone(request[:4]), uint16(1+len(pdu)))
		return append(append(b, request[6]), pdu...)
	}
	exchanges, odds := 18_000, 3
	if text := os.Getenv("HUB_EXCHANGES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		exchanges, odds = n, 10
	}
	rtuOverTCP := func(t *testing.T, dial func() (net.Conn, error)) *Bus {
		bus := rtu(t, dial)
		bus.line.(*rtuLine).reopens = true
		return bus
	}
	for _, c := range []struct {
		name string
		liar *liar
		size int
		make func(*testing.T, func() (net.Conn, error)) *Bus
	}{
		{"RTU", &liar{build: buildRTU}, 8, rtu},
		{"TCP", &liar{build: buildTCP, tcp: true}, 12, tcp},
		{"RTU over TCP", &liar{build: buildRTU}, 8, rtuOverTCP},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := c.liar
				l.seed, l.odds, l.latest, l.told = uint64(len(c.name)), odds, map[string]uint32{}, map[string]int{}
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
				good, wrong, failed, n := 0, 0, map[string]int{}, 0
				for asked := uint32(0); int(asked) < exchanges/3; n++ {
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
							wrong++
							t.Errorf("poll %d: register %d of unit %d is %s, want %s", n, at, d.Unit, r.Value, want)
						}
					}
					asked = l.number
					l.mu.Unlock()
					var e *drivers.Error
					if err != nil && (!errors.As(err, &e) || e.Device == "" || e.At == "") {
						t.Errorf("poll %d: %v", n, err)
					}
					time.Sleep(200 * time.Millisecond)
				}
				t.Logf("%d exchanges, faults %v; %d values accepted, %d of them wrong; missing for %v", l.number, l.told, good, wrong, failed)
				if good < n || len(failed) < 4 {
					t.Errorf("%d values came through, missing for %v: the test tests little", good, failed)
				}
				bus.Close()
				serving.Wait()
			})
		})
	}
}
