package buffer

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

// What is on the disk can be anything: whoever reads it must neither panic nor take for sound what is not.
func FuzzFiles(f *testing.F) {
	s, err := Open(Options{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	for n := range int64(3) {
		err := s.Commit(func(tx *Tx) error {
			tx.direct = n == 1
			_, err := tx.Append('d', testLeaf(n))
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	for _, pattern := range []string{"redo", "badger/*.vlog", "badger/*.sst", "badger/MANIFEST"} {
		names, err := filepath.Glob(filepath.Join(s.dir, pattern))
		if err != nil || len(names) == 0 {
			f.Fatal(pattern, err)
		}
		raw, err := os.ReadFile(names[0])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw[:min(len(raw), 2*redoPage)])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<16 {
			return
		}
		keys := dataKeys{0: nil}
		if l, _, ok := openDamagedLog(append([]byte{}, raw...), keys); ok {
			l.scan(func(e entry, at, size int) {
				if at < logHeader || at+size > len(raw) {
					t.Errorf("an entry of %d bytes at %d of %d", size, at, len(raw))
				}
			})
		}
		readTable(raw, nil, func(entry) {})
		r, models := redo{}, map[int64][]byte{}
		frame := append([]byte{}, raw...)
		if mendFrame(append(frame, make([]byte, max(0, redoHeader-len(frame)))...)) {
			r.parse(frame, models)
		}
		if _, size, err := r.parse(raw, models); err == nil && size > 0 {
			length := int64(binary.BigEndian.Uint32(raw[8:]))
			if crc32.Checksum(raw[8:redoHeader+length], castagnoli()) != binary.BigEndian.Uint32(raw[4:]) {
				t.Error("a frame that does not match its checksum")
			}
		}
		parseRecords(raw)
		parseHead(raw)
		decode(raw)
	})
}
