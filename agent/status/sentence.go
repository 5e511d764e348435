package status

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// sentence is one thing said at the top of the page: text, and between Before and After the devices it is about.
type sentence struct {
	Level  level
	Before string
	Names  []mention
	After  string
	Code   string // what a program said, word for word; for whoever is called to help
}

// mention is a device in a sentence.
type mention struct {
	ID    string // of its entry in the list
	Label string
	Note  string // said of it, punctuation included
}

// mentioned bounds the names in one sentence: the list below has them all.
const mentioned = 3

// firstAnswer is how long a platform may take before its silence is worth a warning.
const firstAnswer = 2 * time.Minute

// behind is how old the oldest reading waiting may get, while the platform answers, before the page says so.
const behind = 5 * time.Minute

// sentences say how everything stands, what is worst first: what loses readings, then what wants attention, what only
// waits, and at last what is in order. There is always at least one.
func (l *language) sentences(s Snapshot, devices []device) []sentence {
	all := l.journalSentences(s)
	all = append(all, l.deviceSentences(s, devices)...)
	all = append(all, l.uplinkSentences(s)...)
	all = append(all, l.flawSentences(devices)...)
	all = append(all, l.clockSentences(s)...)
	slices.SortStableFunc(all, func(a, b sentence) int { return cmp.Compare(b.Level, a.Level) })
	return all
}

func (l *language) journalSentences(s Snapshot) []sentence {
	var all []sentence
	if s.Journal.Error != "" {
		say := sentence{Level: warn, Before: l.count("state.journal", s.Journal.AtRisk), Code: s.Journal.Error}
		if s.Journal.Lost > 0 {
			say.Level, say.Before = bad, l.count("state.losing", int(s.Journal.Lost))
		}
		all = append(all, say)
	}
	if s.Journal.Volatile {
		all = append(all, sentence{Level: warn, Before: l.Say("state.volatile")})
	}
	if s.Card.worn() {
		all = append(all, sentence{Level: warn, Before: l.Say("state.worn")})
	}
	return all
}

func (l *language) clockSentences(s Snapshot) []sentence {
	f := s.ClockFacts
	switch {
	case s.Clock == "unsync" && f.Doubt == "platform" && f.AheadMs != nil:
		return []sentence{{Level: warn, Before: l.Say("state.clock.platform", l.ahead(*f.AheadMs))}}
	case s.Clock == "unsync" && f.Doubt == "past":
		return []sentence{{Level: warn, Before: l.Say("state.clock.past", s.Now.Format("2006-01-02 15:04"))}}
	case s.Clock == "unsync":
		return []sentence{{Level: warn, Before: l.Say("state.clock.kernel")}}
	case s.Clock == "step":
		return []sentence{{Level: wait, Before: l.Say("state.clock.step", l.moved(f.JumpedByMs))}}
	}
	return nil
}

// ahead is how far the clock is from another one, in words.
func (l *language) ahead(ms int64) string {
	switch d := time.Duration(ms) * time.Millisecond; {
	case d >= time.Second:
		return l.Say("clock.ahead", l.span(d))
	case d <= -time.Second:
		return l.Say("clock.behind", l.span(-d))
	}
	return l.Say("clock.equal")
}

// moved is by how much the clock was set, in words.
func (l *language) moved(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	if d < 0 {
		return l.Say("clock.back", l.span(-d))
	}
	return l.Say("clock.forward", l.span(d))
}

