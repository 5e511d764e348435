// Package keys holds a gateway's secrets: one file of mode 0600 each under the state folder, made at the first start. The
// journal's key may come from elsewhere.
package keys

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"hubagent/agent/contract"
	"hubagent/config"
)

// Keys are what a gateway keeps to itself.
type Keys struct {
	Journal []byte      // AES-256 key of the journal
	Log     note.Signer // log key, signs checkpoints; nil without an uplink
	Public  string      // the log key's public form: what the platform registers; empty without an uplink
}

func path(state, name string) string { return filepath.Join(state, "keys", name) }

// JournalDir is where the journal of a config lives.
func JournalDir(cfg *config.Config) string { return filepath.Join(cfg.State, "journal") }

// Load reads the keys and makes those that are missing. It makes none beside data that the lost one must fit: a new
// key would hide the loss.
func Load(cfg *config.Config) (Keys, error) {
	var k Keys
	if err := os.MkdirAll(filepath.Join(cfg.State, "keys"), 0o700); err != nil {
		return k, fmt.Errorf("cannot write to state folder: %w", err)
	}
	var err error
	if k.Journal, err = loadJournal(cfg); err != nil {
		return k, err
	}
	if len(cfg.Uplink.Brokers) == 0 {
		return k, nil
	}
	pubPath := path(cfg.State, "log.pub")
	secret, err := loadKey(path(cfg.State, "log.key"), pubPath, func() (string, error) {
		secret, public, err := contract.NewKey(cfg.Uplink.Origin, cfg.Gateway.ID)
		if err != nil {
			return "", err
		}
		k.Public = public
		return secret, nil
	})
	if err != nil {
		return k, err
	}
	if k.Log, err = note.NewSigner(strings.TrimSpace(secret)); err != nil {
		return k, fmt.Errorf("log key %s is not usable: %w", path(cfg.State, "log.key"), err)
	}
	if want := contract.KeyName(cfg.Uplink.Origin, cfg.Gateway.ID); k.Log.Name() != want {
		return k, fmt.Errorf("log key %s is for %q, and the config says %q: put back gateway.id and uplink.origin, or begin with a new state folder", path(cfg.State, "log.key"), k.Log.Name(), want)
	}
	if k.Public == "" {
		if k.Public, err = publicOf(strings.TrimSpace(secret)); err != nil {
			return k, fmt.Errorf("log key %s is not usable: %w", path(cfg.State, "log.key"), err)
		}
	}
	if written, err := os.ReadFile(pubPath); err == nil && strings.TrimSpace(string(written)) == k.Public {
		return k, nil
	}
	return k, writeFileSync(pubPath, k.Public+"\n", 0o644) // the first time, or in the place of one that is gone or another's
}

// publicOf is the public form of a log key, which package note writes as PRIVATE+KEY+name+hash+base64 of algorithm and
// seed.
func publicOf(secret string) (string, error) {
	field := strings.Split(secret, "+")
	if len(field) < 5 {
		return "", errors.New("it is cut short")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(field[4:], "+")) // which base64 may hold
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return "", errors.New("it is cut short")
	}
	public, _ := ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey)
	return note.NewEd25519VerifierKey(field[2], public)
}

// loadKey reads a key, or makes it when neither it nor what needs it is there.
func loadKey(path, needs string, make func() (string, error)) (string, error) {
	raw, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return "", fmt.Errorf("cannot read key: %w", err)
		}
		info, err := os.Stat(path)
		if err != nil {
			return "", fmt.Errorf("cannot read key: %w", err)
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			return "", fmt.Errorf("key %s is open to others (mode %04o): chmod 600 %s", path, mode, path)
		}
		return string(raw), nil
	}
	if _, err := os.Stat(needs); err == nil {
		return "", fmt.Errorf("key %s is gone, and %s needs it: put it back, or move the state folder away to begin anew", path, needs)
	}
	secret, err := make()
	if err != nil {
		return "", err
	}
	return secret, writeFileSync(path, secret, 0o600)
}

// writeFileSync writes a whole file or none: a power cut must not leave a key cut short.
func writeFileSync(path, text string, mode fs.FileMode) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
