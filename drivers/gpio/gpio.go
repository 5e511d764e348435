// Package gpio reads contacts, pulse counters and outputs on GPIO lines through the kernel's character device, and
// their twins in files for demo and tests.
//
// A line is claimed when its bus opens, so that pulses count and short alarms are seen from then on. Of
// periph.io only the words for levels and edges are used: its gpioioctl looks for chips once in a process, takes a chip
// that is gone for one that is low, switches an output on its way to high through low, and drops the edges' time stamps
// and sequence numbers, without which bounces cannot be told from pulses nor lost pulses be noticed.
package gpio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

// bus has one line a device.
type bus struct {
	lines   lines
	with    drivers.With
	watches map[string]*watch // by the device's name
}

var _ drivers.Writer = (*bus)(nil)

// Open makes a bus of a GPIO chip, found by its label or name; numbers of chips change between kernels.
func Open(b config.Bus, with drivers.With) (drivers.Bus, error) {
	return newBus(chip(b.Chip), b.Devices, with), nil
}

// OpenSim makes a bus whose lines are files: line17 in the bus's folder holds 0 or 1, and so does line-DOOR for the line
// named DOOR. They are looked at when their device is read, so a pulse between two polls is not counted.
func OpenSim(b config.Bus, with drivers.With) (drivers.Bus, error) {
	return newBus(files(b.Dir), b.Devices, with), nil
}

func newBus(l lines, devices []config.Device, with drivers.With) *bus {
	if with.Log == nil {
		with.Log = slog.New(slog.DiscardHandler)
	}
	b := &bus{lines: l, with: with, watches: map[string]*watch{}}
	for _, d := range devices {
		_ = b.watch(d).look() // if it fails, Read says why
	}
	return b
}

func (b *bus) watch(d config.Device) *watch {
	w := b.watches[d.Name]
	if w == nil {
		w = newWatch(b.lines, d, b.with.Count)
		b.watches[d.Name] = w
	}
	return w
}

// Close releases the lines.
func (b *bus) Close() error {
	var err error
	for _, w := range b.watches {
		err = errors.Join(err, w.close())
	}
	return err
}

// Read implements drivers.Bus. It waits only for a contact that never came to rest since its line was claimed: a level
// counts when it has held for the point's debounce time, and until then the one that counted before does. A contact that
// moves for ten times that is Missing, because it has no state. A count is Suspect when edges were lost since the last
// Read, or may have been because the agent was not running.
func (b *bus) Read(ctx context.Context, d config.Device) (drivers.Sample, error) {
	w := b.watch(d)
	s := drivers.Sample{Device: d.Name}
	err := ctx.Err()
	if err == nil {
		err = w.look()
	}
	var first error
	for i, p := range d.Model.Points {
		r := drivers.Reading{Point: p.Name, Unit: p.Unit, Quality: drivers.Good}
		if err == nil {
			err = w.reading(ctx, i, &r)
		}
		switch {
		case err != nil:
			failed := failure(d, drivers.Link, err.Error())
			if errors.Is(err, errChatter) || ctx.Err() != nil {
				failed.Failure = drivers.Timeout
			}
			r.Quality, r.Why = drivers.Missing, failed.Why()
			if first == nil {
				first = failed
			}
			if errors.Is(err, errChatter) {
				err = nil // the line's other points have values
			}
		case r.Why != "":
			r.Quality = drivers.Suspect
		}
		s.Readings = append(s.Readings, r)
	}
	s.At = time.Now()
	if lost := w.takeLost(); lost > 0 {
		b.with.Log.Warn("edges lost", "device", d.Name, "edges", lost)
	}
	if ctx.Err() != nil {
		return s, ctx.Err()
	}
	return s, first
}

// Write implements drivers.Writer for the line of a device: 1 makes it active, 0 inactive. A line that may be written is
// inactive from when it is claimed until it is written.
func (b *bus) Write(ctx context.Context, d config.Device, write config.Write, raw int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !slices.Contains(d.Writes, write.Name) {
		return unwritten(d, drivers.Link, fmt.Sprintf("it is an input: list %s under the device's writes to make it an output", write.Name))
	}
	w := b.watch(d)
	if err := w.look(); err != nil {
		return unwritten(d, drivers.Link, err.Error())
	}
	level := activeLevel(d)
	if raw == 0 {
		level = !level
	}
	if err := w.line.set(level); err != nil {
		return unwritten(d, drivers.Link, err.Error())
	}
	seen, err := w.line.level()
	if err != nil {
		return unwritten(d, drivers.Link, err.Error())
	}
	if seen != level {
		return unwritten(d, drivers.Frame, fmt.Sprintf("it was set %s and reads %s: look for a short circuit", level, seen))
	}
	return nil
}

// failure is an error of the device's line.
func failure(d config.Device, f drivers.Failure, detail string) *drivers.Error {
	at := "line " + strconv.Itoa(d.Line)
	if d.LineName != "" {
		at = "line " + d.LineName
	}
	return &drivers.Error{Failure: f, Device: d.Name, At: at, Detail: detail}
}

// unwritten is failure for what was to be written.
func unwritten(d config.Device, kind drivers.Failure, detail string) *drivers.Error {
	failed := failure(d, kind, detail)
	failed.Write = true
	return failed
}
