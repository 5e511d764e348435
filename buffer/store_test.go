package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
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
	checkLeavesFrom(t, s, 0, n)
}

// checkLeavesFrom lets leaves below first have been dropped.
func checkLeavesFrom(t *testing.T, s *Store, first, n int64) {
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
		if err != nil && !(i < first && errors.Is(err, ErrDropped)) {
			t.Fatal(err)
		}
		if err == nil && (!bytes.Equal(leaf.Data, testLeaf(i)) || leaf.Class != 'd') {
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

// faultyFile is a redo log whose next write or sync fails. What was written since the last sync is lost with a failed
// sync, unless it persists.
type faultyFile struct {
	redoFile
	failWrite, failSync, persist bool
	torn                         bool // the first page of the failed write persists
	undo                         func()
}

var errDisk = errors.New("input/output error")

func (f *faultyFile) WriteAt(b []byte, off int64) (int, error) {
	old := pages(len(b))
	if _, err := f.redoFile.(dataFile).ReadAt(old, off); err != nil {
		return 0, err
	}
	f.undo = func() { f.redoFile.WriteAt(old, off) }
	if !f.failWrite {
		return f.redoFile.WriteAt(b, off)
	}
	switch {
	case f.persist:
		f.redoFile.WriteAt(b, off)
	case f.torn:
		f.redoFile.WriteAt(b[:redoPage], off)
	}
	return 0, errDisk
}

func (f *faultyFile) Datasync() error {
	if !f.failSync {
		return f.redoFile.Datasync()
	}
	if !f.persist {
		f.undo()
	}
	return errDisk
}

// A failed write may or may not be on the disk. Either way the store takes nothing more, and reopening finds a journal
// that is whole.
func TestFailedWrite(t *testing.T) {
	badger := func(persisted bool) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) {
			s.step = func(_ string, do func() error) error {
				if persisted {
					if err := do(); err != nil {
						t.Fatal(err)
					}
				}
				return errDisk
			}
		}
	}
	redo := func(f faultyFile) func(*testing.T, *Store) {
		return func(_ *testing.T, s *Store) {
			f.redoFile = s.redo.file
			s.redo.file = &f
		}
	}
	for name, c := range map[string]struct {
		inject    func(*testing.T, *Store)
		large     bool // the Commit goes to Badger
		persisted bool
	}{
		"badger, lost":          {badger(false), true, false},
		"badger, persisted":     {badger(true), true, true},
		"redo write, lost":      {redo(faultyFile{failWrite: true}), false, false},
		"redo write, torn":      {redo(faultyFile{failWrite: true, torn: true}), false, false},
		"redo write, persisted": {redo(faultyFile{failWrite: true, persist: true}), false, true},
		"redo sync, lost":       {redo(faultyFile{failSync: true}), false, false},
		"redo sync, persisted":  {redo(faultyFile{failSync: true, persist: true}), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			for n := range int64(7) {
				appendLeaf(t, s, testLeaf(n))
			}
			grown := s.Grown()
			c.inject(t, s)
			commit := func() error {
				return s.Commit(func(tx *Tx) error {
					if c.large {
						tx.large = directBytes
					} else {
						noise := make([]byte, 3*redoPage) // a frame of several pages can be torn
						for i := range noise {
							noise[i] = byte(rand.Int())
						}
						tx.Set("noise", noise)
					}
					_, err := tx.Append('d', testLeaf(7))
					return err
				})
			}
			if err := commit(); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "input/output") {
				t.Fatalf("got %v", err)
			}
			s.step = plainStep // the disk is well again, but nobody knows what it holds
			if f, ok := s.redo.file.(*faultyFile); ok {
				s.redo.file = f.redoFile
			}
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
			if c.persisted {
				want = 8
			}
			checkLeaves(t, s, want)
			appendLeaf(t, s, testLeaf(want))
			checkLeaves(t, s, want+1)
		})
	}
}

// crashed returns a copy of a store's folder as a crash leaves it.
func crashed(t *testing.T, s *Store) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "j")
	copyJournal(t, s.dir, dir)
	return dir
}

