package record

import (
	"time"

	"hubagent/agent/contract"
)

// look is what the kernel says of its clock at one moment.
type look struct {
	wall   int64 // Unix milliseconds
	mono   int64 // milliseconds since boot, time asleep included; no clock step touches it
	synced bool  // somebody keeps the clock synchronised
}

// Doubt says why a clock is not believed.
type Doubt string

// The doubts.
const (
	DoubtNone     Doubt = ""
	DoubtKernel   Doubt = "kernel"   // the kernel does not say that it is synchronised
	DoubtPast     Doubt = "past"     // it is behind a time at which it was good, so it was set by a clock that lies
	DoubtPlatform Doubt = "platform" // it is far from the platform's
)

const (
	// stepMs is by how much the clock must have moved against the time since boot to have jumped. A leap second, which the
	// kernel carries out by moving the clock, is no jump; and programs that keep the clock move it by less only rarely.
	stepMs = 1500

	// settleTime is how long after a jump the clock counts as having just jumped. A program that chose a wrong server corrects
	// itself within this time, as a rule.
	settleTime = time.Minute

	// platformBound is how far the clock may be from the platform's: acknowledgements take their time on the way, by minutes
	// where a line is bad.
	platformBound = 10 * time.Minute
)

// leastWall is before the first version that knew it, in Unix milliseconds: no clock can be right that is behind it.
var leastWall = time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// timekeeping is what is known of the clock after the looks so far. The zero value is before the first.
type timekeeping struct {
	state    string // as in contract.Stamp; "" before the first look
	doubt    Doubt
	offset   int64 // wall less mono, at the last look
	good     bool  // it was good once
	jumped   bool  // it has jumped once, and that was the last time:
	jumpedAt int64 // mono
	jumpedBy int64 // ms

	floor    int64 // a time at which it was good before the first look; 0: none is known
	compared bool  // the platform told its time:
	platform int64 // less the mono of that moment
}

// jumps is by how much the clock has jumped since the last look, in milliseconds; 0: it has not.
func (k timekeeping) jumps(l look) int64 {
	if by := l.wall - l.mono - k.offset; k.state != "" && (by <= -stepMs || by >= stepMs) {
		return by
	}
	return 0
}

// ahead is by how much the clock is ahead of the platform's, in milliseconds, once that was told. The time that the
// platform's message took on the way is in it.
func (k timekeeping) ahead(l look) int64 { return l.wall - l.mono - k.platform }

// next is what is known after another look.
func (k timekeeping) next(l look) timekeeping {
	if by := k.jumps(l); by != 0 {
		k.jumped, k.jumpedAt, k.jumpedBy = true, l.mono, by
		if k.good {
			k.floor = 0 // what was believed before was corrected before our eyes: it proves nothing any more
		}
	}
	k.offset = l.wall - l.mono
	compared := k.compared && l.mono+k.platform >= leastWall
	switch {
	case !l.synced:
		k.doubt = DoubtKernel
	case l.wall < leastWall, !compared && l.wall < k.floor-stepMs:
		k.doubt = DoubtPast
	case compared && ms(max(k.ahead(l), -k.ahead(l))) > platformBound:
		k.doubt = DoubtPlatform
	default:
		k.doubt = DoubtNone
	}
	switch {
	case k.doubt != DoubtNone:
		k.state = contract.ClockUnsync
	case k.jumped && ms(l.mono-k.jumpedAt) < settleTime:
		k.state, k.good = contract.ClockStep, true
	default:
		k.state, k.good = contract.ClockOK, true
	}
	return k
}
