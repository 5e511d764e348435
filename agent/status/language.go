package status

import (
	"cmp"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"hubagent/config"
)

//go:embed zh.yaml
var zhTexts string

//go:embed en.yaml
var enTexts string

// language is one language of the page: its catalogue, and how it writes ages, times and sizes.
type language struct {
	Code  string // as in ?lang=
	Tag   string // as in <html lang>
	texts map[string]string
}

// languages reads the catalogues. The first language is the one for whoever asked for none.
func languages() []*language {
	all := []*language{{Code: "zh", Tag: "zh-CN"}, {Code: "en", Tag: "en"}}
	for i, catalogue := range []string{zhTexts, enTexts} {
		if err := yaml.Unmarshal([]byte(catalogue), &all[i].texts); err != nil {
			panic("BUG: catalogue " + all[i].Code + ": " + err.Error())
		}
	}
	return all
}

// Say is the text of a key with its verbs filled in. Templates call it, too.
func (l *language) Say(key string, args ...any) string {
	text, ok := l.texts[key]
	if !ok {
		return key // the tests see to it that this does not happen
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// count is Say for a text that begins with a number. Where one thing is said otherwise than several, the text has two
// forms with a bar between them.
func (l *language) count(key string, n int, args ...any) string {
	one, many, two := strings.Cut(l.Say(key), " | ")
	form := one
	if two && n != 1 {
		form = many
	}
	if !strings.Contains(form, "%") {
		return form
	}
	return fmt.Sprintf(form, append([]any{grouped(strconv.Itoa(n))}, args...)...)
}

// known is the text of a key that is put together from what the snapshot says, or otherwise if there is none.
func (l *language) known(key, otherwise string) string {
	if text, ok := l.texts[key]; ok {
		return text
	}
	return otherwise
}

// text is a name in this language, or the other one's where this one's is not given.
func (l *language) text(t config.Text, otherwise string) string {
	if l.Code == "en" {
		return cmp.Or(t.EN, t.ZH, otherwise)
	}
	return cmp.Or(t.ZH, t.EN, otherwise)
}

// span is a length of time in its largest unit, rounded down.
func (l *language) span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return l.Say("time.seconds", int(max(d, 0).Seconds()))
	case d < time.Hour:
		return l.Say("time.minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return l.Say("time.hours", int(d.Hours()))
	}
	return l.Say("time.days", int(d.Hours()/24))
}

const year = 8766 * time.Hour

// long is span for what may last years.
func (l *language) long(d time.Duration) string {
	if d < 2*year {
		return l.span(d)
	}
	return l.Say("time.years", int(d/year))
}

// ago is how long before now t was, in words.
func (l *language) ago(now, t time.Time) string {
	switch age := now.Sub(t); {
	case t.IsZero():
		return l.Say("time.never")
	case age < time.Second: // or ahead of now, after the clock was set back
		return l.Say("time.now")
	default:
		return l.Say("time.ago", l.span(age))
	}
}

// until is how long after now t is, in words.
func (l *language) until(now, t time.Time) string {
	if wait := t.Sub(now); wait >= time.Second {
		return l.Say("time.in", l.span(wait))
	}
	return l.Say("time.soon")
}

// clock is t as a time of day, with its date when that is not today's.
func (l *language) clock(now, t time.Time) string {
	t = t.In(now.Location())
	if y, d := now.Year(), now.YearDay(); y == t.Year() && d == t.YearDay() {
		return t.Format("15:04")
	}
	return t.Format(l.Say("time.layout"))
}

// size is a number of bytes in words.
func (l *language) size(bytes int64) string {
	unit, scale := "MB", 1e6
	switch {
	case bytes >= 1e12:
		unit, scale = "TB", 1e12
	case bytes >= 1e9:
		unit, scale = "GB", 1e9
	}
	return strconv.FormatFloat(float64(bytes)/scale, 'f', 1, 64) + " " + unit
}
