package buffer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

// ErrDropped means that a leaf was given up: by Drop, by Mend, or in a repair. Its hash is still there.
var ErrDropped = errors.New("given up")

// Range is the leaves from First up to and without End.
type Range struct {
	First, End int64
}

// Stored yields the leaves from first on that are there, with their bytes on disk, in order: those of classes that
// Options.Lasting names, or all others. Damage beyond the keys is not looked for. Stop early when Drop is to be called:
// a value log is not removed while it may be read.
func (s *Store) Stored(first int64, lasting bool) iter.Seq2[int64, int64] {
	prefix := prefixOf(lasting)
	return func(yield func(n, size int64) bool) {
		waiting := s.waiting(prefix, first) // before Badger is looked at: what moves there meanwhile is seen twice, not missed
		s.view(func(txn *badger.Txn) error {
			it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{prefix}})
			defer it.Close()
			for it.Seek(numberKey(prefix, first)); it.Valid(); it.Next() {
				s.touched(keyBytes)
				n := keyNumber(it.Item().Key())
				for len(waiting) > 0 && waiting[0][0] < n {
					if !yield(waiting[0][0], waiting[0][1]) {
						return nil
					}
					waiting = waiting[1:]
				}
				if len(waiting) > 0 && waiting[0][0] == n {
					waiting = waiting[1:]
				}
				if !yield(n, it.Item().EstimatedSize()) {
					return nil
				}
			}
			for _, w := range waiting {
				if !yield(w[0], w[1]) {
					break
				}
			}
			return nil
		})
	}
}

// waiting returns number and size of the numbered records from first on that are not in Badger yet, in order.
func (s *Store) waiting(prefix byte, first int64) (list [][2]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, value := range s.pending {
		if key[0] == prefix && value != nil && keyNumber([]byte(key)) >= first {
			list = append(list, [2]int64{keyNumber([]byte(key)), int64(len(key) + len(value))})
		}
	}
	slices.SortFunc(list, func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
	return list
}

func prefixOf(lasting bool) byte {
	if lasting {
		return lastingPrefix
	}
	return leafPrefix
}

func droppedPrefixOf(lasting bool) byte {
	if lasting {
		return droppedLastingPrefix
	}
	return droppedPrefix
}

func keyNumber(key []byte) int64 { return int64(binary.BigEndian.Uint64(key[1:])) }

// Drop gives up the leaves of a range, either those of lasting classes or the others, and gives their disk space back.
// Their hashes stay: the tree and its proofs are as before. That they are gone is committed first, together with what fn
// adds, such as a leaf that tells of it; fn may be nil. A crash after that is made up for by Open. An error after that wraps
// ErrFailed, or is about disk space that could not be given back yet; the leaves are dropped then, as Size tells by fn's leaf.
func (s *Store) Drop(r Range, lasting bool, fn func(tx *Tx) error) error {
	if r.First < 0 || r.First >= r.End || r.End > s.Size() {
		return fmt.Errorf("cannot drop leaves %d to %d of %d", r.First, r.End-1, s.Size())
	}
	s.commit.Lock()
	err := s.makeSpace(openBytes)
	s.commit.Unlock()
	if err != nil {
		return err
	}
	err = s.Commit(func(tx *Tx) error {
		tx.need = openBytes
		tx.direct = true // what waits in the redo log may be leaves of the range
		first, err := s.joined(r, lasting)
		if err != nil {
			return err
		}
		tx.put(numberKey(droppedPrefixOf(lasting), first), binary.BigEndian.AppendUint64(nil, uint64(r.End)))
		if fn == nil {
			return nil
		}
		return fn(tx)
	})
	if err != nil {
		return err
	}
	s.commit.Lock()
	defer s.commit.Unlock()
	return s.remove(r, lasting)
}

// joined returns where the record of a dropped range begins: with the range before when the two touch.
func (s *Store) joined(r Range, lasting bool) (first int64, err error) {
	first = r.First
	err = s.view(func(txn *badger.Txn) error {
		prefix := droppedPrefixOf(lasting)
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{prefix}, Reverse: true})
		defer it.Close()
		it.Seek(numberKey(prefix, r.First))
		if !it.Valid() {
			return nil
		}
		before, err := s.droppedRange(it.Item())
		if err == nil && before.End >= r.First && before.End <= r.End {
			first = before.First
		}
		return err
	})
	return first, err
}

func (s *Store) droppedRange(item *badger.Item) (r Range, err error) {
	data, err := s.unsealItem(item)
	if err != nil {
		return r, err
	}
	if len(data) != 8 {
		return r, &DamageError{s.dir, fmt.Sprintf("record %s is no range", keyName(item.Key()))}
	}
	return Range{keyNumber(item.Key()), int64(binary.BigEndian.Uint64(data))}, nil
}

// dropped returns the ranges in which leaves of one kind were given up, in order.
func (s *Store) dropped(txn *badger.Txn, lasting bool) (list []Range, err error) {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{droppedPrefixOf(lasting)}})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		r, err := s.droppedRange(it.Item())
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

