package buffer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// inspect looks at Badger's files before Badger may touch them: it would cut off or delete what it does not understand,
// and end the process on some damage. It reads what Badger replays and relies on - tables, logs of memtables,
// the last value log -, not every value, so it takes milliseconds. A *DamageError says what is damaged. What a crash leaves is no damage.
func (s *Store) inspect(key []byte) error {
	dir := filepath.Join(s.dir, badgerDir)
	damage := func(format string, a ...any) error { return &DamageError{s.dir, fmt.Sprintf(format, a...)} }
	keys, err := s.openRegistry(key)
	if err != nil {
		return err
	}
	manifest, err := namedTables(dir)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return damage("manifest: %v", err)
	}
	var files [3][]uint64
	for i, ending := range []string{tableEnding, memtableEnding, valueLogEnding} {
		if files[i], err = badgerFiles(dir, ending); err != nil {
			return fmt.Errorf("cannot look at journal: %w", err)
		}
	}
	tables, memtables, valueLogs := files[0], files[1], files[2]
	if missing && len(tables)+len(memtables)+len(valueLogs) > 0 {
		return damage("its manifest is gone")
	}
	named := values{}
	known := map[uint64]bool{} // versions of head records that Badger will find
	newest := uint64(0)        // of these, the newest in a table
	take := func(e entry) {
		named.take(e)
		if bytes.Equal(e.key, headKey) {
			known[e.version] = true
			newest = max(newest, e.version)
		}
	}
	for n, id := range manifest {
		if !slices.Contains(tables, n) {
			return damage("table %d is gone", n)
		}
		raw, err := os.ReadFile(badgerFile(dir, n, tableEnding))
		if err != nil {
			return damage("%v", err)
		}
		if err := readTable(raw, keys[id], take); err != nil {
			return damage("table %d %v", n, err)
		}
	}
	var logs []string
	for _, n := range memtables {
		logs = append(logs, badgerFile(dir, n, memtableEnding))
	}
	if len(valueLogs) > 0 { // Badger cuts the last one off where it is damaged
		logs = append(logs, badgerFile(dir, valueLogs[len(valueLogs)-1], valueLogEnding))
	}
	for _, path := range logs {
		raw, err := os.ReadFile(path)
		if err != nil {
			return damage("%v", err)
		}
		if err := inspectLog(raw, keys, named.cutOff(path)); err != nil {
			return damage("%s %v", filepath.Base(path), err)
		}
		if l, _, ok := openDamagedLog(raw, keys); ok && filepath.Ext(path) == memtableEnding {
			l.scan(func(e entry, _, _ int) {
				named.take(e)
				known[e.version] = known[e.version] || bytes.Equal(e.key, headKey)
			})
		}
	}
	return s.inspectUnnamed(tables, manifest, keys, func(version uint64) bool { return version <= newest || known[version] })
}

// inspectUnnamed looks at tables that the manifest does not name, which Badger removes. A crash leaves such, but what they
// hold is then in other tables or a memtable's log too. Every Commit has a head record, so an older manifest shows by the
// version of that.
func (s *Store) inspectUnnamed(tables []uint64, manifest map[uint64]uint64, keys dataKeys, known func(version uint64) bool) error {
	for _, n := range tables {
		if _, is := manifest[n]; is {
			continue
		}
		raw, err := os.ReadFile(badgerFile(filepath.Join(s.dir, badgerDir), n, tableEnding))
		if err != nil {
			continue
		}
		for _, block := range keys {
			newer := false
			readTable(raw, block, func(e entry) { newer = newer || bytes.Equal(e.key, headKey) && !known(e.version) })
			if newer {
				return &DamageError{s.dir, fmt.Sprintf("its manifest is older than table %d", n)}
			}
		}
	}
	return nil
}

// inspectLog looks at a log that is read up to its first unsound entry. cutOff says whether what is unsound from there on
// is a write that a crash cut off.
func inspectLog(raw []byte, keys dataKeys, cutOff func(l log, sound int) bool) error {
	l, whole, ok := openDamagedLog(raw, keys)
	if !whole && bytes.ContainsFunc(raw, func(r rune) bool { return r != 0 }) {
		return errors.New("has a damaged beginning")
	}
	if !ok {
		return nil
	}
	end := 0
	if sound := l.scan(func(_ entry, at, size int) { end = at + size }); sound < end && !cutOff(l, sound) {
		return fmt.Errorf("is damaged at byte %d", sound)
	}
	return nil
}

// values says where in each value log the last value ends that a table or the log of a memtable names.
type values map[uint64]int

func (v values) take(e entry) {
	if p, ok := e.pointer(); ok {
		v[uint64(p.file)] = max(v[uint64(p.file)], int(p.at)+int(p.size))
	}
}

// cutOff returns what tells a log that a crash cut off from one that is damaged. The pages of one write reach the disk in
// any order, so whole entries may follow a torn one. The values that a log of values ends with are named once they are
// synced. In the log of a memtable, all that follows must be of the one transaction that was being written.
func (v values) cutOff(path string) func(l log, sound int) bool {
	name, ending := filepath.Base(path), filepath.Ext(path)
	if ending == memtableEnding {
		return cutOffTransaction
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(name, ending), 10, 64)
	return func(_ log, sound int) bool { return err == nil && sound >= v[n] }
}

