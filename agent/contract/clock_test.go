package contract

import (
	"encoding/json"
	"testing"
	"time"
)

const (
	bootA = "2f1c2c1c-6f3b-4b0e-9a57-0d3a61d2b0a1"
	bootB = "9d0e7a52-11aa-4f5e-8c3c-7b1f6d1c0e02"
)

func unixMs(text string) int64 {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t.UnixMilli()
}

// What a row's time becomes with the clock leaves of a story. Offsets are the boot's moment by the clock of the time.
func TestRepairedTime(t *testing.T) {
	const day, hour, minute, second = 86_400_000, 3_600_000, 60_000, 1000
	right := unixMs("2026-10-01T08:00:00Z") // when boot A really began
	unsync := func(boot string, offset, mono int64) Stamp {
		return Stamp{At: offset + mono, Clock: ClockUnsync, Boot: boot, Mono: mono}
	}
	step := func(boot string, offset, mono int64) Stamp {
		return Stamp{At: offset + mono, Clock: ClockStep, Boot: boot, Mono: mono}
	}
	fix := func(state, boot string, offset, mono int64) ClockFix {
		return ClockFix{State: state, Boot: boot, Mono: mono, Offset: offset}
	}
	for _, c := range []struct {
		name  string
		leaf  Stamp
		t     int64 // of a row, before the leaf's at
		fixes []ClockFix
		want  int64
		known bool
	}{
		{"a good clock's word stands", Stamp{At: 5000, Clock: ClockOK}, 4000, []ClockFix{fix(ClockOK, bootA, right, minute)}, 4000, true},
		{"1970 at boot, then NTP", unsync(bootA, 0, 30*second), 20 * second, []ClockFix{fix(ClockStep, bootA, right, minute), fix(ClockOK, bootA, right, 2*minute)}, right + 20*second, true},
		{"the power went before the clock settled", unsync(bootA, 0, 30*second), 20 * second, []ClockFix{fix(ClockStep, bootA, right, minute)}, right + 20*second, true},
		{"set a week forward by hand while not synchronised", unsync(bootA, right+7*day, 30*second), right + 7*day + 20*second, []ClockFix{fix(ClockOK, bootA, right, minute)}, right + 20*second, true},
		{"an hour back", unsync(bootA, right-hour, 30*second), right - hour + 20*second, []ClockFix{fix(ClockOK, bootA, right, minute)}, right + 20*second, true},
		{"several steps in one boot: the first clock that held after it counts", unsync(bootA, 0, 30*second), 30 * second, []ClockFix{
			fix(ClockOK, bootA, right+hour, 9*hour), fix(ClockOK, bootA, right, 5*minute), fix(ClockStep, bootA, right+day, minute),
		}, right + 30*second, true},
		{"a step to a wrong server, taken back within the minute", step(bootA, right+day, 90*second), right + day + 89*second, []ClockFix{
			fix(ClockStep, bootA, right+day, minute), fix(ClockStep, bootA, right, 100*second), fix(ClockOK, bootA, right, 160*second),
		}, right + 89*second, true},
		{"a step that held", step(bootA, right, 90*second), right + 89*second, []ClockFix{fix(ClockStep, bootA, right, minute), fix(ClockOK, bootA, right, 2*minute)}, right + 89*second, true},
		{"sync lost, and set wrong afterwards", unsync(bootA, right-hour, 9*hour), right - hour + 9*hour, []ClockFix{fix(ClockOK, bootA, right, minute)}, right + 9*hour, true},
		{"a reboot before the clock was set: nobody knows", unsync(bootB, 0, 30*second), 20 * second, []ClockFix{fix(ClockOK, bootA, right, minute)}, 20 * second, false},
		{"no clock leaf at all", unsync(bootA, 0, 30*second), 20 * second, nil, 20 * second, false},
		{"a leaf that names no boot", Stamp{At: 30, Clock: ClockUnsync}, 20, []ClockFix{fix(ClockOK, "", right, minute)}, 20, false},
		{"2100", unsync(bootA, 0, minute), minute, []ClockFix{fix(ClockOK, bootA, unixMs("2100-02-28T23:59:00Z"), 2*minute)}, unixMs("2100-03-01T00:00:00Z"), true},
		{"one second after the end of 32 bits", unsync(bootA, 0, minute), minute, []ClockFix{fix(ClockOK, bootA, unixMs("2038-01-19T03:13:08Z"), 2*minute)}, unixMs("2038-01-19T03:14:08Z"), true},
		// At the end of 2026 a leap second might be put in: the kernel moves the clock back by one second against the time
		// since boot. What was measured before it then comes out up to that second early, and nothing else happens.
		{"a leap second between leaf and clock leaf", unsync(bootA, 0, 30*second), 30 * second, []ClockFix{fix(ClockOK, bootA, right-second, minute)}, right + 29*second, true},
	} {
		if got, known := RepairedTime(c.leaf, c.t, c.fixes); got != c.want || known != c.known {
			t.Errorf("%s: %v %v, want %v %v", c.name, time.UnixMilli(got).UTC(), known, time.UnixMilli(c.want).UTC(), c.known)
		}
	}
}

