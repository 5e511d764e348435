package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

func mustProfiles(tb testing.TB) []*Profile {
	tb.Helper()
	profiles, err := Profiles()
	if err != nil {
		tb.Fatal(err)
	}
	return profiles
}

func TestDefaults(t *testing.T) {
	c, err := Parse("/etc/hubagent/hub.yaml", []byte(good), mustProfiles(t))
	if err != nil {
		t.Fatal(err)
	}
	for what, ok := range map[string]bool{
		"zone":                c.Gateway.Zone.String() == "Asia/Shanghai",
		"state":               c.State == "/etc/hubagent/state",
		"sync_interval":       c.Journal.SyncInterval == 2*time.Second,
		"leaf_interval":       c.Journal.LeafInterval == time.Minute,
		"quota":               c.Journal.Quota == 0,
		"card_endurance":      c.Journal.CardEndurance == 0,
		"key":                 c.Journal.Key.File == "" && c.Journal.Key.Credential == "" && c.Journal.Key.Command == nil,
		"checkpoint_interval": c.Uplink.CheckpointInterval == 15*time.Minute,
		"keep_alive":          c.Uplink.KeepAlive == 20*time.Second,
		"reconnect_max":       c.Uplink.ReconnectMax == 10*time.Minute,
		"listen":              c.Status.Listen == "127.0.0.1:8080",
		"address":             c.Buses[0].Address == "192.168.1.10:502",
		"serial":              c.Buses[1].Baud == 9600 && c.Buses[1].Parity == ParityNone && c.Buses[1].StopBits == 1,
		"dir":                 c.Buses[2].Dir == "/etc/hubagent/gpio",
		"timeout":             c.Buses[0].Timeout == 0 && c.Buses[0].Devices[0].Model.Modbus.ResponseTimeout == 500*time.Millisecond,
		"interval":            c.Buses[0].Devices[0].Interval == 10*time.Second,
		"model":               c.Buses[0].Devices[0].Model.ID == "hub-bin",
		"scale":               c.Buses[0].Devices[0].Model.Points[0].Scale == Decimal{Mantissa: 1},
		"order":               c.Buses[0].Devices[0].Model.Points[0].Order == ABCD,
		"hash":                len(c.Hash) == 64,
	} {
		if !ok {
			t.Errorf("%s has another default: %+v", what, c)
		}
	}
}

func TestGivenValues(t *testing.T) {
	text := strings.Replace(good, "state: state", `state: /var/lib/hubagent
status: {listen: off}
uplink:
  brokers: [mqtts://b.example, "mqtts://[2001:db8::1]:1234", mqtt://localhost/]
  origin: hub.example/cn`, 1)
	for key, ok := range map[string]func(k JournalKey) bool{
		"file: secret":                      func(k JournalKey) bool { return k.File == "/etc/hubagent/secret" },
		"credential: journal.key":           func(k JournalKey) bool { return k.Credential == "journal.key" },
		"command: [bin/unseal, -c, sealed]": func(k JournalKey) bool { return strings.Join(k.Command, " ") == "/etc/hubagent/bin/unseal -c sealed" },
		"command: [clevis, decrypt]":        func(k JournalKey) bool { return strings.Join(k.Command, " ") == "clevis decrypt" },
	} {
		c, err := Parse("/etc/hubagent/hub.yaml", []byte(strings.Replace(good, "state: state", "state: state\njournal: {card_endurance: 10TB, key: {"+key+"}}", 1)), mustProfiles(t))
		if err != nil || !ok(c.Journal.Key) || c.Journal.CardEndurance != 10*TB {
			t.Errorf("%s: %v %+v", key, err, c)
		}
	}
	text = strings.Replace(text, "unit: 1\n", "unit: 0xF7\n", 1)
	text = strings.Replace(text, "id: hub-1", "id: \"007\"", 1)
	c, err := Parse("hub.yaml", []byte(strings.ReplaceAll(text, "\n", "\r\n")), mustProfiles(t))
	if err != nil {
		t.Fatal(err)
	}
	if c.State != "/var/lib/hubagent" || c.Status.Listen != "" || c.Buses[0].Devices[0].Unit != 247 || c.Gateway.ID != "007" {
		t.Errorf("%+v", c)
	}
	want := []string{"mqtts://b.example:8883", "mqtts://[2001:db8::1]:1234", "mqtt://localhost:1883"}
	if !reflect.DeepEqual(c.Uplink.Brokers, want) {
		t.Errorf("brokers %q", c.Uplink.Brokers)
	}
}

