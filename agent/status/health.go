package status

import (
	"time"

	"hubagent/drivers"
)

// level is how much a state asks of the reader. It is shown as a colour, a shape and a word, never as colour alone.
type level uint8

const (
	good level = iota
	wait       // nothing wrong, not everything known yet
	warn       // no reading is being lost, but somebody should know
	bad        // readings are being lost
)

// String is the level's name in style.css and among the page's shapes.
func (l level) String() string { return [...]string{"good", "wait", "warn", "bad"}[l] }

// health is what the page makes of one device.
type health struct {
	level  level
	silent bool      // gives no readings
	fresh  bool      // was never read, and there was no time yet to do so
	last   time.Time // of its newest reading; zero if there is none
	since  time.Time // when it was last known to be well: last, or the agent's start
	why    string    // of a silent device: the code of the last failure
	flaw   drivers.Quality
}

// late is the code this page gives where the drivers have none: a device was not polled in time.
const late = "late"

// stale says whether something last heard of at since is older than two missed polls. Half an interval more leaves
// time for a poll that is under way: on a slow bus it takes seconds.
func (s Snapshot) stale(d Device, since time.Time) bool {
	return s.Now.Sub(since) > time.Duration(d.IntervalMs)*time.Millisecond*5/2
}

// health judges by the age of readings and not only by what the poller reports, so that a poller that hangs is seen.
func (s Snapshot) health(d Device) health {
	var h health
	for _, p := range d.Points {
		if p.At.After(h.last) {
			h.last = p.At
		}
		if h.why == "" {
			h.why = p.Why
		}
		if severity(p.Quality) > severity(h.flaw) {
			h.flaw = p.Quality
		}
	}
	h.since = h.last
	if h.last.IsZero() {
		h.since = s.StartedAt
	}
	never := h.last.IsZero()
	// One lost answer is noise, unless there never was one.
	h.silent = d.Failing >= 2 || d.Failing == 1 && never || s.stale(d, h.since)
	h.fresh = never && !h.silent
	switch {
	case h.silent:
		h.level = bad
		if h.why == "" || d.Failing == 0 {
			h.why = late
		}
	case h.fresh:
		h.level = wait
	case d.Failing == 0 && severity(h.flaw) > severity(drivers.Good):
		h.level = warn
	}
	return h
}

// severity orders flags by what they ask of the reader. Unlike in an aggregate, a missing reading weighs more than a
// good one here: somebody may have to mend a sensor.
func severity(q drivers.Quality) int {
	switch q {
	case drivers.Bad:
		return 4
	case drivers.Suspect:
		return 3
	case drivers.Missing:
		return 2
	}
	return 1
}
