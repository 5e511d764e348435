package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"hubagent/agent/card"
	"hubagent/buffer"
	"hubagent/config"
)

// measureFlash commits what a site of devices with nine points each, read every 10 s, reads in the given time, as the
// recorder does, and returns how many bytes the kernel counts to be written in a day.
func measureFlash(tb testing.TB, devices int, sync, d time.Duration) float64 {
	s, err := buffer.Open(buffer.Options{Dir: tb.TempDir(), Key: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Close()
	before, err := card.Written("/proc")
	if err != nil {
		tb.Skip(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	start := time.UnixMilli(1790842800000)
	commit := func(fn func(tx *buffer.Tx) error) {
		if err := s.Commit(fn); err != nil {
			tb.Fatal(err)
		}
	}
	row, every := 0, 10*time.Second/time.Duration(devices)
	due := func(n int) time.Duration { return time.Duration(n) * every }
	for minute := time.Duration(0); minute < d; minute += time.Minute {
		var leaf []byte
		for at := minute; at < minute+time.Minute; at += sync {
			var rows []byte
			for ; due(row) < at+sync; row++ {
				device, t := row%devices, start.Add(due(row)).UnixMilli()
				rows = fmt.Appendf(rows, `{"d":"dev-%03d","t":%d,"m":{`, device, t)
				for p := range 9 {
					switch p % 3 {
					case 0:
						rows = fmt.Appendf(rows, `"count%d":%d,`, p, 100_000*device+p*1000+int(t/60_000)%1000)
					case 1:
						rows = fmt.Appendf(rows, `"level%d":%d,`, p, 20+device%50+r.IntN(3))
					case 2:
						rows = fmt.Appendf(rows, `"power%d":%.2f,`, p, float64(100+device)+float64(r.IntN(400))/100)
					}
				}
				rows = append(rows, "}},"...)
			}
			if leaf = append(leaf, rows...); len(rows) > 0 {
				commit(func(tx *buffer.Tx) error {
					tx.Set("counts", fmt.Appendf(nil, `{"rows":%d}`, row))
					return tx.Hold(rows)
				})
			}
		}
		commit(func(tx *buffer.Tx) error {
			tx.Release()
			_, err := tx.Append('d', leaf)
			return err
		})
	}
	after, err := card.Written("/proc")
	if err != nil {
		tb.Fatal(err)
	}
	return float64(after-before) / d.Hours() * 24
}

// BenchmarkFlashOfSites compares what check says with what the kernel counts, for sites of several sizes.
func BenchmarkFlashOfSites(b *testing.B) {
	for _, devices := range []int{1, 10, 50, 145, 400} {
		for _, sync := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 10 * time.Second, 30 * time.Second} {
			b.Run(fmt.Sprintf("devices=%d/sync=%v", devices, sync), func(b *testing.B) {
				var measured float64
				for b.Loop() {
					measured = measureFlash(b, devices, sync, 2*time.Hour)
				}
				reckoned := flashOf(flashSite(devices, sync)).Bytes
				b.ReportMetric(measured/1e6, "MB/day")
				b.ReportMetric(reckoned/1e6, "reckoned-MB/day")
			})
		}
	}
}

// flashSite is the site that measureFlash plays.
func flashSite(devices int, sync time.Duration) *config.Config {
	model := &config.Profile{Points: make([]config.Point, 9)}
	bus := config.Bus{}
	for range devices {
		bus.Devices = append(bus.Devices, config.Device{Interval: 10 * time.Second, Model: model})
	}
	return &config.Config{Journal: config.Journal{SyncInterval: sync, LeafInterval: time.Minute}, Buses: []config.Bus{bus}}
}

// What check says is what was measured (BenchmarkFlashOfSites, 2 h of each site): in megabytes a day.
func TestFlashAsMeasured(t *testing.T) {
	measured := map[int][4]float64{
		1: {41.83, 41.83, 41.83, 17.94}, 10: {367.2, 187.3, 43.84, 19.42}, 50: {848.0, 211.3, 57.95, 44.53},
		145: {755.2, 224.2, 90.05, 89.31}, 400: {830.4, 299.9, 265.0, 242.8},
	}
	for devices, want := range measured {
		for i, sync := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 10 * time.Second, 30 * time.Second} {
			got := flashOf(flashSite(devices, sync)).Bytes / 1e6
			if got < 0.8*want[i] || got > 1.2*want[i] {
				t.Errorf("%d devices, sync %v: %.1f MB a day, measured %.1f", devices, sync, got, want[i])
			}
		}
	}
	if f := flashOf(flashSite(0, time.Second)); f.Bytes != 0 || f.Years != 0 {
		t.Errorf("no device: %+v", f)
	}
	slow := flashSite(1, 2*time.Second)
	slow.Buses[0].Devices[0].Interval = time.Hour
	if f := flashOf(slow); f.Bytes != 24*2*pageBytes || f.Readings != 24*9 {
		t.Errorf("a poll an hour: %+v", f)
	}
}

func TestFlashInWords(t *testing.T) {
	f := flashCost{AtRiskSeconds: 0.5, Bytes: 227.4e6, Endurance: 10e12, Years: 120.4}
	journal, card := f.words()
	if want := "a power cut loses at most the last 0.5 s of readings (sync_interval)"; journal != want {
		t.Errorf("got %q", journal)
	}
	if want := "about 227 MB are written a day; a card that is good for 10TB lasts 120 years of that"; card != want {
		t.Errorf("got %q", card)
	}
}
