package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"hubagent/agent/contract"
	"hubagent/buffer"
)

// previous is what a genesis leaf says of the epoch before it.
type previous struct {
	Epoch string `json:"epoch,omitempty"` // absent when it could not be read any more
	Size  int64  `json:"size"`            // leaves, as far as the gateway still knows
	Root  string `json:"root,omitempty"`  // of these, as tlog prints it
	Why   string `json:"why"`
}

const stateCarried = "carried" // how far Carry has come

type carried struct {
	Next int64   `json:"next"` // number of the next leaf of the store set aside that is to be looked at
	Lost []int64 `json:"lost"` // leaves before it that could not be read
}

// replaced returns what the store took the place of, nil for nothing.
func replaced(store *buffer.Store) (*buffer.Replaced, error) {
	var r *buffer.Replaced
	return r, getState(store, buffer.StateReplaced, &r)
}

// lostInPlace returns what a repaired log that goes on has lost and has not told yet; nil for nothing.
func lostInPlace(store *buffer.Store) (*gap, error) {
	r, err := replaced(store)
	if err != nil || r == nil || !r.Continues {
		return nil, err
	}
	g := gap{Why: "damage", Leaves: [][2]int64{}, Blocks: r.Blocks}
	g.add(r.Lost)
	return &g, nil
}

// A predecessor is what is left of the store whose place another one takes: a *buffer.Survey, or an export.
type predecessor interface {
	Get(state string) ([]byte, error)
	Root() (size int64, root tlog.Hash)
	Blocks() [][]byte
	Missing() []buffer.Range
	Complete() bool
}

// predecessorOf returns the store that was set aside for this one and why; nil for none.
func predecessorOf(store *buffer.Store) (old predecessor, why string, err error) {
	r, err := replaced(store)
	if err != nil || r == nil || r.Continues {
		return nil, "", err
	}
	v, err := examine(store, r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, r.Why, nil
	}
	return v, r.Why, err
}

// takeOver brings into a new epoch what cannot wait for Carry: blocks that were not part of a leaf yet, the counts of pulse
// counters, and which contacts and faults are known.
func takeOver(old predecessor, why string, tx *buffer.Tx) (*previous, error) {
	p := previous{Why: why}
	if old == nil {
		return &p, nil
	}
	p.Epoch = epochOf(old)
	size, root := old.Root()
	if p.Size = size; size > 0 {
		p.Root = root.String()
	}
	for _, b := range old.Blocks() {
		if err := tx.Hold(b); err != nil {
			return nil, err
		}
	}
	for _, name := range keptStates() {
		if raw, err := old.Get(name); err == nil && json.Valid(raw) {
			tx.Set(name, raw)
		}
	}
	return &p, nil
}

// epochOf is the epoch of a predecessor, by its leaves where its record is gone; empty when there are none.
func epochOf(old predecessor) string {
	if name, err := old.Get(stateEpoch); err == nil {
		return string(name)
	}
	v, ok := old.(*buffer.Survey)
	if !ok {
		return ""
	}
	for _, n := range v.Leaves() {
		if leaf, err := v.Leaf(n); err == nil {
			if l, err := contract.ParseLeaf(leaf.Data); err == nil {
				return l.Epoch
			}
		}
	}
	return ""
}

// keptStates are the state records that outlive an epoch.
func keptStates() []string {
	return []string{stateContacts, stateFaults, statePulses, stateQuota, stateClock, stateWear}
}

func examine(store *buffer.Store, r *buffer.Replaced) (*buffer.Survey, error) {
	opts := store.Options()
	opts.Dir = filepath.Join(filepath.Dir(opts.Dir), r.Aside)
	return buffer.Examine(opts)
}

// Carry appends the leaves of a store that was set aside to the one that took its place, as leaves of KindOld, but for
// those that the platform acknowledged, and then a gap leaf that names what is lost. It goes on where it was
// interrupted.
type Carry struct {
	Store *buffer.Store
	Epoch Epoch
	Clock Clock
	Log   *slog.Logger
	Acked func(old *buffer.Survey) (contract.SeqSet, error) // what the platform had acknowledged; nil: nothing
}

// carryBytes bounds the leaves of one Commit, before compression.
const carryBytes = 256 << 10

// carrySays is how often Carry tells how far it is.
const carrySays = 10 * time.Second

// carryRetry is the wait before the next try when the disk is full.
const carryRetry = 10 * time.Second

// Run returns when nothing is left to carry, when ctx ends, or when the store failed, which whoever commits next
// reports. A disk without space is waited for.
func (c Carry) Run(ctx context.Context) {
	said := false
	for {
		err := c.carry(ctx)
		if err == nil || ctx.Err() != nil || c.Store.Err() != nil {
			return
		}
		if !said {
			c.Log.Error("leaves of the journal that was set aside are not carried over yet", "err", err)
			said = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(carryRetry):
		}
	}
}