// Gone returns the leaves that were dropped and are not there, in order. It looks at every key: call it at a start.
func (s *Store) Gone() (list []Range, err error) {
	next := [2]int64{} // the next leaf stored at or after n, of the others and of the lasting
	stored := [2]func() (int64, int64, bool){}
	for i, lasting := range []bool{false, true} {
		pull, stop := iter.Pull2(s.Stored(0, lasting))
		defer stop()
		stored[i] = pull
		next[i] = -1
	}
	size := s.Size()
	for n := int64(0); n < size; {
		for i, pull := range stored {
			for next[i] < n {
				var more bool
				if next[i], _, more = pull(); !more {
					next[i] = size
				}
			}
		}
		if end := min(next[0], next[1], size); end > n {
			list = append(list, Range{n, end})
			n = end
			continue
		}
		n++
	}
	return list, nil
}

// allDropped returns the ranges of both kinds, by their beginning.
func (s *Store) allDropped(txn *badger.Txn) (list []Range, err error) {
	for _, lasting := range []bool{false, true} {
		ranges, err := s.dropped(txn, lasting)
		if err != nil {
			return nil, err
		}
		list = append(list, ranges...)
	}
	slices.SortFunc(list, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	return list, nil
}

// wasDropped says whether leaf n lies in such a range.
func (s *Store) wasDropped(n int64) (is bool, err error) {
	err = s.view(func(txn *badger.Txn) error {
		list, err := s.allDropped(txn)
		is = slices.ContainsFunc(list, func(r Range) bool { return r.First <= n && n < r.End })
		return err
	})
	return is, err
}

// finishDrops removes what a crash left of dropped leaves.
func (s *Store) finishDrops() error {
	for _, lasting := range []bool{false, true} {
		var list []Range
		err := s.view(func(txn *badger.Txn) (err error) {
			list, err = s.dropped(txn, lasting)
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range list {
			if !s.holds(r, lasting) {
				continue
			}
			if err := s.remove(r, lasting); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) holds(r Range, lasting bool) bool {
	for n := range s.Stored(r.First, lasting) {
		return n < r.End
	}
	return false
}

// remove deletes the leaves of a range from Badger's tables and then the value logs that hold little else. Tables are
// rewritten without the keys: a delete that is a key of its own would free nothing before it was compacted down to
// them. The caller holds s.commit: Badger takes no writes meanwhile.
func (s *Store) remove(r Range, lasting bool) error {
	if err := s.makeSpace(openBytes); err != nil {
		return err
	}
	// Badger counts what a value log holds in vain only for keys that it finds in tables. Its newest keys, with leaves of a
	// minute those of a day, are in a memtable. To drop a key that exists makes a table of that.
	err := s.step("mark", func() error { return s.writeBadger([]record{{[]byte{flushPrefix}, []byte{}}}) })
	if err == nil {
		err = s.step("flush", func() error { return s.db.DropPrefix([]byte{flushPrefix}) })
	}
	if err == nil {
		err = s.step("drop", func() error { return s.db.DropPrefix(prefixes(r, prefixOf(lasting))...) })
	}
	if err != nil {
		return s.fail(fmt.Errorf("cannot drop leaves: %w", err))
	}
	return s.collect()
}

// Value logs are given back when they hold hardly anything else than garbage: the oldest leaves fill them in order, and
// are dropped in order, so that comes by itself and little is written again. What moved would be dropped next, and leave
// a gap in a value log that stays for long. Only when all garbage together is more than a share of the store, because
// small records that change often are all there is or lasting leaves hold many value logs, more is moved.
const (
	gcRatio      = 0.9
	gcRatioDense = 0.5
	garbageShare = 0.25
)

// collect gives back value logs that hold too much garbage. The caller holds s.commit.
func (s *Store) collect() error {
	if err := s.collectRatio(gcRatio); err != nil {
		return err
	}
	used, live, err := s.sizes()
	if err != nil || float64(used-live) <= garbageShare*float64(used) {
		return err
	}
	return s.collectRatio(gcRatioDense)
}

func (s *Store) collectRatio(ratio float64) error {
	for {
		if err := s.compact(); err != nil {
			return err
		}
		if err := s.rescue(ratio); err != nil {
			return err
		}
		err := s.step("collect", func() error { return s.db.RunValueLogGC(ratio) })
		s.touched(2 * valueLogFileBytes)
		if errors.Is(err, badger.ErrNoRewrite) {
			return nil
		}
		if err != nil {
			return s.fail(fmt.Errorf("cannot give back disk space: %w", err))
		}
	}
}

// sizes returns the bytes that Badger's files take on disk, and how many of them hold records that count.
func (s *Store) sizes() (used, live int64, err error) {
	used, err = DiskUsage(s.db.Opts().Dir)
	if err != nil {
		return 0, 0, err
	}
	err = s.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			s.touched(keyBytes)
			live += it.Item().EstimatedSize()
		}
		return nil
	})
	return used, live, err
}

// prefixes covers a range with as few key prefixes as there are: 1, 256, 65,536 ... leaves each.
func prefixes(r Range, prefix byte) (list [][]byte) {
	for n := r.First; n < r.End; {
		span, cut := int64(1), 9
		for cut > 2 && n%(span<<8) == 0 && n+span<<8 <= r.End {
			span, cut = span<<8, cut-1
		}
		list = append(list, numberKey(prefix, n)[:cut])
		n += span
	}
	return list
}
