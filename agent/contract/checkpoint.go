package contract

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is a gateway's signed word on the first Size leaves of its log (C2SP tlog-checkpoint).
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// Origin names one log: a prefix of the operator's, the gateway, the epoch.
func Origin(prefix, gateway, epoch string) string { return prefix + "/" + gateway + "/" + epoch }

// KeyName is the name of a gateway's log key. It has no epoch, so that a key lives through a lost journal.
func KeyName(prefix, gateway string) string { return prefix + "/" + gateway }

// NewKey makes a log key and returns its secret and public form, as package note writes them.
func NewKey(prefix, gateway string) (secret, public string, err error) {
	secret, public, err = note.GenerateKey(rand.Reader, KeyName(prefix, gateway))
	if err == nil {
		_, err = note.NewSigner(secret) // GenerateKey takes names that NewSigner refuses
	}
	if err != nil {
		return "", "", fmt.Errorf("cannot make log key %q: %w", KeyName(prefix, gateway), err)
	}
	return secret, public, nil
}

// Sign returns the checkpoint as a signed note.
func (c Checkpoint) Sign(signer note.Signer) ([]byte, error) {
	text := c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
	return note.Sign(&note.Note{Text: text}, signer)
}

// OpenCheckpoint checks the signature and reads the checkpoint. Lines beyond the third are extensions and ignored.
func OpenCheckpoint(signed []byte, verifier note.Verifier) (Checkpoint, error) {
	var c Checkpoint
	if len(signed) > 64<<10 {
		return c, fmt.Errorf("checkpoint has %d bytes", len(signed))
	}
	n, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return c, fmt.Errorf("checkpoint: %w", err)
	}
	line := strings.Split(n.Text, "\n")
	if len(line) < 4 || line[0] == "" {
		return c, errors.New("checkpoint has fewer than three lines")
	}
	c.Origin = line[0]
	if c.Size, err = strconv.ParseInt(line[1], 10, 64); err != nil || c.Size < 0 || c.Size > MaxSeq || strconv.FormatInt(c.Size, 10) != line[1] {
		return c, errors.New("checkpoint has no valid size")
	}
	root, err := base64.StdEncoding.DecodeString(line[2])
	if err != nil || len(root) != tlog.HashSize {
		return c, errors.New("checkpoint has no valid root")
	}
	copy(c.Root[:], root)
	return c, nil
}
