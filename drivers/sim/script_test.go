package sim

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseFault(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		text string
		want Fault
		err  string // "" for none, else a part of it
	}{
		{"silent", Fault{Kind: Silent, P: 1}, ""},
		{"silent:bus=meters,units=3+7", Fault{Kind: Silent, Bus: "meters", Units: []int{3, 7}, P: 1}, ""},
		{"late:p=0.05,delay=1300ms", Fault{Kind: Late, P: 0.05, Delay: 1300 * time.Millisecond}, ""},
		{"slow:delay=2s", Fault{Kind: Slow, P: 1, Delay: 2 * s}, ""},
		{"noise:from=10s,to=40s", Fault{Kind: Noise, P: 1, From: 10 * s, To: 40 * s}, ""},
		{"reset:to=5s,repeat=1m", Fault{Kind: Reset, P: 1, To: 5 * s, Repeat: 60 * s}, ""},
		{"exception:from=0s", Fault{Kind: Exception, P: 1}, ""},
		{"truncate:from=1h", Fault{Kind: Truncate, P: 1, From: time.Hour}, ""},

		{"", Fault{}, `"" is no fault; write one of: silent slow late exception noise reset truncate`},
		{"silnt:units=3", Fault{}, `"silnt" is no fault`},
		{"silent:unit=3", Fault{}, `"unit" is nothing that a fault has; write bus, units, p, delay, from, to or repeat`},
		{"silent:", Fault{}, `"" is nothing that a fault has`},
		{"silent:units=3+", Fault{}, `units: "" is no unit id; write 1 to 247`},
		{"silent:units=0", Fault{}, `units: "0" is no unit id`},
		{"silent:units=3,units=4", Fault{}, "units is there twice"},
		{"silent:bus=", Fault{}, "bus is empty"},
		{"silent:p=5%", Fault{}, `p: "5%" is no probability`},
		{"silent:p=0", Fault{}, `p: "0" is no probability`},
		{"silent:p=1.1", Fault{}, `p: "1.1" is no probability`},
		{"silent:p=NaN", Fault{}, `p: "NaN" is no probability`},
		{"late", Fault{}, "late needs to know how much; add delay="},
		{"late:delay=-1s", Fault{}, `delay: "-1s" is no time above 0`},
		{"late:delay=3", Fault{}, `delay: "3" is no time above 0; write for example 10s`},
		{"silent:delay=1s", Fault{}, "silent has no delay; only slow and late have"},
		{"silent:from=-1s", Fault{}, `from: "-1s" is no time since the start`},
		{"silent:from=10s,to=10s", Fault{}, "it ends at 10s, before it begins at 10s"},
		{"silent:repeat=1m", Fault{}, "it is never off, so it cannot repeat; add to, for example to=10s"},
		{"silent:from=50s,to=70s,repeat=1m", Fault{}, "it repeats every 1m0s, before it ends at 1m10s"},
	} {
		got, err := ParseFault(c.text)
		if !reflect.DeepEqual(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %+v, %v; want %+v, %s", c.text, got, err, c.want, c.err)
		}
	}
}

func FuzzParseFault(f *testing.F) {
	f.Add("late:bus=meters,units=3+7,p=0.05,delay=1300ms,from=10s,to=40s,repeat=1m")
	f.Fuzz(func(t *testing.T, text string) {
		fault, err := ParseFault(text)
		if err != nil {
			return
		}
		if !(fault.P > 0 && fault.P <= 1) || fault.From < 0 || fault.To < 0 || fault.Delay < 0 || fault.Repeat < 0 {
			t.Errorf("%q: %+v", text, fault)
		}
		fault.on(time.Hour)
	})
}

func TestFaultsComeAndGo(t *testing.T) {
	once := Fault{From: 10 * time.Second, To: 40 * time.Second}
	again := Fault{From: 10 * time.Second, To: 40 * time.Second, Repeat: time.Minute}
	for _, c := range []struct {
		fault Fault
		at    time.Duration
		want  bool
	}{
		{Fault{}, 0, true}, {Fault{}, time.Hour, true},
		{Fault{From: time.Second}, 0, false}, {Fault{From: time.Second}, time.Hour, true},
		{once, 10*time.Second - 1, false}, {once, 10 * time.Second, true}, {once, 40*time.Second - 1, true}, {once, 40 * time.Second, false}, {once, 75 * time.Second, false},
		{again, 39 * time.Second, true}, {again, 60 * time.Second, false}, {again, 75 * time.Second, true}, {again, 101 * time.Second, false},
	} {
		if got := c.fault.on(c.at); got != c.want {
			t.Errorf("%+v on at %v: %v", c.fault, c.at, got)
		}
		s := New(World{Start: start})
		c.fault.Kind, c.fault.P = Silent, 1
		s.SetFaults(c.fault)
		if got := s.draw("bins", 1, start.Add(c.at)).Kind == Silent; got != c.want {
			t.Errorf("%+v played at %v: %v", c.fault, c.at, got)
		}
	}
}
