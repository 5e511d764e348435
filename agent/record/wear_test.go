package record

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"hubagent/buffer"
)

func TestRoom(t *testing.T) {
	day := Growth{LeafBytes: 10_000, LeafEvery: time.Minute} // 14.4 MB a day
	for name, c := range map[string]struct {
		g                          Growth
		quota, used, free, waiting int64
		least, most                time.Duration
	}{
		"not known":               {Growth{}, 1e9, 0, 1e9, 0, 0, 0},
		"all of the quota":        {day, 1e9, 1e6, 1e12, 0, 1441 * time.Hour, 1442 * time.Hour}, // 879.4 MB of leaves
		"what is acked counts":    {day, 1e9, 1e9, 1e12, 0, 1441 * time.Hour, 1442 * time.Hour},
		"half of it waits":        {day, 1e9, 500e6, 1e12, 43_970, 708 * time.Hour, 709 * time.Hour},
		"the least quota":         {day, 64e6, 20e6, 1e9, 0, 45 * time.Hour, 46 * time.Hour}, // 27.6 MB of leaves
		"the disk has less":       {day, 1e9, 44e6, 40e6, 0, 45 * time.Hour, 46 * time.Hour},
		"full":                    {day, 144e6, 144e6, 1e9, 20_000, time.Minute, time.Minute},
		"no space for anything":   {day, 64e6, 0, 1e6, 0, time.Minute, time.Minute},
		"hardly a leaf, for ever": {Growth{1, time.Hour}, 64e9, 0, 64e9, 0, mostRoom, mostRoom},
	} {
		if got := c.g.Room(c.quota, c.used, c.free, c.waiting); got < c.least || got > c.most {
			t.Errorf("%s: %v, want %v to %v", name, got, c.least, c.most)
		}
	}
}

func TestRate(t *testing.T) {
	short, long := Wear{Written: 50e6, Payload: 1e6, Running: time.Minute}, Wear{Written: 1e9, Payload: 100e6, Running: 240 * time.Hour}
	if _, _, ok := Rate(short, short); ok {
		t.Error("a rate out of one minute")
	}
	if rate, ratio, ok := Rate(short, long); !ok || rate != 1e8 || ratio != 10 {
		t.Error(rate, ratio, ok)
	}
	now := Wear{Written: 10e6, Payload: 2e6, Running: 2 * time.Hour}
	if rate, ratio, ok := Rate(now, long); !ok || rate != 120e6 || ratio != 5 {
		t.Error(rate, ratio, ok)
	}
	if _, _, ok := Rate(Wear{Running: 2 * time.Hour}, Wear{Running: 2 * time.Hour}); ok {
		t.Error("a rate where the kernel does not count")
	}
}

func TestGrowth(t *testing.T) {
	var w wear
	at, known := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), Growth{}
	for n := range int64(200) { // two leaves a minute, of 500 bytes at first, then of 700
		size := int64(500)
		if n > 100 {
			size = 700
		}
		last := mark{}
		if len(w.growing) > 0 {
			last = w.growing[len(w.growing)-1]
		}
		known = w.grew(mark{at, last.leaves + 2, last.payload + 2*size})
		if is := known != (Growth{}); is != (n >= 3) {
			t.Fatalf("after %d min: %+v", n, known)
		}
		at = at.Add(time.Minute)
	}
	if want := (Growth{700, 30 * time.Second}); known != want || len(w.growing) > growthMarks {
		t.Errorf("%+v of %d marks, want %+v", known, len(w.growing), want)
	}
	w = wear{}
	for n := range int64(4000) { // two seconds apart
		known = w.grew(mark{at.Add(time.Duration(n) * 2 * time.Second), n, n * 50})
		if is := known != (Growth{}); is != (n >= 90) {
			t.Fatalf("after %d s: %+v", 2*n, known)
		}
	}
	if want := (Growth{50, 2 * time.Second}); known != want || len(w.growing) > growthMarks {
		t.Errorf("%+v of %d marks, want %+v", known, len(w.growing), want)
	}
	w = wear{}
	for n := range int64(5) { // leaves an hour apart
		known = w.grew(mark{at.Add(time.Duration(n) * time.Hour), n, n * 100})
	}
	if want := (Growth{100, time.Hour}); known != want {
		t.Errorf("%+v, want %+v", known, want)
	}
}

// The account goes on over restarts.
func TestWearIsKept(t *testing.T) {
	dir := t.TempDir()
	for start := range int64(3) {
		store, err := buffer.Open(buffer.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		epoch, err := Begin(store, testConfig(), "key", "test", synced())
		if err != nil {
			t.Fatal(err)
		}
		r, err := New(store, epoch, testConfig(), synced, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		written := int64(400)
		r.CountWrites(func() (int64, error) { return written, nil })
		kept := func() (w Wear) {
			if err := getState(store, stateWear, &w); err != nil {
				t.Fatal(err)
			}
			return w
		}
		if _, all, err := r.Wear(); err != nil || all.Written != 1000*start+400 {
			t.Fatalf("start %d: %+v %v", start, all, err)
		}
		leaf := func() {
			if err := r.take(sampleAt("bin-001", time.UnixMilli(1000), 1, false)); err != nil {
				t.Fatal(err)
			}
			if err := r.commit(leaves); err != nil {
				t.Fatal(err)
			}
		}
		leaf()
		if w := kept(); w.Written != 1000*start+400 || w.Running <= 0 {
			t.Errorf("start %d, first leaf: %+v", start, w)
		}
		written = 700
		leaf() // soon after: not kept
		if w := kept(); w.Written != 1000*start+400 {
			t.Errorf("start %d, second leaf: %+v", start, w)
		}
		written = 1000
		if err := r.take(sampleAt("bin-001", time.UnixMilli(2000), 1, false)); err != nil {
			t.Fatal(err)
		}
		before := store.Appended()
		if err := r.finish(); err != nil {
			t.Fatal(err)
		}
		if w := kept(); w.Written != 1000*(start+1) || w.Payload < before || store.Appended() <= before {
			t.Errorf("start %d, end: %+v with %d bytes of leaves", start, w, store.Appended())
		}
		r.CountWrites(func() (int64, error) { return 0, errors.New("no accounting") })
		if _, _, err := r.Wear(); err == nil {
			t.Error("an account without a count")
		}
		leaf() // and it does not stop readings
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
