package contract

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ClockFix is what a leaf of KindClock says: how Unix time and the time since a boot belong together. One is written when
// the clock becomes good, the first time in each boot included, and at each jump of a clock that counts as synchronised.
type ClockFix struct {
	// State is the leaf's own: ClockOK when the clock is good from here on, ClockStep when it has just jumped.
	State  string `json:"-"`
	Boot   string `json:"boot"`             // the kernel's boot id
	Mono   int64  `json:"mono"`             // milliseconds since that boot, of the leaf's at
	Offset int64  `json:"offset"`           // Unix milliseconds of the boot: at is mono and this
	Before *int64 `json:"before,omitempty"` // the boot's clock leaf before it, or before the first the clock as it was, if that was another
	Source string `json:"source"`           // who says that the clock is synchronised: adjtimex
	Daemon string `json:"daemon,omitempty"` // what keeps it so, where that is known: chrony, timesyncd, ntpd
}

// maxTime is the end of the year 9999 in Unix milliseconds: what lies beyond is no time.
const maxTime = 253402300799999

// ParseClock reads a leaf of KindClock from outside.
func ParseClock(data []byte) (ClockFix, error) {
	l, err := ParseLeaf(data)
	if err != nil {
		return ClockFix{}, err
	}
	var doc struct {
		Clock ClockFix `json:"clock"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return ClockFix{}, fmt.Errorf("clock leaf is not valid JSON: %w", err)
	}
	f := doc.Clock
	f.State = l.Clock
	switch {
	case l.Kind != KindClock:
		return ClockFix{}, fmt.Errorf("leaf has kind %.20q, not clock", l.Kind)
	case f.Boot == "":
		return ClockFix{}, errors.New("clock leaf names no boot")
	case f.State != ClockOK && f.State != ClockStep:
		return ClockFix{}, fmt.Errorf("clock leaf has clock state %.20q", f.State)
	case f.Mono < 0 || f.Mono > maxTime || f.Offset < -maxTime || f.Offset > maxTime:
		return ClockFix{}, errors.New("clock leaf has an impossible time")
	}
	return f, nil
}

// RepairedTime is the time of something in a leaf - its own at, the t of a row, the since of a fault - by a clock that was
// good. s is the leaf's stamp; fixes are all clock leaves that are at hand, of any boot and in any order.
//
// What a leaf says whose clock was ok stands. Another leaf's times are repaired by its boot's first clock leaf with a good
// clock that is not older than the leaf; where there is none, by its boot's newest clock leaf. Without a clock leaf of
// the same boot, as when the gateway was restarted before its clock was ever set, nobody can know the time: known is
// false, and t comes back as it is.
//
// A repaired time is as good as the gateway's quartz, which errs by some seconds a day while nobody disciplines it.
func RepairedTime(s Stamp, t int64, fixes []ClockFix) (repaired int64, known bool) {
	if s.Clock == ClockOK {
		return t, true
	}
	var best *ClockFix
	for i := range fixes {
		if f := &fixes[i]; s.Boot != "" && f.Boot == s.Boot && (best == nil || f.betterFor(s.Mono, best)) {
			best = f
		}
	}
	if best == nil {
		return t, false
	}
	return t - (s.At - s.Mono) + best.Offset, true
}

// betterFor says whether f repairs a leaf of that time since boot better than g does.
func (f *ClockFix) betterFor(mono int64, g *ClockFix) bool {
	settles := func(f *ClockFix) bool { return f.State == ClockOK && f.Mono >= mono }
	switch {
	case settles(f) && settles(g):
		return f.Mono < g.Mono
	case settles(f) || settles(g):
		return settles(f)
	}
	return f.Mono > g.Mono
}
