package record

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/mod/sumdb/tlog"

	"hubagent/agent/contract"
	"hubagent/buffer"
	"hubagent/config"
)

// An export is a gzipped text: a line that describes the journal, then its leaves, one a line, as they were committed, but
// for those that the platform acknowledged. It is not encrypted.

const exportForm = "hubagent journal 1"

// exported is the first line of an export.
type exported struct {
	Form     string                     `json:"form"`
	Gateway  string                     `json:"gw"`
	Epoch    string                     `json:"epoch"`
	Leaves   int64                      `json:"size"`
	RootHash string                     `json:"root"` // base64; empty without leaves
	Whole    bool                       `json:"complete"`
	Gone     [][2]int64                 `json:"missing"` // first and last of each run
	Acked    contract.SeqSet            `json:"acked"`
	States   map[string]json.RawMessage `json:"states"`
	Held     []string                   `json:"blocks"` // base64
}

// movedStates are the state records that go from one gateway to another, with what each must be.
func movedStates() map[string]any {
	return map[string]any{
		stateContacts: &map[string]map[string]bool{}, stateFaults: &map[string]openFault{}, statePulses: &map[string]map[string]uint64{},
	}
}

// Get, Root, Blocks, Missing and Complete make it a predecessor.
func (e *exported) Get(name string) ([]byte, error) {
	if name == stateEpoch {
		return []byte(e.Epoch), nil
	}
	raw, ok := e.States[name]
	if _, moved := movedStates()[name]; !ok || !moved {
		return nil, fmt.Errorf("state %q: %w", name, buffer.ErrNotFound)
	}
	return raw, nil
}

func (e *exported) Root() (size int64, root tlog.Hash) {
	raw, _ := base64.StdEncoding.DecodeString(e.RootHash) // checked by parseExported
	copy(root[:], raw)
	return e.Leaves, root
}

func (e *exported) Blocks() (list [][]byte) {
	for _, text := range e.Held {
		raw, _ := base64.StdEncoding.DecodeString(text) // checked by parseExported
		list = append(list, raw)
	}
	return list
}

func (e *exported) Missing() (list []buffer.Range) {
	for _, r := range e.Gone {
		list = append(list, buffer.Range{First: r[0], End: r[1] + 1})
	}
	return list
}

func (e *exported) Complete() bool { return e.Whole }

func parseExported(line []byte) (*exported, error) {
	var e exported
	if err := json.Unmarshal(line, &e); err != nil || e.Form == "" {
		return nil, errors.New("it is not an export of hubagent journal")
	}
	if e.Form != exportForm {
		return nil, fmt.Errorf("its form is %.40q, and this version reads %q", e.Form, exportForm)
	}
	if !contract.ValidGateway(e.Gateway) || !contract.ValidEpoch(e.Epoch) || e.Leaves < 0 || e.Leaves > contract.MaxSeq {
		return nil, errors.New("its first line has no valid gateway, epoch or size")
	}
	if root, err := base64.StdEncoding.DecodeString(e.RootHash); err != nil || len(root) != tlog.HashSize && e.Leaves > 0 {
		return nil, errors.New("its first line has no valid root")
	}
	for _, r := range e.Gone {
		if r[0] < 0 || r[1] < r[0] || r[1] >= e.Leaves {
			return nil, errors.New("its first line names impossible leaves")
		}
	}
	if len(e.Held) > buffer.MaxBlocks {
		return nil, errors.New("its first line has too many blocks")
	}
	for _, text := range e.Held {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err == nil {
			_, err = parseBlock(raw)
		}
		if err != nil {
			return nil, errors.New("its first line has an impossible block")
		}
	}
	if a := e.Acked; a.Next < 0 || a.Next > e.Leaves || len(a.Have) > 0 && a.Have[len(a.Have)-1][1] >= e.Leaves {
		return nil, errors.New("its first line says that the platform has leaves which do not exist")
	}
	for name, v := range movedStates() {
		if raw, ok := e.States[name]; ok && json.Unmarshal(raw, v) != nil {
			return nil, fmt.Errorf("its first line has an impossible state %q", name)
		}
	}
	return &e, nil
}

