// Package receiver is the reference consumer of hub/v1: it stores leaves durably, drops duplicates, recomputes the
// roots of signed checkpoints, and acknowledges end to end.
package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"hubagent/agent/broker"
	"hubagent/agent/contract"
)

// Options say where leaves come from and where they go.
type Options struct {
	Broker   string // mqtt://host:port or mqtts://host:port
	ClientID string
	Dir      string // archive: one file a log, Dir/GATEWAY/EPOCH.ndjson
	// Key returns the public log key of a gateway as registered with the operator. Without it checkpoints are
	// refused, while leaves are still stored.
	Key    func(gateway string) (note.Verifier, error)
	Handle func(leaf contract.Leaf, raw []byte) // called once for each leaf, after it was stored; may be nil
	Credit int                                  // fill messages that a gateway may have on the way
	Log    *slog.Logger
}

// Stats are totals since the start.
type Stats struct {
	Messages      uint64 // on up topics, status included
	Leaves        uint64 // stored
	Rows          uint64 // in stored leaves
	Duplicates    uint64 // leaves that were stored already, dropped
	Equivocations uint64 // leaves with a known number and other bytes: kept apart, and an alarm
	Refused       uint64 // messages that were not hub/v1
	Checkpoints   uint64 // whose root was recomputed and equal
	WrongRoots    uint64 // whose root was not equal, or whose signature did not hold
}

type logName struct{ gateway, epoch string }

// Receiver consumes the up topics of all gateways of a broker.
type Receiver struct {
	o Options

	mu    sync.Mutex
	logs  map[logName]*leafLog
	stats Stats
}

// New opens the archive and reads what an earlier run stored.
func New(o Options) (*Receiver, error) {
	logs, err := openArchive(o.Dir)
	if err != nil {
		return nil, err
	}
	return &Receiver{o: o, logs: logs}, nil
}

// Close closes the archive. Run must have returned.
func (r *Receiver) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	for _, l := range r.logs {
		err = errors.Join(err, l.file.Close())
	}
	return err
}

