// Package gpio reads contacts on GPIO lines through periph.io, and their twins in files for demo and tests.
package gpio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

// lines reads levels of a chip's lines.
type lines interface {
	// level is the electrical level of the line at offset: true is high.
	level(offset int) (bool, error)
	close() error
}

// bus reads one contact a device.
type bus struct {
	lines lines
	rest  map[int]bool // the level at which a line last came to rest
}

var _ drivers.Bus = (*bus)(nil)

// OpenSim makes a bus whose lines are files: line17 in the bus's folder holds 0 or 1.
func OpenSim(b config.Bus, _ drivers.With) (drivers.Bus, error) { return newBus(files(b.Dir)), nil }

func newBus(l lines) *bus { return &bus{lines: l, rest: map[int]bool{}} }

// Close releases the lines.
func (b *bus) Close() error { return b.lines.close() }

// settle is the time between two looks at a contact that may bounce.
const settle = 5 * time.Millisecond

// Read implements drivers.Bus. A change of level counts when the new one held for the point's debounce time: only then
// does Read take that long, so a contact at rest costs its neighbours nothing. One that still moves after ten times that
// is Missing, because it has no state.
func (b *bus) Read(ctx context.Context, d config.Device) (drivers.Sample, error) {
	s := drivers.Sample{Device: d.Name}
	var first error
	for _, p := range d.Model.Points {
		r := drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Good}
		high, err := b.stable(ctx, d.Line, p.Debounce)
		if err != nil {
			failed := &drivers.Error{Failure: drivers.Link, Device: d.Name, At: "line " + strconv.Itoa(d.Line), Detail: err.Error()}
			if errors.Is(err, errChatter) || ctx.Err() != nil {
				failed.Failure = drivers.Timeout
			}
			r.Quality, r.Why = drivers.Missing, failed.Why()
			if first == nil {
				first = failed
			}
		} else {
			r.Value = drivers.Bool(high != p.Invert)
		}
		s.Readings = append(s.Readings, r)
	}
	s.At = time.Now()
	if ctx.Err() != nil {
		return s, ctx.Err()
	}
	return s, first
}

var errChatter = errors.New("the contact does not come to rest")

// stable looks at a line until it is at the level of its last rest, or its level has held for debounce.
func (b *bus) stable(ctx context.Context, offset int, debounce time.Duration) (bool, error) {
	rest, known := b.rest[offset]
	delete(b.rest, offset)
	begin := time.Now()
	var high bool
	for since := begin; ; {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		now, err := b.lines.level(offset)
		if err != nil {
			return false, err
		}
		if now != high {
			high, since = now, time.Now()
		}
		switch {
		case known && high == rest, time.Since(since) >= debounce:
			b.rest[offset] = high
			return high, nil
		case time.Since(begin) > 10*debounce:
			return false, errChatter
		}
		select {
		case <-time.After(min(settle, debounce)):
		case <-ctx.Done():
		}
	}
}

// files is a folder of line files.
type files string

func (f files) level(offset int) (bool, error) {
	path := filepath.Join(string(f), "line"+strconv.Itoa(offset))
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("there is no %s", path)
	}
	if err != nil {
		return false, err
	}
	switch text := strings.TrimSpace(string(raw)); text {
	case "0":
		return false, nil
	case "1":
		return true, nil
	default:
		return false, fmt.Errorf("%s holds %.20q, not 0 or 1", path, text)
	}
}

func (files) close() error { return nil }
