package sim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"hubagent/config"
)

// lineInterval is the time between two looks at the world: less than any contact's debounce.
const lineInterval = 100 * time.Millisecond

// WriteLines keeps one file a device up to date in bus.Dir, line17 for line 17, with the level of the line, "0" or
// "1", of the device's first point of function line. It makes the folder if there is none, and writes a file when its
// level changes, by rename, so that a reader never sees half of it. It returns nil when ctx ends, else the first
// error of the file system, or that of a device without a line.
func (s *Site) WriteLines(ctx context.Context, bus config.Bus) error {
	if err := os.MkdirAll(bus.Dir, 0o755); err != nil {
		return fmt.Errorf("cannot make folder of bus %s: %w", bus.Name, err)
	}
	points := make([]config.Point, len(bus.Devices))
	for i, d := range bus.Devices {
		k := slices.IndexFunc(d.Model.Points, func(p config.Point) bool { return p.Function == config.Line })
		if k < 0 {
			return fmt.Errorf("cannot write line of %s: profile %s has no point of function line", d.Name, d.Model.ID)
		}
		points[i] = d.Model.Points[k]
	}
	written := map[int]bool{}
	for {
		now := time.Now()
		for i, d := range bus.Devices {
			high := s.World.level(d, points[i], now)
			if was, ok := written[d.Line]; ok && was == high {
				continue
			}
			if err := writeLine(bus.Dir, d.Line, high); err != nil {
				return fmt.Errorf("cannot write line of %s: %w", d.Name, err)
			}
			written[d.Line] = high
		}
		if wait(ctx, lineInterval) != nil {
			return nil
		}
	}
}

func writeLine(dir string, line int, high bool) error {
	level := "0"
	if high {
		level = "1"
	}
	name := fmt.Sprintf("line%d", line)
	temporary := filepath.Join(dir, "."+name)
	if err := os.WriteFile(temporary, []byte(level), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(dir, name))
}
