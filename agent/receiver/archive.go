package receiver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"hubagent/agent/contract"
)

// leafLog is one gateway's log of one epoch: the leaves in a file, one a line in the order they came, and in memory
// what is needed to tell duplicates and recompute roots.
type leafLog struct {
	file      *os.File
	set       contract.SeqSet
	hashes    []tlog.Hash         // tlog's stored hashes of the leaves below set.Next
	early     map[int64]tlog.Hash // record hashes of leaves beyond it
	promised  map[int64]tlog.Hash // roots of checkpoints beyond set.Next, by size
	confirmed int64               // size of the newest checkpoint whose root was recomputed
}

// maxPromised bounds the checkpoints that wait for leaves.
const maxPromised = 32

// openLog opens or makes the file of a log and reads it. A last line that was cut off by a crash was never
// acknowledged, and is removed.
func openLog(dir, gateway, epoch string) (*leafLog, error) {
	if err := os.MkdirAll(filepath.Join(dir, gateway), 0o755); err != nil {
		return nil, fmt.Errorf("cannot make archive folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, gateway, epoch+".ndjson"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open archive: %w", err)
	}
	l := &leafLog{file: f, early: map[int64]tlog.Hash{}, promised: map[int64]tlog.Hash{}}
	if err := l.replay(); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot read archive %s: %w", f.Name(), err)
	}
	return l, nil
}

func (l *leafLog) replay() error {
	r := bufio.NewReaderSize(l.file, 1<<16)
	whole := int64(0) // bytes of whole lines
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		leaf, err := contract.ParseLeaf(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return fmt.Errorf("at byte %d: %w", whole, err)
		}
		if _, known := l.hash(leaf.Seq); !known {
			l.admit(leaf.Seq, tlog.RecordHash(bytes.TrimSuffix(line, []byte("\n"))))
		}
		whole += int64(len(line))
	}
	if err := l.file.Truncate(whole); err != nil {
		return err
	}
	_, err := l.file.Seek(whole, io.SeekStart)
	return err
}

// openArchive reads every log under dir.
func openArchive(dir string) (map[logName]*leafLog, error) {
	logs := map[logName]*leafLog{}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make archive folder: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.ndjson"))
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		name := logName{filepath.Base(filepath.Dir(path)), strings.TrimSuffix(filepath.Base(path), ".ndjson")}
		if !contract.ValidGateway(name.gateway) || !contract.ValidEpoch(name.epoch) {
			continue
		}
		if logs[name], err = openLog(dir, name.gateway, name.epoch); err != nil {
			return nil, err
		}
	}
	return logs, nil
}

// hash returns the record hash of a stored leaf.
func (l *leafLog) hash(seq int64) (tlog.Hash, bool) {
	if seq < l.set.Next {
		return l.hashes[tlog.StoredHashIndex(0, seq)], true
	}
	h, ok := l.early[seq]
	return h, ok
}

// write stores leaves durably: when it returns nil they are on the disk.
func (l *leafLog) write(leaves [][]byte) error {
	var b bytes.Buffer
	for _, leaf := range leaves {
		b.Write(leaf)
		b.WriteByte('\n')
	}
	if _, err := l.file.Write(b.Bytes()); err != nil {
		return fmt.Errorf("cannot write archive %s: %w", l.file.Name(), err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("cannot sync archive %s: %w", l.file.Name(), err)
	}
	return nil
}

// admit counts a stored leaf in, and lets the tree grow as far as leaves follow each other.
func (l *leafLog) admit(seq int64, hash tlog.Hash) {
	l.early[seq] = hash
	for n := l.set.Next; ; n++ {
		h, ok := l.early[n]
		if !ok {
			break
		}
		stored, err := tlog.StoredHashesForRecordHash(n, h, tlog.HashReaderFunc(l.readHashes))
		if err != nil {
			panic("BUG: hashes of stored leaves are missing: " + err.Error())
		}
		l.hashes = append(l.hashes, stored...)
		delete(l.early, n)
	}
	l.set.Add(seq, seq)
}

func (l *leafLog) readHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(l.hashes)) {
			return nil, fmt.Errorf("hash %d is not here", index)
		}
		out[i] = l.hashes[index]
	}
	return out, nil
}

// root recomputes the root of the first n leaves, 0 < n <= set.Next.
func (l *leafLog) root(n int64) (tlog.Hash, error) {
	return tlog.TreeHash(n, tlog.HashReaderFunc(l.readHashes))
}
