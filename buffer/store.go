// Package buffer keeps a gateway's journal and state on disk: an append-only log of opaque leaves under RFC 6962
// Merkle hashes, blocks that wait to become leaves, and small named state records, all in one Badger store.
//
// # How a Commit reaches the disk
//
// A small Commit - readings of two seconds, an event, a cursor - is one frame in the redo log, a preallocated file that
// is written in place. What gathers there goes to Badger with the next large Commit, as a rule the leaf of a minute. So
// a reading is written to flash twice: once among the readings of two seconds, once in its leaf.
//
// # What holds after a crash
//
// Assumed: the process ends, or power fails, at any moment; of a write that was under way any part may be on the disk;
// of a write whose sync failed nothing is known; a write does not harm pages that it does not touch; what was synced
// stays.
//
// Then Open finds the state after some Commit: every Commit that returned is there whole, the one that was running is
// there whole or not at all. A failed write or sync leaves open whether that Commit is on disk, so the Store takes no
// further one: close it, and Open finds out.
//
// Where the last assumption fails, damage is found, as a rule: Badger hands out damaged values without an error, so
// every record carries its own checksum over key and value; Commits and leaves are numbered; Open checks that they go
// on without a hole up to what the head record and the redo log name, and that the leaves' hashes give the head's root.
// Repair makes a store of what is left. A last frame of the redo log in which more than one bit is wrong cannot be told
// from one that was not written to its end.
//
// The package knows nothing of meters, MQTT or JSON.
package buffer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

// ErrInUse means that another process has the store open.
var ErrInUse = errors.New("in use by another process")

// ErrNotFound means that the store holds no record of that number or name.
var ErrNotFound = errors.New("not found")

// ErrFailed means that an earlier Commit failed and it is open whether it reached the disk. Close and Open again.
var ErrFailed = errors.New("journal stopped after a failed write")

// A DamageError names what Open or a read found damaged. Nothing was changed on disk. After one of Open, Repair makes a
// store of what is left; after one of Leaf, Mend.
type DamageError struct {
	Dir  string
	What string
}

// Error says what is damaged, and where.
func (e *DamageError) Error() string {
	return fmt.Sprintf("journal %s is damaged: %s", e.Dir, e.What)
}

// Names in a store's folder.
const (
	badgerDir = "badger"
	lockName  = "lock"
)

// Options say where and how a store is kept.
type Options struct {
	Dir string       // made with mode 0700 when absent
	Key []byte       // AES key of 16, 24 or 32 bytes for encryption at rest; nil: none
	Log *slog.Logger // for what Badger reports; nil: discarded

	Lasting []Class // leaves that Stored and Drop treat apart from the others; what was appended stays as it was then

	step step // tests put faults here
}

// A step carries out one thing that changes the disk.
type step func(name string, do func() error) error

func plainStep(_ string, do func() error) error { return do() }

// Store is an open journal with its state. Its methods may be called from several goroutines at once. Commit, Drop and
// what Maintain does are carried out one after another, reads at any time beside them: they find what was committed before
// they began, and never a part of a Commit. Nothing may be called after Close, nor be under way meanwhile: what is read is
// mapped memory that Close takes away.
//
// Who retries: nobody in here. An error that wraps ErrFailed ends the writing, and only Close and Open find out what the
// disk holds. After any other error of Commit or Drop nothing of it was written, unless Drop says otherwise, and the caller
// may call again, at once or when there is space.
type Store struct {
	opts Options
	dir  string
	log  *slog.Logger
	lock *os.File
	db   *badger.DB

	touchedBytes atomic.Int64 // since the last evict

	commit sync.Mutex // held by the one Commit under way; guards the next three
	codec  codec
	redo   *redo
	stored head // the one in Badger

	mu       sync.Mutex // guards what follows; the Commit under way may read without
	head     head
	appended int64 // bytes
	failed   error
	grown    chan struct{}     // closed and replaced when leaves are appended
	pending  map[string][]byte // records in the redo log that are not in Badger yet; nil: to be deleted there

	step step

	mending  sync.Mutex // guards what Mend found
	searched map[uint64]bool
	mended   map[int64]record
}

// Badger's settings, measured for a gateway of 512 MB with a journal of 2 GB: values live in the value log and the
// memtables stay tiny, which costs 20 to 40 MB of memory where the defaults cost 979 MB and write a hundred bytes for
// one.
const (
	memTableBytes     = 512 << 10
	valueLogFileBytes = 4 << 20
	valueThreshold    = 512 // bytes; larger values go to the value log
	cacheBytes        = 512 << 10
	levelZeroTables   = 2 // more are compacted, and with twice as many Badger stops writing
)

