package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

var (
	nameForm       = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	pointForm      = regexp.MustCompile(`^[a-z0-9_]{1,32}$`)
	lineForm       = regexp.MustCompile(`^[!-.0-~]{1,31}$`) // printable, without blank and slash; the kernel's names are at most 31 bytes
	credentialForm = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}$`)
	originForm     = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]{0,98}[A-Za-z0-9])?$`)
)

const maxLabelLength = 100

// validation completes a decoded Config with its defaults and notes what cannot work. All of it runs whatever it finds.
type validation struct {
	*document
	folder   string
	profiles []*Profile
}

// require notes a missing key and says whether it is given.
func (d *document) require(path, mend string) bool {
	if d.given(path) {
		return true
	}
	d.reportAt(d.where(path), path, "this key is missing", mend)
	return false
}

// name checks a text that travels in topics and leaves.
func (d *document) name(path, name string, form *regexp.Regexp, mend string) {
	if d.require(path, mend) && !form.MatchString(name) {
		d.report(path, quote(name)+" cannot be a name here", mend)
	}
}

// label checks a text for people.
func (d *document) label(path, text string) {
	if n := len([]rune(text)); n > maxLabelLength {
		d.report(path, fmt.Sprintf("has %d characters, the most is %d", n, maxLabelLength), "write a shorter text")
	}
}

// duration sets the default of a duration that is not given, and checks the range of one that is.
func (d *document) duration(path string, v *time.Duration, byDefault, least, most time.Duration) {
	if !d.given(path) {
		*v = byDefault
	} else if *v < least || *v > most {
		d.report(path, fmt.Sprintf("%s is out of range", short(*v)), fmt.Sprintf("write %s to %s", short(least), short(most)))
	}
}

// integer is duration for whole numbers.
func (d *document) integer(path string, v *int, byDefault, least, most int) {
	if !d.given(path) {
		*v = byDefault
	} else if *v < least || *v > most {
		d.report(path, fmt.Sprintf("%d is out of range", *v), fmt.Sprintf("write %d to %d", least, most))
	}
}

