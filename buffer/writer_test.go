package buffer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// The test binary is also the process whose journal is cut off in its work, by a signal or with the machine's power:
//
//	HUB_JOURNAL_WRITER=DIR buffer.test        writes until it is ended, and says on its output what it did
//	HUB_JOURNAL_CHECK=DIR  buffer.test <SAID  checks the journal against what writers said: exit code 0, or 1 and why
//
// With HUB_JOURNAL_SAID=DEVICE a writer says it on a disk instead, from byte HUB_JOURNAL_SAID_AT on; see sectors.
//
// A writer says, a line each:
//
//	open, gc, close, drop N, drop N lasting   it begins to do that; N: leaves below it may go, of lasting classes or others
//	opened, gced, closed, dropped             that is done
//	refused WHY                               or not; only with HUB_JOURNAL_STEPS=N, which makes a writer go on over what
//	                                          the journal refuses, and end after N lines
//	N HASH                                    leaf N is committed, and this is its record hash; also the last one that it
//	                                          found when it opened the journal
//
// Each leaf holds random bytes: a number that is used twice shows by its hash.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HUB_JOURNAL_WRITER"); dir != "" {
		os.Exit(writeProcess(dir))
	}
	if dir := os.Getenv("HUB_JOURNAL_SITE"); dir != "" {
		size, err := strconv.ParseInt(os.Getenv("HUB_JOURNAL_SIZE"), 10, 64)
		if err == nil {
			err = siteOn(dir, size)
		}
		fmt.Println(err)
		os.Exit(1)
	}
	if dir := os.Getenv("HUB_JOURNAL_CHECK"); dir != "" {
		size, err := checkSaid(dir, os.Stdin)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("good:", size, "leaves")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func writeProcess(dir string) (code int) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	w := &writer{opts: writerOptions(dir), seed: rand.Uint64()}
	most, lines := 0, 0
	if text := os.Getenv("HUB_JOURNAL_STEPS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			fmt.Println(err)
			return 2
		}
		most = n
		w.refused = func(err error) error {
			if errors.Is(err, ErrFailed) {
				return err
			}
			return nil
		}
	}
	out, err := saidTo()
	if err != nil {
		fmt.Println(err)
		return 2
	}
	w.said = func(format string, a ...any) {
		fmt.Fprintf(out, format+"\n", a...)
		if lines++; lines == most {
			stop()
		}
	}
	if err := w.run(ctx); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// writerOptions are a writer's and its checker's.
func writerOptions(dir string) Options {
	return Options{Dir: dir, Key: bytes.Repeat([]byte{3}, 32), Lasting: []Class{'e'}}
}

// writerClass is the class of a writer's leaf.
func writerClass(n int64) Class {
	if n%10 == 3 {
		return 'e'
	}
	return 'd'
}

// writerLeaf is small, as events and blocks are, or now and then so large that its Commit goes to Badger at once.
func writerLeaf(r *rand.Rand, n int64) []byte {
	size := r.IntN(2000)
	if r.IntN(12) == 0 {
		size = directBytes + r.IntN(64<<10)
	}
	random := make([]byte, size)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	return fmt.Appendf(nil, "%d %x %s", n, r.Uint64(), random)
}

// What a writer keeps of its newest leaves; lasting ones ten times as long.
const writerKeeps = 200

// writer appends, drops, gives space back, closes and opens, at random, until its context ends.
type writer struct {
	opts    Options
	seed    uint64
	said    func(format string, a ...any) // told of each step
	refused func(error) error             // of what failed: nil to go on; nil function: never
	s       *Store
}

func (w *writer) open() (err error) {
	w.said("open")
	if w.s, err = Open(w.opts); err != nil {
		return err
	}
	w.said("opened")
	n := w.s.Size() - 1
	if n < 0 {
		return nil
	}
	leaf, err := w.s.Leaf(n)
	if errors.Is(err, ErrDropped) {
		return nil
	}
	if err == nil {
		w.said("%d %v", n, tlog.RecordHash(leaf.Data))
	}
	return err
}

func (w *writer) close() error {
	w.said("close")
	if err := w.s.Close(); err != nil {
		return err
	}
	w.said("closed")
	return nil
}

// goOn says whether to go on after an error, with the journal opened again where that is called for.
func (w *writer) goOn(err error) error {
	if err == nil || w.refused == nil {
		return err
	}
	if err := w.refused(err); err != nil {
		return err
	}
	w.said("refused %q", err)
	if w.s.Err() == nil {
		return nil
	}
	if err := w.s.Commit(func(tx *Tx) error { tx.Set("last", nil); return nil }); !errors.Is(err, ErrFailed) {
		return fmt.Errorf("a Commit after a failed write: %v", err)
	}
	if err := w.close(); err != nil {
		return err
	}
	return w.open()
}

