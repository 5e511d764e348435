// Package gpio reads contacts on GPIO lines through periph.io, and their twins in files for demo and tests.
package gpio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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
}

var _ drivers.Bus = (*bus)(nil)

// OpenSim makes a bus whose lines are files: line17 in the bus's folder holds 0 or 1.
func OpenSim(b config.Bus, _ *slog.Logger) (drivers.Bus, error) { return &bus{files(b.Dir)}, nil }

// Close releases the lines.
func (b *bus) Close() error { return b.lines.close() }

// settle is the time between two looks at a contact that may bounce.
const settle = 5 * time.Millisecond

// Read implements drivers.Bus. A level counts when it held for the point's debounce time; a contact that still moves
// after ten times that is Missing, because it has no state.
func (b *bus) Read(ctx context.Context, d config.Device) (drivers.Sample, error) {
	s := drivers.Sample{Device: d.Name}
	var first error
	for _, p := range d.Model.Points {
		r := drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Good}
		high, err := b.stable(ctx, d.Line, p.Debounce)
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			failed := &drivers.Error{Failure: drivers.Link, Device: d.Name, At: "line " + strconv.Itoa(d.Line), Detail: err.Error()}
			r.Quality, r.Why = drivers.Missing, failed.Why()
			if errors.Is(err, errChatter) {
				r.Why = "chatter"
			}
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

// stable looks at a line until its level has held for debounce.
func (b *bus) stable(ctx context.Context, offset int, debounce time.Duration) (bool, error) {
	high, err := b.lines.level(offset)
	if err != nil || debounce == 0 {
		return high, err
	}
	begin := time.Now()
	for since := begin; time.Since(since) < debounce; {
		if time.Since(begin) > 10*debounce {
			return false, errChatter
		}
		select {
		case <-time.After(min(settle, debounce)):
		case <-ctx.Done():
			return false, ctx.Err()
		}
		now, err := b.lines.level(offset)
		if err != nil {
			return false, err
		}
		if now != high {
			high, since = now, time.Now()
		}
	}
	return high, nil
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
