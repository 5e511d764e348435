package buffer

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// The pages of a write that power cuts off reach the disk in any order: of the values, and of the log, of a Commit that
// never returned, only what is behind the first sector may be there. That is no damage.
func TestTornCommitIsNoDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	for _, c := range []struct {
		name  string
		first int    // leaves of the Commit before; none: the log's header is torn, too
		torn  string // what of the Commit is only there from its second sector on
		whole string // what is there, since it was synced before
		bytes int    // of a leaf: large ones are values of their own
	}{
		{name: "values", first: 3, torn: "*.vlog", bytes: 1500},
		{name: "log", first: 3, torn: "*.mem", whole: "*.vlog", bytes: 300},
		{name: "new log of values", torn: "*.vlog", bytes: 1500},
		{name: "new log", torn: "*.mem", whole: "*.vlog", bytes: 300},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, cut := t.TempDir(), filepath.Join(t.TempDir(), "cut")
			s, err := Open(writerOptions(dir))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			commit := func(leaves int) {
				t.Helper()
				err := s.Commit(func(tx *Tx) error {
					tx.direct = true
					for range leaves {
						if _, err := tx.Append('d', random(c.bytes)); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if c.first > 0 {
				commit(c.first)
			}
			if err := os.CopyFS(cut, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			commit(40)
			for _, pattern := range []string{c.torn, c.whole} {
				files, err := filepath.Glob(filepath.Join(dir, badgerDir, pattern))
				if err != nil || pattern != "" && len(files) != 1 {
					t.Fatalf("%s: %v, %v", pattern, files, err)
				}
				if pattern == "" {
					continue
				}
				after, err := os.ReadFile(files[0])
				if err != nil {
					t.Fatal(err)
				}
				before, err := os.ReadFile(filepath.Join(cut, badgerDir, filepath.Base(files[0])))
				if err != nil {
					t.Fatal(err)
				}
				if pattern == c.torn {
					at := 0
					for c.first > 0 && before[at] == after[at] {
						at++
					}
					from, to := at/512*512, (at/512+1)*512
					if c.first > 0 {
						copy(after[from:to], before[from:to])
					} else {
						clear(after[from:to])
					}
					if bytes.Equal(before, after) {
						t.Fatal("the Commit has one sector only")
					}
				}
				if err := os.WriteFile(filepath.Join(cut, badgerDir, filepath.Base(files[0])), after, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			v, err := Examine(writerOptions(cut))
			if err != nil || len(v.Damage) > 0 {
				t.Errorf("examined: %v, %v", v.Damage, err)
			}
			again, err := Open(writerOptions(cut))
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if again.Size() != int64(c.first) {
				t.Fatalf("%d leaves, want %d", again.Size(), c.first)
			}
		})
	}
}
