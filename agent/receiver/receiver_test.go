package receiver

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"hubagent/agent/contract"
)

const (
	gateway = "g1"
	epoch   = "e1"
)

type keyPair struct {
	signer   note.Signer
	verifier note.Verifier
}

func newKeyPair(t *testing.T, gateway string) keyPair {
	t.Helper()
	secret, public, err := contract.NewKey("hub.example", gateway)
	if err != nil {
		t.Fatal(err)
	}
	var k keyPair
	if k.signer, err = note.NewSigner(secret); err != nil {
		t.Fatal(err)
	}
	if k.verifier, err = note.NewVerifier(public); err != nil {
		t.Fatal(err)
	}
	return k
}

func newReceiver(t *testing.T, dir string, k keyPair, handed *[]int64) *Receiver {
	t.Helper()
	r, err := New(Options{
		Dir: dir, Credit: 8, Log: slog.New(slog.DiscardHandler),
		Key:    func(string) (note.Verifier, error) { return k.verifier, nil },
		Handle: func(l contract.Leaf, _ []byte) { *handed = append(*handed, l.Seq) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func leaf(seq int64) []byte {
	h := contract.Header{Gateway: gateway, Epoch: epoch, Seq: seq, Kind: contract.KindData, Stamp: contract.Stamp{At: seq, Clock: contract.ClockOK}}
	return contract.AppendRows(nil, h, fmt.Appendf(nil, `{"d":"bin-001","t":%d,"m":{"fill":1}}`, seq))
}

func lines(seqs ...int64) []byte {
	var b []byte
	for _, n := range seqs {
		b = append(append(b, leaf(n)...), '\n')
	}
	return b
}

// deliver hands a message over and returns the acknowledgement, or a zero one when there is none.
func deliver(t *testing.T, r *Receiver, lane contract.Lane, payload []byte) (a contract.Ack) {
	t.Helper()
	raw, to, err := r.receive(contract.UpTopic(gateway, lane, false), payload)
	if err != nil {
		t.Fatal(err)
	}
	if raw == nil {
		return a
	}
	if to != gateway {
		t.Fatalf("acknowledgement for %q", to)
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(time.UnixMilli(a.At)); d < -time.Millisecond || d > time.Minute {
		t.Errorf("acknowledgement says that it is %v", time.UnixMilli(a.At))
	}
	return a
}

// signedTree signs the first n leaves as the gateway would.
func signedTree(t *testing.T, k keyPair, epoch string, n int64, change func(*contract.Checkpoint)) []byte {
	t.Helper()
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, err error) {
		for _, i := range indexes {
			out = append(out, hashes[i])
		}
		return out, nil
	})
	for i := range n {
		stored, err := tlog.StoredHashes(i, leaf(i), reader)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, stored...)
	}
	root, err := tlog.TreeHash(n, reader)
	if err != nil {
		t.Fatal(err)
	}
	c := contract.Checkpoint{Origin: contract.Origin("hub.example", gateway, epoch), Size: n, Root: root}
	if change != nil {
		change(&c)
	}
	signed, err := c.Sign(k.signer)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestOutOfOrderAndTwice(t *testing.T) {
	dir := t.TempDir()
	k := newKeyPair(t, gateway)
	var handed []int64
	r := newReceiver(t, dir, k, &handed)
	if a := deliver(t, r, contract.LaneLive, leaf(4)); a.Next != 0 || fmt.Sprint(a.Have) != "[[4 4]]" || a.Credit != 8 || a.Epoch != epoch {
		t.Fatalf("%+v", a)
	}
	// The checkpoint comes before its leaves and is confirmed when they are there.
	if a := deliver(t, r, contract.LaneCheckpoint, signedTree(t, k, epoch, 5, nil)); a.Checkpoint != 0 {
		t.Fatalf("confirmed without leaves: %+v", a)
	}
	deliver(t, r, contract.LaneFill, lines(0, 1, 2))
	if a := deliver(t, r, contract.LaneFill, lines(2, 3, 4)); a.Next != 5 || len(a.Have) != 0 || a.Checkpoint != 5 {
		t.Fatalf("%+v", a)
	}
	if fmt.Sprint(handed) != "[4 0 1 2 3]" {
		t.Fatalf("handed on %v", handed)
	}
	if s := r.Stats(); s.Duplicates != 2 || s.Leaves != 5 || s.Checkpoints != 1 || s.Equivocations+s.Refused+s.WrongRoots != 0 {
		t.Fatalf("%+v", s)
	}

	// After a crash in mid-write the whole lines are there; the torn one was never acknowledged.
	r.Close()
	path := filepath.Join(dir, gateway, epoch+".ndjson")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(leaf(5)[:30]); err != nil {
		t.Fatal(err)
	}
	f.Close()
	r = newReceiver(t, dir, k, &handed)
	if a := deliver(t, r, contract.LaneFill, lines(3, 5)); a.Next != 6 {
		t.Fatalf("%+v", a)
	}
	if raw, err := os.ReadFile(path); err != nil || strings.Count(string(raw), "\n") != 6 {
		t.Fatalf("archive:\n%s", raw)
	}
	if a := deliver(t, r, contract.LaneCheckpoint, signedTree(t, k, epoch, 6, nil)); a.Checkpoint != 6 {
		t.Fatalf("%+v", a)
	}
}

func TestEquivocation(t *testing.T) {
	k := newKeyPair(t, gateway)
	var handed []int64
	r := newReceiver(t, t.TempDir(), k, &handed)
	deliver(t, r, contract.LaneFill, lines(0, 1))
	other := []byte(strings.Replace(string(leaf(1)), `"fill":1`, `"fill":2`, 1))
	deliver(t, r, contract.LaneLive, other)
	twice := append(append(leaf(2), '\n'), []byte(strings.Replace(string(leaf(2)), `"fill":1`, `"fill":3`, 1))...)
	deliver(t, r, contract.LaneFill, twice)
	if s := r.Stats(); s.Equivocations != 2 || s.Leaves != 3 || len(handed) != 3 {
		t.Fatalf("%+v, handed %v", s, handed)
	}
	if a := deliver(t, r, contract.LaneCheckpoint, signedTree(t, k, epoch, 3, nil)); a.Checkpoint != 3 {
		t.Fatalf("the first bytes no longer count: %+v", a)
	}
}

func TestFalseCheckpoints(t *testing.T) {
	k, other := newKeyPair(t, gateway), newKeyPair(t, "g2")
	var handed []int64
	for name, signed := range map[string][]byte{
		"wrong root":      signedTree(t, k, epoch, 3, func(c *contract.Checkpoint) { c.Root[0] ^= 1 }),
		"other size":      signedTree(t, k, epoch, 3, func(c *contract.Checkpoint) { c.Size = 2 }),
		"other key":       signedTree(t, other, epoch, 3, nil),
		"other gateway":   signedTree(t, k, epoch, 3, func(c *contract.Checkpoint) { c.Origin = "hub.example/g2/e1" }),
		"path for epoch":  signedTree(t, k, "../../x", 3, nil),
		"not a note":      []byte("hello"),
		"changed a digit": []byte(strings.Replace(string(signedTree(t, k, epoch, 3, nil)), "\n3\n", "\n2\n", 1)),
	} {
		r := newReceiver(t, t.TempDir(), k, &handed)
		deliver(t, r, contract.LaneFill, lines(0, 1, 2))
		deliver(t, r, contract.LaneCheckpoint, signed)
		if s := r.Stats(); s.WrongRoots != 1 || s.Checkpoints != 0 || r.Tree(gateway, epoch).Confirmed != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestForeignLeavesAreRefused(t *testing.T) {
	k := newKeyPair(t, gateway)
	var handed []int64
	r := newReceiver(t, t.TempDir(), k, &handed)
	for i, payload := range []string{
		"", "noise", strings.Replace(string(leaf(0)), `"gw":"g1"`, `"gw":"g2"`, 1),
		strings.Replace(string(leaf(0)), `"epoch":"e1"`, `"epoch":"../e1"`, 1),
	} {
		if a := deliver(t, r, contract.LaneLive, []byte(payload)); a.Epoch != "" {
			t.Errorf("%d acknowledged: %+v", i, a)
		}
	}
	if len(handed) != 0 || r.Stats().Leaves != 0 {
		t.Fatalf("%+v", r.Stats())
	}
}

func FuzzReceive(f *testing.F) {
	f.Add("hub/v1/g1/up/live", leaf(0))
	f.Add("hub/v1/g1/up/fill", lines(0, 1))
	f.Add("hub/v1/g1/up/ckpt", []byte("hub.example/g1/e1\n1\n"))
	f.Add("hub/v1/g1/up/status", []byte(`{"v":1,"gw":"g1","epoch":"e1","online":true,"size":1}`))
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		var handed []int64
		r := newReceiver(t, t.TempDir(), newKeyPair(t, gateway), &handed)
		ack, to, err := r.receive(topic, payload)
		if err != nil || ack != nil && !contract.ValidGateway(to) {
			t.Errorf("%q for %q: %v", ack, to, err)
		}
	})
}

// A leaf of an earlier epoch comes in one of the present epoch. It counts once, in the log it is from.
func TestCarriedLeaves(t *testing.T) {
	k := newKeyPair(t, gateway)
	var handed []int64
	r := newReceiver(t, t.TempDir(), k, &handed)
	deliver(t, r, contract.LaneLive, lines(0))
	old := func(seq int64, carried []byte) []byte {
		h := contract.Header{Gateway: gateway, Epoch: "e2", Seq: seq, Kind: contract.KindOld, Stamp: contract.Stamp{At: seq, Clock: contract.ClockOK}}
		return append(contract.AppendOld(nil, h, carried), '\n')
	}
	message := old(0, leaf(0))
	message = append(message, old(1, leaf(1))...)
	if a := deliver(t, r, contract.LaneFill, message); a.Epoch != "e2" || a.Next != 2 {
		t.Fatalf("acknowledged %+v", a)
	}
	if hash, ok := r.Hash(gateway, epoch, 1); !ok || hash != tlog.RecordHash(leaf(1)) {
		t.Errorf("carried leaf is not in its log")
	}
	s := r.Stats()
	if s.Leaves != 4 || s.Rows != 2 || s.Duplicates != 1 || s.Refused+s.Equivocations != 0 {
		t.Errorf("%+v", s)
	}
	for _, bad := range [][]byte{[]byte(`{"v":1}`), []byte("7"), old(7, leaf(7)), []byte(strings.Replace(string(leaf(8)), epoch, "e2", 1))} {
		before := r.Stats().Refused
		deliver(t, r, contract.LaneFill, old(2, bad))
		if r.Stats().Refused == before {
			t.Errorf("%.60s is carried", bad)
		}
	}
}
