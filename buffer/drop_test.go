package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

func TestPrefixesCoverARange(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 2000 {
		first := int64(r.IntN(200_000))
		want := Range{first, first + 1 + int64(r.IntN(140_000))}
		next := want.First
		for _, p := range prefixes(want, leafPrefix) {
			whole := append(bytes.Clone(p), make([]byte, 9-len(p))...)
			if keyNumber(whole) != next {
				t.Fatalf("%v: prefix %x begins at %d, want %d", want, p, keyNumber(whole), next)
			}
			next += int64(1) << (8 * (9 - len(p)))
		}
		if next != want.End {
			t.Fatalf("%v: covered up to %d", want, next)
		}
	}
}

// Dropped leaves are gone, their hashes and all others stay, also over a restart and a crash in between.
func TestDrop(t *testing.T) {
	dir := t.TempDir()
	lasting := []Class{'e'}
	s, err := Open(Options{Dir: dir, Lasting: lasting})
	if err != nil {
		t.Fatal(err)
	}
	const size = 600
	class := func(n int64) Class {
		if n%10 == 3 {
			return 'e'
		}
		return 'd'
	}
	for n := int64(0); n < size; {
		err := s.Commit(func(tx *Tx) error {
			for range 50 {
				if _, err := tx.Append(class(n), testLeaf(n)); err != nil {
					return err
				}
				n++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := s.Root(size)
	if err != nil {
		t.Fatal(err)
	}
	gone := map[int64]bool{}
	check := func(when string) {
		t.Helper()
		for n := range int64(size) {
			leaf, err := s.Leaf(n)
			if gone[n] && !errors.Is(err, ErrDropped) {
				t.Fatalf("%s: dropped leaf %d: %v", when, n, err)
			}
			if !gone[n] && (err != nil || !bytes.Equal(leaf.Data, testLeaf(n)) || leaf.Class != class(n)) {
				t.Fatalf("%s: leaf %d: %v", when, n, err)
			}
		}
		list, err := s.Gone()
		if err != nil {
			t.Fatal(err)
		}
		said := map[int64]bool{}
		for _, r := range list {
			for n := r.First; n < r.End; n++ {
				said[n] = true
			}
		}
		if !maps.Equal(said, gone) {
			t.Fatalf("%s: gone %v", when, list)
		}
		if got, err := s.Root(size); err != nil || got != root {
			t.Fatalf("%s: root %v %v", when, got, err)
		}
	}
	drop := func(r Range, last bool) {
		t.Helper()
		err := s.Drop(r, last, func(tx *Tx) error {
			tx.Set("told", fmt.Append(nil, r))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for n := r.First; n < r.End; n++ {
			if (class(n) == 'e') == last {
				gone[n] = true
			}
		}
		if told, err := s.Get("told"); err != nil || string(told) != fmt.Sprint(r) {
			t.Fatalf("state says %q (%v)", told, err)
		}
		check(fmt.Sprint("after ", r, last))
	}
	for _, r := range []Range{{-1, 4}, {5, 5}, {0, size + 1}} {
		if err := s.Drop(r, false, nil); err == nil {
			t.Fatalf("dropped %v", r)
		}
	}
	check("before")
	drop(Range{0, 10}, false)
	drop(Range{10, 300}, false) // touches the one before
	drop(Range{400, 420}, false)
	drop(Range{0, 100}, true)
	drop(Range{590, 600}, false) // the newest

	// A crash between the Commit that says so and the removal: Open finishes it.
	err = s.Commit(func(tx *Tx) error {
		tx.direct = true
		tx.put(numberKey(droppedPrefix, 450), []byte{0, 0, 0, 0, 0, 0, 1, 0xf4}) // to 500
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(450); n < 500; n++ {
		if class(n) == 'd' {
			gone[n] = true
		}
	}
	again, err := Open(Options{Dir: crashed(t, s), Lasting: lasting})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = again
	defer s.Close()
	check("after a crash")
	if s.holds(Range{450, 500}, false) {
		t.Error("Open left dropped leaves on the disk")
	}
}
