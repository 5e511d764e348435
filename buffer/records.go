package buffer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/mod/sumdb/tlog"
)

// The key space. Numbers are big endian so that iteration is in order.
const (
	leafPrefix           = 'L' // leaf number: class, codec, data
	lastingPrefix        = 'E' // as leafPrefix, for leaves of lasting classes
	hashPrefix           = 'H' // leaf number: the Merkle hashes that appending the leaf completed, level 0 first
	droppedPrefix        = 'D' // first leaf of a range whose leaves, but for lasting ones, were dropped: its end
	droppedLastingPrefix = 'F' // as droppedPrefix, for lasting ones
	blockPrefix          = 'B' // block number: data
	statePrefix          = 'S' // name: data
	flushPrefix          = 'Z' // nothing; see remove
)

var headKey = []byte("head")

// record is one key with its value, or its deletion when value is nil.
type record struct {
	key, value []byte
}

func numberKey(prefix byte, n int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, uint64(n))
}

func stateKey(name string) []byte { return append([]byte{statePrefix}, name...) }

// head is the one record that says how far the journal goes. It is written by every Commit, in its transaction.
type head struct {
	commit    int64     // number of the Commit that wrote it, from 1
	size      int64     // leaves
	root      tlog.Hash // of the tree of these leaves; zero for none
	blocks    int64     // blocks that wait, numbered from firstBlock
	nextBlock int64
	redo      int64 // number of the newest Commit that was in the redo log when this went to Badger; 0: none yet
}

const headVersion = 3

func (h head) append(b []byte) []byte {
	b = append(b, headVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(h.commit))
	b = binary.BigEndian.AppendUint64(b, uint64(h.size))
	b = append(b, h.root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.blocks))
	b = binary.BigEndian.AppendUint64(b, uint64(h.nextBlock))
	return binary.BigEndian.AppendUint64(b, uint64(h.redo))
}

// errVersion means that a journal is whole, and of a format that this program does not read.
var errVersion = errors.New("nothing was lost")

func parseHead(b []byte) (h head, err error) {
	if len(b) > 0 && b[0] > headVersion {
		return h, fmt.Errorf("a newer hubagent wrote it (format %d, this one reads format %d); %w: update this hubagent", b[0], headVersion, errVersion)
	}
	if len(b) > 0 && b[0] < headVersion {
		return h, fmt.Errorf("an older hubagent wrote it (format %d, this one reads format %d); %w: run that version until the platform has everything, then move the state folder away",
			b[0], headVersion, errVersion)
	}
	if len(b) != 1+8+8+tlog.HashSize+8+8+8 {
		return h, errors.New("not a head record")
	}
	number := func() (n int64) {
		n, b = int64(binary.BigEndian.Uint64(b)), b[8:]
		return n
	}
	b = b[1:]
	h.commit, h.size = number(), number()
	b = b[copy(h.root[:], b):]
	h.blocks, h.nextBlock, h.redo = number(), number(), number()
	return h, nil
}

// castagnoli is the polynomial with hardware support on both ARMv8 and x86.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func checksum(key, data []byte) uint32 {
	t := castagnoli()
	return crc32.Update(crc32.Update(0, t, key), t, data)
}

// seal puts a checksum over key and data before the data, so that a value that comes back damaged, cut short, empty or
// under another key is noticed.
func seal(key, data []byte) []byte {
	b := make([]byte, 0, 4+len(data))
	b = binary.BigEndian.AppendUint32(b, checksum(key, data))
	return append(b, data...)
}

func unseal(key, value []byte) (data []byte, ok bool) {
	if len(value) < 4 || checksum(key, value[4:]) != binary.BigEndian.Uint32(value) {
		return nil, false
	}
	return value[4:], true
}

// read returns the data of one record: from what waits for Badger, or from Badger. What moves from one to the other
// meanwhile is in Badger before it leaves the first.
func (s *Store) read(key []byte) (data []byte, err error) {
	s.mu.Lock()
	value, waits := s.pending[string(key)]
	s.mu.Unlock()
	if waits {
		if value == nil {
			return nil, ErrNotFound
		}
		return s.unsealRecord(key, value)
	}
	err = s.view(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("cannot read from journal %s: %w", s.dir, err)
		}
		data, err = s.unsealItem(item)
		return err
	})
	return data, err
}

// view runs fn on a snapshot of Badger, whose panics on a table that was damaged after Open become errors.
func (s *Store) view(fn func(txn *badger.Txn) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			text, _, _ := strings.Cut(fmt.Sprint(p), "\n")
			err = &DamageError{s.dir, "badger: " + text}
		}
	}()
	return s.db.View(fn)
}

// unsealItem copies an item's data out of its transaction.
func (s *Store) unsealItem(item *badger.Item) (data []byte, err error) {
	err = item.Value(func(value []byte) (err error) {
		data, err = s.unsealRecord(item.Key(), value)
		return err
	})
	return data, err
}

func (s *Store) unsealRecord(key, value []byte) ([]byte, error) {
	data, ok := unseal(key, value)
	if !ok {
		return nil, &DamageError{s.dir, fmt.Sprintf("record %s does not match its checksum", keyName(key))}
	}
	return bytes.Clone(data), nil
}

func keyName(key []byte) string {
	if len(key) == 9 && key[0] != statePrefix {
		kind := map[byte]string{
			leafPrefix: "leaf", lastingPrefix: "leaf", hashPrefix: "hashes of leaf",
			droppedPrefix: "range dropped from", droppedLastingPrefix: "range dropped from", blockPrefix: "block",
		}[key[0]]
		return fmt.Sprintf("%s %d", kind, binary.BigEndian.Uint64(key[1:]))
	}
	if len(key) > 0 && key[0] == statePrefix {
		return fmt.Sprintf("state %q", key[1:])
	}
	return fmt.Sprintf("%q", key)
}

// writeBadger puts records into one transaction and returns when it is synced.
func (s *Store) writeBadger(records []record) error {
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	for _, r := range records {
		err := error(nil)
		if r.value == nil {
			err = txn.Delete(r.key)
		} else {
			err = txn.Set(r.key, r.value)
		}
		if err != nil {
			return fmt.Errorf("record %s: %w", keyName(r.key), err)
		}
	}
	return txn.Commit()
}
