package main

import (
	"fmt"
	"math"
	"time"

	"hubagent/config"
)

// flashCost is what a config's readings cost its disk, and what a power cut costs them.
type flashCost struct {
	AtRiskSeconds float64 `json:"at_risk_s"`       // of readings, lost with the power at most
	Readings      float64 `json:"readings_a_day"`  // polls that fail included
	Bytes         float64 `json:"bytes_a_day"`     // written by the agent, without the file system's own records
	Endurance     float64 `json:"endurance_bytes"` // of the card: as configured, or 10 TB as an example
	Years         float64 `json:"card_years"`      // that Endurance lasts
}

// What was measured, see deploy/docs/journal.md: a Commit of a sync interval is written in whole pages; a leaf as well when
// it is small, and else as it is. Compressed, a row takes rowBytes and each of its readings readingBytes; where a Commit
// takes several pages, those after the first one of a leaf take only a share of that, likeFirst.
const (
	pageBytes    = 4096
	directBytes  = 16 << 10
	rowBytes     = 3.6
	readingBytes = 3.7
	likeFirst    = 0.75

	exampleEndurance = 10 * config.TB
)

// flashOf reckons the cost of a config. It is a little too much where polls come in bursts: then there are fewer Commits.
func flashOf(cfg *config.Config) flashCost {
	const day = 24 * time.Hour
	rows, readings := 0.0, 0.0
	for _, bus := range cfg.Buses {
		for _, d := range bus.Devices {
			rows += float64(day) / float64(d.Interval)
			for _, p := range d.Model.Points {
				readings += float64(day) / float64(max(d.Interval, p.Interval))
			}
		}
	}
	sync, leaf := cfg.Journal.SyncInterval, cfg.Journal.LeafInterval
	f := flashCost{AtRiskSeconds: sync.Seconds(), Readings: readings, Endurance: float64(cfg.Journal.CardEndurance)}
	if f.Endurance == 0 {
		f.Endurance = float64(exampleEndurance)
	}
	if rows == 0 {
		return f
	}
	payload := rows*rowBytes + readings*readingBytes
	pages := func(bytes float64) float64 { return math.Ceil(bytes/pageBytes) * pageBytes }
	commits := min(float64(day)/float64(sync), rows)
	leaves := min(float64(day)/float64(leaf), rows)
	each := payload / leaves
	if each < directBytes {
		each = pages(each)
	}
	frame := payload / commits
	f.Bytes = commits*pages(frame) + leaves*each
	if frame > pageBytes && each >= directBytes {
		f.Bytes = leaves*pages(frame) + (commits-leaves)*pages(likeFirst*frame) + leaves*each
	}
	f.Years = f.Endurance / f.Bytes / 365.25
	return f
}

// words says it as check prints it.
func (f flashCost) words() (journal, card string) {
	journal = fmt.Sprintf("a power cut loses at most the last %g s of readings (sync_interval)", f.AtRiskSeconds)
	if f.Bytes == 0 {
		return journal, ""
	}
	years := fmt.Sprintf("%.0f years", f.Years)
	if f.Years < 10 {
		years = fmt.Sprintf("%.1f years", f.Years)
	}
	return journal, fmt.Sprintf("about %.0f MB are written a day; a card that is good for %v lasts %s of that",
		f.Bytes/1e6, config.Bytes(f.Endurance), years)
}
