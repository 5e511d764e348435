package keys

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hubagent/buffer"
	"hubagent/config"
)

const (
	keyBytes       = 32 // AES-256
	mostKeyOutput  = 4096
	commandTimeout = 30 * time.Second // a TPM takes a second or two, a key server on the network more
)

// ErrNeedsKey means that Rotate cannot put a new key where the old one comes from, and so wants to be given one.
var ErrNeedsKey = errors.New("it cannot be put there from here")

// journalFile is the file that the journal's key comes from; empty when it comes from elsewhere.
func journalFile(cfg *config.Config) string {
	k := cfg.Journal.Key
	switch {
	case k.Credential != "" || len(k.Command) > 0:
		return ""
	case k.File != "":
		return k.File
	}
	return path(cfg.State, "journal.key")
}

// journalSource names where the journal's key comes from.
func journalSource(cfg *config.Config) string {
	k := cfg.Journal.Key
	switch {
	case k.Credential != "":
		return "credential " + k.Credential
	case len(k.Command) > 0:
		return "output of " + k.Command[0]
	}
	return journalFile(cfg)
}

// loadJournal gets the journal's key and makes sure that the journal was written with it.
func loadJournal(cfg *config.Config) ([]byte, error) {
	if k := cfg.Journal.Key; k.Credential != "" || len(k.Command) > 0 {
		key, err := foreignKey(cfg)
		if err != nil {
			return nil, err
		}
		return key, fitting(cfg, key)
	}
	file := journalFile(cfg)
	switch _, err := os.Stat(rotated(file)); {
	case err == nil:
		unlock, err := lockFolder(file)
		if err != nil {
			return nil, err
		}
		defer unlock()
		if err := settleRotation(cfg, file); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("cannot look for key: %w", err)
	}
	text, err := loadKey(file, JournalDir(cfg), func() (string, error) { return string(newKey()), nil })
	if err != nil {
		return nil, err
	}
	key, err := parseKey([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("journal key %s %w", file, err)
	}
	return key, fitting(cfg, key)
}

func newKey() []byte {
	key := make([]byte, keyBytes)
	rand.Read(key) // never fails
	return key
}

// parseKey takes 32 bytes, or 64 hexadecimal digits with white space around them. Its error never shows them.
func parseKey(raw []byte) ([]byte, error) {
	if len(raw) == keyBytes {
		return bytes.Clone(raw), nil
	}
	key, err := hex.DecodeString(string(bytes.TrimSpace(raw)))
	if err != nil || len(key) != keyBytes {
		return nil, fmt.Errorf("has %d bytes and should have 32, or 64 hexadecimal digits: put back the right one", len(raw))
	}
	return key, nil
}

// fitting is an error unless the journal was written with the key.
func fitting(cfg *config.Config, key []byte) error {
	fits, err := buffer.FitsKey(JournalDir(cfg), key)
	if err != nil || fits {
		return nil // what else is wrong with the journal, its opener says
	}
	return fmt.Errorf("journal key (%s) is not the one that journal %s was written with; nothing was changed: put back the key of this gateway, or move the state folder away to begin anew without what is in it",
		journalSource(cfg), JournalDir(cfg))
}

func foreignKey(cfg *config.Config) (key []byte, err error) {
	var raw []byte
	if name := cfg.Journal.Key.Credential; name != "" {
		raw, err = credential(name)
	} else {
		raw, err = output(cfg.Journal.Key.Command)
	}
	if err != nil {
		return nil, err
	}
	if key, err = parseKey(raw); err != nil {
		return nil, fmt.Errorf("journal key (%s) %w", journalSource(cfg), err)
	}
	return key, nil
}

// credential reads what systemd put there for this unit alone, so its mode is systemd's business.
func credential(name string) ([]byte, error) {
	mend := fmt.Sprintf("put LoadCredentialEncrypted=%s:FILE into the unit, FILE from systemd-creds encrypt --name=%s, and start the agent by its unit", name, name)
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, fmt.Errorf("cannot read journal key: systemd gave this process no credentials, and %s should be one: %s", name, mend)
	}
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read journal key: there is no credential %s: %s", name, mend)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read journal key: %w", err)
	}
	return raw, nil
}

// output runs the command that prints the key. What it prints is shown to nobody; its complaints are.
func output(command []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	return outputWithin(ctx, command)
}

func outputWithin(ctx context.Context, command []string) ([]byte, error) {
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.WaitDelay = time.Second // for children of it that keep its output open
	var key, complaints bounded
	c.Stdout, c.Stderr = &key, &complaints
	err := c.Run()
	what := fmt.Sprintf("cannot get journal key: %s", command[0])
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s did not end in time (%v at most): see by hand whether it waits for something", what, commandTimeout)
	case err != nil:
		said := strings.TrimSpace(complaints.kept.String())
		if last := strings.LastIndexByte(said, '\n'); last >= 0 {
			said = said[last+1:]
		}
		if said != "" {
			said = fmt.Sprintf(", it says %q", said)
		}
		return nil, fmt.Errorf("%s failed: %w%s: run it by hand as the agent's user", what, err, said)
	case key.over:
		return nil, fmt.Errorf("%s printed more than %d bytes, and a key has 32, or 64 hexadecimal digits", what, mostKeyOutput)
	}
	return key.kept.Bytes(), nil
}