func (w *writer) run(ctx context.Context) error {
	r := rand.New(rand.NewPCG(w.seed, 1))
	if err := w.open(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		var n int64
		var hash tlog.Hash
		leaf := func(tx *Tx) error { // with blocks and state beside it, as a recorder has them
			n = tx.Next()
			data := writerLeaf(r, n)
			hash = tlog.RecordHash(data)
			switch n % 3 {
			case 1:
				if err := tx.Hold(hash[:]); err != nil {
					return err
				}
			case 2:
				tx.Release()
			}
			tx.Set("last", hash[:])
			_, err := tx.Append(writerClass(n), data)
			return err
		}
		var err error
		step := r.IntN(600)
		switch end, lasting := w.s.Size()-writerKeeps, w.s.Size()-10*writerKeeps; {
		case step < 4 && end > 0:
			w.said("drop %d", end)
			if err = w.s.Drop(Range{0, end}, false, leaf); err == nil {
				w.said("dropped")
			}
		case step < 5 && lasting > 0:
			w.said("drop %d lasting", lasting)
			if err = w.s.Drop(Range{0, lasting}, true, leaf); err == nil {
				w.said("dropped")
			}
		case step < 9:
			n = -1
			w.said("gc")
			if err = w.s.maintain(); err == nil {
				w.said("gced")
			}
		case step < 11:
			n = -1
			if err = w.goOn(w.close()); err == nil {
				err = w.open()
			}
			if err != nil {
				return err
			}
		default:
			err = w.s.Commit(leaf)
		}
		if err == nil && n >= 0 {
			w.said("%d %v", n, hash)
		}
		if err := w.goOn(err); err != nil {
			return errors.Join(err, w.s.Close())
		}
	}
	return w.goOn(w.close())
}

// ledger is what writers said of one journal, and what was found in it.
type ledger struct {
	hashes    []tlog.Hash // record hash of each leaf
	mayBeGone [2]int64    // leaves below may have been dropped: the others, and lasting ones
	gone      [2]int64    // these were
	doing     string      // what was begun and is not done
	dropping  int
	tree      frontier // of hashes
}

// take notes a line.
func (l *ledger) take(line string) error {
	words := strings.Fields(line)
	switch {
	case len(words) == 1 && slices.Contains([]string{"open", "gc", "close"}, line):
		l.doing = line
		return nil
	case len(words) == 1 && slices.Contains([]string{"opened", "gced", "closed", "dropped"}, line):
		if line == "dropped" {
			l.gone[l.dropping] = l.mayBeGone[l.dropping]
		}
		l.doing = ""
		return nil
	case len(words) >= 2 && words[0] == "refused":
		l.doing = ""
		return nil
	case len(words) >= 2 && words[0] == "drop":
		end, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return fmt.Errorf("writer says %q", line)
		}
		l.doing, l.dropping = "drop", len(words)-2
		l.mayBeGone[l.dropping] = max(end, l.mayBeGone[l.dropping])
		return nil
	case len(words) != 2:
		return fmt.Errorf("writer says %q", line)
	}
	n, err := strconv.ParseInt(words[0], 10, 64)
	hash, bad := tlog.ParseHash(words[1])
	if err = errors.Join(err, bad); err != nil {
		return fmt.Errorf("writer says %q: %w", line, err)
	}
	switch size := int64(len(l.hashes)); {
	case n < size && l.hashes[n] == hash:
		return nil
	case n < size:
		return fmt.Errorf("number %d was used twice", n)
	case n > size:
		return fmt.Errorf("number %d after %d", n, size-1)
	}
	l.add(hash)
	return nil
}

func (l *ledger) add(hash tlog.Hash) {
	l.hashes = append(l.hashes, hash)
	l.tree.add(hash)
}

// check compares a journal with the ledger: every leaf that is not dropped, state, blocks and root; at most one leaf more,
// which the ledger takes up.
func (l *ledger) check(s *Store) error {
	acknowledged := int64(len(l.hashes))
	size := s.Size()
	if size != acknowledged && size != acknowledged+1 {
		return fmt.Errorf("%d leaves were acknowledged, %d are there", acknowledged, size)
	}
	for n := min(l.gone[0], l.gone[1]); n < size; n++ {
		kind := 0
		if writerClass(n) == 'e' {
			kind = 1
		}
		leaf, err := s.Leaf(n)
		if errors.Is(err, ErrDropped) && n < l.mayBeGone[kind] {
			if n < acknowledged {
				continue
			}
			return fmt.Errorf("leaf %d is dropped and was not acknowledged", n)
		}
		if err != nil {
			return err
		}
		hash := tlog.RecordHash(leaf.Data)
		switch {
		case n < l.gone[kind]:
			return fmt.Errorf("leaf %d was dropped and is back", n)
		case leaf.Class != writerClass(n) || !bytes.HasPrefix(leaf.Data, fmt.Appendf(nil, "%d ", n)):
			return fmt.Errorf("leaf %d is not one of a writer", n)
		case n == acknowledged:
			l.add(hash)
		case l.hashes[n] != hash:
			return fmt.Errorf("leaf %d has other bytes than were acknowledged", n)
		}
	}
	if size == 0 {
		return nil
	}
	if root, err := s.Root(size); err != nil || root != l.tree.root() {
		return fmt.Errorf("the root of %d leaves is %v (%v), and should be %v", size, root, err, l.tree.root())
	}
	hash := l.hashes[size-1]
	if last, err := s.Get("last"); err != nil || !bytes.Equal(last, hash[:]) {
		return fmt.Errorf("state is not that of leaf %d (%v)", size-1, err)
	}
	blocks, err := s.Blocks()
	var want []byte
	if (size-1)%3 == 1 {
		want = hash[:]
	}
	if err != nil || !bytes.Equal(bytes.Join(blocks, nil), want) {
		return fmt.Errorf("after leaf %d the blocks are %x (%v)", size-1, blocks, err)
	}
	return nil
}

