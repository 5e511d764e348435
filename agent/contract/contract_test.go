package contract

import (
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"hubagent/drivers"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got)+"\n" != string(want) {
		t.Errorf("%s:\n got %s\nwant %s", name, got, want)
	}
}

func sample() drivers.Sample {
	return drivers.Sample{
		Device: "bin-008", At: time.UnixMilli(1790842802464),
		Readings: []drivers.Reading{
			{Point: "deposits", Value: drivers.Uint(412), Quality: drivers.Good},
			{Point: "fill", Value: drivers.Uint(73), Quality: drivers.Good},
			{Point: "weight", Value: drivers.Float64(61.56), Quality: drivers.Suspect, Why: "spike"},
			{Point: "temperature", Quality: drivers.Missing, Why: "exception 2"},
			{Point: "voltage", Value: drivers.Float32(230.1), Quality: drivers.Good},
		},
	}
}

func header(kind Kind, stamp Stamp) Header {
	return Header{Gateway: "g3301060042", Epoch: "20260911T0312Z-7f3a", Seq: 183204, Kind: kind, Stamp: stamp}
}

func TestLeafGolden(t *testing.T) {
	ok := Stamp{At: 1790842860000, Clock: ClockOK}
	unsync := Stamp{At: 1000, Clock: ClockUnsync, Boot: "2f1c2c1c-6f3b-4b0e-9a57-0d3a61d2b0a1", Mono: 52_000}
	row := AppendRow(nil, sample())
	golden(t, "data.json", AppendRows(nil, header(KindData, ok), row))
	golden(t, "data-unsync.json", AppendRows(nil, header(KindData, unsync), row))
	doc, err := AppendDocument(nil, header(KindGenesis, ok), "genesis", map[string]any{"previous": nil})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "genesis.json", doc)
	ack, err := json.Marshal(Ack{Epoch: "20260911T0312Z-7f3a", SeqSet: SeqSet{183120, [][2]int64{{183130, 183204}}}, Checkpoint: 183180, Credit: 8, PaceMs: 500, At: 1790842861250})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "ack.json", ack)
	status, err := json.Marshal(Status{Version: 1, Gateway: "g3301060042", Session: "00ff", Online: true, Epoch: "20260911T0312Z-7f3a", Size: 183205, Meta: "m", Clock: ClockOK, Backlog: 84})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "status.json", status)
	if s, err := ParseStatus(status); err != nil || s.Backlog != 84 {
		t.Errorf("status: %+v %v", s, err)
	}
}

func TestLeafReadsBack(t *testing.T) {
	l, err := ParseLeaf(AppendRows(nil, header(KindData, Stamp{At: 5, Clock: ClockOK}), AppendRow(nil, sample())))
	if err != nil {
		t.Fatal(err)
	}
	r := l.Rows[0]
	if l.Seq != 183204 || l.Kind != KindData || l.At != 5 || r.Device != "bin-008" || r.At != 1790842802464 ||
		r.Measured["deposits"] != "412" || r.Measured["weight"] != "61.56" || r.Measured["voltage"] != "230.1" {
		t.Errorf("got %+v", l)
	}
	if _, there := r.Measured["temperature"]; there {
		t.Error("a missing value travels")
	}
	if q := r.Quality["temperature"]; q.Flag != drivers.Missing || q.Why != "exception 2" {
		t.Errorf("missing value is flagged %+v", q)
	}
	if _, there := r.Quality["fill"]; there {
		t.Error("a good value is flagged")
	}
}

func TestParseLeafRefuses(t *testing.T) {
	good := string(AppendRows(nil, header(KindData, Stamp{Clock: ClockOK}), nil))
	for name, leaf := range map[string]string{
		"not JSON":            `{"v":1`,
		"two leaves":          good + good,
		"other version":       strings.Replace(good, `"v":1`, `"v":2`, 1),
		"path as epoch":       strings.Replace(good, "20260911T0312Z-7f3a", "../../etc", 1),
		"gateway with slash":  strings.Replace(good, "g3301060042", "a/b", 1),
		"negative seq":        strings.Replace(good, "183204", "-1", 1),
		"huge seq":            strings.Replace(good, "183204", "9000000000000000", 1),
		"seq that is a float": strings.Replace(good, "183204", "1.5", 1),
		"no kind":             strings.Replace(good, `"data"`, `""`, 1),
		"too long":            good[:len(good)-1] + strings.Repeat(" ", MaxLeafBytes) + "}",
	} {
		if l, err := ParseLeaf([]byte(leaf)); err == nil {
			t.Errorf("%s: accepted as %+v", name, l)
		}
	}
}

