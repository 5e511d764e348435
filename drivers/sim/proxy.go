package sim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// Proxy stands between a master and a slave and spoils some of the answers, in every way that a bad line, adapter,
// converter or slave can. Slave and master are whoever they are: a simulation, another program, a device on a bench.
// The slave is asked at once; the fault is in how its answer is carried on, or in what comes in its stead. A Proxy
// serves any number of connections at a time and is safe for concurrent use.
type Proxy struct {
	TCP  bool          // Modbus TCP; else RTU, on a line or over TCP
	Odds int           // one answer in so many meets a fault; 0: none
	Lag  time.Duration // a good answer is carried on after a random time below it
	Late time.Duration // a late answer comes after this and up to twice this: longer than the master waits
	Seed uint64        // of the dice; each connection throws its own

	mu     sync.Mutex
	told   map[string]int
	thrown uint64
}

// Told is how often each fault has happened so far.
func (p *Proxy) Told() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.told)
}

// Serve accepts masters until the listener is closed, and gives each a connection of its own to the slave.
func (p *Proxy) Serve(listener net.Listener, dial func() (net.Conn, error)) error {
	var carrying sync.WaitGroup
	defer carrying.Wait()
	for {
		master, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		slave, err := dial()
		if err != nil { // as a dead slave behind a converter looks
			master.Close()
			continue
		}
		carrying.Go(func() { p.Carry(master, slave) })
	}
}

// slaveSilence is how long a slave may take for an answer. An answer after that could not be told from the next one.
const slaveSilence = 10 * time.Second

// Carry takes requests from master to slave and answers back until either hangs up or the slave gives no answer, and
// closes both. On a line each unit
// is a device of its own, which another one's delay does not hold up; behind a Modbus TCP connection one server answers
// for all, and its late answers pile up.
func (p *Proxy) Carry(master, slave net.Conn) {
	spoiled := map[byte]chan answer{}
	var spoiling sync.WaitGroup
	defer spoiling.Wait()
	defer func() {
		for _, answers := range spoiled {
			close(answers)
		}
	}()
	defer slave.Close()
	defer master.Close()
	for {
		request, err := p.request(master)
		if err != nil {
			return
		}
		if _, err := slave.Write(request); err != nil {
			return
		}
		slave.SetReadDeadline(time.Now().Add(slaveSilence))
		good, err := p.answer(slave)
		if err != nil {
			return
		}
		unit := request[p.unitAt()]
		if p.TCP {
			unit = 0
		}
		if spoiled[unit] == nil {
			answers := make(chan answer, 100)
			spoiled[unit] = answers
			spoiling.Go(func() { p.deliver(master, answers) })
		}
		spoiled[unit] <- answer{request, good}
	}
}

// answer is a slave's answer and what it was asked.
type answer struct{ request, good []byte }

// unitAt is where in a frame the unit id stands.
func (p *Proxy) unitAt() int {
	if p.TCP {
		return mbapSize - 1
	}
	return 0
}

func (p *Proxy) request(master io.Reader) ([]byte, error) {
	if p.TCP {
		return readADU(master)
	}
	return readFrame(master, requestSize)
}

func (p *Proxy) answer(slave io.Reader) ([]byte, error) {
	if p.TCP {
		return readADU(slave)
	}
	return readFrame(slave, answerSize)
}

// readFrame reads an RTU frame whose length size knows once it has enough of it. There is no other way to find its end
// where nobody keeps silences.
func readFrame(r io.Reader, size func([]byte) int) ([]byte, error) {
	frame := make([]byte, 0, maxFrame)
	for n := 0; n == 0 || len(frame) < n; n = size(frame) {
		if len(frame) == maxFrame {
			return nil, errors.New("not Modbus RTU")
		}
		frame = frame[:len(frame)+1]
		if _, err := io.ReadFull(r, frame[len(frame)-1:]); err != nil {
			return nil, err
		}
	}
	return frame, nil
}

// answerSize is the length of the answer that b begins with, 0 if b does not tell.
func answerSize(b []byte) int {
	switch {
	case len(b) < 3:
		return 0
	case b[1] >= 0x80:
		return 5
	case b[1] <= 4:
		return 5 + int(b[2])
	}
	return 8
}

// frame puts a PDU into a frame that is an answer to request, for any unit.
func (p *Proxy) frame(request []byte, unit byte, pdu []byte) []byte {
	if p.TCP {
		b := binary.BigEndian.AppendUint16(slices.Clone(request[:4]), uint16(1+len(pdu)))
		return append(append(b, unit), pdu...)
	}
	b := append([]byte{unit}, pdu...)
	return binary.LittleEndian.AppendUint16(b, crc16(b))
}

