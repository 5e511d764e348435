package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// The witness is a small file beside Badger's that says how many leaves there were at some moment. Badger opens without
// a word when its manifest or a log of its own is gone, and shows an older or empty store: leaves that were
// acknowledged would vanish, and their numbers would be given out again.
const witnessName = "witness"

// witnessInterval bounds how many leaves can vanish unseen; each renewal is a small synced write.
const witnessInterval = 10 * time.Minute

// checkWitness compares the journal's size with what the witness saw. A witness that cannot be read says nothing: it is
// written anew with the next leaf.
func (s *Store) checkWitness() error {
	raw, err := os.ReadFile(filepath.Join(s.dir, witnessName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read journal: %w", err)
	}
	size, ok := unseal([]byte(witnessName), raw)
	if !ok || len(size) != 8 {
		return nil
	}
	if once := int64(binary.BigEndian.Uint64(size)); s.head.size < once {
		return &DamageError{s.dir, fmt.Sprintf("it holds %d leaves, and once held %d", s.head.size, once)}
	}
	return nil
}

// renewWitness writes the present size when the last witness is old. The caller holds s.commit. A failure harms
// nothing: the older witness stays.
func (s *Store) renewWitness(force bool) {
	size := s.Size()
	if size == s.witnessed || !force && time.Since(s.witnessedAt) < witnessInterval {
		return
	}
	path := filepath.Join(s.dir, witnessName)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	_, err = f.Write(seal([]byte(witnessName), binary.BigEndian.AppendUint64(nil, uint64(size))))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil && os.Rename(path+".new", path) == nil {
		s.witnessed, s.witnessedAt = size, time.Now()
	}
}
