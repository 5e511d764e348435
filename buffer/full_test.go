package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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
	fillBut(t, path, 0)
}

// fillBut takes all space of a file system but for so many bytes.
func fillBut(t *testing.T, path string, left int64) {
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
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		err = f.Truncate(max(size-left, 0))
	}
	if err != nil {
		t.Fatal(err)
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

// A disk on which any number of pages is free: at each of them a writer opens a journal, new or left by SIGKILL, appends,
// drops, gives space back, closes and opens. It is refused or it succeeds; it never dies of it, and what was acknowledged
// is there. HUB_FULL_STEPS asks for more than a plain run's number of pages to try.
func TestFullAtEveryStep(t *testing.T) {
	steps := 20
	if text := os.Getenv("HUB_FULL_STEPS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		steps = n
	}
	disk := smallDisk(t, "160m")
	dir, filler := filepath.Join(disk, "journal"), filepath.Join(disk, "filler")
	r := rand.New(rand.NewPCG(8, 8))
	said := []byte{}
	write := func(lines int, kill bool) string {
		t.Helper()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "HUB_JOURNAL_WRITER="+dir, fmt.Sprint("HUB_JOURNAL_STEPS=", lines))
		out := bytes.Buffer{}
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Start()
		if err != nil {
			t.Fatal(err)
		}
		if kill {
			timer := time.AfterFunc(time.Duration(r.IntN(400))*time.Millisecond, func() { cmd.Process.Kill() })
			defer timer.Stop()
		}
		err = cmd.Wait()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); kill && ok && status.Signal() == syscall.SIGKILL {
			for line := range bytes.Lines(out.Bytes()) { // but for a last one that was cut off, or says why it gave up
				if bytes.HasSuffix(line, []byte("\n")) && !bytes.HasPrefix(line, []byte("cannot ")) {
					said = append(said, line...)
				}
			}
			return "was killed"
		}
		if err == nil {
			said = append(said, out.Bytes()...)
			return "went on"
		}
		// The last line says why it gave up; the ones before are what it did.
		lastLine := bytes.LastIndexByte(bytes.TrimSpace(out.Bytes()), '\n') + 1
		why := out.String()[lastLine:]
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(why, "are free on its disk") && !strings.Contains(why, "no space left") {
			t.Fatalf("the writer ended with code %d: %s", code, out.String())
		}
		said = append(said, out.Bytes()[:lastLine]...)
		return "gave up"
	}
	outcomes := map[string]int{}
	for step := range steps {
		if step%10 == 0 { // a new journal
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			said = said[:0]
		}
		left := int64(r.IntN(reserveBytes+1<<20)) >> r.IntN(12) // little as often as much
		left -= left % 4096
		fillBut(t, filler, left)
		outcome := write(300, r.IntN(3) == 0)
		outcomes[outcome]++
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), "journal")
		copyJournal(t, dir, copied)
		if _, err := checkSaid(copied, bytes.NewReader(said)); err != nil {
			t.Fatalf("with %d bytes free, the writer %s: %v", left, outcome, err)
		}
		os.RemoveAll(copied)
		if r.IntN(2) == 0 {
			write(200, r.IntN(2) == 0)
		}
	}
	t.Log(outcomes)
	if len(outcomes) < 2 {
		t.Error("the disk was never full, or always")
	}
}