func clockLeaf(t testing.TB, state string, f ClockFix) []byte {
	t.Helper()
	leaf, err := AppendDocument(nil, header(KindClock, Stamp{At: f.Mono + f.Offset, Clock: state, Boot: f.Boot, Mono: f.Mono}), "clock", f)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestClockLeaf(t *testing.T) {
	before := int64(1000)
	f := ClockFix{State: ClockStep, Boot: bootA, Mono: 61_000, Offset: unixMs("2026-10-01T08:00:00Z"), Before: &before, Source: "adjtimex", Daemon: "chrony"}
	leaf := clockLeaf(t, ClockStep, f)
	golden(t, "clock.json", leaf)
	got, err := ParseClock(leaf)
	if err != nil || got.Before == nil || *got.Before != before {
		t.Fatalf("%+v %v", got, err)
	}
	if got.Before = f.Before; got != f {
		t.Errorf("got %+v, want %+v", got, f)
	}
	for name, change := range map[string]func(*ClockFix){
		"no boot":          func(f *ClockFix) { f.Boot = "" },
		"before its boot":  func(f *ClockFix) { f.Mono = -1 },
		"no time":          func(f *ClockFix) { f.Offset = maxTime + 1 },
		"no time, earlier": func(f *ClockFix) { f.Offset = -maxTime - 1 },
	} {
		bad := f
		change(&bad)
		if got, err := ParseClock(clockLeaf(t, ClockOK, bad)); err == nil {
			t.Errorf("%s: accepted as %+v", name, got)
		}
	}
	if got, err := ParseClock(clockLeaf(t, ClockUnsync, f)); err == nil {
		t.Errorf("of a clock that is not good: accepted as %+v", got)
	}
	if got, err := ParseClock(AppendRows(nil, header(KindData, Stamp{Clock: ClockOK}), nil)); err == nil {
		t.Errorf("a data leaf is a clock leaf: %+v", got)
	}
}

// No two kinds share a class, with the kinds that the contract has words for and nobody writes yet.
func TestClasses(t *testing.T) {
	seen := map[byte]Kind{}
	for _, k := range []Kind{KindGenesis, KindMeta, KindData, KindEvent, KindFault, KindGap, KindClock, "ind", "check", "amend", "keys"} {
		if other, taken := seen[k.Class()]; taken {
			t.Errorf("%s and %s are both %c", k, other, k.Class())
		}
		seen[k.Class()] = k
	}
}

func TestAckTime(t *testing.T) {
	at := unixMs("2100-01-01T00:00:00Z")
	raw, err := json.Marshal(Ack{Epoch: "e", At: at})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := ParseAck(raw, "e", 0); err != nil || a.At != at {
		t.Errorf("%+v %v", a, err)
	}
	for _, bad := range []string{"-1", "253402300800000"} {
		if a, err := ParseAck([]byte(`{"epoch":"e","at":`+bad+`}`), "e", 0); err == nil {
			t.Errorf("accepted %+v", a)
		}
	}
}

func FuzzParseClock(f *testing.F) {
	f.Add(clockLeaf(f, ClockOK, ClockFix{Boot: bootA, Mono: 61_000, Offset: 1790842860000, Source: "adjtimex"}), int64(5), int64(7))
	f.Fuzz(func(t *testing.T, data []byte, at, mono int64) {
		fix, err := ParseClock(data)
		if err != nil {
			return
		}
		s := Stamp{At: at % maxTime, Clock: ClockUnsync, Boot: fix.Boot, Mono: mono % maxTime}
		if got, known := RepairedTime(s, s.At, []ClockFix{fix}); !known || got != s.Mono+fix.Offset {
			t.Errorf("%+v is repaired to %d %v by %+v", s, got, known, fix)
		}
	})
}
