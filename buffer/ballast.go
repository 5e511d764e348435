package buffer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The ballast is a file that holds the space Badger needs to open and to shrink. When somebody else has filled the disk
// it is given up for that, so that an agent that is started again on a full disk comes up. It is made again once there
// is space enough.
const ballastName = "ballast"

// makeBallast makes the file when there is none and space for it and as much again. A file system that cannot reserve
// space goes without.
func (s *Store) makeBallast() error {
	path := filepath.Join(s.dir, ballastName)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if free, err := s.free(); err != nil || free < 3*reserveBytes {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot reserve space for journal: %w", err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, reserveBytes); err != nil {
		os.Remove(path)
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("cannot reserve space for journal: %w", err)
		}
	}
	return nil
}

// makeSpace gives up the ballast when there is less space than needed.
func (s *Store) makeSpace(need int64) error {
	if s.checkSpace(need) == nil {
		return nil
	}
	if err := os.Remove(filepath.Join(s.dir, ballastName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot give up reserved space: %w", err)
	}
	return s.checkSpace(need)
}
