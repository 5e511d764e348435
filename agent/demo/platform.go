package demo

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"hubagent/agent/broker/embedded"
	"hubagent/agent/contract"
	"hubagent/agent/receiver"
)

// platform is the far end: an embedded broker that can be cut off, and the reference receiver behind it.
type platform struct {
	broker   *embedded.Broker
	receiver *receiver.Receiver
}

func startPlatform(d *demo, address string) (*platform, error) {
	p := &platform{broker: embedded.New(address)}
	var err error
	p.receiver, err = receiver.New(receiver.Options{
		Broker:   "mqtt://" + address,
		ClientID: "demo-receiver",
		Dir:      filepath.Join(d.o.State, "platform"),
		Credit:   8,
		Key: func(string) (note.Verifier, error) { // the agent makes its key at its first start
			raw, err := os.ReadFile(filepath.Join(d.o.State, "state", "keys", "log.pub"))
			if err != nil {
				return nil, err
			}
			return note.NewVerifier(strings.TrimSpace(string(raw)))
		},
		Handle: d.hand,
		Log:    slog.New(&narrator{say: func(text string) { d.say("platform", "%s", text) }}),
	})
	if err != nil {
		return nil, err
	}
	return p, p.broker.Up()
}

// hand counts what the receiver hands on.
func (d *demo) hand(l contract.Leaf, _ []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, row := range l.Rows {
		d.handed[rowKey{row.Device, row.At}]++
	}
}

func (p *platform) close() error {
	return errors.Join(p.broker.Cut(), p.receiver.Close())
}
