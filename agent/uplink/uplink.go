// Package uplink forwards leaves to the platform over MQTT and keeps account of what the platform has acknowledged end
// to end. A PUBACK moves nothing: a broker also acknowledges what it then drops.
package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"hubagent/agent/contract"
	"hubagent/buffer"
	"hubagent/config"
)

// Options say whose leaves go where.
type Options struct {
	Config  config.Uplink
	Gateway string
	Epoch   string
	Meta    string // hash of the meta leaf in force
	Store   *buffer.Store
	Signer  note.Signer // the gateway's log key
	Clock   func() contract.Stamp
	Mend    func(n int64) bool // called once for a leaf that is damaged on disk: true when it can be read now; may be nil
	AckTime time.Duration      // a leaf without an acknowledgement may be sent again after this; 0: 30 s
	Hear    func(at int64)     // told the platform's time, in Unix milliseconds, whenever it says it; may be nil
	Log     *slog.Logger
}

// Stats is what the page shows of the uplink.
type Stats struct {
	Connected    bool      // a broker accepted the connection
	Answered     bool      // and the platform acknowledged something on it
	Broker       string    // the present or next one
	Since        time.Time // of Connected and Answered as they are
	Err          error     // why there is no connection
	RetryAt      time.Time // of the next attempt
	Acknowledged int64     // leaves the platform has stored
	Waiting      int64     // leaves it has not
	GivenUp      int64     // leaves that it will not get: the journal had no room, or lost them
	// OldestWaiting is when the oldest of them was committed, by the present clock where it can be told; zero when there is
	// none, and when its clock was not good and it is of an earlier boot.
	OldestWaiting time.Time
	LastAck       time.Time
	Published     uint64 // leaves sent since start
	Republished   uint64 // of these, sent before
	Connects      uint64
	Checkpoint    int64  // leaves of the newest checkpoint the platform confirmed
	Refused       uint64 // acknowledgements that could not be true
}

// Uplink is one gateway's way to the platform.
type Uplink struct {
	o     Options
	sent  contract.SeqSet // leaves published since start; owned by Run
	saved time.Time       // when acked was last written to the store; owned by Run
	dirty bool            // acked has changed since; owned by Run
	said  bool            // that it cannot be written; owned by Run
	holes contract.SeqSet // leaves that the journal holds damaged; owned by Run

	mu    sync.Mutex
	acked contract.SeqSet
	gone  contract.SeqSet // leaves that the journal gave up, for want of space; a gap leaf tells the platform
	stats Stats
}

const stateAcked = "acked" // state record: contract.SeqSet

// Acked is what the platform had acknowledged when a store was last told of it. Leaves acknowledged in the seconds before
// it was closed can be missing.
func Acked(store interface {
	Get(name string) ([]byte, error)
}) (acked contract.SeqSet, err error) {
	raw, err := store.Get(stateAcked)
	if errors.Is(err, buffer.ErrNotFound) {
		return acked, nil
	}
	if err != nil {
		return acked, err
	}
	if err := json.Unmarshal(raw, &acked); err != nil {
		return acked, fmt.Errorf("state %q: %w", stateAcked, err)
	}
	return acked, nil
}

// saveInterval bounds how many leaves are sent again after a crash: only those acknowledged since the last save.
const saveInterval = 10 * time.Second

// New makes an uplink and reads from the store what the platform had acknowledged before.
func New(o Options) (*Uplink, error) {
	if o.AckTime == 0 {
		o.AckTime = ackTime
	}
	u := &Uplink{o: o}
	var err error
	if u.acked, err = Acked(o.Store); err != nil {
		return nil, err
	}
	gone, err := o.Store.Gone()
	if err != nil {
		return nil, err
	}
	u.Gone(gone)
	u.stats.Since = time.Now()
	return u, nil
}

// Gone tells the uplink that leaves are no longer in the journal.
func (u *Uplink) Gone(list []buffer.Range) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range list {
		u.gone.Add(r.First, r.End-1)
	}
}

// Acked is what the platform acknowledged.
func (u *Uplink) Acked() contract.SeqSet {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.acked.Clone()
}

// Stats returns the present figures.
func (u *Uplink) Stats() Stats {
	size := u.o.Store.Size()
	u.mu.Lock()
	s, first := u.stats, u.nextWaiting(0)
	s.Acknowledged = u.acked.Count()
	settled := u.acked.Clone()
	for _, r := range u.gone.Have {
		settled.Add(r[0], r[1])
	}
	settled.Add(0, u.gone.Next-1)
	u.mu.Unlock()
	s.Waiting, s.GivenUp = size-settled.Count(), settled.Count()-s.Acknowledged
	if first < size {
		s.OldestWaiting = u.committedAt(first)
	}
	return s
}

// committedAt reads when a leaf was made from its header. A leaf that cannot be read gives no time here; sending it
// gives the error. One of this boot is placed by the time since boot, whatever its clock said.
func (u *Uplink) committedAt(n int64) time.Time {
	leaf, err := u.o.Store.Leaf(n)
	if err != nil {
		return time.Time{}
	}
	var h contract.Header // the rows of a busy hub are megabytes once they are parsed
	if err := json.Unmarshal(leaf.Data, &h); err != nil {
		return time.Time{}
	}
	now := u.o.Clock()
	at, known := contract.RepairedTime(h.Stamp, h.At, []contract.ClockFix{{State: now.Clock, Boot: now.Boot, Mono: now.Mono, Offset: now.At - now.Mono}})
	if !known {
		return time.Time{}
	}
	return time.UnixMilli(at)
}

