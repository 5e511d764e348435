package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/mod/sumdb/tlog"
)

// Mend is for a leaf for which Leaf gave a *DamageError. It looks through the value logs for what is left of it, which the
// first time can take a second for every hundred megabytes, and writes it again when it can be put right: mended is true
// then.
// Otherwise it gives the leaf up, as Drop does, in one Commit with what lost adds, such as a leaf that tells of it.
func (s *Store) Mend(n int64, lost func(tx *Tx) error) (mended bool, err error) {
	hash, err := s.readHash(tlog.StoredHashIndex(0, n))
	if err != nil {
		return false, err
	}
	data, prefix, err := s.search(n, hash)
	if err != nil {
		return false, err
	}
	err = s.Commit(func(tx *Tx) error {
		tx.direct = true
		if data != nil {
			tx.put(numberKey(prefix, n), data)
			return nil
		}
		lasting := s.names(numberKey(lastingPrefix, n))
		first, err := s.joined(Range{n, n + 1}, lasting)
		if err != nil {
			return err
		}
		tx.put(numberKey(droppedPrefixOf(lasting), first), binary.BigEndian.AppendUint64(nil, uint64(n+1)))
		tx.records = append(tx.records, record{key: numberKey(prefixOf(lasting), n)})
		return lost(tx)
	})
	return data != nil && err == nil, err
}

// mostMended bounds the mended leaves that are kept: more are lost as if they could not be mended.
const mostMended = 64

// names says whether Badger holds a key, whatever became of its value.
func (s *Store) names(key []byte) bool {
	return s.view(func(txn *badger.Txn) error { _, err := txn.Get(key); return err }) == nil
}

// search looks for a leaf that matches its hash in the value logs, damaged ones too. What it finds mended of other leaves it
// keeps, and each value log that is not written any more is looked through once: a lost one may have held hundreds.
func (s *Store) search(n int64, hash tlog.Hash) (data []byte, prefix byte, err error) {
	s.mending.Lock()
	defer s.mending.Unlock()
	if s.searched == nil {
		s.searched, s.mended = map[uint64]bool{}, map[int64]record{}
	}
	fits := func(sealed []byte) bool {
		if len(sealed) == 0 {
			return false
		}
		raw, err := decode(sealed[1:])
		return err == nil && tlog.RecordHash(raw) == hash
	}
	if r, ok := s.mended[n]; ok && fits(r.value) {
		return r.value, r.key[0], nil
	}
	dir := filepath.Join(s.dir, badgerDir)
	keys, err := readRegistry(dir, s.opts.Key)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot read the journal's key registry: %w", err)
	}
	files, err := badgerFiles(dir, valueLogEnding)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot look through journal: %w", err)
	}
	for i, file := range files {
		if s.searched[file] {
			continue
		}
		raw, err := os.ReadFile(badgerFile(dir, file, valueLogEnding))
		if errors.Is(err, os.ErrNotExist) {
			continue // given back meanwhile
		}
		if err != nil {
			return nil, 0, fmt.Errorf("cannot look through journal: %w", err)
		}
		l, whole, ok := openDamagedLog(raw, keys)
		if !ok {
			continue
		}
		l.scan(func(e entry, at, _ int) {
			if len(e.key) != 9 || e.key[0] != leafPrefix && e.key[0] != lastingPrefix {
				return
			}
			sealed, ok := unseal(e.key, e.value)
			if !ok {
				return
			}
			if keyNumber(e.key) == n && fits(sealed) {
				data, prefix = slices.Clone(sealed), e.key[0]
			}
			if _, _, sound := l.entry(at); !sound && len(s.mended) < mostMended {
				s.mended[keyNumber(e.key)] = record{slices.Clone(e.key), slices.Clone(sealed)}
			}
		})
		// Behind a damaged header Badger can read nothing, though each entry is sound.
		s.searched[file] = whole && i < len(files)-1
	}
	return data, prefix, nil
}
