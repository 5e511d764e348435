package buffer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/mod/sumdb/tlog"
)

// A Survey is what the files of a store hold, gathered record by record without opening it: of a damaged one what is
// left, of a sound one everything. It changes nothing, and may be made beside the process that has the store open; what
// that process rewrites meanwhile can be missed, so look again before believing that something is missing. It keeps some
// hundred bytes of memory a leaf, and is not safe for concurrent use.
type Survey struct {
	dir     string
	keys    dataKeys
	named   values
	records map[string]found // newest of every key but those of leaves and hashes
	leaves  map[int64]place
	lasting map[int64]bool      // leaves of lasting classes that a table names
	hashes  map[int64]tlog.Hash // of leaves
	file    uint32              // number of the value log that was read last
	log     log
	head    head  // newest that was found
	last    int64 // last Commit there is any word of
	current bool  // head is that of the last Commit
	applied bool  // the same, and nothing that Badger held is missing

	// Damage says what was found damaged, in a line each. What was dropped or replaced counts, too.
	Damage []string
}

// found is the newest of what was found under a key.
type found struct {
	version uint64
	data    []byte
	state   foundState
}

type foundState byte

const (
	readable   foundState = iota // data is there and matches its checksum
	unreadable                   // it should be there, and was not found
	deleted
)

// newest stands for the version of what comes from the redo log: Badger's transactions are all older.
const newest = math.MaxUint64

// place is where a leaf's record lies: in a value log, or here.
type place struct {
	version uint64
	pointer
	data    []byte
	lasting bool
}

// Examine looks at the files in opts.Dir. Errors: fs.ErrNotExist, a wrong key, a store of another version, or a folder
// that cannot be read.
func Examine(opts Options) (*Survey, error) {
	v := &Survey{dir: opts.Dir, named: values{}, records: map[string]found{}, leaves: map[int64]place{}, lasting: map[int64]bool{}, hashes: map[int64]tlog.Hash{}}
	if _, err := os.Stat(filepath.Join(opts.Dir, badgerDir)); err != nil {
		return nil, fmt.Errorf("cannot look at journal: %w", err)
	}
	var err error
	if v.keys, err = findRegistry(opts.Dir, opts.Key); err != nil {
		return nil, err
	}
	for _, gather := range []func() error{v.tables, v.memtables, v.valueLogs} {
		if err := gather(); err != nil {
			return nil, fmt.Errorf("cannot look at journal %s: %w", opts.Dir, err)
		}
	}
	return v, v.redo(opts.Key)
}

// findRegistry reads Badger's data keys, from our copy where its own file is damaged.
func findRegistry(dir string, key []byte) (dataKeys, error) {
	keys, err := readRegistry(filepath.Join(dir, badgerDir), key)
	if err == nil {
		return keys, nil
	}
	if keys, other := readRegistry(dir, key); other == nil {
		return keys, nil
	}
	if isWrongKey(err) {
		return nil, wrongKey(dir)
	}
	// Without it no table and no value log can be read; the redo log has a key of its own.
	return dataKeys{0: nil}, nil
}

func isWrongKey(err error) bool {
	return errors.Is(err, badger.ErrEncryptionKeyMismatch) || errors.Is(err, badger.ErrInvalidEncryptionKey)
}

func wrongKey(dir string) error {
	return fmt.Errorf("cannot open journal %s: it was written with another key; nothing was changed: put the right key back, or move this folder away to begin anew", dir)
}

func (v *Survey) damaged(format string, a ...any) {
	v.Damage = append(v.Damage, fmt.Sprintf(format, a...))
}

func (v *Survey) files(ending string, fn func(name string, n uint64, raw []byte)) error {
	dir := filepath.Join(v.dir, badgerDir)
	list, err := badgerFiles(dir, ending)
	if err != nil {
		return err
	}
	for _, n := range list {
		path := badgerFile(dir, n, ending)
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			v.damaged("%v", err)
			continue
		}
		fn(filepath.Base(path), n, raw)
	}
	return nil
}

func (v *Survey) tables() error {
	named, err := namedTables(filepath.Join(v.dir, badgerDir))
	if err != nil {
		v.damaged("manifest: %v", err)
	}
	return v.files(tableEnding, func(name string, n uint64, raw []byte) {
		id, known := named[n]
		ids := []uint64{id}
		if !known { // made a moment ago, or the manifest is damaged: then any key may be the right one
			ids = slices.Sorted(maps.Keys(v.keys))
		}
		count, err := 0, error(nil)
		for _, id := range ids {
			if err = readTable(raw, v.keys[id], func(e entry) { v.named.take(e); v.take(e, pointer{}); count++ }); count > 0 {
				break
			}
		}
		if err != nil {
			v.damaged("table %s %v", name, err)
		}
	})
}