// reserveBytes must be free before Badger may touch the disk: it maps its files into memory, so a disk that fills up
// under it does not fail a write but kills the process with SIGBUS, and again at every start.
const reserveBytes = 2*valueLogFileBytes + 6*memTableBytes + 8<<20

// openBytes must be free to open and close Badger, which writes its memtable as a table then, to put the redo log's
// frames into it, and to drop leaves, which rewrites tables. It is less than the ballast leaves when it is given up.
const openBytes = valueLogFileBytes + 6*memTableBytes

// Open opens the store in opts.Dir, making it when there is none. Opening is recovery: there is no other path after a
// crash. Errors: ErrInUse, a *DamageError, or one that names the folder and what is wrong with it.
func Open(opts Options) (*Store, error) {
	if err := takeUp(opts.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make journal folder: %w", err)
	}
	lock, err := takeLock(filepath.Join(opts.Dir, lockName))
	if err != nil {
		return nil, err
	}
	s := &Store{
		opts: opts, dir: opts.Dir, lock: lock, step: opts.step,
		grown: make(chan struct{}), pending: map[string][]byte{},
	}
	if s.step == nil {
		s.step = plainStep
	}
	if err := s.open(opts); err != nil {
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

func (s *Store) open(opts Options) (err error) {
	if err := s.makeSpace(openBytes); err != nil {
		return err
	}
	s.log = opts.Log
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := removeUnborn(filepath.Join(opts.Dir, badgerDir)); err != nil {
		return err
	}
	if err := s.inspect(opts.Key); err != nil {
		return err
	}
	if opts.Key != nil {
		if err := ensureDataKey(opts.Dir, opts.Key); err != nil {
			return fmt.Errorf("cannot make a data key for journal %s: %w", s.dir, err)
		}
	}
	o := badger.DefaultOptions(filepath.Join(opts.Dir, badgerDir)).
		WithSyncWrites(true).
		WithLogger(badgerLog{s.log}).
		WithMemTableSize(memTableBytes).
		WithNumMemtables(1).
		WithBaseTableSize(1 << 20).
		WithBaseLevelSize(4 * memTableBytes).
		WithNumLevelZeroTables(levelZeroTables).
		WithNumLevelZeroTablesStall(2 * levelZeroTables).
		WithNumCompactors(0). // see compact
		WithValueLogFileSize(valueLogFileBytes).
		WithValueThreshold(valueThreshold).
		WithVerifyValueChecksum(true).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithDetectConflicts(false).
		WithBypassLockGuard(true). // there is a lock of our own, see release
		WithMetricsEnabled(false)
	if opts.Key != nil {
		o = o.WithEncryptionKey(opts.Key).WithBlockCacheSize(cacheBytes).WithIndexCacheSize(cacheBytes)
	}
	cold(o.Dir)
	s.db, err = openBadger(o)
	if err != nil {
		return &DamageError{s.dir, err.Error()}
	}
	s.evict() // Badger has read its last value log
	if err := s.recover(opts.Key); err != nil {
		return err
	}
	return errors.Join(s.copyRegistry(), s.makeBallast())
}

// removeUnborn removes Badger's logs that have no byte. It makes a log in two steps, the file and then its size; when the
// process ends between them, Badger fails to open what it finds. Nothing was ever in such a file.
func removeUnborn(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot look into journal folder: %w", err)
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".mem" && ext != ".vlog" {
			continue
		}
		if info, err := e.Info(); err != nil || info.Size() > 0 {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("cannot remove an empty log of the journal: %w", err)
		}
	}
	return nil
}

// openBadger turns Badger's panics on damaged tables into errors.
func openBadger(o badger.Options) (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("badger: %v", p)
		}
	}()
	if db, err = badger.Open(o); err != nil {
		return nil, err // what comes with an error cannot even be closed
	}
	return db, nil
}

// Options returns what the store was opened with.
func (s *Store) Options() Options { return s.opts }

// takeLock makes sure that one process has the store. The lock goes with the process, however it ends.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot write to journal folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("journal %s is %w%s: stop that one first, or give this one a state folder of its own", filepath.Dir(path), ErrInUse, holder(f))
		}
		return nil, fmt.Errorf("cannot lock journal: %w", err)
	}
	return f, nil
}

// Close puts what waits in the redo log into Badger and releases the store, to be called once. What was committed is safe
// with or without it, and whatever it returns; the store is released in any case.
func (s *Store) Close() error {
	s.commit.Lock()
	defer s.commit.Unlock()
	var err error
	if s.Err() == nil && len(s.pending) > 0 {
		err = s.makeSpace(openBytes)
		if err == nil {
			err = s.flush(nil, s.head, openBytes)
		}
	}
	return errors.Join(err, s.release())
}

