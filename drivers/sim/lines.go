package sim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"hubagent/config"
)

// lineInterval is the time between two looks at the world: less than any contact's debounce.
const lineInterval = 100 * time.Millisecond

// WriteLines keeps one file a device up to date in bus.Dir, line17 for line 17 and line-DOOR for a line named DOOR, with
// the level of the line, "0" or "1", of the device's first point of function line. It makes the folder if there is none,
// and writes a file when its level changes, by rename, so that a reader never sees half of it; pulses of which more than
// five come a second are lost. A line that the agent may write to is left to it. It returns nil when ctx ends, else the
// first error of the file system, or that of a device without a line.
func (s *Site) WriteLines(ctx context.Context, bus config.Bus) error {
	if err := os.MkdirAll(bus.Dir, 0o755); err != nil {
		return fmt.Errorf("cannot make folder of bus %s: %w", bus.Name, err)
	}
	points := make([]*config.Point, len(bus.Devices)) // nil for an output
	for i, d := range bus.Devices {
		k := slices.IndexFunc(d.Model.Points, func(p config.Point) bool { return p.Function == config.Line })
		if k < 0 {
			return fmt.Errorf("cannot write line of %s: profile %s has no point of function line", d.Name, d.Model.ID)
		}
		if !isOutput(d) {
			points[i] = &d.Model.Points[k]
		}
	}
	written := map[string]bool{}
	for {
		now := time.Now()
		for i, d := range bus.Devices {
			if points[i] == nil {
				continue
			}
			name, high := lineName(d), s.World.level(d, *points[i], now)
			if was, ok := written[name]; ok && was == high {
				continue
			}
			if err := writeLine(bus.Dir, name, high); err != nil {
				return fmt.Errorf("cannot write line of %s: %w", d.Name, err)
			}
			written[name] = high
		}
		if wait(ctx, lineInterval) != nil {
			return nil
		}
	}
}

// isOutput says whether the agent may write to a device's line.
func isOutput(d config.Device) bool {
	return slices.ContainsFunc(d.Model.Writes, func(w config.Write) bool {
		return w.Function == config.Line && slices.Contains(d.Writes, w.Name)
	})
}

// lineName is the name of the file of a device's line.
func lineName(d config.Device) string {
	if d.LineName != "" {
		return "line-" + d.LineName
	}
	return "line" + strconv.Itoa(d.Line)
}

func writeLine(dir, name string, high bool) error {
	level := "0"
	if high {
		level = "1"
	}
	temporary := filepath.Join(dir, "."+name)
	if err := os.WriteFile(temporary, []byte(level), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(dir, name))
}
