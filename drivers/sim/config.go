package sim

import (
	"bytes"
	_ "embed"
	"text/template"

	"hubagent/config"
)

//go:embed hub.yaml.tmpl
var hubYAML string

// HubYAML writes a config as the text of a hub.yaml, which config.Parse reads as the same again if the config came from
// there: how an agent is told of a simulated site. comment is its first line.
func HubYAML(comment string, cfg *config.Config) ([]byte, error) {
	t, err := template.New("hub.yaml").Parse(hubYAML)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	var b bytes.Buffer
	err = t.Execute(&b, struct {
		Comment string
		*config.Config
	}{comment, cfg})
	return b.Bytes(), err
}
