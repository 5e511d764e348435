package demo

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"text/template"

	"hubagent/config"
)

// hubYAML is the agent's config of the demo. Its intervals are short, so that everything can be seen within seconds;
// on a gateway the defaults are better.
const hubYAML = `# Written by hubagent demo. Intervals are short so that everything can be seen within seconds.
version: 1
gateway:
  id: demo-hub
  site: 示范小区
  zone: Asia/Shanghai
state: state
journal:
  sync_interval: 1s
  leaf_interval: 2s
uplink:
  brokers: [{{ printf "%q" .Broker }}]
  origin: hub.example
  checkpoint_interval: 10s
  keep_alive: 5s
  reconnect_max: 3s
status:
  listen: {{ printf "%q" .Page }}
buses:
{{- range .Buses }}
  - name: {{ .Name }}
    kind: {{ .Kind }}
{{- if .Address }}
    address: {{ printf "%q" .Address }}
{{- end }}
{{- if .Port }}
    port: {{ printf "%q" .Port }}
    baud: {{ .Baud }}
    parity: {{ .Parity }}
    stop_bits: {{ .StopBits }}
{{- end }}
{{- if .Dir }}
    dir: {{ printf "%q" .Dir }}
{{- end }}
    devices:
{{- range .Devices }}
      - name: {{ .Name }}
        label: {{ printf "%q" .Label }}
        profile: {{ .Profile }}
{{- if .Unit }}
        unit: {{ .Unit }}
{{- else }}
        line: {{ .Line }}
{{- end }}
        interval: {{ .Interval }}
{{- end }}
{{- end }}
`

func writeConfig(path, broker, page string, buses []config.Bus) error {
	t, err := template.New("hub.yaml").Parse(hubYAML)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, map[string]any{"Broker": "mqtt://" + broker, "Page": page, "Buses": buses}); err != nil {
		return err
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
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