func (c Carry) carry(ctx context.Context) error {
	r, err := replaced(c.Store)
	if err != nil || r == nil || r.Continues {
		return err
	}
	old, err := examine(c.Store, r)
	if errors.Is(err, fs.ErrNotExist) {
		c.Log.Error("the journal that was set aside is gone: what the platform did not have of it is lost", "folder", r.Aside)
		return c.finish(gap{Why: "damage", Leaves: [][2]int64{}, Beyond: new(int64)})
	}
	if err != nil {
		return err
	}
	acked := contract.SeqSet{}
	if c.Acked != nil {
		if acked, err = c.Acked(old); err != nil {
			c.Log.Warn("it is not known what the platform has of the journal that was set aside: all of it is carried over", "err", err)
			acked = contract.SeqSet{}
		}
	}
	todo := slices.DeleteFunc(old.Leaves(), func(n int64) bool { return acked.Contains(n) })
	c.Log.Info("carrying over leaves of the journal that was set aside", "folder", r.Aside, "leaves", len(todo))
	return c.all(ctx, old, acked, func(yield func(oldLeaf, error) bool) {
		for _, n := range todo {
			leaf, err := old.Leaf(n)
			if !yield(oldLeaf{n, leaf, err}, nil) {
				return
			}
		}
	})
}

// oldLeaf is a leaf of the store that was set aside, or why it cannot be read.
type oldLeaf struct {
	n    int64
	leaf buffer.Leaf
	err  error
}

// all carries leaves over, in their order, from where an earlier try ended, up to an error.
func (c Carry) all(ctx context.Context, old predecessor, acked contract.SeqSet, leaves iter.Seq2[oldLeaf, error]) error {
	var at carried
	if err := getState(c.Store, stateCarried, &at); err != nil {
		return err
	}
	var batch []buffer.Leaf
	size, done, said := 0, 0, time.Now()
	for l, err := range leaves {
		if err != nil {
			return errors.Join(err, c.append(batch, at))
		}
		if l.n < at.Next || acked.Contains(l.n) {
			continue
		}
		if at.Next = l.n + 1; l.err != nil {
			at.Lost = append(at.Lost, l.n)
			continue
		}
		batch, size, done = append(batch, l.leaf), size+len(l.leaf.Data), done+1
		if size < carryBytes {
			continue
		}
		if err := c.append(batch, at); err != nil {
			return err
		}
		if batch, size = nil, 0; ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(said) > carrySays {
			c.Log.Info("carrying over leaves", "done", done)
			said = time.Now()
		}
	}
	if err := c.append(batch, at); err != nil {
		return err
	}
	g := gap{Why: "damage", Epoch: epochOf(old), Leaves: [][2]int64{}}
	for _, r := range old.Missing() {
		for n := r.First; n < r.End; n++ {
			if !acked.Contains(n) {
				at.Lost = append(at.Lost, n)
			}
		}
	}
	slices.Sort(at.Lost)
	g.add(runs(slices.Compact(at.Lost)))
	if !old.Complete() {
		size, _ := old.Root()
		g.Beyond = &size
	}
	return c.finish(g)
}

// append commits leaves of the old store, and up to where that has been looked at.
func (c Carry) append(batch []buffer.Leaf, at carried) error {
	return c.Store.Commit(func(tx *buffer.Tx) error {
		for _, leaf := range batch {
			class := buffer.Class(contract.KindOld.Class())
			if slices.Contains(Lasting(), leaf.Class) {
				class = classOldLasting
			}
			h := contract.Header{Gateway: c.Epoch.Gateway, Epoch: c.Epoch.Name, Seq: tx.Next(), Kind: contract.KindOld, Stamp: c.Clock()}
			if _, err := tx.Append(class, contract.AppendOld(nil, h, leaf.Data)); err != nil {
				return fmt.Errorf("cannot carry over a leaf: %w", err)
			}
		}
		return setState(tx, stateCarried, at)
	})
}

// finish tells what is lost, and forgets the old store.
func (c Carry) finish(g gap) error {
	err := c.Store.Commit(func(tx *buffer.Tx) error {
		tx.Set(buffer.StateReplaced, nil)
		tx.Set(stateCarried, nil)
		if len(g.Leaves) == 0 && g.Beyond == nil {
			return nil
		}
		_, err := appendDocument(tx, c.Epoch, contract.KindGap, c.Clock(), g)
		return err
	})
	if err == nil {
		c.Log.Info("what is left of the earlier journal is carried over", "lost", g.Leaves)
	}
	return err
}
