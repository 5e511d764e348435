package keys

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hubagent/buffer"
	"hubagent/config"
)

var someKey = bytes.Repeat([]byte{'k'}, 32)

// written opens the journal of a config with the key that Load gives, as the agent does, and commits something.
func written(t *testing.T, cfg *config.Config, text string) {
	t.Helper()
	s, err := buffer.Open(buffer.Options{Dir: JournalDir(cfg), Key: load(t, cfg).Journal})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Commit(func(tx *buffer.Tx) error { tx.Set("text", []byte(text)); return nil }); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, cfg *config.Config, text string) {
	t.Helper()
	s, err := buffer.Open(buffer.Options{Dir: JournalDir(cfg), Key: load(t, cfg).Journal})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.Get("text"); err != nil || string(got) != text {
		t.Fatalf("%q %v", got, err)
	}
}

func TestKeySources(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	raw, hexed := write("raw", string(someKey), 0o400), write("hex", hex.EncodeToString(someKey)+"\n", 0o600)
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	write("secret", string(someKey), 0o440) // systemd's access list looks like this
	write("short", "abc", 0o400)
	write("not-hex", strings.Repeat("xy", 32), 0o400)
	for name, c := range map[string]struct {
		key  config.JournalKey
		want string // of the error; "" for none
	}{
		"raw file":            {config.JournalKey{File: raw}, ""},
		"hex file":            {config.JournalKey{File: hexed}, ""},
		"credential":          {config.JournalKey{Credential: "secret"}, ""},
		"no such credential":  {config.JournalKey{Credential: "other"}, "there is no credential other: put LoadCredentialEncrypted=other:FILE into the unit"},
		"short credential":    {config.JournalKey{Credential: "short"}, "journal key (credential short) has 3 bytes and should have 32, or 64 hexadecimal digits"},
		"64 of other letters": {config.JournalKey{Credential: "not-hex"}, "has 64 bytes and should have 32, or 64 hexadecimal digits"},
		"command":             {config.JournalKey{Command: []string{"cat", raw}}, ""},
		"hex of a command":    {config.JournalKey{Command: []string{"cat", hexed}}, ""},
		"no such program":     {config.JournalKey{Command: []string{"no-such-program"}}, "no-such-program failed: exec: "},
		"failing command":     {config.JournalKey{Command: []string{"sh", "-c", "echo first; echo TPM is locked >&2; exit 3"}}, `cannot get journal key: sh failed: exit status 3, it says "TPM is locked": run it by hand as the agent's user`},
		"endless command":     {config.JournalKey{Command: []string{"sh", "-c", "head -c 100000 /dev/zero"}}, "printed more than 4096 bytes"},
		"silent command":      {config.JournalKey{Command: []string{"true"}}, "journal key (output of true) has 0 bytes"},
	} {
		cfg := testConfig(t)
		cfg.Journal.Key = c.key
		k, err := Load(cfg)
		if c.want == "" && (err != nil || !bytes.Equal(k.Journal, someKey)) {
			t.Errorf("%s: %q %v", name, k.Journal, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "first") || strings.Contains(err.Error(), "xyxy")) {
			t.Errorf("%s: the error shows what may be a key: %v", name, err)
		}
		if _, err := os.Stat(path(cfg.State, "journal.key")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a key was made beside: %v", name, err)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	cfg := testConfig(t)
	cfg.Journal.Key.Credential = "secret"
	if _, err := Load(cfg); err == nil || !strings.Contains(err.Error(), "systemd gave this process no credentials") {
		t.Errorf("no systemd: %v", err)
	}
}

func TestKeyCommandIsBounded(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := outputWithin(ctx, []string{"sleep", "600"}); err == nil || !strings.Contains(err.Error(), "sleep did not end in time") {
		t.Errorf("got %v", err)
	}
}

// A configured file is made at the first start, as the default one is, and moves nothing else.
func TestOtherKeyFile(t *testing.T) {
	cfg := testConfig(t)
	cfg.Journal.Key.File = filepath.Join(t.TempDir(), "my.key")
	written(t, cfg, "one")
	if info, err := os.Stat(cfg.Journal.Key.File); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	check(t, cfg, "one")
	cfg.Journal.Key.File = filepath.Join(t.TempDir(), "no", "folder", "my.key")
	if _, err := Load(cfg); err == nil || !strings.Contains(err.Error(), "is gone, and") {
		t.Errorf("got %v", err)
	}
}

// Gateways whose keys were swapped say so, each the same whether the keys come from files or elsewhere.
func TestSwappedKeys(t *testing.T) {
	one, other := testConfig(t), testConfig(t)
	written(t, one, "one")
	written(t, other, "other")
	a, b := path(one.State, "journal.key"), path(other.State, "journal.key")
	for _, move := range [][2]string{{a, a + "x"}, {b, a}, {a + "x", b}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
	want := "is not the one that journal " + JournalDir(one) + " was written with; nothing was changed: put back the key of this gateway"
	if _, err := Load(one); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), a) {
		t.Errorf("file: %v", err)
	}
	if err := Rotate(one, nil, buffer.Options{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("rotation: %v", err)
	}
	one.Journal.Key.Command = []string{"cat", a}
	if _, err := Load(one); err == nil || !strings.Contains(err.Error(), "journal key (output of cat) "+want) {
		t.Errorf("command: %v", err)
	}
}

func TestRotate(t *testing.T) {
	cfg := testConfig(t)
	if err := Rotate(cfg, nil, buffer.Options{}); err == nil {
		t.Error("a key was changed where there is none")
	}
	written(t, cfg, "one")
	before := load(t, cfg)
	if err := Rotate(cfg, nil, buffer.Options{}); err != nil {
		t.Fatal(err)
	}
	check(t, cfg, "one")
	after := load(t, cfg)
	if bytes.Equal(before.Journal, after.Journal) || before.Public != after.Public {
		t.Error("not the journal's key alone was changed")
	}
	for _, left := range []string{"journal.key.new", "journal.key.tmp"} {
		if _, err := os.Stat(path(cfg.State, left)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", left, err)
		}
	}
	if err := Rotate(cfg, []byte(hex.EncodeToString(someKey)), buffer.Options{}); err != nil {
		t.Fatal(err)
	}
	check(t, cfg, "one")
	if !bytes.Equal(load(t, cfg).Journal, someKey) {
		t.Error("the given key is not in place")
	}
	if err := Rotate(cfg, []byte("short"), buffer.Options{}); err == nil || !strings.Contains(err.Error(), "new key has 5 bytes") {
		t.Errorf("got %v", err)
	}

	// From a command: the journal is written anew, and the caller puts the key there.
	file := filepath.Join(t.TempDir(), "sealed")
	if err := os.WriteFile(file, someKey, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Journal.Key.Command = []string{"cat", file}
	if err := Rotate(cfg, nil, buffer.Options{}); !errors.Is(err, ErrNeedsKey) {
		t.Errorf("got %v", err)
	}
	next := newKey()
	if err := Rotate(cfg, next, buffer.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, next, 0o600); err != nil {
		t.Fatal(err)
	}
	check(t, cfg, "one")
}

func TestRotateBesideTheAgent(t *testing.T) {
	cfg := testConfig(t)
	written(t, cfg, "one")
	s, err := buffer.Open(buffer.Options{Dir: JournalDir(cfg), Key: load(t, cfg).Journal})
	if err != nil {
		t.Fatal(err)
	}
	if err := Rotate(cfg, nil, buffer.Options{}); !errors.Is(err, buffer.ErrInUse) {
		t.Errorf("got %v", err)
	}
	s.Close()
	if _, err := os.Stat(rotated(path(cfg.State, "journal.key"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the next key is left: %v", err)
	}
	check(t, cfg, "one")
}

// Ended before or after any step, by an error or as by a crash, a start finds the key, and so does the next rotation.
func TestRotateInterrupted(t *testing.T) {
	var steps []string
	cfg := testConfig(t)
	written(t, cfg, "one")
	err := rotate(cfg, nil, buffer.Options{}, func(step string) error { steps = append(steps, step); return nil })
	if err != nil || len(steps) != 6 {
		t.Fatalf("%q %v", steps, err)
	}
	for i, step := range steps {
		for _, form := range []string{"error", "crash"} {
			t.Run(step+"/"+form, func(t *testing.T) {
				cfg := testConfig(t)
				written(t, cfg, "one")
				old := load(t, cfg).Journal
				interrupt(t, cfg, step, form)
				check(t, cfg, "one")
				if is, want := !bytes.Equal(load(t, cfg).Journal, old), i >= 3; is != want {
					t.Errorf("the new key is in force: %v, want %v", is, want)
				}
				if err := Rotate(cfg, nil, buffer.Options{}); err != nil {
					t.Fatal(err)
				}
				check(t, cfg, "one")
			})
			// The same without a start between: two rotations on end.
			t.Run(step+"/"+form+"/again", func(t *testing.T) {
				cfg := testConfig(t)
				written(t, cfg, "one")
				interrupt(t, cfg, step, form)
				interrupt(t, cfg, step, form)
				check(t, cfg, "one")
			})
		}
	}
}

func interrupt(t *testing.T, cfg *config.Config, step, form string) {
	t.Helper()
	fault := errors.New("injected")
	defer func() {
		if p := recover(); p != nil && p != any(fault) {
			panic(p)
		}
	}()
	err := rotate(cfg, nil, buffer.Options{}, func(s string) error {
		if s != step {
			return nil
		}
		if form == "crash" {
			panic(fault)
		}
		return fault
	})
	if !errors.Is(err, fault) {
		t.Errorf("got %v", err)
	}
}

// A next key that a crash cut short is no key.
func TestNextKeyCutShort(t *testing.T) {
	cfg := testConfig(t)
	written(t, cfg, "one")
	for _, n := range []int{0, 31} {
		if err := os.WriteFile(rotated(path(cfg.State, "journal.key")), make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
		check(t, cfg, "one")
	}
	if err := Rotate(cfg, nil, buffer.Options{}); err != nil {
		t.Fatal(err)
	}
	check(t, cfg, "one")
}
