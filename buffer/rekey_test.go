package buffer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

var oldKey, newKey = bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)

// encrypted makes a journal with leaves in Badger and in the redo log, as a crash leaves it, under oldKey.
func encrypted(t *testing.T) (dir string, leaves int64) {
	t.Helper()
	s, err := Open(Options{Dir: t.TempDir(), Key: oldKey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for n := range int64(6) {
		if n < 3 {
			largeLeaf(t, s, testLeaf(n))
		} else {
			appendLeaf(t, s, testLeaf(n))
		}
	}
	dir = crashed(t, s)
	// A second copy of the key registry, as Open may keep one.
	raw, err := os.ReadFile(filepath.Join(dir, "badger", badger.KeyRegistryFileName))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, badger.KeyRegistryFileName), raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, 6
}

// contents is a hash of every file of a folder.
func contents(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		h.Write([]byte(path))
		h.Write(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(h.Sum(nil))
}

// checkKeyed opens the journal with the key that fits it, which must be one of the two, and returns it.
func checkKeyed(t *testing.T, dir string, leaves int64) []byte {
	t.Helper()
	var fitting []byte
	for _, key := range [][]byte{oldKey, newKey} {
		fits, err := FitsKey(dir, key)
		if err != nil {
			t.Fatal(err)
		}
		if fits && fitting != nil {
			t.Fatal("both keys fit")
		}
		if fits {
			fitting = key
			continue
		}
		before := contents(t, dir)
		if s, err := Open(Options{Dir: dir, Key: key}); err == nil || !strings.Contains(err.Error(), "another key") {
			t.Fatalf("the other key: %v %v", s, err)
		}
		if contents(t, dir) != before {
			t.Fatal("the other key changed the journal")
		}
	}
	s, err := Open(Options{Dir: dir, Key: fitting})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	checkLeaves(t, s, leaves)
	for n := leaves; n < leaves+3; n++ { // it takes more, and gives them again
		appendLeaf(t, s, testLeaf(n))
	}
	return fitting
}

func TestRekey(t *testing.T) {
	dir, leaves := encrypted(t)
	if err := Rekey(Options{Dir: dir, Key: oldKey}, newKey); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(checkKeyed(t, dir, leaves), newKey) {
		t.Fatal("the old key still fits")
	}
	if fits, err := FitsKey(dir, oldKey); fits || err != nil {
		t.Fatal(fits, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "rekey")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("temporary folder: %v", err)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, badger.KeyRegistryFileName)); err == nil {
		now, err := os.ReadFile(filepath.Join(dir, "badger", badger.KeyRegistryFileName))
		if err != nil || !bytes.Equal(raw, now) {
			t.Errorf("the registry's copy is another: %v", err)
		}
	}
	if err := Rekey(Options{Dir: dir, Key: newKey}, oldKey); err != nil { // and back
		t.Fatal(err)
	}
	checkKeyed(t, dir, leaves+3)
}

// Ended before or after any of its steps, by an error or as by a crash, the journal opens with one of the two keys, and
// the change can be made again.
func TestRekeyInterrupted(t *testing.T) {
	var steps []string
	dir, _ := encrypted(t)
	err := rekey(Options{Dir: dir, Key: oldKey}, newKey, func(step string) error {
		steps = append(steps, step)
		return nil
	})
	if err != nil || len(steps) != 10 {
		t.Fatalf("%q: %v", steps, err)
	}
	for i, step := range steps {
		changed := i >= slices.Index(steps, "after putting it in place")
		for _, form := range []string{"error", "crash"} {
			t.Run(step+"/"+form, func(t *testing.T) {
				dir, leaves := encrypted(t)
				fault := errors.New("injected")
				at := func(s string) error {
					if s == step && form == "crash" {
						panic(fault) // nothing behind it runs, but for the lock, which a crash frees, too
					}
					if s == step {
						return fault
					}
					return nil
				}
				func() {
					defer func() {
						if p := recover(); p != nil && p != any(fault) {
							panic(p)
						}
					}()
					if err := rekey(Options{Dir: dir, Key: oldKey}, newKey, at); !errors.Is(err, fault) {
						t.Errorf("got %v", err)
					}
				}()
				fitting := checkKeyed(t, dir, leaves)
				if is := bytes.Equal(fitting, newKey); is != changed {
					t.Errorf("the new key fits: %v", is)
				}
				other := newKey
				if changed {
					other = oldKey
				}
				if err := Rekey(Options{Dir: dir, Key: fitting}, other); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(checkKeyed(t, dir, leaves+3), other) {
					t.Error("the second try changed nothing")
				}
			})
		}
	}
}

func TestRekeyRefusals(t *testing.T) {
	dir, leaves := encrypted(t)
	before := contents(t, dir)
	if err := Rekey(Options{Dir: dir, Key: newKey}, oldKey); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("wrong key: %v", err)
	}
	if contents(t, dir) != before {
		t.Error("a wrong key changed the journal")
	}
	s, err := Open(Options{Dir: dir, Key: oldKey})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := Rekey(Options{Dir: dir, Key: oldKey}, newKey); !errors.Is(err, ErrInUse) {
		t.Errorf("beside a running agent: %v", err)
	}
	checkLeaves(t, s, leaves)
}

// At a clock in the first days of 1970 Badger makes no data key of its own and would write plain text.
func TestFirstDataKey(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if err := ensureDataKey(dir, oldKey); err != nil {
			t.Fatal(err)
		}
	}
	r, err := badger.OpenKeyRegistry(registryOptions(dir, oldKey))
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.DataKey(1)
	if err != nil || len(first.Data) != 32 || slices.Max(first.Data) == 0 {
		t.Fatalf("first data key: %v", err)
	}
	if _, err := r.DataKey(2); err == nil {
		t.Error("a second key was made")
	}
	if fits, err := FitsKey(t.TempDir(), newKey); !fits || err != nil {
		t.Errorf("a journal that was never written: %v %v", fits, err)
	}
}

// A journal of another format is not damaged, and says so.
func TestOtherFormat(t *testing.T) {
	for format, want := range map[byte]string{headVersion + 1: "update this hubagent", headVersion - 1: "run that version until the platform has everything"} {
		dir := t.TempDir()
		s := open(t, dir)
		largeLeaf(t, s, testLeaf(0))
		s.Close()
		s = open(t, dir)
		raw := s.head.append(nil)
		raw[0] = format
		if err := s.writeBadger([]record{{headKey, seal(headKey, raw)}}); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if err := makeRedo(filepath.Join(dir, redoName), plainStep); err != nil { // its frames speak of format 2
			t.Fatal(err)
		}
		_, err := Open(Options{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), want) || errors.As(err, new(*DamageError)) {
			t.Errorf("format %d: %v", format, err)
		}
	}
}
