package demo

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
	"golang.org/x/mod/sumdb/note"

	"hubagent/agent/contract"
	"hubagent/agent/receiver"
)

// platform is the far end: an embedded broker that can be cut off, and the reference receiver behind it.
type platform struct {
	address  string
	server   atomic.Pointer[mqtt.Server] // nil while cut
	receiver *receiver.Receiver
}

func startPlatform(d *demo, address string) (*platform, error) {
	p := &platform{address: address}
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
	return p, p.up()
}

// hand counts what the receiver hands on.
func (d *demo) hand(l contract.Leaf, _ []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, row := range l.Rows {
		d.handed[rowKey{row.Device, row.At}]++
	}
}

// up starts the broker.
func (p *platform) up() error {
	server := mqtt.New(&mqtt.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err := server.AddHook(new(auth.AllowHook), nil); err != nil {
		return err
	}
	if err := server.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: p.address})); err != nil {
		return err
	}
	if err := server.Serve(); err != nil {
		return err
	}
	p.server.Store(server)
	return nil
}

// cut takes the broker away with all its connections.
func (p *platform) cut() error {
	if server := p.server.Swap(nil); server != nil {
		return server.Close()
	}
	return nil
}

func (p *platform) down() bool { return p.server.Load() == nil }

func (p *platform) close() error {
	return errors.Join(p.cut(), p.receiver.Close())
}