func TestLoadOfUnreadable(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "hub.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(t.TempDir()); err == nil || errors.As(err, new(Problems)) {
		t.Errorf("folder: %v", err)
	}
	large := filepath.Join(t.TempDir(), "hub.yaml")
	if err := os.WriteFile(large, []byte(strings.Repeat("# large\n", 40000)), 0o644); err != nil {
		t.Fatal(err)
	}
	want := large + ":1:1: the file has more than 256 KiB; split the site over several gateways"
	if _, err := Load(large); err == nil || err.Error() != want {
		t.Errorf("large file: %v", err)
	}
}

// The examples must be good, and hold every key: documentation that nothing checks goes stale.
func TestExamples(t *testing.T) {
	profiles := mustProfiles(t)
	if _, err := Parse("reference.yaml", []byte(Reference()), profiles); err != nil {
		t.Error(err)
	}
	d := newDocument("reference-profile.yaml")
	if d.profile("reference-profile", []byte(ReferenceProfile())); d.problems != nil {
		t.Error(d.problems)
	}
	for _, tag := range tags(reflect.TypeFor[Config]()) {
		if !regexp.MustCompile(`\b` + tag + `:`).MatchString(Reference()) {
			t.Errorf("reference.yaml does not show %s", tag)
		}
	}
	for _, tag := range tags(reflect.TypeFor[Profile]()) {
		if !regexp.MustCompile(`\b` + tag + `:`).MatchString(ReferenceProfile()) {
			t.Errorf("reference-profile.yaml does not show %s", tag)
		}
	}
}

func tags(t reflect.Type) (names []string) {
	switch t.Kind() {
	case reflect.Slice:
		return tags(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if tag := t.Field(i).Tag.Get("yaml"); tag != "" && tag != "-" {
				names = append(append(names, tag), tags(t.Field(i).Type)...)
			}
		}
	}
	return names
}

func TestStarter(t *testing.T) {
	profiles := mustProfiles(t)
	c, err := Parse("hub.yaml", []byte(Starter("gate-7")), profiles)
	if err != nil || c.Gateway.ID != "gate-7" || len(c.Buses) != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	// The examples in comments are good too: a line is one if it looks like YAML without its "# ".
	uncommented := regexp.MustCompile(`(?m)^( *)# ( *(- )?(\{|[a-z_]+:( |$)).*)$`).ReplaceAllString(Starter("gate-7"), "$1$2")
	c, err = Parse("hub.yaml", []byte(uncommented), profiles)
	if err != nil {
		t.Fatalf("%v\n%s", err, uncommented)
	}
	kinds := map[BusKind]bool{}
	for _, b := range c.Buses {
		kinds[b.Kind] = len(b.Devices) == 1
	}
	if len(kinds) != len(BusKind("").choices()) || c.Uplink.Origin == "" || c.Gateway.Site == "" {
		t.Errorf("kinds %v, config %+v", kinds, c)
	}
}

func TestParseDecimal(t *testing.T) {
	for text, want := range map[string]Decimal{
		"1": {1, 0}, "10": {10, 0}, "0.01": {1, -2}, "2.50": {25, -1}, "-0.1": {-1, -1}, "0": {}, "0.000": {}, "1.0": {1, 0}, "123456789.123456": {123456789123456, -6},
	} {
		if got, err := ParseDecimal(text); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-", ".5", "1.", "00.1", "1e3", "+1", "1_0", "0x10", "1,5", "１", "1234567890.123456", strings.Repeat("9", 40)} {
		if got, err := ParseDecimal(text); err == nil {
			t.Errorf("%s is taken as %v", text, got)
		}
	}
	if s := (Decimal{6156, -2}); s.Float64() != 61.56 || s.String() != "61.56" || (Decimal{3, 2}).Float64() != 300 {
		t.Errorf("%v is %v", s, s.Float64())
	}
}

func FuzzParse(f *testing.F) {
	profiles := mustProfiles(f)
	for _, text := range []string{good, goodProfile, Reference(), ReferenceProfile(), Starter("hub-1")} {
		f.Add([]byte(text))
	}
	for _, c := range append(wrongForm, wrongContent...) {
		if len(c.new) < 1000 { // long ones only slow the search
			f.Add([]byte(c.new))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse("hub.yaml", data, profiles)
		if (cfg == nil) == (err == nil) {
			t.Fatalf("config %v, error %v", cfg, err)
		}
		d := newDocument("x-1.yaml")
		d.profile("x-1", data)
		var problems Problems
		errors.As(err, &problems)
		for _, p := range append(problems, d.problems...) {
			if p.Line < 1 || p.Column < 1 || p.Reason == "" || p.Mend == "" || strings.Contains(p.String(), "\n") {
				t.Errorf("problem %#v", p)
			}
		}
	})
}
