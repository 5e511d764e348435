// Package embedded is an MQTT broker inside the process, for the demo and for tests. It can be cut off and come back at
// the same address, as a broker behind a bad line does.
package embedded

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// Broker is one broker at one address. It lets everybody in, so its address must be on the loopback.
type Broker struct {
	// Published, if not nil, is called for each message before subscribers get it. Set it before Up.
	Published func(topic string, payload []byte)

	address string
	server  atomic.Pointer[mqtt.Server] // nil while cut
}

// New makes a broker that is not up yet.
func New(address string) *Broker { return &Broker{address: address} }

// Up starts listening. It remembers nothing from before it was cut.
func (b *Broker) Up() error {
	server := mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	err := errors.Join(
		server.AddHook(new(auth.AllowHook), nil),
		server.AddHook(&hook{b: b}, nil),
		server.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: b.address})),
	)
	if err == nil {
		err = server.Serve()
	}
	if err != nil {
		return errors.Join(err, server.Close())
	}
	b.server.Store(server)
	return nil
}

// Cut takes the broker away with all its connections. It may be called when it is away already.
func (b *Broker) Cut() error {
	if server := b.server.Swap(nil); server != nil {
		return server.Close()
	}
	return nil
}

// IsUp says whether the broker listens.
func (b *Broker) IsUp() bool { return b.server.Load() != nil }

// Publish sends a message of QoS 1 as if a client had.
func (b *Broker) Publish(topic string, payload []byte) error {
	server := b.server.Load()
	if server == nil {
		return errors.New("broker is cut")
	}
	return server.Publish(topic, payload, false, 1)
}

// hook watches messages, and lets only one of those packets through at a time that write or read retained messages:
// mochi-mqtt v2.7.9 does both at once without a lock (TopicsIndex.RetainMessage against scanMessages).
type hook struct {
	mqtt.HookBase
	b        *Broker
	retained sync.Mutex
}

// ID names the hook.
func (h *hook) ID() string { return "embedded" }

// Provides says which calls the hook wants.
func (h *hook) Provides(call byte) bool {
	return call == mqtt.OnPublished || call == mqtt.OnPacketRead || call == mqtt.OnPacketProcessed
}

func touchesRetained(pk packets.Packet) bool {
	return pk.FixedHeader.Type == packets.Subscribe || pk.FixedHeader.Type == packets.Publish && pk.FixedHeader.Retain
}

// OnPacketRead is called before a packet is processed, in its connection's goroutine.
func (h *hook) OnPacketRead(_ *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if touchesRetained(pk) {
		h.retained.Lock()
	}
	return pk, nil
}

// OnPacketProcessed is called after it, in the same goroutine.
func (h *hook) OnPacketProcessed(_ *mqtt.Client, pk packets.Packet, _ error) {
	if touchesRetained(pk) {
		h.retained.Unlock()
	}
}

// OnPublished passes a message on to whoever watches.
func (h *hook) OnPublished(_ *mqtt.Client, pk packets.Packet) {
	if h.b.Published != nil {
		h.b.Published(pk.TopicName, pk.Payload)
	}
}
