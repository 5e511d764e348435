package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/mod/sumdb/tlog"
)

// Class is the caller's kind of leaf. It is kept beside the leaf, outside its hash, so that leaves can be told apart
// without reading their bytes.
type Class byte

// Leaf is one entry of the log.
type Leaf struct {
	Class Class
	Data  []byte
}

// MaxLeafBytes bounds one leaf before compression: one leaf is one message, and readers hold it in memory.
const MaxLeafBytes = 1 << 20

// MaxBlocks bounds the blocks that wait: all of them are deleted in the transaction that makes them a leaf, and
// Badger bounds a transaction.
const MaxBlocks = 200

// Tx collects what one Commit writes. It is valid only inside the function that Commit calls, in its goroutine. What is
// given to it is copied.
type Tx struct {
	s       *Store
	head    head
	records []record
	hashes  map[int64]tlog.Hash // by stored hash index, of leaves appended in this Tx
	grown   bool
	large   int   // bytes of leaves
	direct  bool  // not by way of the redo log
	need    int64 // bytes that must be free where it goes to Badger
	codec   *codec
}

// Commit calls fn, which must not call Commit or Drop itself, to collect changes and writes them as one transaction, all or none. When Commit returns nil they are
// on the disk: the file system was told to sync and said that it did. When fn fails nothing is written and Commit
// returns fn's error. When the write fails it is not known whether the changes are on disk, and this and every later
// Commit returns an error that wraps ErrFailed. Commit never retries; a caller that wants to go on reopens the store.
//
// Too little free space is found out before anything is written: an error, but not ErrFailed, and a later Commit may
// succeed.
func (s *Store) Commit(fn func(tx *Tx) error) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.mu.Lock()
	failed, h := s.failed, s.head
	s.mu.Unlock()
	if failed != nil {
		return failed
	}
	tx := &Tx{s: s, head: h, codec: &s.codec, need: reserveBytes}
	if err := fn(tx); err != nil {
		return err
	}
	if len(tx.records) == 0 {
		return nil
	}
	if tx.grown {
		root, err := tlog.TreeHash(tx.head.size, tx)
		if err != nil {
			return fmt.Errorf("cannot hash journal %s: %w", s.dir, err)
		}
		tx.head.root = root
	}
	tx.head.commit++
	tx.head.redo = s.redo.last
	tx.put(headKey, tx.head.append(nil))
	if err := s.persist(tx); err != nil {
		return err
	}
	s.mu.Lock()
	s.head = tx.head
	s.appended += int64(tx.large)
	if tx.grown {
		close(s.grown)
		s.grown = make(chan struct{})
	}
	s.mu.Unlock()
	return nil
}

