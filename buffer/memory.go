package buffer

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Badger maps every table and value log into memory. What was read of them counts as the process's memory until the
// kernel wants it back, and with a large backlog that is all of it. So what was read is given back: what is read next
// comes from the disk again, which costs a drain little, because it reads each leaf once.

// evictBytes may be read or written before the pages that held it are given back.
const (
	evictBytes = 2 << 20
	keyBytes   = 128 // of a table, that looking at a key takes
)

// readers bounds the files that are opened at the same time to look at their headers. A card answers several requests
// in hardly more time than one.
const readers = 16

// cold makes sure that opening a journal costs a page of memory a value log. Badger looks at the header of each one; the
// kernel would map what it has in its cache around that, 64 kB as a rule, and read as much from the disk where it has
// nothing. Here headers are read beforehand, alone and several at once. What does not work out is no harm.
func cold(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return filepath.Ext(e.Name()) != ".vlog" })
	var wait sync.WaitGroup
	for i := range readers {
		wait.Go(func() {
			for n := i; n < len(entries); n += readers {
				f, err := os.Open(filepath.Join(dir, entries[n].Name()))
				if err != nil {
					continue
				}
				unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
				unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
				f.Read(make([]byte, 1))
				f.Close()
			}
		})
	}
	wait.Wait()
}

// evict gives back the memory of tables and value logs that were read. Where the kernel is older than 5.4 it does
// nothing. Another mapping that takes the place of one of them meanwhile is not harmed: its pages come back when needed.
func (s *Store) evict() {
	s.touchedBytes.Store(0)
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	dir, err := filepath.Abs(s.db.Opts().Dir)
	if err != nil {
		return
	}
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		at := bytes.IndexByte(lines.Bytes(), '/')
		if at < 0 {
			continue
		}
		path := string(lines.Bytes()[at:])
		if ext := filepath.Ext(path); filepath.Dir(path) != dir || ext != ".vlog" && ext != ".sst" {
			continue
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); err != nil {
			continue
		}
		unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_PAGEOUT)
	}
}

// touched counts what was read or written of Badger's files.
func (s *Store) touched(n int) {
	if s.touchedBytes.Add(int64(n)) >= evictBytes {
		s.evict()
	}
}