func TestTopics(t *testing.T) {
	for _, packed := range []bool{false, true} {
		gw, lane, p, err := ParseUpTopic(UpTopic("g1", LaneFill, packed))
		if gw != "g1" || lane != LaneFill || p != packed || err != nil {
			t.Errorf("got %q %q %v %v", gw, lane, p, err)
		}
	}
	for _, bad := range []string{"", "hub/v1/g1/up", "hub/v1/g1/dn/ack", "hub/v2/g1/up/live", "hub/v1/G 1/up/live", "hub/v1/g1/up/live/zip", "hub/v1/../up/live", "hub/v1/g1/up/live/gz/x"} {
		if _, _, _, err := ParseUpTopic(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestPack(t *testing.T) {
	var p Packer
	for _, text := range []string{strings.Repeat("reading ", 500), strings.Repeat("other ", 100)} {
		packed, ok := p.Pack([]byte(text))
		if !ok || len(packed) >= len(text) {
			t.Fatalf("packed to %d of %d", len(packed), len(text))
		}
		if raw, err := Unpack(packed); err != nil || string(raw) != text {
			t.Fatalf("%q %v", raw, err)
		}
	}
	if same, ok := p.Pack([]byte("x")); ok || string(same) != "x" {
		t.Error("a short payload was packed")
	}
	bomb, _ := p.Pack(make([]byte, MaxMessageBytes+1))
	if _, err := Unpack(bomb); err == nil {
		t.Error("a bomb was unpacked")
	}
	if _, err := Unpack([]byte("not gzip")); err == nil {
		t.Error("noise was unpacked")
	}
}

// A SeqSet must agree with a plain set of numbers, and keep its form.
func TestSeqSetAgreesWithMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var s SeqSet
		plain := map[int64]bool{}
		for range 40 {
			first := r.Int64N(70)
			last := first + r.Int64N(4) - 1 // empty at times
			s.Add(first, last)
			for n := first; n <= last; n++ {
				plain[n] = true
			}
		}
		if err := s.check(); err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		for i, x := range s.Have {
			if x[0] <= s.Next || i > 0 && x[0] <= s.Have[i-1][1]+1 {
				t.Fatalf("ranges touch: %+v", s)
			}
		}
		if s.Count() != int64(len(plain)) {
			t.Fatalf("count %d, want %d", s.Count(), len(plain))
		}
		for n := range int64(80) {
			if s.Contains(n) != plain[n] {
				t.Fatalf("%d: %v in %+v", n, s.Contains(n), s)
			}
			next := n
			for plain[next] {
				next++
			}
			if got := s.NextMissing(n); got != next {
				t.Fatalf("next missing from %d: %d, want %d", n, got, next)
			}
		}
	}
}

func TestParseAckRefuses(t *testing.T) {
	const epoch = "20260911T0312Z-7f3a"
	good := `{"epoch":"20260911T0312Z-7f3a","next":5,"have":[[7,9]],"ckpt":5,"credit":8,"pace_ms":0,"later":1}`
	if a, err := ParseAck([]byte(good), epoch, 10); err != nil || !a.Contains(8) || a.Contains(6) || a.Credit != 8 {
		t.Fatalf("%+v %v", a, err)
	}
	for name, c := range map[string]struct {
		text string
		size int64
	}{
		"beyond the tree":       {good, 9},
		"other epoch":           {strings.Replace(good, "7f3a", "0000", 1), 10},
		"checkpoint beyond":     {strings.Replace(good, `"ckpt":5`, `"ckpt":11`, 1), 10},
		"range backwards":       {strings.Replace(good, "[7,9]", "[9,7]", 1), 10},
		"range below next":      {strings.Replace(good, "[7,9]", "[3,9]", 1), 10},
		"ranges out of order":   {strings.Replace(good, "[[7,9]]", "[[8,9],[6,6]]", 1), 10},
		"negative next":         {strings.Replace(good, `"next":5`, `"next":-5`, 1), 10},
		"negative credit":       {strings.Replace(good, `"credit":8`, `"credit":-1`, 1), 10},
		"not JSON":              {"yes", 10},
		"number that is a word": {strings.Replace(good, `"next":5`, `"next":"5"`, 1), 10},
	} {
		if a, err := ParseAck([]byte(c.text), epoch, c.size); err == nil {
			t.Errorf("%s: accepted as %+v", name, a)
		}
	}
	if a, _ := ParseAck([]byte(strings.Replace(good, `"credit":8`, `"credit":1000000`, 1)), epoch, 10); a.Credit != MaxCredit {
		t.Errorf("credit %d believed", a.Credit)
	}
}

func TestCheckpoint(t *testing.T) {
	secret, public, err := NewKey("hub.example", "g1")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{Origin("hub.example", "g1", "e1"), 7, tlog.RecordHash([]byte("x"))}
	signed, err := c.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenCheckpoint(signed, verifier); err != nil || got != c {
		t.Fatalf("%+v %v", got, err)
	}
	for name, change := range map[string][2]string{"size": {"\n7\n", "\n8\n"}, "origin": {"/e1\n", "/e2\n"}} {
		forged := strings.Replace(string(signed), change[0], change[1], 1)
		if forged == string(signed) {
			t.Fatal("nothing was changed")
		}
		if _, err := OpenCheckpoint([]byte(forged), verifier); err == nil {
			t.Errorf("a changed %s was accepted", name)
		}
	}
	otherSecret, _, err := NewKey("hub.example", "g1")
	if err != nil {
		t.Fatal(err)
	}
	other, err := note.NewSigner(otherSecret)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := c.Sign(other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCheckpoint(foreign, verifier); err == nil {
		t.Error("another key was accepted")
	}
	for _, text := range []string{"o\n07\nAAAA\n", "o\n7\n", "o\n-1\n" + tlog.Hash{}.String() + "\n", "o\n7\nAAAA\n"} {
		signed, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := OpenCheckpoint(signed, verifier); err == nil {
			t.Errorf("%q accepted as %+v", text, c)
		}
	}
	if _, _, err := NewKey("with space", "g1"); err == nil {
		t.Error("a key name that no signer takes was made")
	}
}

func FuzzParseLeaf(f *testing.F) {
	f.Add(AppendRows(nil, header(KindData, Stamp{Clock: ClockOK}), AppendRow(nil, sample())))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLeaf(data)
		if err == nil && (!ValidGateway(l.Gateway) || !ValidEpoch(l.Epoch) || l.Seq < 0) {
			t.Errorf("accepted %+v", l)
		}
	})
}

func FuzzParseAck(f *testing.F) {
	f.Add([]byte(`{"epoch":"e","next":5,"have":[[7,9]],"ckpt":5,"credit":8}`), int64(10))
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		a, err := ParseAck(data, "e", size)
		if err == nil && (a.NextMissing(0) > max(size, 0) || a.Contains(max(size, 0)) || a.Count() > max(size, 0)) {
			t.Errorf("accepted %+v for size %d", a, size)
		}
	})
}

func FuzzParseUp(f *testing.F) {
	f.Add("hub/v1/g1/up/live/gz", []byte("x"))
	f.Fuzz(func(t *testing.T, topic string, data []byte) {
		if gw, lane, packed, err := ParseUpTopic(topic); err == nil && UpTopic(gw, lane, packed) != topic {
			t.Errorf("%q is read as %q %q %v", topic, gw, lane, packed)
		}
		if raw, err := Unpack(data); err == nil && len(raw) > MaxMessageBytes {
			t.Error("unpacked too much")
		}
		ParseStatus(data)
	})
}
