package buffer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

var testKey = bytes.Repeat([]byte{9}, 32)

// aged makes a store as it is in the field: leaves in value logs, in tables and in the redo log, some dropped, lasting
// ones among them, state, blocks that wait; ended by a crash. It returns a copy of its folder and the leaves by number.
func aged(t *testing.T, key []byte) (dir string, leaves map[int64][]byte) {
	t.Helper()
	opts := Options{Dir: filepath.Join(t.TempDir(), "journal"), Key: key, Lasting: []Class{'e'}}
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 5))
	leaves = map[int64][]byte{}
	commit := func(class Class, size int, direct bool) {
		t.Helper()
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(r.IntN(64))
		}
		err := s.Commit(func(tx *Tx) error {
			tx.direct = direct
			n, err := tx.Append(class, data)
			leaves[n] = data
			tx.Set("last", []byte(strconv.FormatInt(n, 10)))
			tx.Set(fmt.Sprint("state", n%7), data[:min(len(data), 700)])
			if tx.head.blocks > 5 {
				tx.Release()
			}
			return errors.Join(err, tx.Hold(data[:10]))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := range 300 {
		class := Class('d')
		if n%10 == 9 {
			class = 'e'
		}
		commit(class, 100+r.IntN(8000), n%3 == 0)
		if n%60 == 59 { // each opening begins a value log
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = Open(opts); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, end := range []int64{40, 80} {
		if err := s.Drop(Range{end - 40, end}, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	for n := range int64(80) {
		if n%10 != 9 {
			delete(leaves, n)
		}
	}
	for n := range 60 {
		commit('d', 100+r.IntN(2000), n == 20)
	}
	dir = filepath.Join(t.TempDir(), "journal")
	if err := os.CopyFS(dir, os.DirFS(opts.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, leaves
}

// A Survey of a sound store finds all that the store holds.
func TestSurveyOfASoundStore(t *testing.T) {
	for name, key := range map[string][]byte{"plain": nil, "encrypted": testKey} {
		t.Run(name, func(t *testing.T) {
			dir, leaves := aged(t, key)
			opts := Options{Dir: dir, Key: key, Lasting: []Class{'e'}}
			v, err := Examine(opts)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Whole(); err != nil || v.Missing() != nil || v.Damage != nil {
				t.Fatalf("%v; missing %v, damage %q", err, v.Missing(), v.Damage)
			}
			if got := v.Leaves(); len(got) != len(leaves) {
				t.Errorf("%d leaves, want %d", len(got), len(leaves))
			}
			for n, data := range leaves {
				if leaf, err := v.Leaf(n); err != nil || !bytes.Equal(leaf.Data, data) {
					t.Fatalf("leaf %d: %v", n, err)
				}
			}
			s, err := Open(opts)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			size, root := v.Root()
			if size != s.Size() || root != s.head.root {
				t.Errorf("size %d and root %v, the store has %d and %v", size, root, s.Size(), s.head.root)
			}
			for _, name := range []string{"last", "state0", "state6"} {
				want, _ := s.Get(name)
				if got, err := v.Get(name); err != nil || !bytes.Equal(got, want) {
					t.Errorf("state %s: %v", name, err)
				}
			}
			blocks, _ := s.Blocks()
			if got := v.Blocks(); len(blocks) == 0 || !slices.EqualFunc(got, blocks, bytes.Equal) {
				t.Errorf("%d blocks, the store has %d", len(got), len(blocks))
			}
		})
	}
}

// openOrRepair opens a store as an agent does: a damaged one is repaired.
func openOrRepair(opts Options) (*Store, *Replaced, error) {
	s, err := Open(opts)
	var damage *DamageError
	if !errors.As(err, &damage) {
		return s, nil, err
	}
	r, err := Repair(opts, damage.What)
	if err != nil {
		return nil, nil, err
	}
	s, err = Open(opts)
	return s, &r, err
}

// files lists the files of a folder that Badger or the redo log keep data in.
func files(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name := d.Name(); err == nil && !d.IsDir() && name != ballastName && name != lockName && name != "LOCK" {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// used is how much of a file holds anything: a flip in the zeros behind is hardly worth a try.
func used(raw []byte) int {
	return max(1, len(bytes.TrimRight(raw, "\x00")))
}

// outcome says what a damaged store came to. No leaf may have other bytes than it was written with, nothing that was
// acknowledged may be gone without a word, and nothing of the old store may be lost when it was set aside.
func outcome(t *testing.T, opts Options, leaves map[int64][]byte, what string) (verdict string) {
	t.Helper()
	s, r, err := openOrRepair(opts)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer s.Close()
	check := func(n int64, leaf Leaf, err error, lost []Range) {
		t.Helper()
		var damage *DamageError
		switch {
		case err == nil && bytes.Equal(leaf.Data, leaves[n]):
		case err == nil:
			t.Fatalf("%s: leaf %d has other bytes", what, n)
		case errors.As(err, &damage) && within(lost, n):
			verdict = "lost and named"
		case errors.As(err, &damage):
			verdict = "found on reading, given up"
			told := false
			mended, err := s.Mend(n, func(tx *Tx) error { told = true; return nil })
			if err != nil || mended == told {
				t.Fatalf("%s: leaf %d: mended %v, told %v: %v", what, n, mended, told, err)
			}
			leaf, err := s.Leaf(n)
			if mended {
				verdict = "mended on reading"
			}
			if mended && (err != nil || !bytes.Equal(leaf.Data, leaves[n])) || !mended && !errors.Is(err, ErrDropped) {
				t.Fatalf("%s: leaf %d after Mend: %d bytes, %v", what, n, len(leaf.Data), err)
			}
		case within(lost, n):
			verdict = "lost and named"
		default:
			t.Fatalf("%s: leaf %d: %v", what, n, err)
		}
	}
	if r == nil || r.Continues {
		verdict = "harmless"
		if r != nil {
			verdict = "repaired"
			if len(r.Lost) > 5 {
				t.Logf("%s: lost %v", what, r.Lost)
			}
		}
		if s.Size() != int64(360) {
			t.Fatalf("%s: %d leaves (%v)", what, s.Size(), r)
		}
		for n := range leaves {
			leaf, err := s.Leaf(n)
			lost := []Range(nil)
			if r != nil {
				lost = r.Lost
			}
			check(n, leaf, err, lost)
		}
		root, err := tlog.TreeHash(s.Size(), s)
		if err == nil && root != s.head.root {
			t.Fatalf("%s: another root", what)
		}
		for name, want := range map[string][]byte{"last": []byte("359"), "state2": leaves[359][:min(len(leaves[359]), 700)]} {
			var damage *DamageError
			if got, err := s.Get(name); (err != nil || !bytes.Equal(got, want)) && !errors.As(err, &damage) {
				t.Fatalf("%s: state %q is %d bytes, %v", what, name, len(got), err)
			}
		}
		return verdict
	}
	if s.Size() != 0 {
		t.Fatalf("%s: a new store with %d leaves", what, s.Size())
	}
	verdict = "new epoch"
	opts.Dir = filepath.Join(filepath.Dir(opts.Dir), r.Aside)
	v, err := Examine(opts)
	if err != nil {
		t.Fatalf("%s: set aside, and cannot be examined: %v", what, err)
	}
	gone := 0
	for n := range leaves {
		leaf, err := v.Leaf(n)
		if err != nil {
			gone++
			continue
		}
		if !bytes.Equal(leaf.Data, leaves[n]) {
			t.Fatalf("%s: leaf %d of the old store has other bytes", what, n)
		}
	}
	if gone > 0 {
		verdict = "new epoch, leaves lost"
		t.Logf("%s: %d leaves lost: %s", what, gone, r.Why)
	}
	return verdict
}

// flips is how many single bits TestBitFlips turns, in an encrypted and a plain store each; HUB_FLIPS asks for more.
const flips = 30

// A single wrong bit, wherever it is, is harmless or mended: no leaf is lost, and none comes out with other bytes.
func TestBitFlips(t *testing.T) {
	runs := flips
	if text := os.Getenv("HUB_FLIPS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		runs = n
	}
	for name, key := range map[string][]byte{"plain": nil, "encrypted": testKey} {
		t.Run(name, func(t *testing.T) {
			master, leaves := aged(t, key)
			r := rand.New(rand.NewPCG(uint64(len(name)), 77))
			list := files(t, master)
			verdicts := map[string]int{}
			for range runs {
				dir := filepath.Join(t.TempDir(), "journal")
				if err := os.CopyFS(dir, os.DirFS(master)); err != nil {
					t.Fatal(err)
				}
				rel, _ := filepath.Rel(master, list[r.IntN(len(list))])
				path := filepath.Join(dir, rel)
				raw, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				bit := r.IntN(used(raw) * 8)
				raw[bit/8] ^= 1 << (bit % 8)
				if err := os.WriteFile(path, raw, 0o600); err != nil {
					t.Fatal(err)
				}
				v := outcome(t, Options{Dir: dir, Key: key, Lasting: []Class{'e'}}, leaves, fmt.Sprintf("%s, bit %d", rel, bit))
				verdicts[v]++
				if v != "harmless" && v != "repaired" && v != "mended on reading" {
					t.Errorf("%s, bit %d: %s", rel, bit, v)
				}
				os.RemoveAll(filepath.Dir(dir))
			}
			text, _ := json.Marshal(verdicts)
			t.Logf("%d flips in %d files: %s", runs, len(list), text)
		})
	}
}

// Files that are gone, cut short or hold nothing but zeros or noise.
func TestDamagedFiles(t *testing.T) {
	master, leaves := aged(t, testKey)
	r := rand.New(rand.NewPCG(3, 3))
	for _, path := range files(t, master) {
		rel, _ := filepath.Rel(master, path)
		for name, damage := range map[string]func(path string, raw []byte) error{
			"gone":      func(path string, _ []byte) error { return os.Remove(path) },
			"empty":     func(path string, _ []byte) error { return os.Truncate(path, 0) },
			"cut short": func(path string, raw []byte) error { return os.Truncate(path, int64(used(raw)/2)) },
			"noise": func(path string, raw []byte) error {
				at := r.IntN(used(raw))
				for i := range raw[at:min(at+4096, len(raw))] {
					raw[at+i] = byte(r.Uint32())
				}
				return os.WriteFile(path, raw, 0o600)
			},
			"zeros": func(path string, raw []byte) error {
				clear(raw[used(raw)/2 : min(used(raw)/2+4096, len(raw))])
				return os.WriteFile(path, raw, 0o600)
			},
		} {
			t.Run(rel+"/"+name, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "journal")
				if err := os.CopyFS(dir, os.DirFS(master)); err != nil {
					t.Fatal(err)
				}
				raw, err := os.ReadFile(filepath.Join(dir, rel))
				if err != nil {
					t.Fatal(err)
				}
				if err := damage(filepath.Join(dir, rel), raw); err != nil {
					t.Fatal(err)
				}
				t.Log(outcome(t, Options{Dir: dir, Key: testKey, Lasting: []Class{'e'}}, leaves, name))
			})
		}
	}
}

// A hole in the redo log takes what was in it, and nothing else: where it held only readings that were not part of a leaf
// yet, the log goes on and their number is told; where it held a leaf, a new epoch has to begin.
func TestHoleInTheRedoLog(t *testing.T) {
	for name, c := range map[string]struct {
		hole      int64 // number of the Commit
		continues bool
	}{"blocks": {4, true}, "leaf": {2, false}} {
		t.Run(name, func(t *testing.T) {
			s := open(t, filepath.Join(t.TempDir(), "journal"))
			largeLeaf(t, s, testLeaf(0))
			appendLeaf(t, s, testLeaf(1))
			for n := range 3 { // Commits 3 to 5
				err := s.Commit(func(tx *Tx) error { return tx.Hold([]byte{byte(n)}) })
				if err != nil {
					t.Fatal(err)
				}
			}
			dir := crashed(t, s)
			path := filepath.Join(dir, redoName)
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, frames, err := readRedo(dir, nil)
			if err != nil || len(frames) != 4 || frames[0].number != 2 {
				t.Fatalf("%d frames: %v", len(frames), err)
			}
			clear(raw[(c.hole-2)*redoPage:][:redoPage])
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			again, r, err := openOrRepair(Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if r == nil || r.Continues != c.continues {
				t.Fatalf("%+v", r)
			}
			if !c.continues {
				return
			}
			blocks, err := again.Blocks()
			if err != nil || r.Blocks != 1 || len(blocks) != 2 || blocks[0][0] != 0 || blocks[1][0] != 2 {
				t.Errorf("blocks %v, %d lost: %v", blocks, r.Blocks, err)
			}
			appendLeaf(t, again, testLeaf(2))
			checkLeaves(t, again, 3)
		})
	}
}

// A crash between the two renames of a repair is made up for.
func TestCrashInRepair(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	s := open(t, dir)
	appendLeaf(t, s, testLeaf(0))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".new"); err != nil {
		t.Fatal(err)
	}
	checkLeaves(t, open(t, dir), 1)
}

// A redo log that was emptied, or is an older copy, is told by what Badger held of it; an older manifest by the tables
// beside it, before Badger removes them. Then everything is still there but the last Commits.
func TestRolledBackFiles(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "journal"))
	largeLeaf(t, s, testLeaf(0))
	appendLeaf(t, s, testLeaf(1))
	read := func(name string) []byte {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	oldRedo, oldManifest := read(redoName), read("badger/MANIFEST")
	appendLeaf(t, s, testLeaf(2))
	if err := s.Drop(Range{0, 1}, false, nil); err != nil { // makes tables of what there is
		t.Fatal(err)
	}
	largeLeaf(t, s, testLeaf(3))
	appendLeaf(t, s, testLeaf(4))
	for name, c := range map[string]struct {
		file string
		raw  []byte
		lost int64 // leaves from here on
	}{
		"redo log of zeros":  {redoName, make([]byte, redoBytes), 4},
		"older redo log":     {redoName, oldRedo, 4},
		"redo log of noise":  {redoName, bytes.Repeat([]byte{0x5a, 0xc3}, redoBytes/2), 4},
		"older manifest":     {"badger/MANIFEST", oldManifest, 5},
		"manifest cut short": {"badger/MANIFEST", oldManifest[:len(oldManifest)-1], 5},
	} {
		t.Run(name, func(t *testing.T) {
			dir := crashed(t, s)
			if err := os.WriteFile(filepath.Join(dir, c.file), c.raw, 0o600); err != nil {
				t.Fatal(err)
			}
			var damage *DamageError
			if again, err := Open(Options{Dir: dir}); !errors.As(err, &damage) {
				if err == nil {
					again.Close()
				}
				t.Fatalf("got %v", err)
			}
			v, err := Examine(Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			for n := int64(1); n < c.lost; n++ {
				if leaf, err := v.Leaf(n); err != nil || !bytes.Equal(leaf.Data, testLeaf(n)) {
					t.Errorf("leaf %d: %v", n, err)
				}
			}
			if c.file == redoName && v.Complete() {
				t.Error("the last Commits are not missed")
			}
		})
	}
}

// One wrong bit in the header of a value log takes all that it holds from Badger, and nothing from Mend.
func TestWrongBitInAHeader(t *testing.T) {
	master, leaves := aged(t, testKey)
	for _, byteAt := range []int{7, logHeader - 1} { // number of the key; beginning of the counter
		dir := filepath.Join(t.TempDir(), "journal")
		if err := os.CopyFS(dir, os.DirFS(master)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "badger", "000003.vlog")
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		raw[byteAt] ^= 1 << 3
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		v := outcome(t, Options{Dir: dir, Key: testKey, Lasting: []Class{'e'}}, leaves, fmt.Sprint("header byte ", byteAt))
		if v != "mended on reading" && v != "repaired" {
			t.Errorf("byte %d: %s", byteAt, v)
		}
	}
}
