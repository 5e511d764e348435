package record

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"hubagent/agent/contract"
)

// machine is a gateway's hardware in a test: a true time that passes, and a clock that is set as the story wants it.
type machine struct {
	mono   int64 // ms since boot
	clock  int64 // wall less mono
	synced bool
	known  timekeeping
}

func (m *machine) pass(d time.Duration) { m.mono += d.Milliseconds() }

func (m *machine) set(to string) {
	t, err := time.Parse(time.RFC3339, to)
	if err != nil {
		panic(err)
	}
	m.clock = t.UnixMilli() - m.mono
}

func (m *machine) look() timekeeping {
	m.known = m.known.next(look{wall: m.clock + m.mono, mono: m.mono, synced: m.synced})
	return m.known
}

// told is the platform saying its time, with that delay.
func (m *machine) platform(at string, delay time.Duration) {
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		panic(err)
	}
	m.known.compared, m.known.platform = true, t.UnixMilli()-delay.Milliseconds()-m.mono
}

// Each line of a story is what happens, and the state and doubt afterwards.
func TestClockStates(t *testing.T) {
	type line struct {
		what func(m *machine)
		want string
	}
	sync := func(on bool) func(*machine) { return func(m *machine) { m.synced = on } }
	set := func(to string, on bool) func(*machine) {
		return func(m *machine) { m.set(to); m.synced = on }
	}
	pass := func(d time.Duration) func(*machine) { return func(m *machine) { m.pass(d) } }
	move := func(d time.Duration) func(*machine) {
		return func(m *machine) { m.clock += d.Milliseconds() }
	}
	floor := func(at string) func(*machine) {
		return func(m *machine) {
			t, err := time.Parse(time.RFC3339, at)
			if err != nil {
				panic(err)
			}
			m.known.floor = t.UnixMilli()
		}
	}
	for name, story := range map[string][]line{
		"good from the start": {{set("2026-10-01T08:00:00Z", true), "ok"}, {pass(time.Hour), "ok"}},
		"1970, then timesyncd sets and vouches in one": {
			{set("1970-01-01T00:00:10Z", false), "unsync kernel"}, {pass(time.Minute), "unsync kernel"},
			{set("2026-10-01T08:00:00Z", true), "step"}, {pass(59 * time.Second), "step"}, {pass(time.Second), "ok"},
		},
		"1970, then chrony sets, and vouches later": {
			{set("1970-01-01T00:00:10Z", false), "unsync kernel"}, {set("2026-10-01T08:00:00Z", false), "unsync kernel"},
			{pass(5 * time.Second), "unsync kernel"}, {sync(true), "step"}, {pass(time.Minute), "ok"},
		},
		"not synchronised, but right": {{set("2026-10-01T08:00:00Z", false), "unsync kernel"}, {sync(true), "ok"}},
		"sync lost and found":         {{set("2026-10-01T08:00:00Z", true), "ok"}, {sync(false), "unsync kernel"}, {sync(true), "ok"}},
		"a week forward":              {{set("2026-10-01T08:00:00Z", true), "ok"}, {move(7 * 24 * time.Hour), "step"}, {pass(time.Minute), "ok"}},
		"an hour back":                {{set("2026-10-01T08:00:00Z", true), "ok"}, {move(-time.Hour), "step"}, {pass(time.Minute), "ok"}},
		"there and back": {
			{set("2026-10-01T08:00:00Z", true), "ok"}, {move(time.Hour), "step"}, {pass(30 * time.Second), "step"},
			{move(-time.Hour), "step"}, {pass(40 * time.Second), "step"}, {pass(20 * time.Second), "ok"},
		},
		"a leap second is no jump":   {{set("2026-12-31T23:59:59Z", true), "ok"}, {move(-time.Second), "ok"}},
		"a small correction is none": {{set("2026-10-01T08:00:00Z", true), "ok"}, {move(1400 * time.Millisecond), "ok"}, {move(-1400 * time.Millisecond), "ok"}},
		"asleep for a night":         {{set("2026-10-01T08:00:00Z", true), "ok"}, {pass(9 * time.Hour), "ok"}},
		"2038 and later": {
			{set("2038-01-19T03:14:06Z", true), "ok"}, {pass(4 * time.Second), "ok"}, {set("2100-03-01T00:00:00Z", true), "step"}, {pass(time.Minute), "ok"},
		},
		"32 bits have run out":               {{set("1901-12-13T20:45:52Z", true), "unsync past"}},
		"a server that lives in 2001":        {{set("2001-01-01T00:00:00Z", true), "unsync past"}, {pass(time.Hour), "unsync past"}},
		"and is put right":                   {{set("2001-01-01T00:00:00Z", true), "unsync past"}, {set("2026-10-01T08:00:00Z", true), "step"}, {pass(time.Minute), "ok"}},
		"the journal was good a month later": {{floor("2026-11-01T00:00:00Z"), "unsync past"}},
		"a bit behind the journal's last":    {{floor("2026-10-01T08:00:01Z"), "ok"}},
		"the journal went wrong, and the platform says so": {
			{floor("2035-01-01T00:00:00Z"), "unsync past"},
			{func(m *machine) { m.platform("2026-10-01T08:00:00Z", time.Minute) }, "ok"},
		},
		"the journal goes wrong, and NTP corrects it before our eyes": {
			{floor("2034-12-31T00:00:00Z"), "unsync past"},
			{set("2035-01-01T00:00:00Z", true), "step"}, {pass(time.Minute), "ok"},
			{set("2026-10-01T08:00:00Z", true), "step"}, {pass(time.Minute), "ok"},
		},
		"the platform's clock is another": {
			{set("2026-10-01T08:00:00Z", true), "ok"},
			{func(m *machine) { m.platform("2026-10-01T08:09:00Z", 0) }, "ok"},
			{func(m *machine) { m.platform("2026-10-01T08:11:00Z", 0) }, "unsync platform"},
			{func(m *machine) { m.platform("2026-10-01T07:49:00Z", 0) }, "unsync platform"},
			{func(m *machine) { m.platform("2026-10-01T08:00:00Z", 9*time.Minute) }, "ok"},
		},
		"the platform heard in 1970 helps after the step": {
			{set("1970-01-01T00:00:10Z", false), "unsync kernel"},
			{func(m *machine) { m.platform("2026-10-01T08:00:00Z", time.Second) }, "unsync kernel"},
			{pass(time.Minute), "unsync kernel"},
			{set("2026-10-02T08:01:00Z", true), "unsync platform"}, // a server that is a day ahead
			{set("2026-10-01T08:01:00Z", true), "step"},
		},
		"a platform in 2001 proves nothing": {
			{func(m *machine) { m.platform("2001-01-01T00:00:00Z", 0) }, "ok"},
			{func(m *machine) { m.set("2001-01-01T00:00:00Z"); m.platform("2001-01-01T00:00:00Z", 0) }, "unsync past"},
		},
	} {
		m := &machine{mono: 10_000, synced: true}
		m.set("2026-10-01T08:00:00Z")
		for i, l := range story {
			l.what(m)
			k := m.look()
			if got := strings.TrimSpace(fmt.Sprintf("%s %s", k.state, k.doubt)); got != l.want {
				t.Errorf("%s, line %d: %s, want %s", name, i+1, got, l.want)
			}
		}
	}
}

