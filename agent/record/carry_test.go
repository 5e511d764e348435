package record

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hubagent/agent/contract"
	"hubagent/buffer"
)

// filled makes a journal with an epoch, some leaves in Badger and some only in the redo log, a block that waits, and a
// pulse counter; it returns the bytes of its leaves. It is as a crash leaves it.
func filled(t *testing.T, dir string) (leaves [][]byte) {
	t.Helper()
	open := filepath.Join(t.TempDir(), "journal")
	store, err := Open(buffer.Options{Dir: open, Lasting: Lasting()})
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := Begin(store, testConfig(), "key", "test", synced())
	if err != nil {
		t.Fatal(err)
	}
	q := Quota{Store: store, Epoch: epoch, Clock: synced, Log: slog.New(slog.DiscardHandler)}
	add := func(rows int) {
		t.Helper()
		err := store.Commit(func(tx *buffer.Tx) error {
			h := contract.Header{Gateway: epoch.Gateway, Epoch: epoch.Name, Seq: tx.Next(), Kind: contract.KindData, Stamp: synced()}
			var text []byte
			for i := range rows {
				if i > 0 {
					text = append(text, ',')
				}
				at := time.UnixMilli(int64(i)*7919 + tx.Next()*1e6)
				text = contract.AppendRow(text, sampleAt(fmt.Sprint("bin-", i*i%997), at, uint64(i*31%101), i%2 == 0))
			}
			_, err := tx.Append(buffer.Class('d'), contract.AppendRows(nil, h, text))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 12 {
		add(4000) // large enough to go to Badger at once
	}
	if err := q.drop(buffer.Range{First: 2, End: 4}, []int64{2, 3}, false, false); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		add(3)
	}
	err = store.Commit(func(tx *buffer.Tx) error {
		return setState(tx, statePulses, map[string]map[string]uint64{"meter-001": {"energy": 77}})
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := range store.Size() {
		leaf, err := store.Leaf(n)
		if err != nil && n != 2 && n != 3 {
			t.Fatal(err)
		}
		leaves = append(leaves, leaf.Data)
	}
	if err := os.CopyFS(dir, os.DirFS(open)); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return leaves
}

func carryAll(t *testing.T, store *buffer.Store, epoch Epoch, acked contract.SeqSet) {
	t.Helper()
	Carry{Store: store, Epoch: epoch, Clock: synced, Log: slog.New(slog.DiscardHandler),
		Acked: func(*buffer.Survey) (contract.SeqSet, error) { return acked, nil }}.Run(t.Context())
}

// Where the redo log is gone, nobody knows what was committed last: a new epoch begins and names the old one. All of that
// that can be found, and that the platform does not have, is carried over byte for byte, once, and what is lost is named.
func TestNewEpochCarriesTheOldOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	leaves := filled(t, dir)
	if err := os.Remove(filepath.Join(dir, "redo")); err != nil {
		t.Fatal(err)
	}
	opts := buffer.Options{Dir: dir, Lasting: Lasting()}
	var acked contract.SeqSet
	acked.Add(0, 5)

	// The first try is ended after a leaf, the second carries the rest over.
	store, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := Begin(store, testConfig(), "key", "test", synced())
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	Carry{Store: store, Epoch: epoch, Log: slog.New(slog.DiscardHandler),
		Clock: func() contract.Stamp { end(); return synced() },
		Acked: func(*buffer.Survey) (contract.SeqSet, error) { return acked, nil }}.Run(ended)
	if store.Size() != 4 { // genesis, meta, and the two leaves that fill a Commit
		t.Fatalf("%d leaves after the first try", store.Size())
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if store, err = Open(opts); err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	again, err := Begin(store, testConfig(), "key", "test", synced())
	if err != nil || again != epoch {
		t.Fatalf("%+v, want %+v: %v", again, epoch, err)
	}
	carryAll(t, store, epoch, acked)
	carryAll(t, store, epoch, acked) // nothing is left to do

	first, err := store.Leaf(0)
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		Genesis genesis `json:"genesis"`
	}
	old := struct {
		Epoch string `json:"epoch"`
	}{}
	if err := json.Unmarshal(first.Data, &g); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(leaves[0], &old); err != nil {
		t.Fatal(err)
	}
	if p := g.Genesis.Previous; p == nil || p.Epoch != old.Epoch || p.Size != 14 || p.Root == "" || p.Why == "" || epoch.Name == old.Epoch {
		t.Fatalf("genesis %s", first.Data)
	}

	next, gaps := 6, 0
	for n := int64(2); n < store.Size(); n++ {
		leaf, err := store.Leaf(n)
		if err != nil {
			t.Fatal(err)
		}
		switch leaf.Class {
		case 'o':
			carried, err := contract.Carried(leaf.Data)
			if err != nil || !bytes.Equal(carried, leaves[next]) {
				t.Fatalf("leaf %d carries %.100s, want leaf %d: %v", n, carried, next, err)
			}
			next++
		case 'p':
			gaps++
			if want := `"gap":{"why":"damage","of":"` + old.Epoch + `","beyond":14}}`; !bytes.HasSuffix(leaf.Data, []byte(want)) {
				t.Errorf("%s, want %s", leaf.Data, want)
			}
		default:
			t.Errorf("leaf %d is of class %c", n, leaf.Class)
		}
	}
	if next != 14 || gaps != 1 {
		t.Errorf("carried leaves up to %d, %d gap leaves", next, gaps)
	}
}

// Where the redo log is whole and a value log is not, the log goes on: the hole is named, everything else is as it was.
func TestRepairedLogGoesOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	leaves := filled(t, dir)
	path := filepath.Join(dir, "badger", "000001.vlog")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := len(bytes.TrimRight(raw, "\x00")) / 2
	clear(raw[at : at+5000])
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := Open(buffer.Options{Dir: dir, Lasting: Lasting()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	size := store.Size()
	epoch, err := Begin(store, testConfig(), "key", "test", synced())
	if err != nil {
		t.Fatal(err)
	}
	carryAll(t, store, epoch, contract.SeqSet{})
	if store.Size() != size+1 {
		t.Fatalf("%d leaves, and there were %d", store.Size(), size)
	}
	tells, err := store.Leaf(size)
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		Epoch string `json:"epoch"`
		Gap   gap    `json:"gap"`
	}
	if err := json.Unmarshal(tells.Data, &g); err != nil || g.Epoch != epoch.Name || g.Gap.Why != "damage" || len(g.Gap.Leaves) == 0 {
		t.Fatalf("%s: %v", tells.Data, err)
	}
	var lost contract.SeqSet
	for _, r := range g.Gap.Leaves {
		lost.Add(r[0], r[1])
	}
	for n, want := range leaves {
		leaf, err := store.Leaf(int64(n))
		if gone := lost.Contains(int64(n)) || n == 2 || n == 3; gone != (err != nil) || !gone && !bytes.Equal(leaf.Data, want) {
			t.Errorf("leaf %d: gone %v, %v", n, gone, err)
		}
	}
	if lost.Count() > 2 {
		t.Errorf("%d leaves are lost for 5,000 bytes", lost.Count())
	}
}

// A journal that another gateway exported comes into a new one, whose epoch names it. A damaged export is refused from
// where the damage begins, and what came before is not carried over twice by the next try.
func TestExportAndImport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	leaves := filled(t, dir)
	v, err := buffer.Examine(buffer.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	var acked contract.SeqSet
	acked.Add(0, 4)
	var file bytes.Buffer
	if n, err := Export(&file, v, "g1", acked, nil); err != nil || n != int64(len(leaves)-5) {
		t.Fatalf("%d leaves exported: %v", n, err)
	}
	store, err := Open(buffer.Options{Dir: filepath.Join(t.TempDir(), "journal"), Lasting: Lasting()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	load := func(raw []byte, gateway string) error {
		cfg := testConfig()
		cfg.Gateway.ID = gateway
		return Import(t.Context(), bytes.NewReader(raw), store, cfg, "key", "test", synced, slog.New(slog.DiscardHandler))
	}
	raw := file.Bytes()
	if err := load(raw, "g2"); err == nil || store.Size() != 0 {
		t.Fatalf("another gateway's journal is taken: %v, %d leaves", err, store.Size())
	}
	if err := load([]byte("nonsense"), "g1"); err == nil || store.Size() != 0 {
		t.Fatalf("nonsense is taken: %v, %d leaves", err, store.Size())
	}
	if err := load(raw[:len(raw)*2/3], "g1"); err == nil || store.Size() < 4 {
		t.Fatalf("an export that is cut short: %v, %d leaves", err, store.Size())
	}
	if err := load(raw, "g1"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get(statePulses); err != nil {
		t.Fatal(err)
	}
	next := 5
	for n := int64(2); n < store.Size(); n++ {
		leaf, err := store.Leaf(n)
		if err != nil {
			t.Fatal(err)
		}
		carried, err := contract.Carried(leaf.Data)
		if err != nil || !bytes.Equal(carried, leaves[next]) {
			t.Fatalf("leaf %d carries %.100s, want leaf %d: %v", n, carried, next, err)
		}
		next++
	}
	if next != len(leaves) {
		t.Errorf("carried up to leaf %d of %d", next, len(leaves))
	}
}

func FuzzImport(f *testing.F) {
	f.Add([]byte(`{"form":"hubagent journal 1","gw":"g1","epoch":"e1","size":2,"root":"`+string(bytes.Repeat([]byte("A"), 43))+`=","complete":true,"missing":[[0,0]],"acked":{"next":0},"states":{"pulses":{}},"blocks":[]}`), []byte(`{"lost":0}`))
	f.Fuzz(func(t *testing.T, head, line []byte) {
		e, err := parseExported(head)
		if err != nil {
			return
		}
		e.Root()
		e.Blocks()
		e.Missing()
		e.parseLine(line)
	})
}

// What somebody changed in an export is refused where it cannot be, and told of where leaves are missing.
func TestImportOfAChangedExport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	filled(t, dir)
	v, err := buffer.Examine(buffer.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := Export(&file, v, "g1", contract.SeqSet{Next: 5}, nil); err != nil {
		t.Fatal(err)
	}
	unpacked, err := gzip.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")
	for name, c := range map[string]struct {
		change func([]string) string
		gap    string // what the new journal says is lost; empty: it refuses the file
	}{
		"a line that is no leaf": {func(l []string) string { return strings.Join(l, "") + "\njunk\n" }, ""},
		"leaves the platform cannot have": {func(l []string) string {
			return strings.Replace(strings.Join(l, ""), `"next":5`, `"next":4000000000`, 1)
		}, ""},
		"an impossible state":      {func(l []string) string { return strings.Replace(strings.Join(l, ""), `{"energy":77}`, `"x"`, 1) }, ""},
		"a leaf is missing":        {func(l []string) string { return strings.Join(l[:3], "") + strings.Join(l[4:], "") + "\n" }, `"leaves":[[7,7]]`},
		"the last leaf is missing": {func(l []string) string { return strings.Join(l[:len(l)-1], "") }, `"leaves":[[16,16]]`},
	} {
		t.Run(name, func(t *testing.T) {
			var raw bytes.Buffer
			packed := gzip.NewWriter(&raw)
			if _, err := packed.Write([]byte(c.change(lines))); err != nil {
				t.Fatal(err)
			}
			if err := packed.Close(); err != nil {
				t.Fatal(err)
			}
			store, err := Open(buffer.Options{Dir: filepath.Join(t.TempDir(), "journal"), Lasting: Lasting()})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			err = Import(t.Context(), &raw, store, testConfig(), "key", "test", synced, slog.New(slog.DiscardHandler))
			if (err != nil) != (c.gap == "") {
				t.Fatalf("got %v", err)
			}
			if c.gap == "" {
				return
			}
			last, err := store.Leaf(store.Size() - 1)
			if err != nil || !strings.Contains(string(last.Data), c.gap) {
				t.Errorf("%.300s: %v", last.Data, err)
			}
		})
	}
}
