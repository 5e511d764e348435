package gpio

import (
	"fmt"
	"strings"
	"testing"
	"time"

	periph "periph.io/x/conn/v3/gpio"

	"hubagent/config"
	"hubagent/drivers"
)

// A script is words of time and what happens then, in ms: 100+ is a rising edge, 250- a falling one, 300? a reading.
func play(t *testing.T, p point, level periph.Level, script string) string {
	t.Helper()
	begin := time.Now()
	p.begin(level, begin)
	var read []string
	for word := range strings.FieldsSeq(script) {
		var ms int
		var what rune
		if _, err := fmt.Sscanf(word, "%d%c", &ms, &what); err != nil {
			t.Fatalf("%s: %v", word, err)
		}
		at := begin.Add(time.Duration(ms) * time.Millisecond)
		switch what {
		case '+', '-':
			p.edge(what == '+', at)
		case '!':
			p.doubt()
		default:
			value, why, wait, err := p.reading(at)
			switch {
			case err != nil:
				read = append(read, "chatter")
			case wait > 0:
				read = append(read, "in "+wait.String())
			case why != "":
				read = append(read, value.String()+" "+why)
			default:
				read = append(read, value.String())
			}
		}
	}
	return strings.Join(read, ", ")
}

func TestContact(t *testing.T) {
	for _, c := range []struct {
		name           string
		debounce, hold int // ms
		invert, high   bool
		script, want   string
	}{
		{"no debounce: the level as it is", 0, 0, false, false, "0? 5+ 5? 9- 9?", "0, 1, 0"},
		{"normally closed", 0, 0, true, true, "0? 5- 5? 9+ 9?", "0, 1, 0"},
		{"not known before it has held", 200, 0, false, true, "0? 150? 200?", "in 200ms, in 50ms, 1"},
		{"bounces at the start", 200, 0, false, false, "0? 100+ 150? 299? 300?", "in 200ms, in 150ms, in 1ms, 1"},
		{"a change counts from when it has held", 200, 0, false, false, "500? 1000+ 1100? 1199? 1200?", "0, 0, 0, 1"},
		{"by the stamps, not by when it was read", 200, 0, false, false, "500? 1000+ 1150- 2000?", "0, 0"},
		{"a glitch is no change", 200, 0, false, false, "500? 1000+ 1050- 1100? 1260?", "0, 0, 0"},
		{"bounces on its way", 200, 0, false, false, "500? 1000+ 1010- 1020+ 1030- 1040+ 1239? 1240?", "0, 0, 1"},
		{"between two polls and without hold", 0, 0, false, false, "0? 100+ 400- 1000?", "0, 0"},
		{"between two polls: seen once", 0, 1, false, false, "0? 100+ 400- 1000? 2000?", "0, 1, 0"},
		{"held from when it counts", 100, 2000, false, false, "500? 1000+ 1500- 1600? 3000? 3099? 3100?", "0, 1, 1, 1, 0"},
		{"held anew", 0, 1000, false, false, "0? 100+ 200- 900+ 950- 1500? 1899? 1900?", "0, 1, 1, 0"},
		{"longer than hold", 0, 1000, false, false, "0? 100+ 1200? 5000- 5000?", "0, 1, 0"},
		{"normally closed, held", 0, 1000, true, true, "0? 100- 110+ 1050? 1100?", "0, 1, 0"},
		{"active from the start is held, too", 0, 1000, false, true, "10- 500? 1000?", "1, 0"},
		{"a glitch is not held", 100, 5000, false, false, "500? 1000+ 1099- 1300?", "0, 0"},
		{"moves without end", 10, 0, false, false, "20? 30+ 38- 46+ 54- 62+ 70- 78+ 86- 94+ 102- 110+ 118- 126+ 130? 131? 136? 137?", "0, 0, chatter, 1, 1"},
		{"the same edge twice: the one between was lost", 100, 0, false, false, "200? 300+ 350+ 420? 450?", "0, 0, 1"},
		{"an edge that was read before it was told", 100, 0, false, false, "200? 305+ 300+ 399? 400?", "0, 0, 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPoint(config.Point{
				Type: config.Bool, Invert: c.invert,
				Debounce: time.Duration(c.debounce) * time.Millisecond, Hold: time.Duration(c.hold) * time.Millisecond,
			}, "lift", nil)
			if got := play(t, p, periph.Level(c.high), c.script); got != c.want {
				t.Errorf("%s: %s, want %s", c.script, got, c.want)
			}
		})
	}
}

