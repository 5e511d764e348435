package buffer

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk mounts a file system of its own, which takes root.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill takes all space of a file system, to the last page.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); len(chunk) >= 4096; {
		if _, err := f.Write(chunk); errors.Is(err, unix.ENOSPC) {
			chunk = chunk[:len(chunk)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// Somebody else fills the disk to the last byte, at any moment, and frees it again. Small Commits go on as long as the
// redo log has room; then they are refused without harm, and so are large ones. A store opens on the full disk, can give
// up leaves there, and has everything that was acknowledged.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, "160m")
	dir, filler := filepath.Join(disk, "journal"), filepath.Join(disk, "filler")
	s := open(t, dir)
	r := rand.New(rand.NewPCG(4, 4))
	n, refused := int64(0), 0
	commit := func() {
		t.Helper()
		err := s.Commit(func(tx *Tx) error {
			tx.direct = n%5 == 0
			_, err := tx.Append('d', testLeaf(n))
			return err
		})
		switch {
		case err == nil:
			n++
		case errors.Is(err, ErrFailed):
			t.Fatal(err)
		default:
			refused++
		}
	}
	for range 50 {
		for range r.IntN(40) {
			commit()
		}
		fill(t, filler)
		for range r.IntN(40) {
			commit()
		}
		if r.IntN(2) == 0 {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			s = open(t, dir)
			checkLeaves(t, s, n)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		commit()
		checkLeaves(t, s, n)
		if err := s.makeBallast(); err != nil { // as Maintain does in time
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("the disk was never full")
	}
	t.Logf("%d leaves, %d Commits refused", n, refused)

	fill(t, filler)
	if err := s.Drop(Range{0, n / 2}, false, nil); err != nil {
		t.Errorf("nothing can be given up on a full disk: %v", err)
	}
	checkLeavesFrom(t, s, n/2, n)
}