// checkHashes compares every Merkle hash in the journal, those of dropped leaves too, with what the ledger gives. It reads
// each record once.
func (l *ledger) checkHashes(s *Store) error {
	var tree frontier
	for n, hash := range l.hashes {
		made := tree.add(hash)
		for level, h := range made {
			stored, err := s.readHash(tlog.StoredHashIndex(level, int64(n)>>level))
			if err != nil {
				return err
			}
			if stored != h {
				return fmt.Errorf("hash %d of leaf %d is %v, and should be %v", level, n, stored, h)
			}
		}
	}
	return nil
}

// frontier is the right edge of a Merkle tree: the roots of its full subtrees, largest first. Adding a leaf costs one or
// two hashes.
type frontier struct {
	leaves int64
	full   []tlog.Hash
}

// add returns the hashes that the leaf completes, level 0 first. They are valid until the next call.
func (f *frontier) add(hash tlog.Hash) (made []tlog.Hash) {
	made = append(made, hash)
	for n := f.leaves; n&1 == 1; n >>= 1 {
		left := f.full[len(f.full)-1]
		f.full = f.full[:len(f.full)-1]
		hash = tlog.NodeHash(left, hash)
		made = append(made, hash)
	}
	f.full = append(f.full, hash)
	f.leaves++
	return made
}

func (f *frontier) root() tlog.Hash {
	root := f.full[len(f.full)-1]
	for i := len(f.full) - 2; i >= 0; i-- {
		root = tlog.NodeHash(f.full[i], root)
	}
	return root
}

// checkSaid opens a journal and checks it against what writers said, from the first on. A last line
// without its end is left out.
func checkSaid(dir string, said io.Reader) (size int64, err error) {
	l := &ledger{}
	in := bufio.NewReader(said)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
		if err := l.take(strings.TrimSpace(line)); err != nil {
			return 0, err
		}
	}
	s, err := Open(writerOptions(dir))
	if err != nil {
		return 0, err
	}
	defer s.Close()
	return s.Size(), errors.Join(l.check(s), l.checkHashes(s))
}

// The check itself can fail: on a number that is used again, on a leaf that is missing, on another one's bytes.
func TestWriterIsChecked(t *testing.T) {
	dir := t.TempDir()
	var said []string
	ctx, stop := context.WithCancel(t.Context())
	w := &writer{opts: writerOptions(dir), seed: 5, said: func(format string, a ...any) {
		said = append(said, fmt.Sprintf(format, a...))
		if len(said) > 1500 {
			stop()
		}
	}}
	if err := w.run(ctx); err != nil {
		t.Fatal(err)
	}
	check := func(said []string) (int64, error) {
		return checkSaid(dir, strings.NewReader(strings.Join(said, "\n")+"\n"))
	}
	size, err := check(said)
	if err != nil {
		t.Fatal(err)
	}
	hash := func(n int) string {
		for _, line := range said {
			if text, ok := strings.CutPrefix(line, fmt.Sprint(n, " ")); ok {
				return text
			}
		}
		t.Fatalf("leaf %d was not written", n)
		return ""
	}
	last := len(said) - 1
	for !strings.HasPrefix(said[last], fmt.Sprint(1300, " ")) { // one that was not dropped
		last--
	}
	with := func(line string) []string { return slices.Insert(slices.Clone(said), last+1, line) }
	for name, c := range map[string]struct {
		said []string
		want string
	}{
		"used again":    {with("700 " + hash(701)), "number 700 was used twice"},
		"number ahead":  {with("1400 " + hash(701)), "number 1400 after 1300"},
		"other bytes":   {slices.Replace(slices.Clone(said), last, last+1, "1300 "+hash(701)), "leaf 1300 has other bytes"},
		"lost":          {append(slices.Clone(said), fmt.Sprint(size, " ", hash(701))), "leaves were acknowledged"},
		"never dropped": {slices.DeleteFunc(slices.Clone(said), func(line string) bool { return strings.HasPrefix(line, "drop") }), "given up"},
	} {
		if _, err := check(c.said); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
