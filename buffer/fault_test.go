package buffer

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// clone copies what the checks change.
func (l *ledger) clone() *ledger {
	c := *l
	c.hashes, c.tree.full = slices.Clone(l.hashes), slices.Clone(l.tree.full)
	return &c
}

// Everything that changes the disk fails once, in both forms: before anything happened, and after all of it had. What was
// acknowledged is there after a crash in that moment, and when the writer goes on, opening the journal again where a
// Commit said so.
func TestFaults(t *testing.T) {
	const seed, lines = 11, 1200
	counts := map[string]int{}
	write := func(dir string, l *ledger, step step, more func(line int) bool) error {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		opts := writerOptions(dir)
		opts.step = step
		line, bad := 0, error(nil)
		w := &writer{opts: opts, seed: seed}
		w.said = func(format string, a ...any) {
			if err := l.take(fmt.Sprintf(format, a...)); err != nil && bad == nil {
				bad = err
			}
			if line++; !more(line) {
				stop()
			}
		}
		w.refused = func(err error) error {
			if strings.Contains(err.Error(), errDisk.Error()) {
				return nil
			}
			return err
		}
		if err := w.run(ctx); err != nil {
			return err
		}
		return bad
	}
	err := write(filepath.Join(t.TempDir(), "j"), &ledger{}, func(name string, do func() error) error {
		counts[name]++
		return do()
	}, func(line int) bool { return line < lines })
	if err != nil {
		t.Fatal(err)
	}
	t.Log(counts)
	r := rand.New(rand.NewPCG(seed, 2))
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		for _, persisted := range []bool{false, true} {
			for _, at := range slices.Compact([]int{1, 1 + r.IntN((counts[name]+1)/2)}) {
				t.Run(fmt.Sprintf("%s %d, persisted=%v", name, at, persisted), func(t *testing.T) {
					t.Parallel()
					dir, copied := filepath.Join(t.TempDir(), "j"), filepath.Join(t.TempDir(), "crashed")
					l, seen, left := &ledger{}, 0, 40
					var then *ledger
					step := func(step string, do func() error) error {
						if step == name {
							seen++
						}
						if step != name || seen < at || then != nil {
							return do()
						}
						if persisted {
							if err := do(); err != nil {
								return err // such as that there is nothing to collect: the next one fails
							}
						}
						then = l.clone()
						copyJournal(t, dir, copied)
						return errDisk
					}
					more := func(line int) bool {
						if then != nil {
							left--
						}
						return left > 0 && line < 4*lines
					}
					err := write(dir, l, step, more)
					if err != nil && strings.Contains(err.Error(), errDisk.Error()) && l.doing == "open" {
						err = write(dir, l, nil, more)
					}
					if err != nil {
						t.Fatal(err)
					}
					if then == nil {
						t.Fatal("it was never done")
					}
					for dir, l := range map[string]*ledger{copied: then, dir: l} {
						s, err := Open(writerOptions(dir))
						if err != nil {
							t.Fatal(err)
						}
						defer s.Close()
						if err := l.check(s); err != nil {
							t.Error(err)
						}
						if err := l.checkHashes(s); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
	}
}