// Stats returns the present totals.
func (r *Receiver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Tree is what the receiver knows of one log.
type Tree struct {
	Stored    contract.SeqSet
	Confirmed int64     // leaves of the newest checkpoint whose root it recomputed
	Root      tlog.Hash // of these leaves, zero for none
}

// Tree returns the state of a log; the zero Tree for one it never saw.
func (r *Receiver) Tree(gateway, epoch string) Tree {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.logs[logName{gateway, epoch}]
	if l == nil {
		return Tree{}
	}
	t := Tree{Stored: l.set.Clone(), Confirmed: l.confirmed}
	if t.Confirmed > 0 {
		t.Root, _ = l.root(t.Confirmed) // was computed before, so it can be
	}
	return t
}

// Hash returns the record hash of a stored leaf.
func (r *Receiver) Hash(gateway, epoch string, seq int64) (tlog.Hash, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.logs[logName{gateway, epoch}]
	if l == nil {
		return tlog.Hash{}, false
	}
	return l.hash(seq)
}

const (
	retryTime = time.Second // between attempts to reach the broker
	keepAlive = 20 * time.Second
)

// Run consumes until ctx ends. It comes back by itself when the broker goes away; an error means that the archive
// cannot be written, so that nothing may be acknowledged any more.
func (r *Receiver) Run(ctx context.Context) error {
	broken := make(chan error, 1)
	down := false
	for {
		err := r.session(ctx, broken)
		if ctx.Err() != nil {
			return nil
		}
		select {
		case err := <-broken:
			return err
		default:
		}
		if !down || errors.Is(err, errLost) {
			r.o.Log.Warn("receiver has no broker", "broker", r.o.Broker, "err", err)
		}
		down = true
		select {
		case <-time.After(retryTime):
		case <-ctx.Done():
			return nil
		}
	}
}

var errLost = errors.New("connection lost")

func (r *Receiver) session(ctx context.Context, broken chan<- error) error {
	fail := make(chan error, 1)
	conn, err := broker.Connect(ctx, broker.Options{
		URL:       r.o.Broker,
		ClientID:  r.o.ClientID,
		KeepAlive: keepAlive,
		Filter:    contract.UpFilter,
		Handle: func(c *broker.Conn, topic string, payload []byte) {
			ack, to, err := r.receive(topic, payload)
			if err != nil {
				select {
				case fail <- err:
				default:
				}
				return
			}
			if ack != nil {
				c.Publish(contract.AckTopic(to), false, ack)
			}
		},
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	r.o.Log.Info("receiver listens", "broker", r.o.Broker)
	select {
	case err := <-conn.Lost():
		return fmt.Errorf("%w: %v", errLost, err)
	case err := <-fail:
		broken <- err
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive takes in one message and returns the acknowledgement it calls for, with the gateway it goes to; nil for
// none. An error means that the archive failed.
func (r *Receiver) receive(topic string, payload []byte) (ack []byte, to string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Messages++
	gateway, lane, packed, err := contract.ParseUpTopic(topic)
	if err == nil && packed {
		payload, err = contract.Unpack(payload)
	}
	if err != nil {
		r.refuse(topic, err)
		return nil, "", nil
	}
	var l *leafLog
	var epoch string
	switch lane {
	case contract.LaneStatus:
		st, err := contract.ParseStatus(payload)
		if err != nil || st.Gateway != gateway {
			r.refuse(topic, errors.Join(err, errOther(st.Gateway, gateway)))
			return nil, "", nil
		}
		if !st.Online {
			return nil, "", nil
		}
		epoch = st.Epoch
		if l, err = r.log(gateway, epoch); err != nil {
			return nil, "", err
		}
		if have := l.set.Count(); st.Size < have {
			r.o.Log.Error("gateway has fewer leaves than it sent: its journal went back", "gateway", gateway, "epoch", epoch, "has", st.Size, "sent", have)
		}
	case contract.LaneCheckpoint:
		if epoch, l, err = r.checkpoint(gateway, payload); err != nil {
			r.stats.WrongRoots++
			r.o.Log.Error("checkpoint refused", "gateway", gateway, "err", err)
			return nil, "", nil
		}
	default:
		if epoch, l, err = r.store(gateway, topic, payload); err != nil || l == nil {
			return nil, "", err
		}
	}
	a := contract.Ack{Epoch: epoch, SeqSet: l.set, Checkpoint: l.confirmed, Credit: r.o.Credit, At: time.Now().UnixMilli()}
	ack, err = json.Marshal(a)
	return ack, gateway, err
}

func errOther(is, want string) error {
	if is == want {
		return nil
	}
	return fmt.Errorf("it names gateway %.64q", is)
}

func (r *Receiver) refuse(topic string, err error) {
	r.stats.Refused++
	r.o.Log.Warn("message refused", "topic", topic, "err", err)
}

func (r *Receiver) log(gateway, epoch string) (*leafLog, error) {
	name := logName{gateway, epoch}
	if l := r.logs[name]; l != nil {
		return l, nil
	}
	l, err := openLog(r.o.Dir, gateway, epoch)
	if err != nil {
		return nil, err
	}
	r.logs[name] = l
	return l, nil
}

// store puts the leaves of a message into the archive, drops those that are there, and hands the new ones on. The log
// is nil when the message held no leaf.
func (r *Receiver) store(gateway, topic string, payload []byte) (epoch string, l *leafLog, err error) {
	type fresh struct {
		leaf contract.Leaf
		raw  []byte
		hash tlog.Hash
	}
	var add []fresh
	var lines [][]byte
	seen := map[int64]tlog.Hash{} // within this message
	for _, line := range contract.SplitLines(payload) {
		leaf, err := contract.ParseLeaf(line)
		if err == nil {
			err = errOther(leaf.Gateway, gateway)
		}
		if err == nil && epoch != "" && leaf.Epoch != epoch {
			err = errors.New("leaves of two epochs in one message")
		}
		if err != nil {
			r.refuse(topic, err)
			continue
		}
		epoch = leaf.Epoch
		if l == nil {
			if l, err = r.log(gateway, epoch); err != nil {
				return "", nil, err
			}
		}
		if leaf.Kind == contract.KindOld { // stored first: what is acknowledged by its carrier must be there
			if err := r.storeCarried(gateway, topic, epoch, line); err != nil {
				return "", nil, err
			}
		}
		hash := tlog.RecordHash(line)
		known, stored := l.hash(leaf.Seq)
		if h, ok := seen[leaf.Seq]; ok {
			known, stored = h, true
		}
		switch {
		case !stored:
			seen[leaf.Seq] = hash
			add, lines = append(add, fresh{leaf, line, hash}), append(lines, line)
		case known == hash:
			r.stats.Duplicates++
		default:
			r.stats.Equivocations++
			r.o.Log.Error("gateway sent other bytes under a number it used before", "gateway", gateway, "epoch", epoch, "seq", leaf.Seq)
			lines = append(lines, line) // kept; the first one counts
		}
	}
	if len(lines) > 0 {
		if err := l.write(lines); err != nil {
			return "", nil, err
		}
	}
	for _, f := range add {
		l.admit(f.leaf.Seq, f.hash)
		r.stats.Leaves++
		r.stats.Rows += uint64(len(f.leaf.Rows))
		if r.o.Handle != nil {
			r.o.Handle(f.leaf, f.raw)
		}
	}
	if l != nil {
		r.settle(l, gateway)
	}
	return epoch, l, nil
}

// storeCarried takes the leaf of an earlier epoch out of the leaf that carries it, and stores it in its own log, unless
// it is there. What is not such a leaf is refused; its carrier is kept all the same.
func (r *Receiver) storeCarried(gateway, topic, epoch string, line []byte) error {
	carried, err := contract.Carried(line)
	if err == nil {
		var leaf contract.Leaf
		if leaf, err = contract.ParseLeaf(carried); err == nil && leaf.Epoch == epoch {
			err = errors.New("a leaf carries one of its own epoch")
		}
	}
	if err != nil {
		r.refuse(topic, err)
		return nil
	}
	_, _, err = r.store(gateway, topic, carried)
	return err
}

// checkpoint checks a signed checkpoint, and its root as soon as all its leaves are here.
func (r *Receiver) checkpoint(gateway string, payload []byte) (epoch string, l *leafLog, err error) {
	verifier, err := r.o.Key(gateway)
	if err != nil {
		return "", nil, fmt.Errorf("no registered log key: %w", err)
	}
	c, err := contract.OpenCheckpoint(payload, verifier)
	if err != nil {
		return "", nil, err
	}
	epoch, ok := strings.CutPrefix(c.Origin, verifier.Name()+"/")
	if !ok || !contract.ValidEpoch(epoch) || !strings.HasSuffix(verifier.Name(), "/"+gateway) {
		return "", nil, fmt.Errorf("origin %.200q is not of this gateway", c.Origin)
	}
	if l, err = r.log(gateway, epoch); err != nil {
		return "", nil, err
	}
	if root, ok := l.promised[c.Size]; ok && root != c.Root {
		return "", nil, fmt.Errorf("two roots for %d leaves", c.Size)
	}
	if len(l.promised) < maxPromised {
		l.promised[c.Size] = c.Root
	}
	r.settle(l, gateway)
	return epoch, l, nil
}

// settle recomputes the roots that were promised for leaves that are all here now.
func (r *Receiver) settle(l *leafLog, gateway string) {
	for size, promised := range l.promised {
		if size > l.set.Next || size == 0 {
			continue
		}
		delete(l.promised, size)
		root, err := l.root(size)
		if err != nil || root != promised {
			r.stats.WrongRoots++
			r.o.Log.Error("checkpoint does not match the leaves", "gateway", gateway, "size", size, "signed", promised, "computed", root)
			continue
		}
		r.stats.Checkpoints++
		l.confirmed = max(l.confirmed, size)
	}
}