func TestContactForgetsWhenClaimedAnew(t *testing.T) {
	p := newPoint(config.Point{Type: config.Bool, Debounce: 100 * time.Millisecond, Hold: time.Hour}, "lift", nil)
	if got, want := play(t, p, periph.High, "200? 300?"), "1, 1"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	if got, want := play(t, p, periph.Low, "0? 100?"), "in 100ms, 0"; got != want {
		t.Errorf("%s, want %s: what it did meanwhile nobody knows", got, want)
	}
}

func TestCounter(t *testing.T) {
	for _, c := range []struct {
		name         string
		point        config.Point
		script, want string
	}{
		{"rising edges", config.Point{}, "0? 10+ 20- 30+ 35? 40- 50?", "0, 2, 2"},
		{"falling edges", config.Point{Invert: true}, "10- 20+ 30- 40+ 50?", "2"},
		{"bounces do not count", config.Point{Debounce: 50 * time.Millisecond}, "10+ 11- 12+ 13- 60+ 61- 109+ 200?", "2"},
		{"nor do they push the next pulse away", config.Point{Debounce: 50 * time.Millisecond}, "10+ 50+ 90+ 130+ 200?", "2"},
		{"at the very end of the debounce time", config.Point{Debounce: 50 * time.Millisecond}, "10+ 60+ 110+ 200?", "3"},
		{"the first edge counts", config.Point{Debounce: time.Hour}, "0+ 1?", "1"},
		{"a loss is told once", config.Point{}, "10+ 11! 12? 13? 14! 15! 16?", "1 lost edges, 1, 1 lost edges"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.point.Type = config.Pulses
			if got := play(t, newPoint(c.point, "meter", nil), periph.Low, c.script); got != c.want {
				t.Errorf("%s: %s, want %s", c.script, got, c.want)
			}
		})
	}
}

// A counter goes on where the journal ended, and says that it does not know of the time between.
func TestCounterGoesOn(t *testing.T) {
	for _, c := range []struct {
		known bool
		want  string
	}{
		{true, "1007 restarted, 1007, 1008"},
		{false, "7, 7, 8"},
	} {
		p := newPoint(config.Point{Name: "water", Type: config.Pulses}, "meter", func(device, point string) (uint64, bool) {
			if device != "meter" || point != "water" {
				t.Errorf("asked for %s of %s", point, device)
			}
			if !c.known {
				return 0, false
			}
			return 1000, true
		})
		if got := play(t, p, periph.Low, "1+ 2+ 3+ 4+ 5+ 6+ 7+ 8? 9? 10+ 11?"); got != c.want {
			t.Errorf("known %t: %s, want %s", c.known, got, c.want)
		}
	}
}

func TestQuantity(t *testing.T) {
	for _, c := range []struct {
		count         uint64
		scale, offset string
		want          string
	}{
		{1<<64 - 1, "", "", "18446744073709551615"},
		{1<<53 + 1, "1", "", "9007199254740993"},
		{6156, "0.01", "", "61.56"},
		{3, "0.1", "", "0.3"},
		{1234567, "0.001", "", "1234.567"},
		{41, "10", "", "410"},
		{7, "0.1", "100.2", "100.9"},
		{0, "0.001", "", "0"},
		{1, "0.00125", "", "0.00125"}, // 800 imp/kWh
	} {
		var scale, offset config.Decimal
		for text, d := range map[string]*config.Decimal{c.scale: &scale, c.offset: &offset} {
			if text == "" {
				continue
			}
			parsed, err := config.ParseDecimal(text)
			if err != nil {
				t.Fatal(err)
			}
			*d = parsed
		}
		if got := quantity(c.count, scale, offset).String(); got != c.want {
			t.Errorf("%d x %q + %q = %s, want %s", c.count, c.scale, c.offset, got, c.want)
		}
	}
	if got := quantity(12, config.Decimal{Mantissa: 5, Exponent: 1}, config.Decimal{}); got != drivers.Float64(600) {
		t.Errorf("12 x 50 = %s", got)
	}
}