func (l *language) deviceSentences(s Snapshot, devices []device) (all []sentence) {
	var silent, alert []mention
	fresh, well := 0, 0
	for _, d := range devices {
		switch {
		case d.silent:
			silent = append(silent, d.mention(l.since(s, d.since)))
		case d.fresh:
			fresh++
		case d.Alert != "":
			alert = append(alert, d.mention(l.Say("state.alert", d.Alert)))
		case d.level == good:
			well++
		}
	}
	switch {
	case len(devices) == 0:
		all = append(all, sentence{Level: wait, Before: l.Say("state.none")})
	case len(silent) > 1 && len(silent) == len(devices):
		all = append(all, sentence{Level: bad, Before: l.Say("state.all_silent")})
	case len(silent) > 0:
		all = append(all, l.naming(bad, "state.silent", silent))
	}
	if len(alert) > 0 {
		all = append(all, l.naming(warn, "state.attention", alert))
	}
	switch {
	case fresh > 0:
		all = append(all, sentence{Level: wait, Before: l.Say("state.starting", len(devices)-len(silent)-fresh, len(devices))})
	case well > 0 && well == len(devices):
		all = append(all, sentence{Before: l.count("state.all_well", well)})
	case well > 0:
		all = append(all, sentence{Before: l.count("state.rest", well)})
	}
	return all
}

func (l *language) uplinkSentences(s Snapshot) []sentence {
	u := s.Uplink
	waiting := l.Say("state.kept")
	switch {
	case u.Waiting > 0 && u.OldestWaiting.IsZero():
		waiting = l.count("state.waiting.undated", int(u.Waiting))
	case u.Waiting > 0:
		waiting = l.count("state.waiting", int(u.Waiting), l.clock(s.Now, u.OldestWaiting))
	}
	gap := l.Say("state.gap")
	switch u.State {
	case LinkOff:
		return []sentence{{Before: l.Say("state.off")}}
	case LinkOffline:
		if u.Connects == 0 && u.Error == "" {
			return []sentence{{Level: wait, Before: l.Say("state.connecting")}}
		}
		all := []sentence{{Level: warn, Before: l.Say("state.offline", l.span(s.Now.Sub(u.Since))) + gap + waiting}}
		if u.GivenUp > 0 {
			all = append(all, sentence{Level: bad, Before: l.count("state.given_up", int(u.GivenUp))})
		}
		return all
	case LinkSilent:
		quiet := s.Now.Sub(u.Since)
		if quiet < firstAnswer {
			return []sentence{{Level: wait, Before: l.Say("state.unanswered")}}
		}
		return []sentence{{Level: warn, Before: l.Say("state.quiet", l.span(quiet)) + gap + waiting}}
	}
	if u.Waiting > 0 && u.OldestWaiting.IsZero() {
		return []sentence{{Before: l.count("state.catching_up.undated", int(u.Waiting))}}
	}
	if u.Waiting > 0 && s.Now.Sub(u.OldestWaiting) > behind {
		return []sentence{{Before: l.count("state.catching_up", int(u.Waiting), l.clock(s.Now, u.OldestWaiting))}}
	}
	if u.LastAck.IsZero() {
		return nil
	}
	return []sentence{{Before: l.Say("state.confirmed", l.ago(s.Now, u.LastAck))}}
}

func (l *language) flawSentences(devices []device) []sentence {
	var flawed []mention
	for _, d := range devices {
		if d.level == warn {
			flawed = append(flawed, d.mention(l.Say("state.flaw", d.Word)))
		}
	}
	if len(flawed) == 0 {
		return nil
	}
	return []sentence{l.naming(warn, "state.attention", flawed)}
}

// naming is a sentence with {names} in it.
func (l *language) naming(lv level, key string, names []mention) sentence {
	s := sentence{Level: lv, Names: names}
	s.Before, s.After, _ = strings.Cut(l.Say(key), "{names}")
	if more := len(names) - mentioned; more > 0 {
		s.Names = names[:mentioned]
		s.After = l.count("state.more", more) + s.After
	}
	return s
}

// since is how long something has lasted: since what time of day, or for how long while the clock cannot be trusted.
func (l *language) since(s Snapshot, t time.Time) string {
	if s.Clock == "unsync" {
		return l.Say("state.for", l.span(s.Now.Sub(t)))
	}
	return l.Say("state.since", l.clock(s.Now, t))
}
