package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"
)

// Options.Key encrypts two things: Badger's key registry, which holds the data keys that its files are written with, and
// by a key derived from it the redo log. Badger makes a new data key every ten days, for the files it begins from then on.

func registryOptions(dir string, key []byte) badger.KeyRegistryOptions {
	return badger.KeyRegistryOptions{Dir: filepath.Join(dir, badgerDir), ReadOnly: true, EncryptionKey: key}
}

// FitsKey says whether the journal in dir was written with key, and true when there is none that was written. It changes
// nothing, and works beside a process that has the journal open.
func FitsKey(dir string, key []byte) (bool, error) {
	_, err := readRegistry(filepath.Join(dir, badgerDir), key)
	if err == nil {
		return true, nil
	}
	_, other := readRegistry(dir, key) // the second copy
	switch {
	case other == nil, errors.Is(err, fs.ErrNotExist) && errors.Is(other, fs.ErrNotExist):
		return true, nil
	case isWrongKey(err), isWrongKey(other):
		return false, nil
	}
	return false, fmt.Errorf("cannot read the journal's key registry: %w", err)
}

// ensureDataKey makes the first data key when there is none. Badger would do so itself, but for a clock in the first ten
// days of 1970: that a gateway without a clock battery boots with, and Badger would write plain text.
func ensureDataKey(dir string, key []byte) error {
	o := registryOptions(dir, key)
	o.ReadOnly = false // and with a duration of 0, each call of LatestDataKey would make one
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	r, err := badger.OpenKeyRegistry(o)
	if err != nil {
		return err
	}
	if _, err := r.DataKey(1); err != nil {
		if _, err := r.LatestDataKey(); err != nil {
			return errors.Join(err, r.Close())
		}
	}
	return r.Close()
}

// Rekey changes the key of the journal that opts name from opts.Key to newKey. It takes the store's lock: ErrInUse while
// a process has the journal open. The data keys stay, so what was written before can be read by whoever has the old key
// and an old copy of the registry.
//
// However it ends, by an error or by a crash at any moment, the journal opens with one of the two keys, and FitsKey says
// with which. So newKey must be on disk before, and the old one until Rekey returned nil.
func Rekey(opts Options, newKey []byte) error {
	return rekey(opts, newKey, func(string) error { return nil })
}

// rekey calls at before and after each step that changes the disk: tests end it there.
func rekey(opts Options, newKey []byte, at func(step string) error) error {
	if len(opts.Key) == 0 || len(newKey) == 0 {
		return errors.New("BUG: a journal is not made plain text, nor encrypted later")
	}
	s, err := Open(opts)
	if err != nil {
		return err
	}
	// The new redo log will hold no frame, and none is to be missed in it.
	s.redo.last = 0
	err = s.Commit(func(tx *Tx) error {
		tx.direct = true
		tx.Set("rekeyed", nil)
		return nil
	})
	if err != nil {
		return errors.Join(err, s.Close())
	}
	// The lock is of the open file, so it stays with a second descriptor of it when the store goes.
	lock, err := unix.FcntlInt(s.lock.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return errors.Join(fmt.Errorf("cannot keep the journal's lock: %w", err), s.Close())
	}
	defer unix.Close(lock)
	if err := s.Close(); err != nil { // now all of it is in Badger, and the redo log holds nothing that is needed
		return err
	}
	if err := changeKey(opts.Dir, opts.Key, newKey, at); err != nil {
		return fmt.Errorf("cannot change the key of journal %s: %w", opts.Dir, err)
	}
	return nil
}

func changeKey(dir string, key, newKey []byte, at func(step string) error) error {
	step := func(name string, do func() error) error {
		err := at("before " + name)
		if err == nil {
			err = do()
		}
		if err == nil {
			err = at("after " + name)
		}
		return err
	}
	// A redo log without frames fits both keys.
	err := step("new redo log", func() error {
		// Durable before anything else: a frame of the old key could not be read with the new one.
		return errors.Join(makeRedo(filepath.Join(dir, redoName), plainStep), syncDir(dir))
	})
	if err != nil {
		return err
	}
	// A second copy of the registry would be of the old key. Open makes it anew.
	err = step("removing the registry's copy", func() error {
		err := os.Remove(filepath.Join(dir, registryName))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, syncDir(dir))
	})
	if err != nil {
		return err
	}
	temporary := filepath.Join(dir, "rekey")
	err = step("new registry", func() error { return writeRekeyed(temporary, dir, key, newKey) })
	if err != nil {
		return err
	}
	err = step("putting it in place", func() error {
		return os.Rename(filepath.Join(temporary, registryName), filepath.Join(dir, badgerDir, registryName))
	})
	if err != nil {
		return err
	}
	return step("syncing", func() error {
		return errors.Join(syncDir(filepath.Join(dir, badgerDir)), os.RemoveAll(temporary), syncDir(dir))
	})
}

// writeRekeyed writes the registry of the journal in dir to a folder of its own under the new key, and reads it again:
// without it everything would be lost.
func writeRekeyed(folder, dir string, key, newKey []byte) error {
	old, err := badger.OpenKeyRegistry(registryOptions(dir, key))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	o := badger.KeyRegistryOptions{Dir: folder, ReadOnly: true, EncryptionKey: newKey}
	if err := badger.WriteKeyRegistry(old, o); err != nil {
		return err
	}
	written, err := badger.OpenKeyRegistry(o)
	if err != nil {
		return err
	}
	for id := uint64(1); ; id++ {
		want, err := old.DataKey(id)
		if err != nil {
			return nil // they are numbered without a hole
		}
		got, err := written.DataKey(id)
		if err != nil || !bytes.Equal(got.Data, want.Data) {
			return fmt.Errorf("data key %d did not come back from the new registry: %v", id, err)
		}
	}
}
