package demo

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"hubagent/config"
	"hubagent/drivers/sim"
)

// writeConfig writes the agent's config of the demo. Its intervals are short, so that everything can be seen within
// seconds; on a gateway the defaults are better.
func writeConfig(path, broker, page string, buses []config.Bus) error {
	text, err := sim.HubYAML("Written by hubagent demo. Intervals are short so that everything can be seen within seconds.", &config.Config{
		Version: 1,
		Gateway: config.Gateway{ID: "demo-hub", Site: "示范小区"},
		State:   "state",
		Journal: config.Journal{SyncInterval: time.Second, LeafInterval: 2 * time.Second},
		Uplink: config.Uplink{
			Brokers: []string{"mqtt://" + broker}, Origin: "hub.example",
			CheckpointInterval: 10 * time.Second, KeepAlive: 5 * time.Second, ReconnectMax: 3 * time.Second,
		},
		Status: config.Status{Listen: page},
		Buses:  buses,
	})
	if err == nil {
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot write the demo's config: %w", err)
	}
	return nil
}

// narrator is a log handler that says each entry in one line.
type narrator struct{ say func(text string) }

// Enabled takes everything from Info up.
func (n *narrator) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle says the entry.
func (n *narrator) Handle(_ context.Context, r slog.Record) error {
	entry := map[string]any{}
	r.Attrs(func(a slog.Attr) bool {
		entry[a.Key] = a.Value
		return true
	})
	n.say(r.Message + attributes(entry))
	return nil
}

// WithAttrs and WithGroup are not used by the receiver.
func (n *narrator) WithAttrs([]slog.Attr) slog.Handler { return n }

// WithGroup returns n.
func (n *narrator) WithGroup(string) slog.Handler { return n }
