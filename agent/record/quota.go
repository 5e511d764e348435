package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"hubagent/agent/contract"
	"hubagent/buffer"
	"hubagent/config"
)

// defaultQuota is the disk space of a journal whose config names none, of what a disk can give. A small disk gives more
// than its share: with less than the least quota hardly a reading would be kept.
func defaultQuota(space int64) int64 {
	return max(int64(config.LeastQuota), min(int64(2*config.GB), space*2/5))
}

const stateQuota = "quota" // bytes, as found out at the first start

// Quota keeps a journal within its disk space: it gives up leaves that the platform has, oldest first; then those that
// it does not have, and tells of them in a gap leaf; lasting ones after all others.
type Quota struct {
	Bytes int64 // most disk space, as du counts it
	Store *buffer.Store
	Epoch Epoch
	Clock Clock
	Log   *slog.Logger
	Acked func() contract.SeqSet    // what the platform has; nil: without an uplink
	Lost  func(list []buffer.Range) // told of leaves that the platform will not get; may be nil
}

// QuotaOf is the journal's quota: the configured one, or the default that was found out at the first start.
func QuotaOf(store *buffer.Store, cfg *config.Config) (int64, error) {
	if cfg.Journal.Quota > 0 {
		return int64(cfg.Journal.Quota), nil
	}
	quota := int64(0)
	if err := getState(store, stateQuota, &quota); err != nil || quota > 0 {
		return quota, err
	}
	used, free, err := store.Usage()
	if err != nil {
		return 0, err
	}
	quota = defaultQuota(used + free)
	return quota, store.Commit(func(tx *buffer.Tx) error { return setState(tx, stateQuota, quota) })
}

// checkInterval is how often the disk space is looked at. A gateway writes some 10 kB in this time.
const checkInterval = 10 * time.Second

// margin is kept free below the quota, for what giving space back needs first: tables and a value log written again.
func (q Quota) margin() int64 { return 6<<20 + q.Bytes/50 }