// memtables reads the logs of memtables. A transaction that has no end there was not acknowledged.
func (v *Survey) memtables() error {
	var open []entry
	return v.logs(memtableEnding, func(e entry, _ pointer) {
		switch {
		case e.meta&metaTxEnd != 0:
			for _, e := range open {
				v.take(e, pointer{})
			}
			open = nil
		case e.meta&metaTx != 0:
			open = append(open, e)
		default:
			v.take(e, pointer{})
		}
	})
}

func (v *Survey) valueLogs() error { return v.logs(valueLogEnding, v.take) }

func (v *Survey) logs(ending string, fn func(e entry, p pointer)) error {
	list, err := badgerFiles(filepath.Join(v.dir, badgerDir), ending)
	if err != nil {
		return err
	}
	return v.files(ending, func(name string, n uint64, raw []byte) {
		l, whole, ok := openDamagedLog(raw, v.keys)
		if !ok {
			if slices.ContainsFunc(raw, func(b byte) bool { return b != 0 }) {
				v.damaged("%s cannot be read from its beginning on", name)
			}
			return
		}
		if !whole {
			v.damaged("%s is damaged at its beginning", name)
		}
		end := 0
		sound := l.scan(func(e entry, at, size int) {
			if ending == memtableEnding {
				v.named.take(e)
			}
			fn(e, pointer{uint32(n), uint32(size), uint32(at)})
			end = at + size
		})
		written := ending == memtableEnding || n == list[len(list)-1]
		if sound < end && !(written && v.named.cutOff(name)(l, sound)) {
			v.damaged("%s is damaged at byte %d", name, sound)
		}
	})
}

// take keeps an entry when it is newer than what was found under its key. p is its place in a value log, where the entry
// is from one.
func (v *Survey) take(e entry, p pointer) {
	if !ours(e.key) || e.key[0] == '!' || e.key[0] == flushPrefix {
		return
	}
	_, points := e.pointer()
	f := found{version: e.version, state: unreadable}
	if e.meta&metaDelete != 0 {
		f.state = deleted
	} else if !points {
		if data, ok := unseal(e.key, e.value); ok {
			f.data, f.state = data, readable
		}
	}
	v.keep(e.key, f, p)
}

// keep takes up what was found under a key.
func (v *Survey) keep(key []byte, f found, p pointer) {
	switch key[0] {
	case leafPrefix, lastingPrefix:
		n := keyNumber(key)
		if key[0] == lastingPrefix && p.size == 0 && f.state != deleted {
			v.lasting[n] = true
		}
		if f.state != readable || len(f.data) == 0 || v.leaves[n].version > f.version {
			return
		}
		l := place{version: f.version, pointer: p, lasting: key[0] == lastingPrefix}
		if p.size == 0 {
			l.data = slices.Clone(f.data)
		}
		v.leaves[n] = l
	case hashPrefix:
		if f.state == readable && len(f.data) >= tlog.HashSize {
			v.hashes[keyNumber(key)] = tlog.Hash(f.data[:tlog.HashSize])
		}
	default:
		old, known := v.records[string(key)]
		// A value log also holds what was replaced, and what a crash cut off: there only what a table points to counts.
		if p.size > 0 && (!known || old.version != f.version || old.state != unreadable) {
			return
		}
		if known && (old.version > f.version || old.version == f.version && f.state == unreadable) {
			return
		}
		f.data = slices.Clone(f.data)
		v.records[string(key)] = f
	}
}