func (s *Store) release() (err error) {
	if s.redo != nil {
		err = s.redo.file.Close()
	}
	if s.db != nil {
		// On a full disk Badger would die in writing its memtable. Left as it is, it is what a crash leaves: all is there.
		if full := s.makeSpace(openBytes); full != nil {
			err = errors.Join(err, full)
		} else {
			err = errors.Join(err, s.step("close", s.db.Close))
		}
	}
	return errors.Join(err, s.lock.Close())
}

// recover reads the head, takes up what the redo log holds beyond it, and checks that all that is named is there.
func (s *Store) recover(key []byte) error {
	damage := func(format string, a ...any) error { return &DamageError{s.dir, fmt.Sprintf(format, a...)} }
	if err := s.readHead(); err != nil {
		return err
	}
	s.stored = s.head
	if err := s.replay(key); err != nil {
		return err
	}
	if err := s.finishDrops(); err != nil {
		return err
	}
	leaves, hashes, err := s.count()
	if err != nil {
		return err
	}
	if leaves < s.head.size {
		return damage("leaf %d of %d is not there", leaves, s.head.size)
	}
	if leaves > s.head.size || hashes != s.head.size {
		return damage("it should hold %d leaves, and holds %d with %d hashes", s.head.size, leaves, hashes)
	}
	if s.head.size == 0 {
		return nil
	}
	if _, err := s.Leaf(s.head.size - 1); err != nil && !errors.Is(err, ErrDropped) {
		return err
	}
	root, err := tlog.TreeHash(s.head.size, s)
	if err != nil {
		return damage("hashes: %v", err)
	}
	if root != s.head.root {
		return damage("the root of its %d leaves is %v, and should be %v", s.head.size, root, s.head.root)
	}
	return nil
}

func (s *Store) readHead() error {
	raw, err := s.read(headKey)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	h, err := parseHead(raw)
	if errors.Is(err, errVersion) {
		return fmt.Errorf("cannot open journal %s: %w", s.dir, err)
	}
	if err != nil {
		return &DamageError{s.dir, fmt.Sprintf("head record: %v", err)}
	}
	s.head = h
	return nil
}

// replay puts the Commits that only the redo log holds into Badger. Badger opens without a word when its manifest or a
// log of its own is gone, and shows an older or empty store; the frames of the redo log, old ones too, say which Commits
// it had when they were written.
func (s *Store) replay(key []byte) error {
	path := filepath.Join(s.dir, redoName)
	_, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if missing && s.head.commit > 0 {
		return &DamageError{s.dir, "its redo log is gone"} // and it must not be hidden by making it
	}
	if missing {
		if err := makeRedo(path, s.step); err != nil {
			return fmt.Errorf("cannot make the journal's redo log: %w", err)
		}
	}
	if s.head.commit == 0 {
		// Not only when the files are made: the process may have ended between that and this.
		for _, dir := range []string{s.dir, filepath.Dir(filepath.Clean(s.dir))} {
			if err := s.step("sync folder", func() error { return syncDir(dir) }); err != nil {
				return fmt.Errorf("cannot make the journal's folder durable: %w", err)
			}
		}
	}
	log, frames, err := openRedo(s.dir, key)
	if err != nil {
		return err
	}
	s.redo = log
	if log.last < s.stored.redo {
		return &DamageError{s.dir, fmt.Sprintf("its redo log ends at Commit %d, and once held Commit %d", log.last, s.stored.redo)}
	}
	for _, f := range frames {
		if f.base > s.stored.commit {
			return &DamageError{s.dir, fmt.Sprintf("its tables end at Commit %d, and once held Commit %d", s.stored.commit, f.base)}
		}
		if f.number <= s.stored.commit {
			continue
		}
		if f.broken {
			return &DamageError{s.dir, fmt.Sprintf("Commit %d in its redo log cannot be read without an earlier one that is gone", f.number)}
		}
		if want := s.head.commit + 1; f.number != want {
			return &DamageError{s.dir, fmt.Sprintf("Commit %d is missing in its redo log, which holds Commit %d", want, f.number)}
		}
		for _, r := range f.records {
			s.apply(s.pending, r)
		}
		if err := s.readHead(); err != nil {
			return err
		}
		if s.head.commit != f.number {
			return &DamageError{s.dir, fmt.Sprintf("redo log: Commit %d names itself %d", f.number, s.head.commit)}
		}
	}
	if len(s.pending) == 0 {
		return nil
	}
	return s.flush(nil, s.head, openBytes/2)
}

