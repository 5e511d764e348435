package keys

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hubagent/config"
)

func testConfig(t *testing.T) *config.Config {
	return &config.Config{
		State:   filepath.Join(t.TempDir(), "state"),
		Gateway: config.Gateway{ID: "g1"},
		Uplink:  config.Uplink{Brokers: []string{"mqtt://127.0.0.1:1883"}, Origin: "hub.example"},
	}
}

func load(t *testing.T, cfg *config.Config) Keys {
	t.Helper()
	k, err := Load(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysAreMadeOnce(t *testing.T) {
	cfg := testConfig(t)
	first, second := load(t, cfg), load(t, cfg)
	if len(first.Journal) != 32 || !bytes.Equal(first.Journal, second.Journal) || first.Public != second.Public {
		t.Errorf("keys changed: %q then %q", first.Public, second.Public)
	}
	if first.Log.Name() != "hub.example/g1" || !strings.HasPrefix(first.Public, "hub.example/g1+") {
		t.Errorf("log key %q, public %q", first.Log.Name(), first.Public)
	}
	for name, want := range map[string]os.FileMode{"journal.key": 0o600, "log.key": 0o600, "log.pub": 0o644} {
		info, err := os.Stat(path(cfg.State, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	if other := load(t, testConfig(t)); bytes.Equal(other.Journal, first.Journal) || other.Public == first.Public {
		t.Error("two gateways have the same keys")
	}
}

// A gateway without an uplink signs nothing, and gets its log key with the first broker.
func TestLogKeyComesWithUplink(t *testing.T) {
	cfg := testConfig(t)
	brokers := cfg.Uplink.Brokers
	cfg.Uplink.Brokers = nil
	if k := load(t, cfg); k.Log != nil || k.Public != "" {
		t.Errorf("log key %q without an uplink", k.Public)
	}
	cfg.Uplink.Brokers = brokers
	if k := load(t, cfg); k.Log == nil {
		t.Error("no log key")
	}
}

func TestKeyTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(cfg *config.Config) error
		want  string
	}{
		"journal key lost": {func(cfg *config.Config) error {
			if err := os.Mkdir(JournalDir(cfg), 0o700); err != nil {
				return err
			}
			return os.Remove(path(cfg.State, "journal.key"))
		}, "journal.key is gone, and"},
		"log key lost": {func(cfg *config.Config) error { return os.Remove(path(cfg.State, "log.key")) }, "log.key is gone, and"},
		"journal key short": {func(cfg *config.Config) error {
			return os.WriteFile(path(cfg.State, "journal.key"), []byte("x"), 0o600)
		}, "has 1 bytes and should have 32"},
		"log key garbled": {func(cfg *config.Config) error { return os.WriteFile(path(cfg.State, "log.key"), []byte("x"), 0o600) }, "is not usable"},
		"open to others":  {func(cfg *config.Config) error { return os.Chmod(path(cfg.State, "log.key"), 0o640) }, "is open to others (mode 0640): chmod 600 "},
		"other gateway": {func(cfg *config.Config) error {
			cfg.Gateway.ID = "g2"
			return nil
		}, `is for "hub.example/g1", and the config says "hub.example/g2": put back gateway.id and uplink.origin`},
	} {
		cfg := testConfig(t)
		load(t, cfg)
		if err := c.spoil(cfg); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The public log key is made again from the secret one, and replaces one that is of another gateway.
func TestPublicKeyIsMadeAgain(t *testing.T) {
	cfg := testConfig(t)
	want := load(t, cfg).Public
	for name, change := range map[string]func(file string) error{
		"gone":  os.Remove,
		"empty": func(file string) error { return os.WriteFile(file, nil, 0o644) },
		"foreign": func(file string) error {
			return os.WriteFile(file, []byte(load(t, testConfig(t)).Public), 0o644)
		},
	} {
		file := path(cfg.State, "log.pub")
		if err := change(file); err != nil {
			t.Fatal(err)
		}
		if got := load(t, cfg).Public; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if raw, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(raw)) != want {
			t.Errorf("%s: the file says %q: %v", name, raw, err)
		}
	}
}