// bounded keeps the first bytes of a program's output. Its buffer is not embedded: io.Copy would fill that past the bound.
type bounded struct {
	kept bytes.Buffer
	over bool
}

// Write takes everything, so that the program does not stop.
func (b *bounded) Write(p []byte) (int, error) {
	room := mostKeyOutput - b.kept.Len()
	b.over = b.over || len(p) > room
	b.kept.Write(p[:min(len(p), room)])
	return len(p), nil
}

// rotated is where the next key stands until the journal is written with it.
func rotated(file string) string { return file + ".new" }

// lockFolder makes sure that one process at a time changes a key's files. It waits for the other.
func lockFolder(file string) (unlock func(), err error) {
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("cannot open the folder of key %s: %w", file, err)
	}
	for {
		if err = unix.Flock(int(d.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot lock the folder of key %s: %w", file, err), d.Close())
	}
	return func() { d.Close() }, nil
}

// settleRotation ends a rotation that a crash or power cut ended, once the journal is written with the next key. One that
// did not come so far is left: the old key is good, and Rotate begins again. The caller holds the folder's lock.
func settleRotation(cfg *config.Config, file string) error {
	raw, err := os.ReadFile(rotated(file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // who had the lock has ended it
	}
	if err != nil {
		return fmt.Errorf("cannot read key: %w", err)
	}
	key, err := parseKey(raw)
	if err != nil {
		return nil // cut short by the crash, before the journal's turn
	}
	if _, err := os.Stat(JournalDir(cfg)); err != nil {
		return nil
	}
	if fits, err := buffer.FitsKey(JournalDir(cfg), key); err != nil || !fits {
		return nil
	}
	return putInPlace(file)
}

func putInPlace(file string) error {
	err := os.Rename(rotated(file), file)
	if err == nil {
		err = syncDir(filepath.Dir(file))
	}
	if err != nil {
		return fmt.Errorf("cannot put the new key in place: %w; keep %s, the journal needs it", err, rotated(file))
	}
	return nil
}

// Rotate gives the journal of a stopped agent a new key: replacement, the text of one, or when that is nil a random one.
// Errors: buffer.ErrInUse while an agent has the journal open; ErrNeedsKey without a replacement when the key comes from a
// credential or a command, where the caller has to put it. Whatever happens, one of the two keys opens the journal, and
// Load finds out which, as long as both are in files.
func Rotate(cfg *config.Config, replacement []byte, opts buffer.Options) error {
	return rotate(cfg, replacement, opts, func(string) error { return nil })
}

// rotate calls at before and after each step: tests end it there.
func rotate(cfg *config.Config, replacement []byte, opts buffer.Options, at func(step string) error) error {
	next := newKey()
	if replacement != nil {
		var err error
		if next, err = parseKey(replacement); err != nil {
			return fmt.Errorf("new key %w", err)
		}
	}
	opts.Dir = JournalDir(cfg)
	file := journalFile(cfg)
	if file == "" && replacement == nil {
		return fmt.Errorf("the journal's key is the %s: %w", journalSource(cfg), ErrNeedsKey)
	}
	if file != "" {
		unlock, err := lockFolder(file)
		if err != nil {
			return err
		}
		defer unlock()
		if err := settleRotation(cfg, file); err != nil {
			return err
		}
	}
	if _, err := os.Stat(opts.Dir); err != nil {
		return fmt.Errorf("there is no journal to change the key of: %w", err)
	}
	var err error
	if opts.Key, err = presentKey(cfg, file); err != nil {
		return err
	}
	if file == "" {
		return buffer.Rekey(opts, next)
	}
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
	err = step("writing the new key", func() error { return writeFileSync(rotated(file), string(next), 0o600) })
	if err != nil {
		return err
	}
	err = step("the journal", func() error { return buffer.Rekey(opts, next) })
	if errors.Is(err, buffer.ErrInUse) { // the one error after which the next key is of no use for certain
		return errors.Join(err, os.Remove(rotated(file)))
	}
	if err != nil {
		return err
	}
	return step("putting the new key in place", func() error { return putInPlace(file) })
}

// presentKey is the key that the journal is written with. It makes none.
func presentKey(cfg *config.Config, file string) (key []byte, err error) {
	if file == "" {
		key, err = foreignKey(cfg)
	} else {
		var text string
		text, err = loadKey(file, JournalDir(cfg), func() (string, error) { return "", fmt.Errorf("there is no key %s", file) })
		if err == nil {
			if key, err = parseKey([]byte(text)); err != nil {
				err = fmt.Errorf("journal key %s %w", file, err)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return key, fitting(cfg, key)
}