// The real kernel's clock: whatever it says of itself here, one time line, and a doubt where it is not good.
func TestKernelClock(t *testing.T) {
	c, err := NewSystemClock(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a := c.Stamp()
	b := c.Stamp()
	if a.Boot == "" || a.Boot != b.Boot || a.Mono <= 0 || b.Mono < a.Mono {
		t.Errorf("%+v, then %+v", a, b)
	}
	if d := time.Since(time.UnixMilli(b.At)); d < -time.Second || d > 10*time.Second {
		t.Errorf("its time is %v off", d)
	}
	if !continues(a, b) && a.Clock == b.Clock {
		t.Errorf("two time lines: %+v, then %+v", a, b)
	}
	s := c.Status()
	if (s.State == contract.ClockUnsync) != (s.Doubt != DoubtNone) || s.Compared || s.Since.IsZero() {
		t.Errorf("status %+v", s)
	}
	c.Hear(time.Now().Add(time.Hour).UnixMilli())
	if s := c.Status(); s.State != contract.ClockUnsync || !s.Compared || s.Ahead > -59*time.Minute || s.Ahead < -61*time.Minute {
		t.Errorf("an hour behind the platform: %+v", s)
	}
	t.Logf("the kernel's clock here is %s %s", s.State, s.Doubt)
}
