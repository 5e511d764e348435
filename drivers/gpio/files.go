package gpio

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	periph "periph.io/x/conn/v3/gpio"
)

// files is a folder of line files.
type files string

func (f files) claim(r request) (line, error) {
	name := "line" + strconv.Itoa(r.offset)
	if r.name != "" {
		name = "line-" + r.name
	}
	if filepath.Base(name) != name {
		return nil, fmt.Errorf("%q is not the name of a file: choose a line name without /", name)
	}
	l := file(filepath.Join(string(f), name))
	if r.output {
		return l, l.set(r.initial)
	}
	return l, nil
}

// file is the path of a line's file.
type file string

func (f file) level() (periph.Level, error) {
	raw, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return periph.Low, gone{fmt.Errorf("there is no %s", string(f))}
	}
	if err != nil {
		return periph.Low, gone{err}
	}
	level, ok := parseLevel(raw)
	if !ok {
		return periph.Low, gone{fmt.Errorf("%s holds %.20q, not 0 or 1", string(f), strings.TrimSpace(string(raw)))}
	}
	return level, nil
}

// parseLevel reads 0 or 1, with or without space around it.
func parseLevel(raw []byte) (level periph.Level, ok bool) {
	text := string(bytes.TrimSpace(raw))
	return text == "1", text == "0" || text == "1"
}

// set writes the file by rename, so that who reads it never sees half of it.
func (f file) set(level periph.Level) error {
	text := "0"
	if level {
		text = "1"
	}
	temporary := filepath.Join(filepath.Dir(string(f)), "."+filepath.Base(string(f)))
	if err := os.WriteFile(temporary, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, string(f))
}

func (file) close() error { return nil }
