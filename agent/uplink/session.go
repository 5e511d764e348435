package uplink

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"hubagent/agent/broker"
	"hubagent/agent/contract"
)

// Time-outs of one connection.
const (
	ackTime   = 30 * time.Second // a leaf not acknowledged by then may be sent again, once the platform answers at all
	drainTime = 3 * time.Second  // for the last leaf at the end

	// overtakeTime is by how much a leaf must have been sent before another one that is acknowledged to count as lost.
	overtakeTime = time.Second
)

// Windows: leaves on the way without an acknowledgement. What does not fit goes with the backlog, on credit, so a
// platform that is away cannot fill the broker's queue.
const (
	liveWindow  = 8
	eventWindow = 32
)

// fillBytes ends a fill message early: leaves of a busy hub are large.
const fillBytes = 256 << 10

// session is one connection to a broker. One goroutine owns it; paho's goroutines only fill the inbox.
type session struct {
	u      *Uplink
	conn   *broker.Conn
	id     string
	packer contract.Packer
	inbox  inbox

	liveNext int64               // leaves from here on have not been looked at for the live lane
	live     map[int64]time.Time // on the live or event lane, not acknowledged: when sent
	event    map[int64]struct{}  // of these, on the event lane
	fillNext int64               // leaves before this are acknowledged or on the way
	fill     []fillMessage       // not acknowledged
	fillAt   time.Time           // when the last one was sent

	answered   bool // an acknowledgement came on this connection
	credit     int
	pace       time.Duration
	probedAt   time.Time // when status was last sent
	checkpoint int64     // size of the last checkpoint sent
	confirmed  int64     // size of the newest one that the platform confirmed
	signAt     time.Time // when the next is due
	signNow    bool      // one is due at once: an event was sent
}

type fillMessage struct {
	leaves []int64
	at     time.Time
}

// inbox keeps the newest acknowledgement: each one says everything, so older ones need no queue.
type inbox struct {
	mu     sync.Mutex
	newest []byte
	full   chan struct{} // capacity 1
}

func (b *inbox) put(payload []byte) {
	b.mu.Lock()
	b.newest = payload
	b.mu.Unlock()
	select {
	case b.full <- struct{}{}:
	default:
	}
}

func (b *inbox) take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.newest
	b.newest = nil
	return p
}

// session connects to one broker while connecting lasts, and forwards until the connection is lost, ctx ends, or the work is done after final
// was closed.
func (u *Uplink) session(ctx, connecting context.Context, final <-chan struct{}, url string) error {
	s := &session{
		u: u, id: newSession(), live: map[int64]time.Time{}, event: map[int64]struct{}{},
		inbox: inbox{full: make(chan struct{}, 1)},
	}
	if err := s.connect(connecting, url); err != nil {
		return err
	}
	defer s.conn.Close()
	u.online(url)
	s.liveNext = u.o.Store.Size()
	s.sendStatus(true)

	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var deadline <-chan time.Time
	for {
		grown := u.o.Store.Grown()
		if err := s.pump(); err != nil {
			return err
		}
		if closed(final) {
			if deadline == nil {
				deadline = time.After(drainTime)
				s.signNow = true
				continue
			}
			if s.nothingWaits() {
				s.sendStatus(false)
				return nil
			}
		}
		var pace <-chan time.Time
		if wait := time.Until(s.fillAt.Add(s.pace)); wait > 0 {
			pace = time.After(wait)
		}
		select {
		case <-grown:
		case <-pace:
		case <-s.inbox.full:
			if payload := s.inbox.take(); payload != nil { // nil: taken already, with the one before
				s.hear(payload)
			}
		case err := <-s.conn.Lost():
			return err
		case <-tick.C:
			s.probe()
			if time.Since(u.saved) > saveInterval {
				u.saveAcked()
			}
		case <-finalOnce(final, deadline):
		case <-deadline:
			s.sendStatus(false)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finalOnce is final until its closing was noticed.
func finalOnce(final <-chan struct{}, deadline <-chan time.Time) <-chan struct{} {
	if deadline != nil {
		return nil
	}
	return final
}

func newSession() string {
	b := make([]byte, 8)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// connect opens the connection and subscribes to acknowledgements.
func (s *session) connect(ctx context.Context, url string) (err error) {
	will, err := json.Marshal(s.status(false))
	if err != nil {
		return fmt.Errorf("cannot encode status: %w", err)
	}
	s.conn, err = broker.Connect(ctx, broker.Options{
		URL:       url,
		ClientID:  s.u.o.Gateway,
		KeepAlive: s.u.o.Config.KeepAlive,
		WillTopic: contract.UpTopic(s.u.o.Gateway, contract.LaneStatus, false),
		Will:      will,
		Filter:    contract.AckTopic(s.u.o.Gateway),
		Handle:    func(_ *broker.Conn, _ string, payload []byte) { s.inbox.put(payload) },
	})
	return err
}

func (s *session) status(online bool) contract.Status {
	st := s.u.Stats()
	return contract.Status{
		Version: contract.Version, Gateway: s.u.o.Gateway, Session: s.id, Online: online, Epoch: s.u.o.Epoch,
		Size: s.u.o.Store.Size(), Meta: s.u.o.Meta, Clock: s.u.o.Clock().Clock, Backlog: st.Waiting,
	}
}

// sendStatus says how the gateway stands. The platform answers it with an acknowledgement.
func (s *session) sendStatus(online bool) {
	payload, err := json.Marshal(s.status(online))
	if err != nil {
		s.u.o.Log.Error("cannot encode status", "err", err)
		return
	}
	topic := contract.UpTopic(s.u.o.Gateway, contract.LaneStatus, false)
	if online {
		s.conn.Publish(topic, true, payload)
	} else {
		s.conn.PublishLast(topic, true, payload)
	}
	s.probedAt = time.Now()
}

// nothingWaits says whether the platform has every leaf, and has confirmed a checkpoint over them.
func (s *session) nothingWaits() bool {
	size := s.u.o.Store.Size()
	return s.u.nextUnacked(0) >= size && s.confirmed >= size
}