// copyJournal copies a journal's folder, again when a file goes away meanwhile: Badger makes tables of its logs by itself.
func copyJournal(t *testing.T, from, to string) {
	t.Helper()
	for {
		err := os.CopyFS(to, os.DirFS(from))
		if err == nil {
			return
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
	}
}

// largeLeaf is appended in a Commit that goes to Badger at once.
func largeLeaf(t *testing.T, s *Store, data []byte) {
	t.Helper()
	err := s.Commit(func(tx *Tx) error {
		tx.large = directBytes
		_, err := tx.Append('d', data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Small Commits and large ones in any order, with a crash after each: all is there, in order.
func TestRedoAndBadgerTakeTurns(t *testing.T) {
	for _, key := range [][]byte{nil, bytes.Repeat([]byte{9}, 32)} {
		s, err := Open(Options{Dir: t.TempDir(), Key: key})
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(5, uint64(len(key))))
		n, held := int64(0), 0
		for range 60 {
			switch r.IntN(4) {
			case 0:
				largeLeaf(t, s, testLeaf(n))
				n++
			case 1:
				appendLeaf(t, s, testLeaf(n))
				n++
			case 2:
				if err := s.Commit(func(tx *Tx) error { return tx.Hold([]byte("block")) }); err != nil {
					t.Fatal(err)
				}
				held++
			case 3:
				if err := s.Commit(func(tx *Tx) error { tx.Release(); tx.Set("n", []byte{byte(n)}); return nil }); err != nil {
					t.Fatal(err)
				}
				held = 0
			}
			if r.IntN(5) > 0 {
				continue
			}
			again, err := Open(Options{Dir: crashed(t, s), Key: key})
			if err != nil {
				t.Fatal(err)
			}
			checkLeaves(t, again, n)
			if blocks, err := again.Blocks(); err != nil || len(blocks) != held {
				t.Fatalf("%d blocks (%v), want %d", len(blocks), err, held)
			}
			s.Close()
			s = again
		}
		s.Close()
	}
}

// The ring goes round many times, and what it still holds is put into Badger before it is overwritten.
func TestRedoGoesRound(t *testing.T) {
	s := open(t, t.TempDir())
	noise := make([]byte, 50_000)
	for i := range noise {
		noise[i] = byte(rand.Int())
	}
	for i := range 100 {
		err := s.Commit(func(tx *Tx) error {
			tx.Set(fmt.Sprint("noise", i%7), noise[:1+rand.IntN(len(noise))])
			tx.Set("last", []byte{byte(i)})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if i%9 != 0 {
			continue
		}
		again := open(t, crashed(t, s))
		if last, err := again.Get("last"); err != nil || last[0] != byte(i) {
			t.Fatalf("after Commit %d a crash leaves %v %v", i, last, err)
		}
		again.Close()
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
		largeLeaf(t, s, testLeaf(0)) // the redo log cannot bring it back
		for n := int64(1); n < 9; n++ {
			appendLeaf(t, s, testLeaf(n))
		}
		s.Close()
		return dir, open(t, dir)
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

// Badger opens without a word when its own files are gone. The redo log tells, and Badger tells when the redo log is gone
// or a frame in it.
func TestVanishedFilesAreFound(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"manifest":  func(t *testing.T, dir string) { removeAll(t, dir, "badger/MANIFEST") },
		"memtables": func(t *testing.T, dir string) { removeAll(t, dir, "badger/*.mem") },
		"badger":    func(t *testing.T, dir string) { removeAll(t, dir, "badger/*") },
		"redo log":  func(t *testing.T, dir string) { removeAll(t, dir, redoName) },
		"redo log cut short": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, redoName), redoPage); err != nil {
				t.Fatal(err)
			}
		},
		"first frame": func(t *testing.T, dir string) {
			path := filepath.Join(dir, redoName)
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			clear(raw[100:110])
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			largeLeaf(t, s, testLeaf(0))
			appendLeaf(t, s, testLeaf(1))
			appendLeaf(t, s, testLeaf(2))
			dir := crashed(t, s)
			if name == "manifest" { // it matters once Badger has tables
				open(t, dir).Close()
			}
			damage(t, dir)
			for range 2 { // to find it changes nothing
				var found *DamageError
				again, err := Open(Options{Dir: dir})
				if err == nil {
					again.Close()
				}
				if !errors.As(err, &found) {
					t.Fatalf("got %v", err)
				}
				t.Log(err)
			}
		})
	}
}

func removeAll(t *testing.T, dir, pattern string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no such file (%v)", pattern, err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
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

// Records that Badger keeps beside their keys are bounded in one of its transactions. However many small Commits gather,
// they go there; one Commit that is too large by itself is refused, and the store goes on.
func TestSmallRecordsFitBadgersTransaction(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	small := func(n int64) []byte { // just below the value threshold, and not to be compressed
		r := rand.New(rand.NewPCG(uint64(n), 9))
		b := make([]byte, 480)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	const most = 400
	for n := range int64(most) {
		err := s.Commit(func(tx *Tx) error {
			tx.Set(fmt.Sprint("state", n), small(n))
			_, err := tx.Append('d', small(n))
			return err
		})
		if err != nil {
			t.Fatalf("leaf %d: %v", n, err)
		}
	}
	err := s.Commit(func(tx *Tx) error {
		for n := range int64(most) {
			tx.Set(fmt.Sprint("more", n), small(n))
		}
		return nil
	})
	if err == nil || errors.Is(err, ErrFailed) || s.Err() != nil {
		t.Fatalf("a Commit that no transaction holds: %v", err)
	}
	again := open(t, crashed(t, s))
	for n := range int64(most) {
		if leaf, err := again.Leaf(n); err != nil || !bytes.Equal(leaf.Data, small(n)) {
			t.Fatalf("leaf %d: %v", n, err)
		}
		if state, err := again.Get(fmt.Sprint("state", n)); err != nil || !bytes.Equal(state, small(n)) {
			t.Fatalf("state %d: %v", n, err)
		}
	}
}

// Frames of several pages are written with the first of them as a model, where that saves a page. A crash finds them all;
// where the model is gone, so is what needs it, and that is noticed.
func TestFramesWithAModel(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	noise := make([]byte, 5000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for name, key := range map[string][]byte{"plain": nil, "encrypted": testKey} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(Options{Dir: t.TempDir(), Key: key})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			largeLeaf(t, s, testLeaf(0))
			var places []int64
			for n := range 6 { // Commits 2 to 7
				if err := s.Commit(func(tx *Tx) error { return tx.Hold(append([]byte{byte(n)}, noise...)) }); err != nil {
					t.Fatal(err)
				}
				places = append(places, s.redo.pos)
			}
			if first, second := places[0], places[1]-places[0]; first != 2*redoPage || second != redoPage {
				t.Errorf("the first frame takes %d bytes, the second %d", first, second)
			}
			dir := crashed(t, s)
			again, err := Open(Options{Dir: dir, Key: key})
			if err != nil {
				t.Fatal(err)
			}
			blocks, err := again.Blocks()
			if err != nil || len(blocks) != 6 {
				t.Fatalf("%d blocks: %v", len(blocks), err)
			}
			for n, b := range blocks {
				if b[0] != byte(n) || !bytes.Equal(b[1:], noise) {
					t.Errorf("block %d is another", n)
				}
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}

			dir = crashed(t, s)
			raw, err := os.ReadFile(filepath.Join(dir, redoName))
			if err != nil {
				t.Fatal(err)
			}
			clear(raw[redoPage+100 : redoPage+200])
			if err := os.WriteFile(filepath.Join(dir, redoName), raw, 0o600); err != nil {
				t.Fatal(err)
			}
			var damage *DamageError
			if _, err := Open(Options{Dir: dir, Key: key}); !errors.As(err, &damage) {
				t.Fatalf("its model is gone: %v", err)
			}
			after, replaced, err := openOrRepair(Options{Dir: dir, Key: key})
			if err != nil {
				t.Fatal(err)
			}
			defer after.Close()
			if replaced.Continues {
				t.Errorf("a log goes on whose last Commits cannot be read: %+v", replaced)
			}
		})
	}
}
