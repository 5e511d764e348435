package buffer

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Replaced is what became of a store that was set aside. It stands in the state record of that name in the store that
// took its place, until the caller has dealt with it and deletes it.
type Replaced struct {
	Aside     string  `json:"aside"`            // name of the folder beside the store's that the old one is in
	Why       string  `json:"why"`              // in words
	Continues bool    `json:"continues"`        // the numbers and the tree go on; otherwise the new store is empty
	Lost      []Range `json:"lost,omitempty"`   // with Continues: leaves that were not found; reading them gives ErrDropped
	Blocks    int     `json:"blocks,omitempty"` // with Continues: how many blocks that waited to become part of a leaf were not found
}

// StateReplaced is the name of the state record of a Replaced.
const StateReplaced = "replaced"

// Repair puts a sound store in the place of a damaged one: one that goes on with its numbers and its tree, where all its
// Commits and hashes could be found, or else an empty one. The damaged store is set aside in a folder beside it and not
// changed. why is what Open said of it. A crash on the way leaves the damaged store in its place, or the new one.
//
// Errors: ErrInUse, those of Examine, and those of the disk; then the damaged store is where it was.
func Repair(opts Options, why string) (Replaced, error) {
	return replace(opts, func() (*Survey, Replaced, error) {
		v, err := Examine(opts)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, Replaced{Why: why}, nil
		}
		if err != nil {
			return nil, Replaced{}, err
		}
		if broken := v.Whole(); broken != nil {
			return nil, Replaced{Why: fmt.Sprintf("%s; %v", why, broken)}, nil
		}
		return v, Replaced{Why: why, Continues: true, Lost: v.Missing(), Blocks: v.lostBlocks()}, nil
	})
}

// replace builds a store beside the old one - from a Survey, or empty without one -, and exchanges the two.
func replace(opts Options, plan func() (*Survey, Replaced, error)) (r Replaced, err error) {
	lock, err := takeLock(filepath.Join(opts.Dir, lockName))
	if err != nil {
		return r, err
	}
	defer lock.Close()
	v, r, err := plan()
	if err != nil {
		return r, err
	}
	fresh := opts
	fresh.Dir = opts.Dir + ".new"
	if err := os.RemoveAll(fresh.Dir); err != nil { // of an attempt that a crash ended
		return r, fmt.Errorf("cannot repair journal %s: %w", opts.Dir, err)
	}
	// The ballast is no evidence, and the new store needs its space.
	if err := os.Remove(filepath.Join(opts.Dir, ballastName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("cannot repair journal %s: %w", opts.Dir, err)
	}
	aside := asideName(opts.Dir)
	r.Aside = filepath.Base(aside)
	if err = rebuild(fresh, v, &r); err != nil && v != nil {
		// As it is when there is no space for a second copy: what is left is fetched from the old store bit by bit.
		r = Replaced{Why: fmt.Sprintf("%s; %v", r.Why, err), Aside: r.Aside}
		if err = os.RemoveAll(fresh.Dir); err == nil {
			err = rebuild(fresh, nil, &r)
		}
	}
	if err != nil {
		return r, errors.Join(fmt.Errorf("cannot repair journal %s: %w", opts.Dir, err), os.RemoveAll(fresh.Dir))
	}
	err = errors.Join(os.Rename(opts.Dir, aside), os.Rename(fresh.Dir, opts.Dir), syncDir(filepath.Dir(opts.Dir)))
	if err != nil {
		return r, fmt.Errorf("cannot put repaired journal in its place: %w", err)
	}
	return r, nil
}

// asideName is the first name that is free beside a store.
func asideName(dir string) string {
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s.aside-%d", dir, n)
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name
		}
	}
}

// takeUp puts a rebuilt store in its place when a crash came between the two renames of replace.
func takeUp(dir string) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.Rename(dir+".new", dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot put repaired journal in its place: %w", err)
	}
	return nil
}

// rebuild makes a store in an empty folder. Its head comes last, so a store that a crash cut off is told by Open.
func rebuild(opts Options, v *Survey, r *Replaced) (err error) {
	s, err := Open(opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	s.commit.Lock()
	defer s.commit.Unlock()
	b := batch{s: s}
	h := head{commit: 1}
	if v != nil {
		h = v.head
		h.commit, h.redo = v.last+1, 0
		if err := b.survey(v, r); err != nil {
			return err
		}
		h.blocks = int64(len(v.Blocks()))
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	b.put(stateKey(StateReplaced), text)
	b.put(headKey, h.append(nil))
	return b.write()
}

// batch writes records to Badger in transactions of a size that it takes.
type batch struct {
	s      *Store
	list   []record
	inline int
	bytes  int
	err    error
}

func (b *batch) put(key, data []byte) {
	if b.err != nil {
		return
	}
	value := seal(key, data)
	b.list = append(b.list, record{key, value})
	b.inline += inlineBytes(len(key), len(value))
	b.bytes += len(value)
	if b.inline > mostInline || b.bytes > MaxLeafBytes || len(b.list) >= mostPending {
		b.write()
	}
}

func (b *batch) write() error {
	if b.err == nil {
		b.err = b.s.checkSpace(reserveBytes)
	}
	if b.err == nil {
		b.err = b.s.compact()
	}
	if b.err == nil {
		b.err = b.s.step("commit", func() error { return b.s.writeBadger(b.list) })
	}
	b.list, b.inline, b.bytes = nil, 0, 0
	return b.err
}

// survey writes all that a Survey found: it is Whole. Leaves that do not match their hashes go to what is lost.
func (b *batch) survey(v *Survey, r *Replaced) error {
	keep := v.Leaves()
	var t tree
	for n := range v.head.size {
		hashes, err := t.add(v, n)
		if err != nil {
			return err
		}
		joined := make([]byte, 0, len(hashes)*len(hashes[0]))
		for _, h := range hashes {
			joined = append(joined, h[:]...)
		}
		b.put(numberKey(hashPrefix, n), joined)
		if len(keep) == 0 || keep[0] != n {
			continue
		}
		keep = keep[1:]
		var data []byte
		if _, err = v.Leaf(n); err == nil {
			data, err = v.leafRecord(n)
		}
		if err != nil {
			r.Lost = joinRanges(append(r.Lost, Range{n, n + 1}))
			continue
		}
		b.put(numberKey(prefixOf(v.leaves[n].lasting), n), data)
	}
	for _, lasting := range []bool{false, true} {
		ranges := v.dropped(lasting)
		if !lasting {
			ranges = joinRanges(append(ranges, r.Lost...))
		}
		for _, r := range ranges {
			b.put(numberKey(droppedPrefixOf(lasting), r.First), binary.BigEndian.AppendUint64(nil, uint64(r.End)))
		}
	}
	for i, data := range v.Blocks() {
		b.put(numberKey(blockPrefix, v.head.nextBlock-int64(len(v.Blocks())-i)), data)
	}
	for key, f := range v.records {
		if key[0] == statePrefix && f.state == readable {
			b.put([]byte(key), f.data)
		}
	}
	return b.err
}

// joinRanges puts ranges in order and makes one of those that touch.
func joinRanges(list []Range) (joined []Range) {
	slices.SortFunc(list, func(a, b Range) int { return int(a.First - b.First) })
	for _, r := range list {
		if last := len(joined) - 1; last >= 0 && joined[last].End >= r.First {
			joined[last].End = max(joined[last].End, r.End)
			continue
		}
		joined = append(joined, r)
	}
	return joined
}
