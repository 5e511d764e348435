package record

import (
	"hubagent/agent/contract"
	"hubagent/buffer"
)

// told is what the journal says of the clock. It is kept in the transactions of what says it, so that an agent that is
// started again in the same boot goes on where the one before ended.
type told struct {
	Boot   string `json:"boot"`
	Clock  string `json:"clk"`    // of the newest stamp
	Offset int64  `json:"offset"` // at less mono of it
	Fixed  *int64 `json:"fixed"`  // offset of this boot's newest clock leaf; nil: there is none yet
	Good   int64  `json:"good"`   // Unix milliseconds of the newest one whose clock was ok, of any boot
}

// LastGood is the newest time in the journal that was told by a clock that was ok, in Unix milliseconds; 0 when there is
// none.
func LastGood(store *buffer.Store) (int64, error) {
	var t told
	err := getState(store, stateClock, &t)
	return t.Good, err
}

// news says whether a clock leaf is due: the clock is good and was not before, in this boot or on this time line; or it
// has just jumped.
func (t told) news(now contract.Stamp) bool {
	if now.Boot == "" || now.Clock == contract.ClockUnsync {
		return false
	}
	return !t.same(told{Boot: now.Boot, Clock: now.Clock, Offset: now.At - now.Mono})
}

// fix is the clock leaf that is due, or nil.
func (t told) fix(now contract.Stamp) *contract.ClockFix {
	if !t.news(now) {
		return nil
	}
	f := &contract.ClockFix{
		State: now.Clock, Boot: now.Boot, Mono: now.Mono, Offset: now.At - now.Mono, Source: clockSource, Daemon: timeDaemon(),
	}
	if t.Boot != now.Boot {
		return f
	}
	before := t.Offset
	if t.Fixed != nil {
		before = *t.Fixed
	}
	if by := f.Offset - before; by <= -stepMs || by >= stepMs {
		f.Before = &before
	}
	return f
}

// same says whether both say the same of the clock, but for how long it has been good.
func (t told) same(as told) bool {
	by := t.Offset - as.Offset
	return t.Boot == as.Boot && t.Clock == as.Clock && -stepMs < by && by < stepMs
}

// after is what is told once a stamp is committed, with the clock leaf that is due if there is one.
func (t told) after(now contract.Stamp) told {
	next := told{Boot: now.Boot, Clock: now.Clock, Offset: now.At - now.Mono, Good: t.Good}
	if t.Boot == now.Boot {
		next.Fixed = t.Fixed
	}
	if now.Clock != contract.ClockUnsync {
		next.Fixed = &next.Offset
	}
	if now.Clock == contract.ClockOK {
		next.Good = now.At
	}
	return next
}
