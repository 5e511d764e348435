package status

import (
	"cmp"
	"strconv"
	"strings"

	"hubagent/drivers"
)

// device is one entry of the list.
type device struct {
	health
	ID        string
	Label     string
	Word      string // for its level
	Alert     string // the state of a contact that somebody should look after
	Last      string // when its newest reading was made
	Why       string // of a device that gives no readings
	Mend      string // what to do about it
	Error     string // the same as a program said it
	Headlines []figure
	Points    []figure
	Facts     []string
}

// figure is the last reading of a point.
type figure struct {
	Title string
	Value string
	Unit  string
	Word  string // for its quality
	Age   string
	Note  string // Word and Age in short, where they differ from what is said of the device
	Why   string // it is not good, where that is not the same for the whole device
	Class string // "" for a good reading; old, flawed or alert
}

// none stands where a value is not known. It is never a number.
const none = "—"

func (d device) mention(note string) mention { return mention{d.ID, d.Label, note} }

// Level is the level to show: a contact in alert is no fault of the device, but has to be seen.
func (d device) Level() level {
	if d.Alert != "" {
		return max(d.level, warn)
	}
	return d.level
}

func (l *language) device(s Snapshot, d Device) device {
	v := device{health: s.health(d), ID: d.Name, Label: cmp.Or(d.Label, d.Name)}
	if !v.last.IsZero() {
		v.Last = l.ago(s.Now, v.last)
	}
	for _, p := range d.Points {
		f, alert := l.figure(s, d, v.health, p)
		if p.Headline {
			v.Headlines = append(v.Headlines, f)
			if alert && v.Alert == "" {
				v.Alert = f.Value
			}
		}
		v.Points = append(v.Points, f)
	}
	switch {
	case v.silent:
		v.Word = l.Say("device.silent")
		v.Why, v.Mend, v.Error = l.why(v.why), l.mend(v.why), d.Error
	case v.fresh:
		v.Word = l.Say("device.fresh")
	case v.level == warn:
		v.Word = l.quality(v.flaw)
	case v.Alert != "":
		v.Word = v.Alert
	default:
		v.Word = l.Say("device.good")
	}
	v.Facts = []string{
		l.Say("device.model", d.Model), l.Say("device.bus", d.Bus), l.Say("device.every", seconds(d.IntervalMs)),
		l.Say("device.polls", grouped(strconv.FormatUint(d.Polls, 10)), grouped(strconv.FormatUint(d.Failures, 10))),
	}
	if d.LeftOut > 0 {
		v.Facts = append(v.Facts, l.Say("device.left_out", grouped(strconv.FormatUint(d.LeftOut, 10))))
	}
	if !d.RetryAt.IsZero() {
		v.Facts = append(v.Facts, l.Say("device.retry", l.until(s.Now, d.RetryAt)))
	}
	return v
}

// figure is a point in words, and whether it is a state that somebody should look after now.
func (l *language) figure(s Snapshot, d Device, h health, p Point) (f figure, alert bool) {
	f = figure{Title: l.text(p.Title, p.Name), Value: p.Value.String(), Word: l.quality(p.Quality)}
	old := !p.At.IsZero() && s.stale(d, p.At)
	switch on, isState := p.Value.AsBool(); {
	case f.Value == "":
		f.Value = none
	case isState || p.Bool:
		if !isState {
			on = f.Value != "0"
		}
		f.Value, alert = l.stateWord(p.Title, on)
		alert = alert && !old && !h.silent
	default:
		f.Value, f.Unit = grouped(f.Value), unitSign(p.Unit)
	}
	if !p.At.IsZero() {
		f.Age = l.ago(s.Now, p.At)
	}
	switch {
	case old:
		f.Word, f.Class = l.Say("quality.stale"), "old"
		f.Note = l.Say("quality.aged", f.Word, f.Age)
	case f.Value == none || p.Quality == drivers.Missing:
		f.Class, f.Note = "old", f.Word
	case p.Quality == drivers.Suspect || p.Quality == drivers.Bad:
		f.Class, f.Note = "flawed", f.Word
	case alert:
		f.Class = "alert"
	}
	if h.silent || h.fresh {
		f.Class, f.Note = "old", ""
	}
	// What is wrong with a whole device is said of the device.
	if p.Why != "" && !h.silent {
		f.Why = l.why(p.Why)
	}
	return f, alert
}

func (l *language) quality(q drivers.Quality) string {
	return l.Say("quality." + strconv.Itoa(int(q)))
}

// why says a code of the drivers in words.
func (l *language) why(code string) string {
	return l.known("why."+code, l.Say("why.other", code))
}

// mend says what to do about a device that gives no readings.
func (l *language) mend(code string) string {
	if strings.HasPrefix(code, "exception ") {
		return l.known("mend."+code, l.Say("mend.exception 1"))
	}
	return l.known("mend."+code, l.Say("mend.other"))
}
