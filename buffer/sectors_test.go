package buffer

import (
	"io"
	"os"
	"strconv"
)

// saidTo returns where a writer says what it did.
func saidTo() (io.Writer, error) {
	path := os.Getenv("HUB_JOURNAL_SAID")
	if path == "" {
		return os.Stdout, nil
	}
	at, err := strconv.ParseInt(os.Getenv("HUB_JOURNAL_SAID_AT"), 10, 64)
	if err != nil {
		return nil, err
	}
	f, err := openData(path, os.O_WRONLY)
	return &sectors{f, at}, err
}

// sectors writes each text past the page cache to 512-byte sectors of its own, padded with zeros. Where the disk is the
// one that holds the journal, and all that is written to it is recorded, the record tells what had been said at any
// point of it.
type sectors struct {
	disk dataFile
	at   int64
}

func (s *sectors) Write(text []byte) (int, error) {
	b := pages((len(text) + 511) / 512 * 512)
	copy(b, text)
	if _, err := s.disk.WriteAt(b, s.at); err != nil {
		panic(err) // what was not said must not be taken for not done
	}
	s.at += int64(len(b))
	return len(text), nil
}
