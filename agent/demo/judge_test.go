package demo

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"hubagent/agent/contract"
	"hubagent/agent/receiver"
	"hubagent/agent/record"
	"hubagent/buffer"
)

// fakeFar is a far end that holds whatever a test puts there.
type fakeFar struct {
	tree   receiver.Tree
	hashes map[int64]tlog.Hash
}

func (f fakeFar) Tree(_, _ string) receiver.Tree { return f.tree }

func (f fakeFar) Hash(_, _ string, seq int64) (tlog.Hash, bool) {
	h, ok := f.hashes[seq]
	return h, ok
}

// The verdict must be able to fail: each kind of loss is named.
func TestVerdict(t *testing.T) {
	store, err := buffer.Open(buffer.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	e := record.Epoch{Gateway: "g1", Name: "e1"}
	for n := range int64(3) {
		err := store.Commit(func(tx *buffer.Tx) error {
			h := contract.Header{Gateway: "g1", Epoch: "e1", Seq: n, Kind: contract.KindData, Stamp: contract.Stamp{Clock: contract.ClockOK}}
			tx.Set("counts", fmt.Appendf(nil, `{"rows":%d,"readings":%d}`, n+1, n+1))
			_, err := tx.Append('d', contract.AppendRows(nil, h, fmt.Appendf(nil, `{"d":"bin-001","t":%d,"m":{"fill":1}}`, n)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := store.Root(3)
	if err != nil {
		t.Fatal(err)
	}
	at := func(n int64) rowKey { return rowKey{"bin-001", n} }

	for name, c := range map[string]struct {
		change  func(far *fakeFar, handed map[rowKey]int)
		missing int
		problem string
	}{
		"all is there": {func(*fakeFar, map[rowKey]int) {}, 0, ""},
		"a leaf is lost": {func(far *fakeFar, handed map[rowKey]int) {
			delete(far.hashes, 1)
			delete(handed, at(1))
		}, 1, "leaf 1 did not arrive"},
		"other bytes":     {func(far *fakeFar, _ map[rowKey]int) { far.hashes[2] = tlog.Hash{} }, 0, "leaf 2 arrived with other bytes"},
		"handed on twice": {func(_ *fakeFar, handed map[rowKey]int) { handed[at(0)] = 2 }, 1, ""},
		"out of nowhere":  {func(_ *fakeFar, handed map[rowKey]int) { handed[at(9)] = 1 }, 0, at(9).String() + " was handed on and is not in the journal"},
		"no checkpoint":   {func(far *fakeFar, _ map[rowKey]int) { far.tree.Confirmed = 2 }, 0, "the receiver recomputed the root of 2 leaves, the journal has 3"},
		"another root":    {func(far *fakeFar, _ map[rowKey]int) { far.tree.Root = tlog.Hash{1} }, 0, "the receiver recomputed the root of 3 leaves, the journal has 3"},
	} {
		far := fakeFar{receiver.Tree{Stored: contract.SeqSet{Next: 3}, Confirmed: 3, Root: root}, map[int64]tlog.Hash{}}
		handed := map[rowKey]int{}
		for n := range int64(3) {
			leaf, err := store.Leaf(n)
			if err != nil {
				t.Fatal(err)
			}
			far.hashes[n], handed[at(n)] = tlog.RecordHash(leaf.Data), 1
		}
		c.change(&far, handed)
		var s Summary
		if err := s.compare(store, e, far, handed); err != nil {
			t.Fatal(err)
		}
		if len(s.Missing) != c.missing || (c.problem == "") != (len(s.Problems) == 0) || c.problem != "" && !slices.Contains(s.Problems, c.problem) {
			t.Errorf("%s: missing %v, problems %q", name, s.Missing, s.Problems)
		}
	}

	// Counters that disagree with the leaves, and a block that never became a leaf.
	err = store.Commit(func(tx *buffer.Tx) error {
		tx.Set("counts", []byte(`{"rows":4,"readings":3}`))
		return tx.Hold([]byte("{}\n"))
	})
	if err != nil {
		t.Fatal(err)
	}
	var s Summary
	if err := s.compare(store, e, fakeFar{}, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"the journal's counters say 4 polls and 3 readings, its leaves hold 3 and 3 (<nil>)", "1 blocks of readings did not become a leaf (<nil>)",
	} {
		if !slices.Contains(s.Problems, want) {
			t.Errorf("%q is not in %q", want, s.Problems)
		}
	}
}
