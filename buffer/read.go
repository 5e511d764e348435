package buffer

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Size is the number of leaves. A leaf is durable before it is counted.
func (s *Store) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head.size
}

// Appended is how many bytes the leaves that were appended since Open take, compressed as they are kept and without what
// goes with them.
func (s *Store) Appended() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.appended
}

// Grown returns a channel that is closed when leaves are appended after the call. Ask for it before Size: what is appended
// between the two is then not missed.
func (s *Store) Grown() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grown
}

// Err is nil while the store takes Commits, and an error that wraps ErrFailed after one failed.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Leaf returns leaf n, whose bytes are the caller's: ErrNotFound beyond the size, ErrDropped when Drop gave it up, a *DamageError when it is not there
// for another reason or its checksum does not match.
func (s *Store) Leaf(n int64) (Leaf, error) {
	if n < 0 || n >= s.Size() {
		return Leaf{}, fmt.Errorf("leaf %d: %w", n, ErrNotFound)
	}
	data, err := s.read(numberKey(leafPrefix, n))
	if errors.Is(err, ErrNotFound) {
		data, err = s.read(numberKey(lastingPrefix, n))
	}
	if errors.Is(err, ErrNotFound) {
		var is bool
		if is, err = s.wasDropped(n); err == nil {
			err = &DamageError{s.dir, "it is not there"}
			if is {
				err = ErrDropped
			}
		}
	}
	if err != nil {
		return Leaf{}, fmt.Errorf("leaf %d: %w", n, err)
	}
	s.touched(len(data))
	return s.decodeLeaf(n, data)
}

func (s *Store) decodeLeaf(n int64, data []byte) (Leaf, error) {
	if len(data) < 1 {
		return Leaf{}, &DamageError{s.dir, fmt.Sprintf("leaf %d is empty", n)}
	}
	raw, err := decode(data[1:])
	if err != nil {
		return Leaf{}, &DamageError{s.dir, fmt.Sprintf("leaf %d: %v", n, err)}
	}
	return Leaf{Class(data[0]), raw}, nil
}

// Blocks returns the blocks that wait to become a leaf, oldest first.
func (s *Store) Blocks() ([][]byte, error) {
	s.mu.Lock()
	h := s.head
	s.mu.Unlock()
	var blocks [][]byte
	for n := h.nextBlock - h.blocks; n < h.nextBlock; n++ {
		data, err := s.read(numberKey(blockPrefix, n))
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", n, err)
		}
		blocks = append(blocks, data)
	}
	return blocks, nil
}

// Get returns the state record of that name, or ErrNotFound.
func (s *Store) Get(name string) ([]byte, error) {
	data, err := s.read(stateKey(name))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("state %q: %w", name, err)
	}
	return data, err
}

// Root is the RFC 6962 root of the first n leaves, 0 < n <= Size().
func (s *Store) Root(n int64) (tlog.Hash, error) {
	if n <= 0 || n > s.Size() {
		return tlog.Hash{}, fmt.Errorf("cannot give the root of %d leaves: %w", n, ErrNotFound)
	}
	return tlog.TreeHash(n, s)
}

// ReadHashes implements tlog.HashReader.
func (s *Store) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		h, err := s.readHash(index)
		if err != nil {
			return nil, err
		}
		out[i] = h
	}
	return out, nil
}

// readHash finds a stored hash in the record of the leaf that completed it: the hash of level l over the leaves
// n<<l to (n+1)<<l - 1 was written with the last of them, as its l-th.
func (s *Store) readHash(index int64) (h tlog.Hash, err error) {
	level, n := tlog.SplitStoredHashIndex(index)
	key := numberKey(hashPrefix, (n+1)<<level-1)
	data, err := s.read(key)
	switch {
	case errors.Is(err, ErrNotFound):
		return h, &DamageError{s.dir, fmt.Sprintf("record %s is not there", keyName(key))}
	case err != nil:
		return h, err
	case len(data) < (level+1)*tlog.HashSize:
		return h, &DamageError{s.dir, fmt.Sprintf("record %s is too short", keyName(key))}
	}
	copy(h[:], data[level*tlog.HashSize:])
	return h, nil
}
