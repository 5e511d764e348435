package buffer

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// backlogBytes is the size of the backlog that is opened and drained: HUB_BACKLOG_MB, or little.
func backlogBytes(tb testing.TB) int64 {
	text := os.Getenv("HUB_BACKLOG_MB")
	if text == "" {
		return 16 << 20
	}
	mb, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		tb.Fatal(err)
	}
	return mb << 20
}

// siteOn is a site's agent without platform, but for time: it fills the journal to a size with leaves of a minute, some
// in one Commit, then goes on as a site does, says "site" after each hour, and waits for a line to go on.
func siteOn(dir string, size int64) error {
	s, err := Open(writerOptions(dir))
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, uint64(s.Size())))
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC).Add(time.Duration(s.Size()) * siteLeaf)
	hour := siteHour(r, &now) // to fill the journal with, again and again
	for {
		if used, _, err := s.Usage(); err != nil || used >= size {
			break
		}
		for i := range hour {
			err := s.Commit(func(tx *Tx) error {
				_, err := tx.Append('d', hour[i])
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	for in := bufio.NewReader(os.Stdin); ; {
		for range 60 {
			if _, err := siteMinute(s, r, &now, 2*time.Second, nil); err != nil {
				return err
			}
		}
		fmt.Println("site", s.Size())
		if _, err := in.ReadString('\n'); err != nil {
			return err
		}
	}
}

// siteHour returns the leaves of an hour.
func siteHour(r *rand.Rand, now *time.Time) (leaves [][]byte) {
	for range 60 {
		rows, _ := siteRows(r, *now, siteLeaf)
		leaves, *now = append(leaves, rows), now.Add(siteLeaf)
	}
	return leaves
}

// killedSite runs siteOn in a process of its own for an hour of the site's time, and ends that by SIGKILL.
func killedSite(tb testing.TB, dir string) {
	tb.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HUB_JOURNAL_SITE="+dir, fmt.Sprint("HUB_JOURNAL_SIZE=", backlogBytes(tb)))
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	cmd.Process.Kill()
	rest, _ := io.ReadAll(out)
	cmd.Wait()
	if err != nil || !bytes.HasPrefix([]byte(line), []byte("site ")) {
		tb.Fatalf("the site says %q %v", line+string(rest), err)
	}
}

// dropCaches makes the kernel forget what it keeps of files, which takes root.
func dropCaches(tb testing.TB) {
	tb.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		tb.Skip(err)
	}
}

// BenchmarkBacklog opens a journal of HUB_BACKLOG_MB after SIGKILL, and drains it, with and without the kernel's cache.
func BenchmarkBacklog(b *testing.B) {
	dir := os.Getenv("HUB_BACKLOG_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	for _, cold := range []bool{false, true} {
		b.Run(fmt.Sprintf("open/cold=%v", cold), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				killedSite(b, dir)
				if cold {
					dropCaches(b)
				}
				b.StartTimer()
				s, err := Open(writerOptions(dir))
				b.StopTimer()
				if err != nil {
					b.Fatal(err)
				}
				used, _, err := s.Usage()
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(used)/1e6, "MB")
				b.ReportMetric(float64(s.Size()), "leaves")
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
	for _, cold := range []bool{false, true} {
		b.Run(fmt.Sprintf("drain/cold=%v", cold), func(b *testing.B) {
			s, err := Open(writerOptions(dir))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			if cold {
				dropCaches(b)
			}
			n, leaves := int64(0), min(2000, s.Size())
			for b.Loop() {
				for range leaves {
					leaf, err := s.Leaf(n)
					if err != nil {
						b.Fatal(err)
					}
					if len(leaf.Data) == 0 {
						b.Fatal("an empty leaf")
					}
					n = (n + 1) % s.Size()
				}
			}
			readings := float64(leaves) * float64(b.N) * siteReadings * float64(siteLeaf/siteInterval)
			b.ReportMetric(readings/b.Elapsed().Seconds(), "readings/s")
		})
	}
}

// At rest, what the journal takes on the disk is at most twice its gzipped leaves, before leaves are dropped and after;
// the ballast and the redo log, which do not grow, aside. HUB_BACKLOG_MB asks for more than little.
func TestDiskBytesAtRest(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(writerOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	hour := siteHour(r, &now)
	payload := int64(0) // gzipped bytes of these leaves
	for _, leaf := range hour {
		payload += int64(gzipped(leaf))
	}
	leaves := 0
	atRest := func(leaves int) {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		used, err := DiskUsage(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{ballastName, redoName} {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(dir, name), &st); err == nil {
				used -= st.Blocks * 512
			}
		}
		zipped := float64(payload) * float64(leaves) / float64(len(hour))
		ratio := float64(used) / zipped
		t.Logf("%d leaves, %.1f MB gzipped, %.1f MB on disk: %.2f times", leaves, zipped/1e6, float64(used)/1e6, ratio)
		if ratio > 2 {
			t.Error("more than twice")
		}
		if s, err = Open(writerOptions(dir)); err != nil {
			t.Fatal(err)
		}
	}
	for ; int64(leaves/len(hour))*payload < backlogBytes(t); leaves += len(hour) {
		for _, leaf := range hour {
			if err := s.Commit(func(tx *Tx) error { _, err := tx.Append('d', leaf); return err }); err != nil {
				t.Fatal(err)
			}
		}
	}
	atRest(leaves)
	for tenth := range 5 { // of the leaves at a time, as a quota takes them
		if err := s.Drop(Range{int64(leaves * tenth / 10), int64(leaves * (tenth + 1) / 10)}, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	atRest(leaves / 2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
