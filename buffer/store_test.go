package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/mod/sumdb/tlog"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func appendLeaf(t *testing.T, s *Store, data []byte) int64 {
	t.Helper()
	var n int64
	err := s.Commit(func(tx *Tx) (err error) {
		n, err = tx.Append('d', data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// testLeaf is a leaf of its own size and content for each number.
func testLeaf(n int64) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	return fmt.Appendf(nil, `{"seq":%d,"rows":"%s"}`, n, strings.Repeat(fmt.Sprint(r.IntN(1000)), r.IntN(900)))
}

// checkLeaves compares the first n leaves and the root with what testLeaf says.
func checkLeaves(t *testing.T, s *Store, n int64) {
	t.Helper()
	if s.Size() != n {
		t.Fatalf("size %d, want %d", s.Size(), n)
	}
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = hashes[x]
		}
		return out, nil
	})
	for i := range n {
		leaf, err := s.Leaf(i)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(leaf.Data, testLeaf(i)) || leaf.Class != 'd' {
			t.Fatalf("leaf %d is not what was appended", i)
		}
		h, err := tlog.StoredHashes(i, testLeaf(i), reader)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, h...)
	}
	for _, size := range []int64{1, n / 2, n - 1, n} {
		if size <= 0 || size > n {
			continue
		}
		want, err := tlog.TreeHash(size, reader)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Root(size)
		if err != nil || got != want {
			t.Fatalf("root of %d: %v %v, want %v", size, got, err, want)
		}
	}
}

