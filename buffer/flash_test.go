package buffer

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The site of the flash figures: 145 devices, 1,310 readings every 10 s, a leaf a minute.
const (
	siteDevices  = 145
	siteReadings = 1310
	siteInterval = 10 * time.Second
	siteLeaf     = time.Minute
)

// siteRows is what the site reads from a moment on, for a time: text like a leaf's rows.
func siteRows(r *rand.Rand, from time.Time, d time.Duration) (rows []byte, readings int) {
	polls := int(d * siteDevices / siteInterval)
	first := int(from.UnixNano() / int64(siteInterval/siteDevices))
	for i := range polls {
		device := (first + i) % siteDevices
		at := from.Add(d * time.Duration(i) / time.Duration(max(polls, 1))).UnixMilli()
		rows = fmt.Appendf(rows, `{"d":"dev-%03d","t":%d,"m":{`, device, at)
		n := siteReadings / siteDevices
		for p := range n {
			if p > 0 {
				rows = append(rows, ',')
			}
			switch p % 3 {
			case 0: // a counter that grows slowly
				rows = fmt.Appendf(rows, `"count%d":%d`, p, 100_000*device+p*1000+int(at/60_000)%1000)
			case 1: // a level that moves a little
				rows = fmt.Appendf(rows, `"level%d":%d`, p, 20+device%50+r.IntN(3))
			case 2: // a measurement with noise
				rows = fmt.Appendf(rows, `"power%d":%.2f`, p, float64(100+device)+float64(r.IntN(400))/100)
			}
			readings++
		}
		rows = append(rows, "}},"...)
	}
	return rows, readings
}

func gzipped(b []byte) int {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Len()
}

// writtenBytes is what the kernel counts this process to have written to disks, without the file system's own records.
func writtenBytes(tb testing.TB) (n int64) {
	tb.Helper()
	raw, err := os.ReadFile("/proc/self/io")
	if err != nil {
		tb.Skip(err)
	}
	for line := range bytes.Lines(raw) {
		fmt.Sscanf(string(line), "write_bytes: %d", &n)
	}
	return n
}

// siteMinute commits what the site reads in a minute, as a recorder does, and returns the leaf. pace, if any, is called
// before each Commit with the moment it is made at.
func siteMinute(s *Store, r *rand.Rand, now *time.Time, sync time.Duration, pace func(time.Time)) (leaf []byte, err error) {
	for end := now.Add(siteLeaf); now.Before(end); *now = now.Add(sync) {
		if pace != nil {
			pace(*now)
		}
		rows, _ := siteRows(r, *now, sync)
		leaf = append(leaf, rows...)
		err := s.Commit(func(tx *Tx) error {
			tx.Set("counts", fmt.Appendf(nil, `{"bytes":%d}`, len(leaf)))
			return tx.Hold(rows)
		})
		if err != nil {
			return nil, err
		}
	}
	return leaf, s.Commit(func(tx *Tx) error {
		tx.Release()
		tx.Set("counts", fmt.Appendf(nil, `{"bytes":%d}`, len(leaf)))
		_, err := tx.Append('d', leaf)
		return err
	})
}

// BenchmarkFlash says how many bytes a reading costs on flash, as the kernel counts them for the process, and how that
// compares with the reading's share of its gzipped leaf.
func BenchmarkFlash(b *testing.B) {
	for _, sync := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 10 * time.Second, 30 * time.Second} {
		b.Run("sync="+sync.String(), func(b *testing.B) {
			s, err := Open(Options{Dir: b.TempDir(), Key: bytes.Repeat([]byte{7}, 32)})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
			r := rand.New(rand.NewPCG(1, 1))
			readings, payload, before := 0, 0, writtenBytes(b)
			for b.Loop() {
				for range 10 {
					leaf, err := siteMinute(s, r, &now, sync, nil)
					if err != nil {
						b.Fatal(err)
					}
					readings += siteReadings * int(siteLeaf/siteInterval)
					payload += gzipped(leaf)
				}
			}
			written := float64(writtenBytes(b) - before)
			b.ReportMetric(written/float64(readings), "B/reading")
			b.ReportMetric(float64(payload)/float64(readings), "gzipB/reading")
			b.ReportMetric(written/float64(payload), "x-payload")
		})
	}
}

// TestFlashOfADisk runs the site at the pace of the clock, so that a file system's own records are written when they
// would be at a site. It is for a guest of scripts/journal-vm, which counts at the disk: it says when that should begin
// and end, and goes on when it is answered.
func TestFlashOfADisk(t *testing.T) {
	dir := os.Getenv("HUB_FLASH_DIR")
	if dir == "" {
		t.Skip("make flash-vm runs it")
	}
	sync, err := time.ParseDuration(os.Getenv("HUB_FLASH_SYNC"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := time.ParseDuration(os.Getenv("HUB_FLASH_FOR"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Dir: filepath.Join(dir, "journal"), Key: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	say := func(format string, a ...any) {
		unix.Sync()
		fmt.Printf(format+"\n", a...)
		if _, err := fmt.Scanln(new(string)); err != nil {
			t.Fatal(err)
		}
	}
	say("begin")
	before, begin := writtenBytes(t), time.Now()
	start := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	r, now := rand.New(rand.NewPCG(1, 1)), start
	readings, payload, late := 0, 0, time.Duration(0)
	for now.Before(start.Add(d)) {
		leaf, err := siteMinute(s, r, &now, sync, func(at time.Time) {
			wait := time.Until(begin.Add(at.Sub(start)))
			late = max(late, -wait)
			time.Sleep(wait)
		})
		if err != nil {
			t.Fatal(err)
		}
		readings += siteReadings * int(siteLeaf/siteInterval)
		payload += gzipped(leaf)
	}
	say("end %d %d %d %d", readings, payload, writtenBytes(t)-before, late.Milliseconds())
}