func cutOffTransaction(l log, sound int) bool {
	if !slices.ContainsFunc(l.raw[:logHeader], func(b byte) bool { return b != 0 }) {
		return true // its header goes to the disk with the first transaction
	}
	if _, _, oneBit := l.mend(sound); oneBit {
		return false
	}
	last, before := uint64(0), false // the newest transaction in front; transactions are numbered without a hole
	torn := uint64(0)
	is := true
	l.scan(func(e entry, at, _ int) {
		switch {
		case at < sound:
			last, before = max(last, e.version), true
		case e.meta&(metaTx|metaTxEnd) == 0: // a value that moves out of a value log, which stays until all have
		case torn == 0:
			torn = e.version
			is = !before || torn <= last+1
		case e.version != torn:
			is = false
		}
	})
	return is
}

// openRegistry reads Badger's data keys. Without them all is lost, so there is a second copy, in the store's own folder:
// it is made when Badger has new ones, and put in the place of a damaged or missing file.
func (s *Store) openRegistry(key []byte) (dataKeys, error) {
	dir := filepath.Join(s.dir, badgerDir)
	keys, err := readRegistry(dir, key)
	if err == nil {
		return keys, nil
	}
	copied, other := readRegistry(s.dir, key)
	switch {
	case other == nil:
		raw, err := os.ReadFile(filepath.Join(s.dir, registryName))
		if err == nil {
			err = errors.Join(os.MkdirAll(dir, 0o700), replaceFile(filepath.Join(dir, registryName), raw))
		}
		if err != nil {
			return nil, fmt.Errorf("cannot put back the journal's key registry: %w", err)
		}
		return copied, nil
	case errors.Is(err, fs.ErrNotExist) && errors.Is(other, fs.ErrNotExist):
		return dataKeys{0: nil}, nil // a new store, or one that Badger finds fault with
	case errors.Is(err, fs.ErrNotExist):
		err = other
	}
	if isWrongKey(err) {
		return nil, wrongKey(s.dir)
	}
	return nil, &DamageError{s.dir, fmt.Sprintf("key registry: %v", err)}
}

// copyRegistry makes the second copy when there is none, or Badger has made a new data key since.
func (s *Store) copyRegistry() error {
	from, to := filepath.Join(s.dir, badgerDir, registryName), filepath.Join(s.dir, registryName)
	info, err := os.Stat(from)
	if err == nil {
		if copied, err := os.Stat(to); err == nil && copied.Size() == info.Size() {
			return nil
		}
		var raw []byte
		if raw, err = os.ReadFile(from); err == nil {
			err = replaceFile(to, raw)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot keep a copy of the journal's key registry: %w", err)
	}
	return nil
}

// replaceFile writes a whole file or none.
func replaceFile(path string, data []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// garbage returns the value logs of which at least a share was counted as garbage by Badger, which keeps number and
// bytes of each in a file of pairs.
func (s *Store) garbage(share float64) (list []uint64) {
	dir := filepath.Join(s.dir, badgerDir)
	raw, err := os.ReadFile(filepath.Join(dir, "DISCARD"))
	if err != nil {
		return nil
	}
	for ; len(raw) >= 16; raw = raw[16:] {
		n, bytes := binary.BigEndian.Uint64(raw), binary.BigEndian.Uint64(raw[8:])
		if n == 0 {
			break
		}
		if info, err := os.Stat(badgerFile(dir, n, valueLogEnding)); err == nil && float64(bytes) >= share*float64(info.Size()) {
			list = append(list, n)
		}
	}
	return list
}

// rescue writes again what Badger would lose in giving back damaged value logs: it reads them up to the first damage, and
// removes them. The caller holds s.commit.
func (s *Store) rescue(share float64) error {
	dir := filepath.Join(s.dir, badgerDir)
	list := s.garbage(share)
	if len(list) == 0 {
		return nil
	}
	keys, err := readRegistry(dir, s.opts.Key)
	if err != nil {
		return fmt.Errorf("cannot read the journal's key registry: %w", err)
	}
	for _, n := range list {
		raw, err := os.ReadFile(badgerFile(dir, n, valueLogEnding))
		if err != nil {
			continue // gone meanwhile
		}
		if inspectLog(raw, keys, func(log, int) bool { return false }) == nil {
			continue
		}
		l, _, ok := openDamagedLog(raw, keys)
		if !ok {
			continue
		}
		b := batch{s: s}
		l.scan(func(e entry, _, _ int) {
			data, ok := unseal(e.key, e.value)
			if !ok || !ours(e.key) || e.key[0] == '!' {
				return
			}
			if now, err := s.read(e.key); err == nil && bytes.Equal(now, data) || s.isDamaged(err) {
				b.put(e.key, data)
			}
		})
		if err := b.write(); err != nil {
			return err
		}
		s.log.Warn("journal: a damaged value log was about to be given back; what it held was written again", "file", n)
	}
	return nil
}

func (s *Store) isDamaged(err error) bool {
	var damage *DamageError
	return errors.As(err, &damage)
}