// redo takes up what only the redo log holds.
func (v *Survey) redo(key []byte) error {
	v.applied = true
	switch f, known := v.records[string(headKey)]; {
	case known && f.state != readable:
		v.damaged("head record")
		v.applied = false
	case known:
		h, err := parseHead(f.data)
		if err != nil {
			return fmt.Errorf("cannot look at journal %s: %w", v.dir, err)
		}
		v.head, v.last = h, h.commit
	}
	v.current = true
	log, frames, err := readRedo(v.dir, key)
	var damage *DamageError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if v.head.commit > 0 {
			v.damaged("its redo log is gone")
			v.applied, v.current = false, false
		}
	case errors.As(err, &damage):
		v.damaged("%s", damage.What)
		v.applied, v.current = false, false
	case err != nil:
		return err
	case log.last < v.head.redo:
		v.damaged("its redo log ends at Commit %d, and once held Commit %d", log.last, v.head.redo)
		v.applied, v.current = false, false
	}
	stored := v.head.commit
	for _, f := range frames {
		v.last = max(v.last, f.number, f.base)
		if f.base > stored {
			v.applied = false
		}
		if f.number <= stored || f.broken {
			continue
		}
		if want := v.head.commit + 1; f.number != want {
			// What the frame in the hole changed is missing, or older than it should be; what came after it is there, and the
			// root of its head says whether all leaves are.
			v.damaged("redo log: Commit %d is missing", want)
		}
		for _, rec := range f.records {
			if !ours(rec.key) {
				continue
			}
			data, ok := unseal(rec.key, rec.value)
			if string(rec.key) == string(headKey) {
				if h, err := parseHead(data); ok && err == nil {
					v.head = h
				} else {
					v.applied = false
				}
				continue
			}
			state := readable
			if rec.value == nil {
				state = deleted
			} else if !ok {
				state = unreadable
			}
			v.keep(rec.key, found{newest, data, state}, pointer{})
		}
	}
	if v.last != v.head.commit {
		v.applied, v.current = false, false
	}
	if !v.applied {
		v.damaged("what was committed after Commit %d is not all there", stored)
	}
	return nil
}

// Dir is the folder that was looked at.
func (v *Survey) Dir() string { return v.dir }

// Size is the number of leaves that were appended, as far as there is word of them. Leaves beyond the last Commit were
// not acknowledged and do not count, unless Commits are missing.
func (v *Survey) Size() int64 {
	size := v.head.size
	if !v.applied {
		for n := range v.leaves {
			size = max(size, n+1)
		}
	}
	return size
}

// Root is the root that the newest head names, of how many leaves.
func (v *Survey) Root() (size int64, root tlog.Hash) { return v.head.size, v.head.root }

// Complete says whether every Commit was found, up to the last one there is word of.
func (v *Survey) Complete() bool { return v.applied }

// Leaf returns leaf n: ErrNotFound when it was not found or was dropped, a *DamageError when it does not match its hash.
func (v *Survey) Leaf(n int64) (Leaf, error) {
	data, err := v.leafRecord(n)
	if err != nil {
		return Leaf{}, err
	}
	raw, err := decode(data[1:])
	if err != nil {
		return Leaf{}, &DamageError{v.dir, fmt.Sprintf("leaf %d: %v", n, err)}
	}
	if h, ok := v.hashes[n]; ok && h != tlog.RecordHash(raw) {
		return Leaf{}, &DamageError{v.dir, fmt.Sprintf("leaf %d does not match its hash", n)}
	}
	return Leaf{Class(data[0]), raw}, nil
}

// leafRecord is a leaf as it is kept: its class, its codec, its bytes.
func (v *Survey) leafRecord(n int64) ([]byte, error) {
	p, ok := v.leaves[n]
	if !ok || n >= v.Size() {
		return nil, fmt.Errorf("leaf %d: %w", n, ErrNotFound)
	}
	if p.data != nil {
		return p.data, nil
	}
	l, err := v.valueLog(p.file)
	if err != nil {
		return nil, fmt.Errorf("leaf %d: %w", n, err)
	}
	if int(p.at) > len(l.raw) {
		return nil, &DamageError{v.dir, fmt.Sprintf("leaf %d cannot be read again", n)}
	}
	e, _, whole := l.entry(int(p.at))
	if !whole {
		e, _, whole = l.mend(int(p.at))
	}
	if whole && len(e.key) == 9 && keyNumber(e.key) == n {
		if data, ok := unseal(e.key, e.value); ok && len(data) > 0 {
			return data, nil
		}
	}
	return nil, &DamageError{v.dir, fmt.Sprintf("leaf %d cannot be read again", n)}
}

// valueLog reads a value log, and keeps it for the leaves that follow.
func (v *Survey) valueLog(file uint32) (log, error) {
	if v.file == file && v.log.raw != nil {
		return v.log, nil
	}
	raw, err := os.ReadFile(badgerFile(filepath.Join(v.dir, badgerDir), uint64(file), valueLogEnding))
	if err != nil {
		return log{}, err
	}
	l, _, ok := openDamagedLog(raw, v.keys)
	if !ok {
		return log{}, &DamageError{v.dir, fmt.Sprintf("value log %d cannot be read again", file)}
	}
	v.file, v.log = file, l
	return l, nil
}

// Leaves returns the numbers of the leaves that are there and were not dropped, in order.
func (v *Survey) Leaves() (list []int64) {
	dropped := map[bool][]Range{false: v.dropped(false), true: v.dropped(true)}
	for _, n := range slices.Sorted(maps.Keys(v.leaves)) {
		if n < v.Size() && !within(dropped[v.leaves[n].lasting], n) {
			list = append(list, n)
		}
	}
	return list
}