// deliver carries a unit's answers on, one after the other.
func (p *Proxy) deliver(master net.Conn, answers <-chan answer) {
	p.mu.Lock()
	p.thrown++
	dice := rand.New(rand.NewPCG(p.Seed, p.thrown)) // its own: an old connection may still be in a fault
	p.mu.Unlock()
	for a := range answers {
		if p.Odds == 0 || dice.IntN(p.Odds) > 0 {
			if p.Lag > 0 {
				time.Sleep(time.Duration(dice.Int64N(int64(p.Lag))))
			}
			master.Write(a.good)
			continue
		}
		faults := p.faults(dice, master, a)
		chosen := faults[dice.IntN(len(faults))]
		p.mu.Lock()
		if p.told == nil {
			p.told = map[string]int{}
		}
		p.told[chosen.name]++
		p.mu.Unlock()
		chosen.play()
	}
}

// spoil is one way in which an answer does not come as it should.
type spoil struct {
	name string
	play func()
}

// faults are all ways to spoil a. What is written to a master that has hung up is lost, as on a line.
func (p *Proxy) faults(dice *rand.Rand, master net.Conn, a answer) []spoil {
	say := func(b []byte) { master.Write(b) }
	after := func(least, most time.Duration) { time.Sleep(least + time.Duration(dice.Int64N(int64(most-least)))) }
	noise := func(most int) []byte {
		b := make([]byte, 1+dice.IntN(most))
		for i := range b {
			b[i] = byte(dice.Uint32())
		}
		return b
	}
	head := p.unitAt()
	unit, good := a.request[head], slices.Clone(a.good)
	pdu := good[head+1:]
	if !p.TCP {
		pdu = pdu[:len(pdu)-2]
	}
	part := func() []byte { return good[:1+dice.IntN(len(good)-1)] }
	other := unit ^ 8 // a unit nobody asked
	faults := []spoil{
		{"silence", func() {}},
		{"slow", func() { after(0, p.Late*9/10); say(good) }},
		{"late", func() { after(p.Late, 2*p.Late*9/10); say(good) }},
		{"cut short", func() { say(part()) }},
		{"refused", func() { say(p.frame(a.request, unit, []byte{pdu[0] | 0x80, 4})) }},
		{"other function", func() { say(p.frame(a.request, unit, append([]byte{pdu[0] ^ 7}, pdu[1:]...))) }},
		{"other unit first", func() { say(p.frame(a.request, other, pdu)); after(0, p.Late/5); say(good) }},
		{"other unit", func() { say(p.frame(a.request, other, pdu)) }},
		{"wrong length", func() {
			short := []byte{pdu[0], 2, 1, 2}
			if pdu[1] == 2 {
				short = []byte{pdu[0], 4, 1, 2, 3, 4}
			}
			say(p.frame(a.request, unit, short))
		}},
		{"in pieces", func() {
			for rest := good; len(rest) > 0; after(0, p.Late/8) {
				n := 1 + dice.IntN(len(rest))
				say(rest[:n])
				rest = rest[n:]
			}
		}},
		{"doubled", func() { say(good); say(good) }},
	}
	if p.TCP {
		return append(faults,
			spoil{"other transaction", func() { good[0] ^= 0x40; say(good) }},
			spoil{"late without bound", func() { after(0, 10*p.Late); say(good) }},
			spoil{"header out of step", func() { b := bytes.Clone(good); b[4] = 0xFF; say(b); say(good) }},
			spoil{"hang up", func() { say(part()); master.Close() }},
		)
	}
	return append(faults,
		spoil{"bit flip", func() { good[dice.IntN(len(good))] ^= 1 << dice.IntN(8); say(good) }}, // TCP has a checksum of its own below
		spoil{"noise before", func() { say(noise(12)); say(good) }},
		spoil{"noise long before", func() { say(noise(12)); after(0, p.Late/5); say(good) }},
		spoil{"noise after", func() { say(good); say(noise(12)) }},
		spoil{"noise only", func() { say(noise(300)) }},
		spoil{"echo", func() { say(a.request); say(good) }},
		spoil{"echo only", func() { say(a.request) }},
		spoil{"false start", func() { say(good[:4]); say(good) }},
		spoil{"other master", func() { // its request and the answer to it, before ours
			say(p.frame(a.request, other, a.request[1:len(a.request)-2]))
			after(0, p.Late/25)
			say(p.frame(a.request, other, pdu))
			after(0, p.Late/25)
			say(good)
		}},
	)
}