func TestLeavesSurviveReopening(t *testing.T) {
	dir := t.TempDir()
	n := int64(0)
	for range 3 {
		s := open(t, dir)
		checkLeaves(t, s, n)
		for range 40 {
			if got := appendLeaf(t, s, testLeaf(n)); got != n {
				t.Fatalf("got number %d, want %d", got, n)
			}
			n++
		}
		err := s.Commit(func(tx *Tx) error { // several in one Commit hash like one by one
			for range 5 {
				if _, err := tx.Append('d', testLeaf(n)); err != nil {
					return err
				}
				n++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		checkLeaves(t, s, n)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBlocksAndState(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	hold := func(text string) {
		t.Helper()
		err := s.Commit(func(tx *Tx) error {
			tx.Set("count", []byte(text))
			return tx.Hold([]byte(text))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(blocks ...string) {
		t.Helper()
		got, err := s.Blocks()
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprintf("%s", got) != fmt.Sprint(blocks) {
			t.Fatalf("blocks %s, want %s", got, blocks)
		}
	}
	if _, err := s.Get("count"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("state that was never set: %v", err)
	}
	hold("one")
	hold("two")
	s.Close()
	s = open(t, dir)
	want("one", "two")
	if v, err := s.Get("count"); err != nil || string(v) != "two" {
		t.Fatalf("state %q %v", v, err)
	}
	err := s.Commit(func(tx *Tx) error {
		tx.Release()
		if err := tx.Hold([]byte("three")); err != nil {
			return err
		}
		tx.Set("count", nil)
		_, err := tx.Append('d', []byte("leaf of one and two"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want("three")
	s.Close()
	s = open(t, dir)
	want("three")
	if _, err := s.Get("count"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("deleted state: %v", err)
	}
	for range MaxBlocks - 1 {
		hold("x")
	}
	if err := s.Commit(func(tx *Tx) error { return tx.Hold([]byte("too many")) }); err == nil {
		t.Fatal("held more than MaxBlocks")
	}
	if err := s.Commit(func(tx *Tx) error { tx.Release(); return nil }); err != nil {
		t.Fatal(err)
	}
	want()
}

func TestCommitFunctionFails(t *testing.T) {
	s := open(t, t.TempDir())
	no := errors.New("no")
	err := s.Commit(func(tx *Tx) error {
		if _, err := tx.Append('d', testLeaf(0)); err != nil {
			return err
		}
		return no
	})
	if err != no || s.Size() != 0 || s.Err() != nil {
		t.Fatalf("err %v, size %d, store %v", err, s.Size(), s.Err())
	}
	appendLeaf(t, s, testLeaf(0))
	checkLeaves(t, s, 1)
}

// A failed write may or may not be on the disk. Either way the store takes nothing more, and reopening finds a journal
// that is whole.
func TestFailedWrite(t *testing.T) {
	for _, persisted := range []bool{false, true} {
		t.Run(fmt.Sprintf("persisted=%v", persisted), func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			for n := range int64(7) {
				appendLeaf(t, s, testLeaf(n))
			}
			grown := s.Grown()
			s.write = func(records []record) error {
				if persisted {
					if err := s.writeBadger(records); err != nil {
						t.Fatal(err)
					}
				}
				return errors.New("input/output error")
			}
			commit := func() error {
				return s.Commit(func(tx *Tx) error {
					_, err := tx.Append('d', testLeaf(7))
					return err
				})
			}
			if err := commit(); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "input/output") {
				t.Fatalf("got %v", err)
			}
			s.write = s.writeBadger // the disk is well again, but nobody knows what it holds
			if err := commit(); !errors.Is(err, ErrFailed) {
				t.Fatalf("a second Commit went through: %v", err)
			}
			select {
			case <-grown:
				t.Fatal("a failed Commit was announced")
			default:
			}
			checkLeaves(t, s, 7)
			s.Close()
			s = open(t, dir)
			want := int64(7)
			if persisted {
				want = 8
			}
			checkLeaves(t, s, want)
			appendLeaf(t, s, testLeaf(want))
			checkLeaves(t, s, want+1)
		})
	}
}

func TestGrown(t *testing.T) {
	s := open(t, t.TempDir())
	grown := s.Grown()
	if err := s.Commit(func(tx *Tx) error { return tx.Hold([]byte("no leaf")) }); err != nil {
		t.Fatal(err)
	}
	select {
	case <-grown:
		t.Fatal("announced without a leaf")
	default:
	}
	appendLeaf(t, s, testLeaf(0))
	<-grown
}

func TestSecondOpenerIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v", err)
	}
}

func TestEncryption(t *testing.T) {
	dir := t.TempDir()
	key, secret := bytes.Repeat([]byte{7}, 32), []byte("a reading nobody should find on a stolen card")
	s, err := Open(Options{Dir: dir, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	appendLeaf(t, s, secret)
	s.Close()
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			raw, err := os.ReadFile(path)
			if err != nil || bytes.Contains(raw, secret) {
				t.Errorf("%s holds the plain text (%v)", path, err)
			}
		}
		return nil
	})
	if _, err := Open(Options{Dir: dir, Key: bytes.Repeat([]byte{8}, 32)}); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Fatalf("wrong key: %v", err)
	}
	if s, err = Open(Options{Dir: dir, Key: key}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if leaf, err := s.Leaf(0); err != nil || !bytes.Equal(leaf.Data, secret) {
		t.Fatalf("%q %v", leaf.Data, err)
	}
}

// Badger hands out damaged values without an error; the store must not.
func TestDamageIsFound(t *testing.T) {
	prepare := func(t *testing.T) (string, *Store) {
		dir := t.TempDir()
		s := open(t, dir)
		for n := range int64(9) {
			appendLeaf(t, s, testLeaf(n))
		}
		return dir, s
	}
	overwrite := func(t *testing.T, s *Store, key []byte, change func([]byte) []byte) {
		t.Helper()
		err := s.db.Update(func(txn *badger.Txn) error {
			item, err := txn.Get(key)
			if err != nil {
				return err
			}
			value, err := item.ValueCopy(nil)
			if err != nil {
				return err
			}
			if value = change(value); value == nil {
				return txn.Delete(key)
			}
			return txn.Set(key, value)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	flip := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	empty := func([]byte) []byte { return []byte{} }
	gone := func([]byte) []byte { return nil }

	for name, c := range map[string]struct {
		key    []byte
		change func([]byte) []byte
	}{
		"last leaf flipped":  {numberKey(leafPrefix, 8), flip},
		"last leaf empty":    {numberKey(leafPrefix, 8), empty},
		"leaf in the middle": {numberKey(leafPrefix, 4), gone},
		"hashes flipped":     {numberKey(hashPrefix, 7), flip},
		"hashes gone":        {numberKey(hashPrefix, 3), gone},
		"head flipped":       {headKey, flip},
		"head gone":          {headKey, gone},
	} {
		t.Run("open/"+name, func(t *testing.T) {
			dir, s := prepare(t)
			overwrite(t, s, c.key, c.change)
			s.Close()
			s, err := Open(Options{Dir: dir})
			var damage *DamageError
			if !errors.As(err, &damage) {
				if err == nil {
					s.Close()
				}
				t.Fatalf("damage was not found: %v", err)
			}
		})
	}
	t.Run("read", func(t *testing.T) {
		_, s := prepare(t)
		other, err := s.read(numberKey(leafPrefix, 2))
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func([]byte) []byte{
			"flipped": flip, "empty": empty,
			"another leaf's": func([]byte) []byte { return seal(numberKey(leafPrefix, 2), other) },
		} {
			overwrite(t, s, numberKey(leafPrefix, 3), change)
			var damage *DamageError
			if leaf, err := s.Leaf(3); !errors.As(err, &damage) {
				t.Fatalf("%s: got %q %v", name, leaf.Data, err)
			}
		}
	})
}

// Badger opens without a word when its own files are gone. The witness tells.
func TestVanishedFilesAreFound(t *testing.T) {
	for _, pattern := range []string{"MANIFEST", "*.mem", "*"} {
		dir := t.TempDir()
		s := open(t, dir)
		appendLeaf(t, s, testLeaf(0)) // the first Commit is witnessed; later ones now and then
		db := filepath.Join(dir, "badger")
		if pattern == "*.mem" { // as after a crash: the log is not flushed yet
			kept := t.TempDir()
			if err := os.CopyFS(filepath.Join(kept, "j"), os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			dir, db = filepath.Join(kept, "j"), filepath.Join(kept, "j", "badger")
		}
		s.Close()
		files, err := filepath.Glob(filepath.Join(db, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no such file (%v)", pattern, err)
		}
		for _, f := range files {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
		var damage *DamageError
		if s, err := Open(Options{Dir: dir}); !errors.As(err, &damage) {
			t.Errorf("%s gone: %v", pattern, err)
			if err == nil {
				s.Close()
			}
		} else {
			t.Log(err)
		}
	}
}

// Writing goes on however much is written: what fills Badger's tables is merged before there are so many that it stops.
// 30,000 leaves fill its table about 20 times.
func TestTablesAreMerged(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	most := 0
	for n := int64(0); n < 30_000; {
		err := s.Commit(func(tx *Tx) error {
			for range 100 {
				if _, err := tx.Append('d', testLeaf(n)); err != nil {
					return err
				}
				n++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, s.db.Levels()[0].NumTables)
	}
	if levels := s.db.Levels(); most == 0 || most > levelZeroTables+1 || levels[len(levels)-1].NumTables == 0 {
		t.Errorf("at most %d tables at level 0, levels %+v", most, levels)
	}
	for _, n := range []int64{0, 1, 14_999, 29_999} {
		if leaf, err := s.Leaf(n); err != nil || !bytes.Equal(leaf.Data, testLeaf(n)) {
			t.Errorf("leaf %d: %v", n, err)
		}
	}
}

func TestUsage(t *testing.T) {
	s := open(t, t.TempDir())
	appendLeaf(t, s, testLeaf(0))
	used, free, err := s.Usage()
	if err != nil || used <= 0 || free <= 0 {
		t.Fatalf("used %d free %d err %v", used, free, err)
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1 << 10, 8 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dkB", size>>10), func(b *testing.B) {
			s, err := Open(Options{Dir: b.TempDir(), Key: bytes.Repeat([]byte{7}, 32)})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			leaf := make([]byte, size)
			r := rand.New(rand.NewPCG(1, 2))
			for i := range leaf {
				leaf[i] = "0123456789,:{}\"\"dtqm"[r.IntN(20)]
			}
			b.SetBytes(int64(size))
			for b.Loop() {
				if err := s.Commit(func(tx *Tx) error { _, err := tx.Append('d', leaf); return err }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