// stableTime is how long a connection must hold before the wait between attempts starts small again. Without it a
// broker that accepts and then drops would be hammered.
const stableTime = time.Minute

// Run connects and forwards until ctx ends. When final is closed the journal has its last leaf: what is connected then
// sends it, waits up to drainTime for its acknowledgement, and Run returns. Run returns an error only when the store
// fails.
func (u *Uplink) Run(ctx context.Context, final <-chan struct{}) error {
	defer u.saveAcked()
	// A broker that takes the connection and then says nothing must not hold up the end.
	connecting, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-final:
			stop()
		case <-connecting.Done():
		}
	}()
	for attempt := 0; ; attempt++ {
		broker := u.o.Config.Brokers[attempt%len(u.o.Config.Brokers)]
		begin := time.Now()
		err := u.session(ctx, connecting, final, broker)
		if ctx.Err() != nil || closed(final) {
			return u.o.Store.Err()
		}
		if time.Since(begin) > stableTime {
			attempt = -1
		}
		wait := backoff(attempt, u.o.Config.ReconnectMax)
		u.offline(broker, err, wait)
		select {
		case <-time.After(wait):
		case <-final:
			return u.o.Store.Err()
		case <-ctx.Done():
			return u.o.Store.Err()
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// backoff is full jitter: anywhere from zero to a ceiling that doubles from one second to most. Gateways that lost
// their broker together come back apart.
func backoff(attempt int, most time.Duration) time.Duration {
	ceiling := time.Second << min(max(attempt, 0), 20)
	return rand.N(min(ceiling, most)) + time.Millisecond
}

func (u *Uplink) offline(broker string, err error, wait time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := &u.stats
	if s.Connected || s.Err == nil {
		u.o.Log.Warn("uplink offline, readings are kept", "broker", broker, "err", err)
		s.Since = time.Now()
	}
	s.Connected, s.Answered, s.Broker, s.Err = false, false, broker, err
	s.RetryAt = time.Now().Add(wait)
}

func (u *Uplink) online(broker string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := &u.stats
	s.Connected, s.Answered, s.Broker, s.Err, s.RetryAt, s.Since = true, false, broker, nil, time.Time{}, time.Now()
	s.Connects++
	u.o.Log.Info("uplink connected", "broker", broker, "waiting", u.o.Store.Size()-u.acked.Count())
}

// accept takes in an acknowledgement, which says everything the platform has. back is true when it has less than before:
// it lost leaves, and they are to be sent again. Nothing at the gateway was deleted on its word alone.
func (u *Uplink) accept(a contract.Ack, first bool) (back bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	before := u.acked.Count()
	u.acked = a.SeqSet.Clone()
	u.dirty = u.dirty || u.acked.Count() != before
	if first {
		u.stats.Answered, u.stats.Since = true, time.Now()
	}
	u.stats.LastAck = time.Now()
	u.stats.Checkpoint = a.Checkpoint
	back = u.acked.Count() < before
	if back {
		u.o.Log.Warn("platform has fewer leaves than it acknowledged before; they are sent again", "had", before, "has", u.acked.Count())
	}
	return back
}

// saveAcked writes what is acknowledged to the store. It may fail without harm: leaves acknowledged since the last
// save are then sent again, and the platform drops them.
func (u *Uplink) saveAcked() {
	if !u.dirty {
		return
	}
	u.mu.Lock()
	raw, err := json.Marshal(u.acked)
	u.mu.Unlock()
	if err == nil {
		err = u.o.Store.Commit(func(tx *buffer.Tx) error {
			tx.Set(stateAcked, raw)
			return nil
		})
	}
	if err != nil && !u.said && !errors.Is(err, buffer.ErrFailed) { // the recorder reports a failed store
		u.o.Log.Warn("cannot save what is acknowledged", "err", err)
	}
	u.said = err != nil
	u.dirty, u.saved = err != nil, time.Now()
}

// isAcked and nextUnacked look at the set that accept changes.
func (u *Uplink) isAcked(n int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.acked.Contains(n)
}

func (u *Uplink) nextUnacked(n int64) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.nextWaiting(n)
}

// nextWaiting is the first leaf from n on that is neither acknowledged nor gone. The caller holds u.mu.
func (u *Uplink) nextWaiting(n int64) int64 {
	for {
		next := u.gone.NextMissing(u.acked.NextMissing(n))
		if next == n {
			return n
		}
		n = next
	}
}

// leaf reads a leaf to send. One that is damaged on disk and cannot be mended must not keep back the others: ok is false
// for it.
func (u *Uplink) leaf(n int64) (leaf buffer.Leaf, ok bool, err error) {
	leaf, err = u.o.Store.Leaf(n)
	var damage *buffer.DamageError
	if errors.As(err, &damage) && !u.holes.Contains(n) {
		u.holes.Add(n, n)
		u.o.Log.Error("leaf is damaged", "seq", n, "err", err)
		if u.o.Mend != nil && u.o.Mend(n) {
			leaf, err = u.o.Store.Leaf(n)
		}
	}
	if errors.As(err, &damage) || errors.Is(err, buffer.ErrDropped) {
		return leaf, false, nil
	}
	if err != nil {
		return leaf, false, fmt.Errorf("cannot send: %w", err)
	}
	return leaf, true, nil
}

// count notes that a leaf was published.
func (u *Uplink) count(n int64) {
	again := u.sent.Contains(n)
	u.sent.Add(n, n)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stats.Published++
	if again {
		u.stats.Republished++
	}
}