// Export writes what a journal holds and the platform has not acknowledged. progress is called after every leaf with its
// number; it may be nil. It returns how many leaves it wrote.
func Export(w io.Writer, v *buffer.Survey, gateway string, acked contract.SeqSet, progress func(n int64)) (leaves int64, err error) {
	epoch, err := v.Get(stateEpoch)
	if err != nil {
		return 0, fmt.Errorf("epoch of the journal: %w", err)
	}
	size, root := v.Root()
	e := exported{
		Form: exportForm, Gateway: gateway, Epoch: string(epoch), Leaves: size, Whole: v.Complete(), Gone: [][2]int64{},
		Acked: acked, States: map[string]json.RawMessage{}, Held: []string{},
	}
	if size > 0 {
		e.RootHash = root.String()
	}
	for _, r := range v.Missing() {
		e.Gone = append(e.Gone, [2]int64{r.First, r.End - 1})
	}
	for name := range movedStates() {
		if raw, err := v.Get(name); err == nil && json.Valid(raw) {
			e.States[name] = raw
		}
	}
	for _, b := range v.Blocks() {
		e.Held = append(e.Held, base64.StdEncoding.EncodeToString(b))
	}
	head, err := json.Marshal(e)
	if err != nil {
		return 0, fmt.Errorf("cannot export: %w", err)
	}
	packed := gzip.NewWriter(w)
	write := func(line []byte) {
		if err == nil {
			_, err = packed.Write(append(line, '\n'))
		}
	}
	write(head)
	for _, n := range v.Leaves() {
		if acked.Contains(n) {
			continue
		}
		leaf, broken := v.Leaf(n)
		if broken != nil {
			write(fmt.Appendf(nil, `{"lost":%d}`, n))
			continue
		}
		write(leaf.Data)
		if leaves++; progress != nil {
			progress(n)
		}
		if err != nil {
			break
		}
	}
	return leaves, errors.Join(err, packed.Close())
}

// Import takes what another gateway of the same id exported into a journal: a new journal begins its epoch by naming that
// one's, and the leaves follow in leaves of KindOld. Interrupted, it can be called again.
func Import(ctx context.Context, r io.Reader, store *buffer.Store, cfg *config.Config, logKey, version string, clock Clock, log *slog.Logger) error {
	packed, err := gzip.NewReader(r)
	if err != nil {
		return errors.New("it is not an export of hubagent journal")
	}
	lines := bufio.NewReaderSize(packed, 1<<16)
	head, err := readLine(lines)
	if err != nil {
		return fmt.Errorf("it is cut short: %w", err)
	}
	old, err := parseExported(head)
	if err != nil {
		return err
	}
	if old.Gateway != cfg.Gateway.ID {
		return fmt.Errorf("it is of gateway %s, and hub.yaml is of %s: a gateway that takes another one's place has its id, gateway.id", old.Gateway, cfg.Gateway.ID)
	}
	if now, err := ReadEpoch(store, cfg.Gateway.ID); err == nil && now.Name == old.Epoch {
		return errors.New("it is of this very journal")
	}
	if waits, err := replaced(store); err != nil || waits != nil {
		return errors.Join(err, errors.New("this journal still has leaves of another one to carry over: start the agent, and import once it says that it is done"))
	}
	epoch, err := begin(store, cfg, logKey, version, clock(), old, "moved from another gateway")
	if err != nil {
		return err
	}
	leaves := func(yield func(oldLeaf, error) bool) {
		last := int64(-1)
		// skipped gives what should be in the file before a leaf and is not.
		skipped := func(before int64) bool {
			for n := old.Acked.NextMissing(last + 1); n < before; n = old.Acked.NextMissing(n + 1) {
				if !yield(oldLeaf{n: n, err: buffer.ErrNotFound}, nil) {
					return false
				}
			}
			return true
		}
		for {
			line, err := readLine(lines)
			if errors.Is(err, io.EOF) && len(line) == 0 {
				skipped(old.Leaves)
				return
			}
			var l oldLeaf
			if err == nil {
				l, err = old.parseLine(line)
			}
			if err == nil && l.n <= last {
				err = errors.New("its leaves are not in order")
			}
			if err != nil {
				err = fmt.Errorf("it is damaged after leaf %d: %w", last, err)
			}
			if err == nil && !skipped(l.n) {
				return
			}
			last = l.n
			if !yield(l, err) {
				return
			}
		}
	}
	c := Carry{Store: store, Epoch: epoch, Clock: clock, Log: log}
	return c.all(ctx, old, old.Acked, leaves)
}

// parseLine reads a line after the first one: a leaf, or the number of one that could not be read.
func (e *exported) parseLine(line []byte) (oldLeaf, error) {
	var lost struct {
		N *int64 `json:"lost"`
	}
	if err := json.Unmarshal(line, &lost); err == nil && lost.N != nil {
		return oldLeaf{n: *lost.N, err: buffer.ErrNotFound}, nil
	}
	leaf, err := contract.ParseLeaf(line)
	if err == nil && (leaf.Gateway != e.Gateway || leaf.Epoch != e.Epoch || leaf.Seq >= e.Leaves && e.Whole) {
		err = errors.New("a leaf is of another journal")
	}
	if err != nil {
		return oldLeaf{}, err
	}
	return oldLeaf{leaf.Seq, buffer.Leaf{Class: buffer.Class(leaf.Kind.Class()), Data: line}, nil}, nil
}

// readLine reads a line of bounded length, without its end.
func readLine(r *bufio.Reader) (line []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > 2*contract.MaxLeafBytes {
			return nil, errors.New("a line is too long")
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err == nil {
			line = line[:len(line)-1]
		}
		return line, err
	}
}