// persist makes a Tx durable: in the redo log, or with everything that waits there in Badger.
func (s *Store) persist(tx *Tx) error {
	size, inline := 0, 0
	for _, r := range tx.records {
		size += len(r.key) + len(r.value)
		inline += inlineBytes(len(r.key), len(r.value))
	}
	first := s.stored.commit == 0 // so that Badger says of every store that there is something to be missed
	if first || tx.direct || tx.large >= directBytes || size > redoPlain || inline > mostInline {
		return s.flush(tx.records, tx.head, tx.need)
	}
	b, err := s.redo.encode(frame{number: tx.head.commit, base: s.stored.commit, records: tx.records})
	if err != nil {
		return fmt.Errorf("cannot write to journal %s: %w", s.dir, err)
	}
	if len(b) > redoMost {
		return s.flush(tx.records, tx.head, tx.need)
	}
	for key, value := range s.pending {
		inline += inlineBytes(len(key), len(value))
	}
	if len(s.pending)+len(tx.records) > mostPending || inline > mostInline || !s.redo.fits(int64(len(b))) {
		// What waits goes first, as it is: the frame's base changes with it.
		if err := s.flush(nil, s.head, tx.need); err != nil {
			return err
		}
		if b, err = s.redo.encode(frame{number: tx.head.commit, base: s.stored.commit, records: tx.records}); err != nil {
			return fmt.Errorf("cannot write to journal %s: %w", s.dir, err)
		}
	}
	if err := s.redo.append(b); err != nil {
		return s.fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range tx.records {
		s.apply(s.pending, r)
	}
	return nil
}

// apply takes a record up among others that wait for Badger.
func (s *Store) apply(waiting map[string][]byte, r record) {
	if r.value == nil && !s.mayStore(r.key) {
		delete(waiting, string(r.key)) // a block that came and went
		return
	}
	waiting[string(r.key)] = r.value
}

// mayStore says whether Badger may hold the key.
func (s *Store) mayStore(key []byte) bool {
	return key[0] != blockPrefix || bytes.Compare(key, numberKey(blockPrefix, s.stored.nextBlock)) < 0
}

// inlineBytes is what a record adds to the part of a Badger transaction that Badger bounds: key, value or the value's
// place in the value log, and what goes with them.
func inlineBytes(key, value int) int {
	if value >= valueThreshold {
		value = 12
	}
	return key + value + 24
}

// flush writes what waits, and further records after it, to Badger in one transaction. h is the head among them. Too
// little space, less than need, is found before anything is written, and so is a transaction that is too large.
func (s *Store) flush(further []record, h head, need int64) error {
	if err := s.checkSpace(need); err != nil {
		return err
	}
	if err := s.compact(); err != nil {
		return err
	}
	merged := maps.Clone(s.pending) // only a Commit changes it, and this is the one under way
	for _, r := range further {
		s.apply(merged, r)
	}
	all := make([]record, 0, len(merged))
	for key, value := range merged {
		all = append(all, record{[]byte(key), value})
	}
	err := s.step("commit", func() error { return s.writeBadger(all) })
	if errors.Is(err, badger.ErrTxnTooBig) {
		return fmt.Errorf("cannot write to journal %s: %w", s.dir, err)
	}
	if err != nil {
		return s.fail(err)
	}
	for _, r := range all {
		s.touched(len(r.value))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.pending)
	s.stored = h
	s.redo.release()
	if err := s.copyRegistry(); err != nil {
		s.log.Warn("journal", "err", err)
	}
	return nil
}

// fail ends the store's writing: it is not known whether the Commit under way is on the disk.
func (s *Store) fail(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = fmt.Errorf("%w: %s: %v", ErrFailed, s.dir, cause)
	return s.failed
}

const (
	directBytes = 16 << 10 // of leaves: from here on a second copy in the redo log costs more than Badger's own overhead
	mostPending = 256      // records that wait: together with one Commit's they must fit a Badger transaction,
	mostInline  = 24 << 10 // and so must this much of inlineBytes, of which a transaction takes 15 % of a memtable
)

func (tx *Tx) put(key, data []byte) {
	tx.records = append(tx.records, record{key, seal(key, data)})
}

// Next is the number that the next appended leaf will have.
func (tx *Tx) Next() int64 { return tx.head.size }

// Append adds a leaf to the log and returns its number, which counts once Commit has returned nil: after a failed Commit
// another leaf may get it, unless Open finds this one. Its Merkle record hash is tlog.RecordHash(data).
func (tx *Tx) Append(class Class, data []byte) (int64, error) {
	if len(data) > MaxLeafBytes {
		return 0, fmt.Errorf("cannot append a leaf of %d bytes, the most is %d", len(data), MaxLeafBytes)
	}
	n := tx.head.size
	hashes, err := tlog.StoredHashesForRecordHash(n, tlog.RecordHash(data), tx)
	if err != nil {
		return 0, fmt.Errorf("cannot hash leaf %d: %w", n, err)
	}
	if tx.hashes == nil {
		tx.hashes = map[int64]tlog.Hash{}
	}
	joined := make([]byte, 0, len(hashes)*tlog.HashSize)
	for level, h := range hashes {
		tx.hashes[tlog.StoredHashIndex(level, n>>level)] = h
		joined = append(joined, h[:]...)
	}
	tx.put(numberKey(hashPrefix, n), joined)
	packed := tx.codec.encode([]byte{byte(class)}, data)
	tx.large += len(packed)
	tx.put(numberKey(prefixOf(slices.Contains(tx.s.opts.Lasting, class)), n), packed)
	tx.head.size++
	tx.grown = true
	return n, nil
}

// Hold keeps a block that is to become part of a leaf later. It fails when MaxBlocks wait already.
func (tx *Tx) Hold(data []byte) error {
	if tx.head.blocks >= MaxBlocks {
		return errors.New("cannot hold another block: too many wait for a leaf")
	}
	tx.put(numberKey(blockPrefix, tx.head.nextBlock), data)
	tx.head.nextBlock++
	tx.head.blocks++
	return nil
}

// Release deletes all blocks that were held before this Tx.
func (tx *Tx) Release() {
	for n := tx.head.nextBlock - tx.head.blocks; n < tx.head.nextBlock; n++ {
		tx.records = append(tx.records, record{key: numberKey(blockPrefix, n)})
	}
	tx.head.blocks = 0
}

// Set writes the state record of that name; nil data deletes it.
func (tx *Tx) Set(name string, data []byte) {
	if data == nil {
		tx.records = append(tx.records, record{key: stateKey(name)})
		return
	}
	tx.put(stateKey(name), data)
}

// ReadHashes implements tlog.HashReader over the store and what this Tx has added.
func (tx *Tx) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if h, ok := tx.hashes[index]; ok {
			out[i] = h
			continue
		}
		h, err := tx.s.readHash(index)
		if err != nil {
			return nil, err
		}
		out[i] = h
	}
	return out, nil
}
