package record

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"hubagent/agent/contract"
	"hubagent/buffer"
	"hubagent/config"
)

// An outage without end: minute by minute a leaf of 36 kB, as 145 devices with 1,310 readings every 10 s make it, and an
// event an hour. The journal stays within its quota, most of which holds leaves, and its gap leaves name exactly what is
// gone. HUB_OUTAGE_DAYS and HUB_QUOTA_MB ask for more than a plain run's five days and 160 MB.
func TestQuotaInAnOutage(t *testing.T) {
	number := func(name string, byDefault float64) float64 {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		return byDefault
	}
	days, quota := number("HUB_OUTAGE_DAYS", 5), int64(number("HUB_QUOTA_MB", 160)*1e6)
	store, err := buffer.Open(buffer.Options{Dir: t.TempDir(), Key: bytes.Repeat([]byte{7}, 32), Lasting: Lasting()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	reported := contract.SeqSet{} // by Lost
	q := Quota{
		Bytes: quota, Store: store, Epoch: Epoch{Gateway: "hub-1", Name: "e"}, Log: slog.New(slog.DiscardHandler),
		Clock: func() contract.Stamp { return contract.Stamp{At: 1, Clock: contract.ClockOK} },
		Lost: func(list []buffer.Range) {
			for _, r := range list {
				reported.Add(r.First, r.End-1)
			}
		},
	}
	r := rand.New(rand.NewPCG(1, 2))
	leaf := make([]byte, 36<<10)
	most, least, drops := int64(0), int64(1)<<40, 0
	for minute := range int(days * 24 * 60) {
		for i := 0; i < len(leaf); i += 8 { // what deflate leaves
			v := r.Uint64()
			for k := range 8 {
				leaf[i+k] = byte(v >> (8 * k))
			}
		}
		err := store.Commit(func(tx *buffer.Tx) error {
			if minute%60 == 0 {
				if _, err := tx.Append(buffer.Class(contract.KindEvent.Class()), leaf[:700]); err != nil {
					return err
				}
			}
			_, err := tx.Append(buffer.Class(contract.KindData.Class()), leaf)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		before := reported.Count()
		if err := q.keep(); err != nil {
			t.Fatal(err)
		}
		used, _, err := store.Usage()
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, used)
		if reported.Count() > before {
			drops++
			live := int64(0)
			for _, size := range store.Stored(0, false) {
				live += size
			}
			least = min(least, live)
		}
	}
	if drops == 0 {
		t.Fatal("nothing had to be given up")
	}
	t.Logf("%.1f days: %d leaves, %d given up in %d turns; most %.1f MB of %.1f MB, at least %.1f %% of the quota live leaves",
		days, store.Size(), reported.Count(), drops, float64(most)/1e6, float64(quota)/1e6, 100*float64(least)/float64(quota))
	if most > quota {
		t.Error("above the quota")
	}
	if float64(least) < 0.7*float64(quota) {
		t.Error("too little of the quota holds leaves")
	}

	told := toldGone(t, store)
	gone := contract.SeqSet{}
	list, err := store.Gone()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		gone.Add(r.First, r.End-1)
	}
	same := func(a, b contract.SeqSet) bool { return a.Next == b.Next && slices.Equal(a.Have, b.Have) }
	if !same(told, gone) || !same(reported, gone) {
		t.Errorf("gap leaves name %v, %v was reported, and %v is gone", told, reported, gone)
	}
}

// toldGone returns what the gap leaves in a store tell of.
func toldGone(t *testing.T, store *buffer.Store) (told contract.SeqSet) {
	t.Helper()
	for n := range store.Stored(0, true) {
		l, err := store.Leaf(n)
		if err != nil {
			t.Fatal(err)
		}
		if l.Class != buffer.Class(contract.KindGap.Class()) {
			continue
		}
		var doc struct{ Gap gap }
		if err := json.Unmarshal(l.Data, &doc); err != nil || doc.Gap.Why != "quota" {
			t.Fatalf("%s: %v", l.Data, err)
		}
		for _, run := range doc.Gap.Leaves {
			if told.Contains(run[0]) || told.Contains(run[1]) {
				t.Errorf("%v is told of twice", run)
			}
			told.Add(run[0], run[1])
		}
	}
	return told
}

// A journal that is full of lasting leaves which the platform does not have: they are given up, and so are the gap leaves
// that told of others, without what they told being lost. It comes to an end: the gap leaves do not fill what they free.
func TestQuotaFullOfLastingLeaves(t *testing.T) {
	store, err := buffer.Open(buffer.Options{Dir: t.TempDir(), Lasting: Lasting()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	q := Quota{
		Bytes: 1e6, Store: store, Epoch: Epoch{Gateway: "hub-1", Name: "e"}, Log: slog.New(slog.DiscardHandler),
		Clock: func() contract.Stamp { return contract.Stamp{At: 1, Clock: contract.ClockOK} },
	}
	r := rand.New(rand.NewPCG(1, 7))
	gaps := 0
	for round := range 60 {
		err := store.Commit(func(tx *buffer.Tx) error {
			for range 50 {
				text := make([]byte, 300+r.IntN(300))
				for i := range text {
					text[i] = byte(r.Uint32())
				}
				kind := contract.KindEvent
				if r.IntN(10) == 0 {
					kind = contract.KindData
				}
				if _, err := tx.Append(buffer.Class(kind.Class()), text); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		size := store.Size()
		if _, err := q.give(20 << 10); err != nil {
			t.Fatal(err)
		}
		gaps += int(store.Size() - size)
		if round%10 != 9 {
			continue
		}
		gone := contract.SeqSet{}
		list, err := store.Gone()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			gone.Add(r.First, r.End-1)
		}
		if told := toldGone(t, store); told.Next != gone.Next || !slices.Equal(told.Have, gone.Have) {
			t.Fatalf("gap leaves tell of %v, and %v is gone", told, gone)
		}
	}
	if gaps == 0 {
		t.Fatal("nothing had to be told of")
	}
	turns := 0
	for gave := true; gave; turns++ { // nothing comes in any more
		if gave, err = q.give(1 << 30); err != nil {
			t.Fatal(err)
		}
		if turns > 4 {
			t.Fatal("what is given up makes something to give up, for ever")
		}
	}
	left, bytes := 0, int64(0)
	for _, size := range store.Stored(0, true) {
		left, bytes = left+1, bytes+size
	}
	t.Logf("%d leaves, %d gap leaves, at the end %d turns; %d leaves of %d bytes are left", store.Size(), gaps, turns, left, bytes)
	if bytes > 4<<10 {
		t.Error("too much is left")
	}
}

// What goes first: what the platform has, then the others with a gap leaf, lasting leaves last.
func TestQuotaOrder(t *testing.T) {
	store, err := buffer.Open(buffer.Options{Dir: t.TempDir(), Lasting: Lasting()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	event, data := buffer.Class(contract.KindEvent.Class()), buffer.Class(contract.KindData.Class())
	classes := []buffer.Class{data, data, event, data, event, data, data, data, data, data}
	text := make([]byte, 2000)
	for n, class := range classes {
		r := rand.New(rand.NewPCG(uint64(n), 0))
		for i := range text {
			text[i] = byte(r.Uint32())
		}
		if err := store.Commit(func(tx *buffer.Tx) error { _, err := tx.Append(class, text); return err }); err != nil {
			t.Fatal(err)
		}
	}
	acked := contract.SeqSet{}
	acked.Add(2, 3)
	acked.Add(6, 7)
	q := Quota{
		Store: store, Epoch: Epoch{Gateway: "hub-1", Name: "e"}, Log: slog.New(slog.DiscardHandler),
		Clock: func() contract.Stamp { return contract.Stamp{At: 1, Clock: contract.ClockOK} },
		Acked: func() contract.SeqSet { return acked },
	}
	gone := contract.SeqSet{}
	for _, want := range []int64{3, 6, 7, 0, 1, 5, 8, 9, 2, 4} {
		if gave, err := q.give(1); err != nil || !gave {
			t.Fatalf("%v %v, want leaf %d to go", gave, err, want)
		}
		gone.Add(want, want)
		list, err := store.Gone()
		if err != nil {
			t.Fatal(err)
		}
		now := contract.SeqSet{}
		for _, r := range list {
			now.Add(r.First, r.End-1)
		}
		if now.Next != gone.Next || !slices.Equal(now.Have, gone.Have) {
			t.Fatalf("gone %v, want %v", now, gone)
		}
	}
}

func TestQuotaOf(t *testing.T) {
	store, err := buffer.Open(buffer.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for space, want := range map[int64]int64{50e6: 64e6, 160e6: 64e6, 1e9: 400e6, 64e9: 2e9} {
		if got := defaultQuota(space); got != want {
			t.Errorf("of %d bytes the default is %d, want %d", space, got, want)
		}
	}
	cfg := &config.Config{}
	first, err := QuotaOf(store, cfg)
	if err != nil || first <= 0 || first > int64(2*config.GB) {
		t.Fatalf("%d %v", first, err)
	}
	if err := store.Commit(func(tx *buffer.Tx) error { return setState(tx, stateQuota, 12345) }); err != nil {
		t.Fatal(err)
	}
	if again, err := QuotaOf(store, cfg); err != nil || again != 12345 {
		t.Fatalf("the first start's answer is not kept: %d %v", again, err)
	}
	cfg.Journal.Quota = 300 * config.MB
	if given, err := QuotaOf(store, cfg); err != nil || given != 300_000_000 {
		t.Fatalf("the config's is not taken: %d %v", given, err)
	}
}
