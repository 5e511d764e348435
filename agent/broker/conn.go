// Package broker is one connection to an MQTT 3.1.1 broker, over paho with the settings that make it honest: no
// reconnecting and no storing behind our back. Whoever uses it decides when to try again and what to send again.
package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// Time-outs of one connection.
const (
	connectTime = 10 * time.Second // for TCP, for CONNACK and for SUBACK, each
	writeTime   = 10 * time.Second // a peer that stops reading is noticed by this alone
	pingTime    = 10 * time.Second
)

// Options say how to connect and what to hear.
type Options struct {
	URL       string // mqtt://host:port or mqtts://host:port
	ClientID  string
	KeepAlive time.Duration
	WillTopic string // no will when empty; a will is retained, QoS 1
	Will      []byte
	Filter    string // topics to subscribe to, QoS 1
	// Handle is called for each message, one at a time and in order. The PUBACK goes out when it returns, so what it
	// stored is safe before the broker forgets it. It may publish on c.
	Handle func(c *Conn, topic string, payload []byte)
}

// Conn is an open connection. Its methods may be called from any goroutine.
type Conn struct {
	client mqtt.Client
	lost   chan error
}

// Connect opens a connection and subscribes. It tries once; the error says what the broker or the network answered.
// The caller closes the Conn.
func Connect(ctx context.Context, o Options) (*Conn, error) {
	c := &Conn{lost: make(chan error, 1)}
	po := mqtt.NewClientOptions().
		AddBroker(strings.Replace(strings.Replace(o.URL, "mqtts://", "ssl://", 1), "mqtt://", "tcp://", 1)).
		SetClientID(o.ClientID).
		SetProtocolVersion(4).   // otherwise every failed handshake is tried twice, as 3.1.1 and as 3.1
		SetCleanSession(true).   // the journal is our memory
		SetAutoReconnect(false). // paho's back-off has no jitter, and with it a lost publish counts as sent
		SetConnectRetry(false).
		SetConnectTimeout(connectTime).
		SetWriteTimeout(writeTime).
		SetKeepAlive(o.KeepAlive).
		SetPingTimeout(pingTime).
		SetOrderMatters(true).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { c.lost <- err })
	if o.WillTopic != "" {
		po.SetBinaryWill(o.WillTopic, o.Will, 1, true)
	}
	c.client = mqtt.NewClient(po)
	if err := wait(ctx, c.client.Connect(), 2*connectTime); err != nil {
		c.client.Disconnect(0)
		return nil, err
	}
	token := c.client.Subscribe(o.Filter, 1, func(_ mqtt.Client, m mqtt.Message) { o.Handle(c, m.Topic(), m.Payload()) })
	err := wait(ctx, token, connectTime)
	if err == nil && token.(*mqtt.SubscribeToken).Result()[o.Filter] == 0x80 {
		err = errors.New("not authorised")
	}
	if err != nil {
		c.client.Disconnect(0)
		return nil, fmt.Errorf("broker refuses the subscription to %s: %w", o.Filter, err)
	}
	return c, nil
}

func wait(ctx context.Context, token mqtt.Token, most time.Duration) error {
	select {
	case <-token.Done():
		return token.Error()
	case <-time.After(most):
		return errors.New("broker does not answer")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Publish hands a message of QoS 1 to the connection. It may block for the write time-out when the broker stops
// reading. Nothing tells reliably whether the message arrived; the PUBACK is not waited for, because what it says is
// not what counts.
func (c *Conn) Publish(topic string, retained bool, payload []byte) {
	c.client.Publish(topic, 1, retained, payload)
}

// PublishLast is Publish for the last message before Close: it waits a moment for its PUBACK, since a disconnect
// would overtake it.
func (c *Conn) PublishLast(topic string, retained bool, payload []byte) {
	c.client.Publish(topic, 1, retained, payload).WaitTimeout(time.Second)
}

// Open says whether the connection stands, as far as is known.
func (c *Conn) Open() bool { return c.client.IsConnectionOpen() }

// Lost delivers the reason when the connection is lost, once.
func (c *Conn) Lost() <-chan error { return c.lost }

// Close ends the connection, cleanly if it stands: the broker then drops the will.
func (c *Conn) Close() { c.client.Disconnect(100) }
