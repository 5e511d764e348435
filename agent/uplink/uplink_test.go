package uplink_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"hubagent/agent/broker/embedded"
	"hubagent/agent/contract"
	"hubagent/agent/receiver"
	"hubagent/agent/uplink"
	"hubagent/buffer"
	"hubagent/config"
)

const (
	gateway = "g1"
	epoch   = "e1"
	origin  = "hub.example"
)

// broker is an embedded broker that remembers what was published.
type broker struct {
	*embedded.Broker
	t       *testing.T
	address string

	mu     sync.Mutex
	topics []string
}

func startBroker(t *testing.T) *broker {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{t: t, address: l.Addr().String()}
	l.Close()
	b.Broker = embedded.New(b.address)
	b.Published = func(topic string, _ []byte) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.topics = append(b.topics, topic)
	}
	b.up()
	t.Cleanup(b.down)
	return b
}

func (b *broker) up() {
	b.t.Helper()
	if err := b.Up(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *broker) down() {
	if err := b.Cut(); err != nil {
		b.t.Error(err)
	}
}

// published counts messages on a lane, packed or not.
func (b *broker) published(lane contract.Lane) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, topic := range b.topics {
		if _, l, _, err := contract.ParseUpTopic(topic); err == nil && l == lane {
			n++
		}
	}
	return n
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// gatewaySide is a store with its uplink.
type gatewaySide struct {
	t      *testing.T
	dir    string
	store  *buffer.Store
	uplink *uplink.Uplink
	stop   context.CancelFunc
	final  chan struct{}
	done   chan error
	signer note.Signer
	public string
	url    string
	clock  func() contract.Stamp
	heard  chan int64 // the newest time of the platform's
}

func newGateway(t *testing.T, url string) *gatewaySide {
	secret, public, err := contract.NewKey(origin, gateway)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	g := &gatewaySide{t: t, dir: t.TempDir(), signer: signer, public: public, url: url, heard: make(chan int64, 1)}
	g.clock = func() contract.Stamp { return contract.Stamp{At: time.Now().UnixMilli(), Clock: contract.ClockOK} }
	t.Cleanup(g.crash)
	return g
}

func (g *gatewaySide) start() {
	g.t.Helper()
	var err error
	if g.store, err = buffer.Open(buffer.Options{Dir: g.dir}); err != nil {
		g.t.Fatal(err)
	}
	g.uplink, err = uplink.New(uplink.Options{
		Config: config.Uplink{
			Brokers: []string{g.url}, Origin: origin, CheckpointInterval: 200 * time.Millisecond,
			KeepAlive: 5 * time.Second, ReconnectMax: 100 * time.Millisecond,
		},
		Gateway: gateway, Epoch: epoch, Meta: "m", Store: g.store, Signer: g.signer,
		Clock: g.clock,
		Hear: func(at int64) {
			select {
			case <-g.heard:
			default:
			}
			g.heard <- at
		},
		AckTime: 500 * time.Millisecond,
		Log:     discard(),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	var ctx context.Context
	ctx, g.stop = context.WithCancel(context.Background())
	g.final, g.done = make(chan struct{}), make(chan error, 1)
	go func(u *uplink.Uplink, final chan struct{}, done chan error) { done <- u.Run(ctx, final) }(g.uplink, g.final, g.done)
}

// crash ends the uplink without its last words.
func (g *gatewaySide) crash() {
	if g.store == nil {
		return
	}
	g.stop()
	if err := <-g.done; err != nil {
		g.t.Error(err)
	}
	g.store.Close()
	g.store = nil
}

func (g *gatewaySide) append(kind contract.Kind, n int) {
	g.t.Helper()
	for range n {
		err := g.store.Commit(func(tx *buffer.Tx) error {
			h := contract.Header{Gateway: gateway, Epoch: epoch, Seq: tx.Next(), Kind: kind, Stamp: contract.Stamp{At: 1, Clock: contract.ClockOK}}
			leaf := contract.AppendRows(nil, h, fmt.Appendf(nil, `{"d":"bin-001","t":%d,"m":{"fill":%d}}`, 1000+tx.Next(), tx.Next()%100))
			_, err := tx.Append(buffer.Class(kind.Class()), leaf)
			return err
		})
		if err != nil {
			g.t.Fatal(err)
		}
	}
}

// platformSide is a receiver that counts what it hands on.
type platformSide struct {
	*receiver.Receiver
	t    *testing.T
	stop context.CancelFunc
	done chan error

	mu     sync.Mutex
	handed map[int64]int
}

// startPlatform starts a receiver that adds to what was handed on before; nil for nothing.
func startPlatform(t *testing.T, b *broker, dir, public string, handed map[int64]int) *platformSide {
	t.Helper()
	if handed == nil {
		handed = map[int64]int{}
	}
	p := &platformSide{t: t, handed: handed, done: make(chan error, 1)}
	var err error
	p.Receiver, err = receiver.New(receiver.Options{
		Broker: "mqtt://" + b.address, ClientID: "receiver", Dir: dir, Credit: 4, Log: discard(),
		Key: func(string) (note.Verifier, error) { return note.NewVerifier(public) },
		Handle: func(l contract.Leaf, _ []byte) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.handed[l.Seq]++
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	go func() { p.done <- p.Run(ctx) }()
	t.Cleanup(p.close)
	return p
}

func (p *platformSide) close() {
	if p.stop == nil {
		return
	}
	p.stop()
	p.stop = nil
	if err := <-p.done; err != nil {
		p.t.Error(err)
	}
	if err := p.Close(); err != nil {
		p.t.Error(err)
	}
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("did not happen: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// verify checks that the platform holds the gateway's leaves, each handed on once, and confirmed the root.
func verify(t *testing.T, g *gatewaySide, p *platformSide) {
	t.Helper()
	size := g.store.Size()
	eventually(t, fmt.Sprintf("%d leaves stored and confirmed", size), func() bool {
		tree := p.Tree(gateway, epoch)
		return tree.Stored.Next == size && tree.Confirmed == size
	})
	for n := range size {
		leaf, err := g.store.Leaf(n)
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := p.Hash(gateway, epoch, n); !ok || h != tlog.RecordHash(leaf.Data) {
			t.Fatalf("leaf %d: stored %v with another hash", n, ok)
		}
		p.mu.Lock()
		if p.handed[n] != 1 {
			t.Errorf("leaf %d was handed on %d times", n, p.handed[n])
		}
		p.mu.Unlock()
	}
	root, err := g.store.Root(size)
	if err != nil {
		t.Fatal(err)
	}
	if tree := p.Tree(gateway, epoch); tree.Root != root {
		t.Fatalf("root %v, want %v", tree.Root, root)
	}
	if s := p.Stats(); s.Refused+s.Equivocations+s.WrongRoots > 0 {
		t.Errorf("receiver: %+v", s)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A backlog, an outage in the middle, events, a crash of the gateway and one of the platform: each leaf arrives once.
func TestNothingLostNothingTwice(t *testing.T) {
	b := startBroker(t)
	archive := t.TempDir()
	g := newGateway(t, "mqtt://"+b.address)
	g.start()
	p := startPlatform(t, b, archive, g.public, nil)
	g.append(contract.KindGenesis, 1)
	g.append(contract.KindData, 50)
	eventually(t, "first leaves arrive", func() bool { return p.Tree(gateway, epoch).Stored.Next == 51 })

	b.down()
	g.append(contract.KindData, 40)
	g.append(contract.KindEvent, 2)
	g.crash()
	g.start()
	g.append(contract.KindData, 40)
	b.up()
	eventually(t, "all arrive after the outage", func() bool { return p.Tree(gateway, epoch).Stored.Next == 133 })

	// The platform crashes and comes back with its archive. The gateway's events go out at once.
	p.close()
	g.append(contract.KindData, 12)
	p = startPlatform(t, b, archive, g.public, p.handed)
	g.append(contract.KindEvent, 1)
	eventually(t, "all arrive after the platform's crash", func() bool { return p.Tree(gateway, epoch).Stored.Next == 146 })

	// At the end the last leaf and a checkpoint over it go out before the gateway says good-bye.
	g.append(contract.KindData, 1)
	close(g.final)
	if err := <-g.done; err != nil {
		t.Fatal(err)
	}
	g.done <- nil
	verify(t, g, p)
	if b.published(contract.LaneEvent) == 0 || b.published(contract.LaneFill) == 0 || b.published(contract.LaneLive) == 0 {
		t.Errorf("lanes: %d events, %d fill, %d live", b.published(contract.LaneEvent), b.published(contract.LaneFill), b.published(contract.LaneLive))
	}
}

// A platform that comes back without its archive gets everything again, on the connection that stands.
func TestPlatformLosesItsArchive(t *testing.T) {
	b := startBroker(t)
	g := newGateway(t, "mqtt://"+b.address)
	g.start()
	p := startPlatform(t, b, t.TempDir(), g.public, nil)
	g.append(contract.KindData, 40)
	verify(t, g, p)
	p.close()
	p = startPlatform(t, b, t.TempDir(), g.public, nil)
	g.append(contract.KindData, 1)
	verify(t, g, p)
	if s := g.uplink.Stats(); s.Connects != 1 || s.Republished < 40 {
		t.Errorf("stats %+v", s)
	}
}

// Without a platform the broker acknowledges everything. That must not count, and must not grow the broker's queue.
func TestPubackMovesNothing(t *testing.T) {
	b := startBroker(t)
	g := newGateway(t, "mqtt://"+b.address)
	g.start()
	eventually(t, "connected", func() bool { return g.uplink.Stats().Connected })
	g.append(contract.KindData, 60)
	g.append(contract.KindEvent, 50)
	eventually(t, "windows are full", func() bool {
		return b.published(contract.LaneLive) == 8 && b.published(contract.LaneEvent) == 32
	})
	s := g.uplink.Stats()
	if s.Acknowledged != 0 || s.Waiting != 110 || s.Answered {
		t.Fatalf("stats %+v", s)
	}
	if n := b.published(contract.LaneFill); n != 0 {
		t.Fatalf("%d fill messages without credit", n)
	}
	g.crash()
	g.start()
	if s := g.uplink.Stats(); s.Acknowledged != 0 {
		t.Fatalf("after a restart %d count as acknowledged", s.Acknowledged)
	}
	p := startPlatform(t, b, t.TempDir(), g.public, nil)
	verify(t, g, p)
}

// Acknowledgements that cannot be true are refused, counted, and change nothing.
func TestFalseAcknowledgements(t *testing.T) {
	b := startBroker(t)
	g := newGateway(t, "mqtt://"+b.address)
	g.start()
	g.append(contract.KindData, 5)
	eventually(t, "connected", func() bool { return b.published(contract.LaneStatus) > 0 })
	false_ := []string{
		`{"epoch":"e1","next":6}`, `{"epoch":"e0","next":5}`, `{"epoch":"e1","next":1,"have":[[3,5]]}`,
		`{"epoch":"e1","ckpt":6}`, `[]`, ``, `{"epoch":"e1","next":-1}`,
	}
	for i, payload := range false_ {
		if err := b.Publish(contract.AckTopic(gateway), []byte(payload)); err != nil {
			t.Fatal(err)
		}
		// One at a time: the inbox keeps only the newest.
		eventually(t, payload+" is refused", func() bool { return g.uplink.Stats().Refused == uint64(i+1) })
	}
	if s := g.uplink.Stats(); s.Acknowledged != 0 || s.Answered {
		t.Fatalf("stats %+v", s)
	}
	good, err := json.Marshal(contract.Ack{Epoch: epoch, SeqSet: contract.SeqSet{Next: 5}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(contract.AckTopic(gateway), good); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a true one counts", func() bool { return g.uplink.Stats().Acknowledged == 5 })
}

// A broker that accepts and then says nothing is given up at the end, and is an error in words before that.
func TestSilentBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			accepted <- c
		}
	}()
	g := newGateway(t, "mqtt://"+l.Addr().String())
	g.start()
	conn := <-accepted
	defer conn.Close()
	begin := time.Now()
	close(g.final)
	if err := <-g.done; err != nil {
		t.Fatal(err)
	}
	g.done <- nil
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("took %v to end", d)
	}
}

// The platform's time comes with its acknowledgements.
func TestPlatformTime(t *testing.T) {
	b := startBroker(t)
	g := newGateway(t, "mqtt://"+b.address)
	begin := time.Now().UnixMilli()
	startPlatform(t, b, t.TempDir(), g.public, nil)
	g.start()
	select {
	case at := <-g.heard:
		if now := time.Now().UnixMilli(); at < begin || at > now {
			t.Errorf("heard %d, it was between %d and %d", at, begin, now)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing heard")
	}
}

// The age of what waits is told by the present clock, also for leaves of before it was set; of a boot whose clock was
// never set there is none.
func TestOldestWaitingAcrossAJump(t *testing.T) {
	g := newGateway(t, "mqtt://127.0.0.1:1") // nobody is there
	const now = 1790842860000
	g.clock = func() contract.Stamp {
		return contract.Stamp{At: now, Clock: contract.ClockStep, Boot: "boot-2", Mono: 90_000}
	}
	g.start()
	for _, c := range []struct {
		boot string
		want time.Time
	}{{"boot-1", time.Time{}}, {"boot-2", time.UnixMilli(now - 60_000)}} {
		n := g.store.Size()
		err := g.store.Commit(func(tx *buffer.Tx) error {
			h := contract.Header{Gateway: gateway, Epoch: epoch, Seq: n, Kind: contract.KindData, Stamp: contract.Stamp{At: 5000, Clock: contract.ClockUnsync, Boot: c.boot, Mono: 30_000}}
			_, err := tx.Append('d', contract.AppendRows(nil, h, nil))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if s := g.uplink.Stats(); !s.OldestWaiting.Equal(c.want) || s.Waiting != 1 {
			t.Errorf("%s: %+v, want %v", c.boot, s, c.want)
		}
		g.uplink.Gone([]buffer.Range{{First: n, End: n + 1}})
	}
}