// short is a duration as people write it: 10m, not 10m0s.
func short(v time.Duration) string {
	s := v.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// absolute makes a path of the file system independent of the working directory.
func (v *validation) absolute(path, text string) string {
	if text == "" {
		v.report(path, "is empty", "write a path, absolute or from the folder of this file")
		return ""
	}
	if filepath.IsAbs(text) {
		return filepath.Clean(text)
	}
	return filepath.Join(v.folder, text)
}

func (v *validation) config(c *Config) {
	if v.require("version", "write version: 1") && c.Version != 1 {
		v.report("version", fmt.Sprintf("version %d is not known to this program", c.Version), "write version: 1")
	}
	const gatewayMend = "write 1 to 64 of a-z 0-9 and -, for example hub-1"
	if v.require("gateway", "write it with its id below: id: hub-1") {
		v.name("gateway.id", c.Gateway.ID, nameForm, gatewayMend)
		v.label("gateway.site", c.Gateway.Site)
	}
	if c.Gateway.Zone == nil {
		zone, err := time.LoadLocation("Asia/Shanghai")
		if err != nil {
			panic("BUG: no time zone data: " + err.Error())
		}
		c.Gateway.Zone = zone
	}
	if v.require("state", "name the folder for journal and keys, for example state: /var/lib/hubagent") {
		c.State = v.absolute("state", c.State)
	}
	v.journal(&c.Journal)
	v.uplink(&c.Uplink)
	if v.given("status.listen") {
		c.Status.Listen = v.listen("status.listen", c.Status.Listen)
	} else {
		c.Status.Listen = "127.0.0.1:8080"
	}
	v.buses(c.Buses)
}

func (v *validation) journal(j *Journal) {
	v.duration("journal.sync_interval", &j.SyncInterval, 2*time.Second, 100*time.Millisecond, 30*time.Second)
	v.duration("journal.leaf_interval", &j.LeafInterval, time.Minute, 100*time.Millisecond, time.Hour)
	if j.LeafInterval < j.SyncInterval && !v.faulty["journal.sync_interval"] {
		v.report("journal.leaf_interval", fmt.Sprintf("%s is less than sync_interval, %s", short(j.LeafInterval), short(j.SyncInterval)),
			"write the same or more: a leaf is made of what is synced")
	}
	if v.given("journal.quota") && !v.faulty["journal.quota"] && (j.Quota < LeastQuota || j.Quota > mostQuota) {
		v.report("journal.quota", fmt.Sprintf("%v is out of range", j.Quota), fmt.Sprintf("write %v to %v", LeastQuota, mostQuota))
	}
	if v.given("journal.card_endurance") && !v.faulty["journal.card_endurance"] && (j.CardEndurance < leastEndurance || j.CardEndurance > mostEndurance) {
		v.report("journal.card_endurance", fmt.Sprintf("%v is out of range", j.CardEndurance), fmt.Sprintf("write %v to %v", leastEndurance, mostEndurance))
	}
	v.journalKey(&j.Key)
}

// The endurance that may be given: a worn-out promise, and that of a large SSD.
const (
	leastEndurance = 100 * GB
	mostEndurance  = 100_000 * TB
)

func (v *validation) journalKey(k *JournalKey) {
	const path = "journal.key"
	first := ""
	for _, name := range []string{"file", "credential", "command"} {
		switch {
		case !v.given(path + "." + name):
		case first == "":
			first = name
		default:
			v.report(path+"."+name, "the key comes from "+first+" already", "keep one of file, credential and command")
		}
	}
	if v.given(path+".file") && !v.faulty[path+".file"] {
		k.File = v.absolute(path+".file", k.File)
	}
	if v.given(path+".credential") && !v.faulty[path+".credential"] && !credentialForm.MatchString(k.Credential) {
		v.report(path+".credential", quote(k.Credential)+" cannot be the name of a credential",
			"write 1 to 255 of letters, digits, . _ and -, as in LoadCredentialEncrypted of the unit")
	}
	if !v.given(path+".command") || v.faulty[path+".command"] {
		return
	}
	if len(k.Command) == 0 || k.Command[0] == "" {
		v.report(path+".command", "names no program", "write program and arguments as a list, for example [clevis, decrypt]")
		return
	}
	if strings.Contains(k.Command[0], "/") {
		k.Command[0] = v.absolute(path+".command[0]", k.Command[0])
	}
}

// LeastQuota is the least disk space of a journal: less would hold hardly more than what Badger keeps for itself.
const LeastQuota = 64 * MB

// mostQuota bounds it from above: a larger journal would take minutes to look through.
const mostQuota = 64 * GB

func (v *validation) uplink(u *Uplink) {
	v.duration("uplink.checkpoint_interval", &u.CheckpointInterval, 15*time.Minute, 5*time.Second, 24*time.Hour)
	v.duration("uplink.keep_alive", &u.KeepAlive, 20*time.Second, 5*time.Second, time.Minute)
	v.duration("uplink.reconnect_max", &u.ReconnectMax, 10*time.Minute, time.Second, time.Hour)
	const originMend = "write the operator's domain, without spaces and +, for example hub.example"
	if len(u.Brokers) > 0 {
		v.require("uplink.origin", originMend)
	}
	if v.given("uplink.origin") && !originForm.MatchString(u.Origin) {
		v.report("uplink.origin", quote(u.Origin)+" cannot be the origin of a checkpoint", originMend)
	}
	seen := unique{}
	for i := range u.Brokers {
		path := fmt.Sprintf("uplink.brokers[%d]", i)
		u.Brokers[i] = v.broker(path, u.Brokers[i], u.AllowPlaintext)
		seen.check(v.document, path, u.Brokers[i], "the same broker", "remove one of the two")
	}
}
