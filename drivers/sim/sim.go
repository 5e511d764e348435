// Package sim is a whole hub in software: the slave side of a site, for the demo, tests and training.
//
// A World says what is true in the simulated community at any instant. A Site makes it readable the way real devices
// do: as a Modbus TCP server, as Modbus RTU slaves on a serial line or behind a converter, and as GPIO line files; it
// keeps what is written to it, and plays scripted faults. What a device answers follows from its profile alone, so every
// profile can be simulated without more code. A Setup does all of it for the buses of a hub.yaml.
//
// Each Serve and Write method is a task: it runs until its context ends, returns nil then, and leaves no goroutine.
package sim

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"hubagent/config"
)

// Site answers for the devices of any number of buses. Its methods may be called at the same time.
type Site struct {
	World World

	// Served, if not nil, is called when a good answer has been written, with the instant its values are true for; a
	// quick master may have the answer a moment before. It is what a demo counts independently of the agent; a poll
	// that takes several requests gives several calls. An answer under a fault counts only when it was whole and in
	// time as far as the site can know: Slow does, Late does not. Set it before the first task starts; tasks call it
	// from their own goroutines.
	Served func(device string, at time.Time)

	// Latency is what a device takes to work out an answer once it has the request; 0: 2 ms on a serial line, and no time
	// behind Modbus TCP. Set it before the first task starts.
	Latency time.Duration

	// Recording, if not nil, answers for its units in the world's place. Set it before the first task starts.
	Recording *Recording

	Counts Counts

	mu     sync.Mutex // guards faults and random
	faults []Fault
	random *rand.Rand
}

// Counts says what a site has done since New. It may be read while tasks run.
type Counts struct {
	Connections atomic.Int64 // TCP connections accepted
	Requests    atomic.Int64 // well-formed requests to a unit the bus has
	Answers     atomic.Int64 // good answers written, as Served sees them
	Exceptions  atomic.Int64 // refusals a real device would have sent, too
	Faults      atomic.Int64 // scripted faults played
}

// New makes a site in which the world is true. Its faults are drawn from the world's seed.
func New(world World) *Site {
	return &Site{World: world, random: rand.New(rand.NewPCG(world.Seed, 0))}
}

// exchange is one request on its way to becoming an answer.
type exchange struct {
	device string // "" for a unit the bus does not have
	answer []byte // PDU
	good   bool   // answer is values, not an exception
	at     time.Time
	fault  Fault // Kind "" for none
}

// take works out the answer to a request PDU of at least one byte, and the fault it meets. A write is done even when a
// fault keeps its confirmation back, but for a device that refuses.
func (s *Site) take(bus config.Bus, units *slave, unit byte, pdu []byte) exchange {
	d, known := units.devices[unit]
	if !known {
		return exchange{answer: noTarget.answer(pdu[0])}
	}
	s.Counts.Requests.Add(1)
	x := exchange{device: d.Name, at: time.Now()}
	x.fault = s.draw(bus.Name, int(unit), x.at)
	if x.fault.Kind == Exception {
		x.answer = deviceFailure.answer(pdu[0])
		return x
	}
	if answer, recorded := s.Recording.answer(unit, pdu); recorded {
		if x.answer, x.good = answer, answer != nil && answer[0] < 0x80; answer == nil {
			x.fault = Fault{Kind: Silent}
		}
		return x
	}
	var refused exception
	x.answer, refused = d.answer(pdu, s.World, x.at)
	if x.good = refused == 0; !x.good {
		x.answer = refused.answer(pdu[0])
		s.Counts.Exceptions.Add(1)
	}
	return x
}

// sent counts an exchange whose answer has left.
func (s *Site) sent(x exchange) {
	if !x.good || (x.fault.Kind != "" && x.fault.Kind != Slow) {
		return
	}
	s.Counts.Answers.Add(1)
	if s.Served != nil {
		s.Served(x.device, x.at)
	}
}
