package main

import (
	"fmt"
	"io"
	"log/slog"
)

// newLogger writes one line an entry to w, as text or json.
func newLogger(w io.Writer, format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	}
	return nil, usageError{fmt.Errorf("log format %q is not known: use text or json", format)}
}
