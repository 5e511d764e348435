package record

import (
	"time"

	"hubagent/buffer"
)

// Wear is what keeping the journal has cost its disk, over all starts since the journal was begun. What a process wrote
// since it last kept its record is missing after a crash: a quarter of an hour at most.
type Wear struct {
	Written int64         `json:"written"` // bytes that the kernel counted
	Payload int64         `json:"payload"` // bytes of leaves, compressed
	Running time.Duration `json:"running"` // of the agent, in nanoseconds
}

// Growth says how fast the journal grows, of the last leaves.
type Growth struct {
	LeafBytes float64       // mean size of a leaf on disk; 0: not known yet
	LeafEvery time.Duration // mean time between leaves
}

// wearInterval is how often the record is written: with a leaf, which is written anyway.
const wearInterval = 15 * time.Minute

// growthTime and growthMarks bound what Growth is taken from; with less than growthLeast it is not known.
const (
	growthMarks = 64
	growthTime  = time.Hour
	growthLeast = 3 * time.Minute
)

// wear is the recorder's account. The times are monotonic.
type wear struct {
	before  Wear // of earlier processes
	began   time.Time
	keptAt  time.Time // zero: not yet
	growing []mark
}

// mark is how far the journal had come at a time.
type mark struct {
	at              time.Time
	leaves, payload int64
}

// CountWrites makes the recorder keep account of what this process writes; written gives the bytes since its start. Call
// it before Run.
func (r *Recorder) CountWrites(written func() (int64, error)) { r.written = written }

// Wear is the account up to now, of this process alone and of all together. An error means that the kernel does not count.
func (r *Recorder) Wear() (now, all Wear, err error) {
	now = Wear{Payload: r.store.Appended(), Running: time.Since(r.wear.began)}
	if r.written != nil {
		if now.Written, err = r.written(); err != nil {
			return now, all, err
		}
	}
	b := r.wear.before
	return now, Wear{b.Written + now.Written, b.Payload + now.Payload, b.Running + now.Running}, nil
}

func (r *Recorder) keepWear(tx *buffer.Tx) error {
	if r.written == nil || !r.wear.keptAt.IsZero() && time.Since(r.wear.keptAt) < wearInterval {
		return nil
	}
	_, all, err := r.Wear()
	if err != nil {
		return nil // the page says that it is not counted; readings matter more
	}
	r.wear.keptAt = time.Now()
	return setState(tx, stateWear, all)
}

// grew takes account of how far the journal has come, and says how fast it grows; the zero Growth while that is not known.
func (w *wear) grew(now mark) Growth {
	if n := len(w.growing); n == 0 || now.at.Sub(w.growing[n-1].at) >= growthTime/growthMarks {
		w.growing = append(w.growing, now)
	}
	for len(w.growing) > growthMarks || now.at.Sub(w.growing[0].at) > growthTime && len(w.growing) > 2 {
		w.growing = w.growing[1:]
	}
	first := w.growing[0]
	leaves := now.leaves - first.leaves
	if leaves <= 0 || now.at.Sub(first.at) < growthLeast {
		return Growth{}
	}
	return Growth{float64(now.payload-first.payload) / float64(leaves), now.at.Sub(first.at) / time.Duration(leaves)}
}

// What of a journal's space does not hold leaves: a fixed part, most of it ballast, and a share for hashes and what is still
// to be given back. Measured by make outage-month, which gave at least 79 % leaves of 256 MB, and 43 % of 64 MB.
const (
	overheadBytes = 30.6e6
	overheadShare = 0.09

	// Beside its bytes a leaf has keys, checksums and places in Badger's files, and two hashes on the average. Reckoned from
	// their formats; it matters with leaves of one reading.
	leafOverhead = 170
)

// freeRest is what the journal leaves free of a disk.
const freeRest = 20e6

// Room is for how long a journal of this growth can take leaves before it has to give up any that still wait, of which
// there are so many: within its quota, and within what its disk has. 0: not known yet.
func (g Growth) Room(quota, used, free, waiting int64) time.Duration {
	if g.LeafBytes <= 0 || g.LeafEvery <= 0 {
		return 0
	}
	space := (1-overheadShare)*float64(min(quota, used+free-freeRest)) - overheadBytes
	leaves := max(1, space/(g.LeafBytes+leafOverhead)-float64(waiting)) // 0 says something else
	return time.Duration(min(leaves*float64(g.LeafEvery), float64(mostRoom)))
}

// mostRoom is as far as anybody can look ahead.
const mostRoom = 100 * 365 * 24 * time.Hour

// rateTime is how long an agent must run before what it writes is a rate: its start costs megabytes at once.
const rateTime = time.Hour

// Rate is what is written in a day, and how often the leaves would fit in; ok is false while that is not known. It goes by
// this process alone once that has run long enough: what the config asks for may have changed.
func Rate(now, all Wear) (bytesADay, ratio float64, ok bool) {
	w := now
	if w.Running < rateTime {
		w = all
	}
	if w.Running < rateTime || w.Written == 0 || w.Payload == 0 {
		return 0, 0, false
	}
	return float64(w.Written) / w.Running.Hours() * 24, float64(w.Written) / float64(w.Payload), true
}