// count walks the keys of leaves and hashes and returns how many are numbered without a hole from 0. Where leaves were
// dropped there is no hole.
func (s *Store) count() (leaves, hashes int64, err error) {
	err = s.view(func(txn *badger.Txn) error {
		dropped, err := s.allDropped(txn)
		leaves, hashes = s.consecutive(txn, dropped, leafPrefix, lastingPrefix), s.consecutive(txn, nil, hashPrefix)
		return err
	})
	return leaves, hashes, err
}

func (s *Store) consecutive(txn *badger.Txn, dropped []Range, prefixes ...byte) (n int64) {
	var its []*badger.Iterator
	for _, prefix := range prefixes {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{prefix}})
		defer it.Close()
		it.Rewind()
		its = append(its, it)
	}
	for {
		found := false
		for _, it := range its {
			for it.Valid() && keyNumber(it.Item().Key()) < n { // the lasting ones of a dropped range
				it.Next()
			}
			if it.Valid() && keyNumber(it.Item().Key()) == n {
				s.touched(keyBytes)
				it.Next()
				found = true
			}
		}
		if found {
			n++
			continue
		}
		for len(dropped) > 0 && dropped[0].End <= n {
			dropped = dropped[1:]
		}
		if len(dropped) == 0 || dropped[0].First > n {
			return n
		}
		n = dropped[0].End
	}
}

// Maintain gives back the disk space of records that were deleted or replaced until ctx ends, every ten minutes, for which
// it holds up Commits for some tens of milliseconds. It returns earlier only with an error, after which the store may go on
// without it, or has failed: see Err. One call at a time is enough.
func (s *Store) Maintain(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.maintain(); err != nil {
				return err
			}
		}
	}
}

// Compact gives back the disk space of what was deleted or replaced, also where much has to be written again for it.
func (s *Store) Compact() error {
	s.commit.Lock()
	defer s.commit.Unlock()
	if err := s.Err(); err != nil {
		return err
	}
	if err := s.makeSpace(openBytes); err != nil {
		return err
	}
	if err := s.flush(nil, s.head, openBytes); err != nil {
		return err
	}
	return s.collectRatio(gcRatioDense)
}

func (s *Store) maintain() error {
	s.commit.Lock()
	defer s.commit.Unlock()
	if s.Err() != nil || s.checkSpace(reserveBytes) != nil {
		return nil
	}
	return errors.Join(s.collect(), s.makeBallast())
}

// compact merges Badger's newest tables into its tree when there are enough of them. Badger's own compactors look for
// work 40 times a second, day and night, which is most of what an idle agent costs; here only a Commit makes work, a
// few times a day, and does it first.
func (s *Store) compact() error {
	if s.db.Levels()[0].NumTables < levelZeroTables {
		return nil
	}
	if err := s.step("compact", func() error { return s.db.Flatten(1) }); err != nil {
		return fmt.Errorf("cannot compact journal %s: %w", s.dir, err)
	}
	return nil
}

// Usage returns the bytes that the store's files take on disk, in whole blocks as du counts them, and the bytes free
// for this process on their file system.
func (s *Store) Usage() (used, free int64, err error) {
	if used, err = DiskUsage(s.dir); err != nil {
		return 0, 0, err
	}
	free, err = s.free()
	return used, free, err
}

// DiskUsage is the bytes that the files under a folder take on disk, in whole blocks, as du counts them.
func DiskUsage(dir string) (used int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // a file that compaction removed meanwhile
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			used += st.Blocks * 512
		}
		return nil
	})
	return used, err
}

func (s *Store) free() (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(s.dir, &fs); err != nil {
		return 0, fmt.Errorf("cannot ask for free space at %s: %w", s.dir, err)
	}
	return int64(fs.Bavail) * int64(fs.Bsize), nil
}

func (s *Store) checkSpace(need int64) error {
	free, err := s.free()
	if err == nil && free < need {
		err = fmt.Errorf("cannot write to journal %s: only %d MB are free on its disk, it needs %d MB: make space there", s.dir, free>>20, need>>20)
	}
	return err
}

// badgerLog passes on what matters of Badger's chatter.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) text(format string, a []any) string {
	return strings.TrimSpace(fmt.Sprintf(format, a...))
}

func (l badgerLog) Errorf(f string, a ...any)   { l.log.Error("badger", "text", l.text(f, a)) }
func (l badgerLog) Warningf(f string, a ...any) { l.log.Warn("badger", "text", l.text(f, a)) }
func (l badgerLog) Infof(f string, a ...any)    {}
func (l badgerLog) Debugf(string, ...any)       {}