func within(list []Range, n int64) bool {
	return slices.ContainsFunc(list, func(r Range) bool { return r.First <= n && n < r.End })
}

// Get returns the state record of a name: ErrNotFound when there is none, or when its newest value cannot be read.
func (v *Survey) Get(name string) ([]byte, error) {
	f, ok := v.records[string(stateKey(name))]
	if !ok || f.state != readable {
		return nil, fmt.Errorf("state %q: %w", name, ErrNotFound)
	}
	return f.data, nil
}

// Blocks returns the blocks that wait to become a leaf, as far as they are there. Where the last Commits are missing they may
// have become one, so there are none.
func (v *Survey) Blocks() (list [][]byte) {
	if !v.current {
		return nil
	}
	for n := v.head.nextBlock - v.head.blocks; n < v.head.nextBlock; n++ {
		if f, ok := v.records[string(numberKey(blockPrefix, n))]; ok && f.state == readable {
			list = append(list, f.data)
		}
	}
	return list
}

// lostBlocks is how many blocks should wait and were not found.
func (v *Survey) lostBlocks() int { return int(v.head.blocks) - len(v.Blocks()) }

// dropped returns the ranges in which leaves of one kind were given up, in order.
func (v *Survey) dropped(lasting bool) (list []Range) {
	for key, f := range v.records {
		if key[0] == droppedPrefixOf(lasting) && len(key) == 9 && f.state == readable && len(f.data) == 8 {
			list = append(list, Range{keyNumber([]byte(key)), int64(binary.BigEndian.Uint64(f.data))})
		}
	}
	slices.SortFunc(list, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	return list
}

// Missing returns the leaves that should be there and were not found, in order.
func (v *Survey) Missing() (list []Range) {
	dropped, lasting := v.dropped(false), v.dropped(true)
	for n := range v.Size() {
		if _, ok := v.leaves[n]; ok || within(lasting, n) || within(dropped, n) && !v.lasting[n] {
			continue
		}
		if last := len(list) - 1; last >= 0 && list[last].End == n {
			list[last].End++
			continue
		}
		list = append(list, Range{n, n + 1})
	}
	return list
}

// Whole is nil when the log can go on: everything up to the last Commit is accounted for, every leaf or at least its
// hash is there, and the hashes give the root. Missing leaves do not matter here.
func (v *Survey) Whole() error {
	if !v.applied {
		return errors.New("its last Commits were not found")
	}
	for key, f := range v.records {
		if f.state == unreadable && key[0] != blockPrefix {
			return fmt.Errorf("record %s cannot be read", keyName([]byte(key)))
		}
	}
	var t tree
	for n := range v.head.size {
		if _, err := t.add(v, n); err != nil {
			return err
		}
	}
	if root, err := t.root(v.head.size); err != nil || root != v.head.root {
		return fmt.Errorf("the root of its %d leaves is %v, and should be %v (%v)", v.head.size, root, v.head.root, err)
	}
	return nil
}

// tree hashes leaves one after another and keeps what later ones and the root need.
type tree map[int64]tlog.Hash

// add returns the hashes that leaf n completes, level 0 first.
func (t *tree) add(v *Survey, n int64) ([]tlog.Hash, error) {
	if *t == nil {
		*t = tree{}
	}
	h, ok := v.hashes[n]
	if !ok {
		leaf, err := v.Leaf(n)
		if err != nil {
			return nil, fmt.Errorf("neither leaf %d nor its hash is there", n)
		}
		h = tlog.RecordHash(leaf.Data)
	}
	list, err := tlog.StoredHashesForRecordHash(n, h, tlog.HashReaderFunc(t.read))
	if err != nil {
		return nil, err
	}
	for level := range list { // a hash is needed again only as the left half of a larger tree
		(*t)[tlog.StoredHashIndex(level, (n+1)>>level-1)] = list[level]
		if level > 0 {
			half := (n+1)>>(level-1) - 1
			delete(*t, tlog.StoredHashIndex(level-1, half))
			delete(*t, tlog.StoredHashIndex(level-1, half-1))
		}
	}
	return list, nil
}

func (t *tree) read(indexes []int64) (list []tlog.Hash, err error) {
	for _, i := range indexes {
		h, ok := (*t)[i]
		if !ok {
			return nil, fmt.Errorf("BUG: hash %d was given up too early", i)
		}
		list = append(list, h)
	}
	return list, nil
}

func (t *tree) root(size int64) (h tlog.Hash, err error) {
	if size == 0 {
		return h, nil
	}
	return tlog.TreeHash(size, tlog.HashReaderFunc(t.read))
}