// Run looks after the quota until ctx ends. It returns early only when the journal failed, which whoever commits next
// reports.
func (q Quota) Run(ctx context.Context) {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	said := false
	for {
		err := q.keep()
		if q.Store.Err() != nil {
			return
		}
		if err != nil && !said {
			q.Log.Error("journal cannot be kept within its quota", "err", err)
		}
		said = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// keep gives up leaves when the journal is near its quota.
func (q Quota) keep() error {
	used, _, err := q.Store.Usage()
	if err != nil || used < q.Bytes-q.margin() {
		return err
	}
	gave, err := q.give(max(q.Bytes/20, used-(q.Bytes-q.margin())))
	if err == nil && !gave {
		err = fmt.Errorf("nothing is left to give up, and it takes %d MB of %d MB", used/1e6, q.Bytes/1e6)
	}
	return err
}

// give gives up leaves of a size, as far as there are any. What the platform does not have goes only when it is worth a
// gap leaf and the tables that Badger writes again for it; the margin holds that much.
func (q Quota) give(want int64) (gave bool, err error) {
	acked := contract.SeqSet{}
	if q.Acked != nil {
		acked = q.Acked()
	}
	for _, lasting := range []bool{false, true} {
		for _, lost := range []bool{false, true} {
			for want > 0 {
				r, leaves, size := q.oldest(lasting, want, func(n int64) bool { return acked.Contains(n) != lost })
				if leaves == nil || lost && size < max(leastGain, q.Bytes/1000) {
					break
				}
				if err := q.drop(r, leaves, lasting, lost); err != nil {
					return gave, err
				}
				gave = true
				want -= size
			}
		}
	}
	return gave, nil
}

// oldest gathers the first run of leaves that match, up to a size; leaves that are not stored do not end it. The last
// leaf of the journal is not given up: it is being sent.
func (q Quota) oldest(lasting bool, most int64, match func(n int64) bool) (r buffer.Range, leaves []int64, size int64) {
	end := q.Store.Size() - 1
	for n, bytes := range q.Store.Stored(0, lasting) {
		switch {
		case n >= end, size >= most, len(leaves) > 0 && !match(n):
			return r, leaves, size
		case !match(n):
			continue
		}
		if len(leaves) == 0 {
			r.First = n
		}
		r.End, leaves, size = n+1, append(leaves, n), size+bytes
	}
	return r, leaves, size
}

// leastGain is what a gap leaf may take itself, in bytes.
const leastGain = 1 << 10

// gap is what a leaf of KindGap says: what nobody will ever get. For want of quota that are leaves; while the disk is full,
// readings of a time that had no room in memory and never became leaves.
type gap struct {
	Why    string               `json:"why"`              // "quota", "damage" or "no space"
	Epoch  string               `json:"of,omitempty"`     // whose leaves; absent: of the epoch of the gap leaf itself
	Leaves [][2]int64           `json:"leaves,omitempty"` // first and last of each run
	Beyond *int64               `json:"beyond,omitempty"` // leaves from this number on, if there were any, are lost too
	Blocks int                  `json:"blocks,omitempty"` // so many times a sync interval's readings, that were not part of a leaf, are lost
	From   int64                `json:"from,omitempty"`   // time of the first row lost, Unix milliseconds, by the clock of the leaf's at
	Until  int64                `json:"until,omitempty"`  // of the last one
	Lost   map[string]lostCount `json:"lost,omitempty"`   // by device
}

func (g *gap) add(list []buffer.Range) {
	for _, r := range list {
		g.Leaves = append(g.Leaves, [2]int64{r.First, r.End - 1})
	}
}

// mostRuns bounds a gap leaf: 10,000 runs are 200 kB of JSON.
const mostRuns = 10_000

// lost is what a gap leaf says of the first of these leaves: how many, and which will never arrive: they themselves, and
// those that the gap leaves among them tell of, which nothing would tell of any more.
func (q Quota) lost(leaves []int64, lasting bool) (n int, set contract.SeqSet, err error) {
	for n < len(leaves) && len(set.Have) < mostRuns {
		set.Add(leaves[n], leaves[n])
		n++
		if !lasting {
			continue
		}
		leaf, err := q.Store.Leaf(leaves[n-1])
		var damage *buffer.DamageError
		if errors.As(err, &damage) {
			continue
		}
		if err != nil {
			return 0, set, err
		}
		if leaf.Class != buffer.Class(contract.KindGap.Class()) {
			continue
		}
		var doc struct{ Gap gap }
		if err := json.Unmarshal(leaf.Data, &doc); err != nil {
			return 0, set, fmt.Errorf("gap leaf %d: %w", leaves[n-1], err)
		}
		for _, run := range doc.Gap.Leaves {
			if doc.Gap.Epoch != "" {
				break // of another epoch
			}
			set.Add(run[0], run[1])
		}
	}
	return n, set, nil
}

func (q Quota) drop(r buffer.Range, leaves []int64, lasting, lost bool) error {
	g := gap{Why: "quota"}
	if lost {
		n, set, err := q.lost(leaves, lasting)
		if err != nil {
			return err
		}
		leaves, r.End = leaves[:n], leaves[n-1]+1
		if set.Next > 0 {
			g.Leaves = append(g.Leaves, [2]int64{0, set.Next - 1})
		}
		g.Leaves = append(g.Leaves, set.Have...)
	}
	err := q.Store.Drop(r, lasting, func(tx *buffer.Tx) error {
		if !lost {
			return nil
		}
		_, err := appendDocument(tx, q.Epoch, contract.KindGap, q.Clock(), g)
		return err
	})
	if err != nil {
		return err
	}
	log := q.Log.Info
	if lost {
		log = q.Log.Warn
		if q.Lost != nil {
			q.Lost(runs(leaves))
		}
	}
	log("journal gave up its oldest leaves for its quota", "first", r.First, "last", r.End-1, "leaves", len(leaves), "platform has them", !lost)
	return nil
}

// Mend puts right a leaf that is damaged on disk, or gives it up and tells of it in a gap leaf. It returns true when the
// leaf can be read again.
func (q Quota) Mend(n int64) bool {
	mended, err := q.Store.Mend(n, func(tx *buffer.Tx) error {
		g := gap{Why: "damage", Leaves: [][2]int64{{n, n}}}
		_, err := appendDocument(tx, q.Epoch, contract.KindGap, q.Clock(), g)
		return err
	})
	switch {
	case err != nil:
		q.Log.Error("damaged leaf could be neither mended nor given up", "seq", n, "err", err)
	case mended:
		q.Log.Warn("damaged leaf was mended", "seq", n)
	default:
		q.Log.Warn("damaged leaf is lost", "seq", n)
		if q.Lost != nil {
			q.Lost([]buffer.Range{{First: n, End: n + 1}})
		}
	}
	return mended
}

// runs makes ranges of sorted numbers.
func runs(numbers []int64) (list []buffer.Range) {
	for _, n := range numbers {
		if last := len(list) - 1; last >= 0 && list[last].End == n {
			list[last].End++
			continue
		}
		list = append(list, buffer.Range{First: n, End: n + 1})
	}
	return slices.Clip(list)
}
