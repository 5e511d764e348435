package gpio

import (
	"errors"
	"math/big"
	"time"

	periph "periph.io/x/conn/v3/gpio"

	"hubagent/config"
	"hubagent/drivers"
)

// point is what is known of one point of a line. Time comes in with what happened, so that an edge counts from its
// stamp and not from when the agent came to read it.
type point interface {
	// begin tells the level of a line that was just claimed; nothing is known of the time before.
	begin(level periph.Level, at time.Time)
	// edge tells that the line went to level.
	edge(level periph.Level, at time.Time)
	// reading is the point's value, and why it is suspect if it is. A wait instead says how long it takes, if nothing
	// moves, until there is one.
	reading(now time.Time) (value drivers.Value, why string, wait time.Duration, err error)
	// doubt tells that edges were lost.
	doubt()
}

func newPoint(p config.Point, device string, count func(device, point string) (uint64, bool)) point {
	if p.Type != config.Pulses {
		return &contact{active: periph.Level(!p.Invert), debounce: p.Debounce, hold: p.Hold}
	}
	c := &counter{counts: periph.Level(!p.Invert), debounce: p.Debounce, scale: p.Scale, offset: p.Offset}
	if count != nil {
		known := false
		if c.count, known = count(device, p.Name); known {
			c.why = "restarted"
		}
	}
	return c
}

// contact is a contact that may bounce: a level counts from when it has held for debounce, and until then the one that
// counted before still does.
type contact struct {
	active         periph.Level // the level at which it is active
	debounce, hold time.Duration

	level  periph.Level // after the last edge
	since  time.Time    // the last edge
	unrest time.Time    // the first edge since it was last at rest

	rest   periph.Level // the level at which it last came to rest
	known  bool         // it came to rest since the line was claimed
	until  time.Time    // it counts as active until then
	unseen bool         // it was active, and no reading said so
}

var errChatter = errors.New("the contact does not come to rest")

func (c *contact) begin(level periph.Level, at time.Time) {
	*c = contact{active: c.active, debounce: c.debounce, hold: c.hold, level: level, since: at, unrest: at}
}

func (c *contact) edge(level periph.Level, at time.Time) {
	if c.settle(at) {
		c.unrest = at
	}
	c.level, c.since = level, at
}

// settle says whether the contact is at rest, and notes the level if it is.
func (c *contact) settle(now time.Time) bool {
	if now.Sub(c.since) < c.debounce {
		return false
	}
	if was := c.known && c.rest == c.active; c.level == c.active && !was {
		c.until, c.unseen = c.since.Add(c.debounce+c.hold), c.hold > 0
	}
	c.rest, c.known = c.level, true
	return true
}

// reading gives an active contact for as long as hold asks for, and at least once. A contact that still moves after ten
// times its debounce time has no state.
func (c *contact) reading(now time.Time) (drivers.Value, string, time.Duration, error) {
	if !c.settle(now) {
		switch {
		case now.Sub(c.unrest) > 10*c.debounce:
			return drivers.Value{}, "", 0, errChatter
		case !c.known:
			return drivers.Value{}, "", c.since.Add(c.debounce).Sub(now), nil
		}
	}
	state := c.rest == c.active || c.unseen || now.Before(c.until)
	c.unseen = false
	return drivers.Bool(state), "", 0, nil
}

func (c *contact) doubt() {}

// counter counts the pulses of a line.
type counter struct {
	counts        periph.Level // the level that an edge must go to
	debounce      time.Duration
	scale, offset config.Decimal

	count uint64
	last  time.Time // the last edge that counted
	why   string    // why the next reading is suspect
}

// begin leaves the count as it is: what came before the line was claimed is in it, or was doubted.
func (c *counter) begin(periph.Level, time.Time) {}

func (c *counter) edge(level periph.Level, at time.Time) {
	if level != c.counts || !c.last.IsZero() && at.Sub(c.last) < c.debounce {
		return
	}
	c.count, c.last = c.count+1, at
}

func (c *counter) doubt() { c.why = "lost edges" }

func (c *counter) reading(time.Time) (drivers.Value, string, time.Duration, error) {
	why := c.why
	c.why = ""
	return quantity(c.count, c.scale, c.offset), why, 0, nil
}

// quantity is a count in the point's unit: the float64 nearest to the exact decimal, or the count itself when the
// profile has no scale.
func quantity(count uint64, scale, offset config.Decimal) drivers.Value {
	if (scale == config.Decimal{} || scale == config.Decimal{Mantissa: 1}) && offset.Mantissa == 0 {
		return drivers.Uint(count)
	}
	if scale.Mantissa == 0 {
		scale.Mantissa = 1
	}
	exact := new(big.Rat).SetInt(new(big.Int).SetUint64(count))
	exact.Mul(exact, rational(scale))
	f, _ := exact.Add(exact, rational(offset)).Float64()
	return drivers.Float64(f)
}

func rational(d config.Decimal) *big.Rat {
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(d.Exponent, -d.Exponent))), nil)
	r := new(big.Rat).SetInt64(d.Mantissa)
	if d.Exponent < 0 {
		return r.Quo(r, new(big.Rat).SetInt(power))
	}
	return r.Mul(r, new(big.Rat).SetInt(power))
}
