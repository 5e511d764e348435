package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
)

// How a payload is kept: the byte before it.
const (
	codecRaw   = 0
	codecFlate = 1
)

// ratio is about how much longer a leaf of readings is than what is kept of it. A buffer of that size from the start is a
// quarter of the memory of one that grows.
const ratio = 8

// codec compresses payloads for the disk. A store keeps one: its tables are a megabyte, and to make them anew for each
// Commit was a third of what an agent computes.
type codec struct{ w *flate.Writer }

// encode appends the payload to b in its shorter form.
func (c *codec) encode(b, payload []byte) []byte {
	if len(payload) >= 128 {
		packed := bytes.NewBuffer(append(b, codecFlate))
		if c.w == nil {
			c.w, _ = flate.NewWriter(nil, flate.DefaultCompression) // fails only for a level that does not exist
		}
		c.w.Reset(packed)
		_, err := c.w.Write(payload)
		if err = errors.Join(err, c.w.Close()); err == nil && packed.Len() < len(b)+1+len(payload) {
			return packed.Bytes()
		}
	}
	return append(append(b, codecRaw), payload...)
}

// decode undoes encode.
func decode(data []byte) ([]byte, error) {
	if len(data) == 0 {
		return nil, errors.New("no payload")
	}
	switch data[0] {
	case codecRaw:
		return data[1:], nil
	case codecFlate:
		var raw bytes.Buffer
		raw.Grow(min(ratio*len(data), MaxLeafBytes) + bytes.MinRead)
		_, err := raw.ReadFrom(io.LimitReader(flate.NewReader(bytes.NewReader(data[1:])), MaxLeafBytes+1))
		if err == nil && raw.Len() > MaxLeafBytes {
			err = errors.New("payload is too long")
		}
		return raw.Bytes(), err
	}
	return nil, fmt.Errorf("payload is kept in a form that this version does not know (%d)", data[0])
}
