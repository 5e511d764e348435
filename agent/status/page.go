package status

import (
	_ "embed"
	"html/template"
	"slices"
	"strconv"
	"strings"
	"time"

	"hubagent/config"
)

//go:embed page.gohtml
var pageTemplate string

//go:embed style.css
var style string

// page is what the template shows, all of it in the reader's words. The template decides nothing.
type page struct {
	*language
	Other     *language // the one to change to
	CSS       template.CSS
	Hold      bool // the reader has stopped the page from refreshing itself
	Title     string
	Level     level
	Sentences []sentence
	Groups    []group
	Uplink    []fact
	Storage   []fact
	About     []fact
}

// group is the devices of one kind.
type group struct {
	Title   string
	Count   string
	Silent  string // how many of them give no readings; "" for none
	Devices []device
}

// fact is a line of the page's lower part.
type fact struct {
	Title string
	Text  string
	Class string // code: a text for programs and installers
}

// page makes the page of a snapshot in a language.
func (l *language) page(s Snapshot) page {
	p := page{language: l, Title: s.Site, Uplink: l.uplink(s), Storage: l.storage(s), About: l.about(s)}
	if p.Title == "" {
		p.Title = s.Gateway
	}
	devices := make([]device, len(s.Devices))
	for i, d := range s.Devices {
		devices[i] = l.device(s, d)
	}
	p.Sentences = l.sentences(s, devices)
	p.Level = p.Sentences[0].Level // the worst comes first
	p.Groups = l.groups(s, devices)
	return p
}

// groups sorts devices by kind. Within a kind they stay in the order of the config, which people know by heart.
func (l *language) groups(s Snapshot, devices []device) (groups []group) {
	const other = config.DeviceKind("other") // what this page has no place for
	kinds := []config.DeviceKind{config.Bin, config.Meter, config.Camera, config.Contact, other}
	byKind := map[config.DeviceKind][]device{}
	for i, d := range s.Devices {
		kind := d.Kind
		if !slices.Contains(kinds, kind) {
			kind = other
		}
		byKind[kind] = append(byKind[kind], devices[i])
	}
	for _, kind := range kinds {
		g := group{Devices: byKind[kind]}
		if len(g.Devices) == 0 {
			continue
		}
		g.Title = l.Say("kind." + string(kind))
		g.Count = l.count("group.count", len(g.Devices))
		silent := 0
		for _, d := range g.Devices {
			if d.silent {
				silent++
			}
		}
		if silent > 0 {
			g.Silent = l.count("group.silent", silent)
		}
		groups = append(groups, g)
	}
	return groups
}

func (l *language) uplink(s Snapshot) []fact {
	u := s.Uplink
	facts := []fact{{Title: l.Say("uplink.state"), Text: l.Say("link." + string(u.State))}}
	if u.State == LinkOff {
		return facts
	}
	add := func(key, text string) { facts = append(facts, fact{Title: l.Say(key), Text: text}) }
	if u.Error != "" {
		facts = append(facts, fact{l.Say("uplink.error"), u.Error, "code"})
	}
	if u.State == LinkOffline && !u.RetryAt.IsZero() {
		add("uplink.retry", l.until(s.Now, u.RetryAt))
	}
	add("uplink.acknowledged", l.count("uplink.batches", int(u.Acknowledged)))
	waiting := l.count("uplink.batches", int(u.Waiting))
	if u.Waiting > 0 && !u.OldestWaiting.IsZero() {
		waiting = l.Say("uplink.oldest", waiting, l.ago(s.Now, u.OldestWaiting))
	}
	add("uplink.waiting", waiting)
	add("uplink.last_ack", l.ago(s.Now, u.LastAck))
	return append(facts, fact{l.Say("uplink.broker"), u.Broker, "code"})
}

func (l *language) storage(s Snapshot) []fact {
	j := s.Journal
	var facts []fact
	add := func(key, text string) { facts = append(facts, fact{Title: l.Say(key), Text: text}) }
	if j.Error != "" {
		facts = append(facts, fact{l.Say("storage.error"), j.Error, "code"})
	}
	add("storage.readings", l.Say("storage.count", grouped(strconv.FormatUint(j.Readings, 10))))
	atRisk := l.Say("storage.count", grouped(strconv.Itoa(j.AtRisk)))
	if j.Error == "" {
		atRisk = l.Say("storage.at_most", atRisk, seconds(j.SyncIntervalMs))
	}
	add("storage.at_risk", atRisk)
	if j.Lost > 0 {
		add("storage.lost", l.Say("storage.count", grouped(strconv.FormatUint(j.Lost, 10))))
	}
	add("storage.commit", l.ago(s.Now, j.LastCommit))
	used := l.size(j.DiskUsed)
	if j.Quota > 0 {
		used = l.Say("storage.quota", used, l.size(j.Quota))
	}
	add("storage.used", used)
	add("storage.free", l.size(j.DiskFree))
	room := l.Say("storage.unknown")
	if j.RoomSeconds > 0 {
		room = l.Say("storage.about", l.long(time.Duration(j.RoomSeconds*float64(time.Second))))
	}
	if s.Uplink.State == LinkOff {
		add("storage.keeps", room)
	} else {
		add("storage.room", room)
	}
	switch {
	case j.Written == 0:
		add("storage.written", l.Say("storage.uncounted"))
	case j.WrittenADay == 0:
		add("storage.written", l.Say("storage.so_far", l.size(j.Written)))
	default:
		ratio := strconv.FormatFloat(j.WriteRatio, 'f', 1, 64)
		add("storage.written", l.Say("storage.rate", l.size(j.Written), l.size(int64(j.WrittenADay)), ratio))
	}
	add("storage.card", l.card(s.Card))
	return facts
}

// card is what is known of a device's life.
func (l *language) card(c Card) string {
	if c.Kind == "" {
		return l.Say("card.unknown")
	}
	name := l.Say("card."+string(c.Kind), c.Device)
	var said []string
	switch {
	case c.LifeUsed > 100:
		said = append(said, l.Say("card.beyond"))
	case c.LifeUsed > 0:
		said = append(said, l.Say("card.used", c.LifeUsed-10, c.LifeUsed))
	}
	if c.Reserve != "" {
		said = append(said, l.Say("card.reserve."+string(c.Reserve)))
	}
	switch {
	case c.YearsLeft > 0:
		said = append(said, l.Say("card.left", l.long(time.Duration(min(c.YearsLeft, 200)*float64(year))), l.size(c.Endurance)))
	case c.Endurance > 0 && c.LifeUsed == 0:
		said = append(said, l.Say("card.later", l.size(c.Endurance)))
	case len(said) == 0:
		said = append(said, l.Say("card.silent"))
	}
	return name + l.Say("card.colon") + strings.Join(said, l.Say("card.separator"))
}

func (l *language) about(s Snapshot) []fact {
	f := s.ClockFacts
	clock := l.known("clock."+s.Clock, s.Clock)
	if !f.Since.IsZero() {
		clock += l.since(s, f.Since)
	}
	facts := []fact{
		{l.Say("about.gateway"), s.Gateway, "code"},
		{Title: l.Say("about.site"), Text: s.Site},
		{l.Say("about.epoch"), s.Epoch, "code"},
		{l.Say("about.version"), s.Version, "code"},
		{Title: l.Say("about.started"), Text: l.ago(s.Now, s.StartedAt)},
		{Title: l.Say("about.clock"), Text: clock},
		{Title: l.Say("about.now"), Text: s.Now.Format("2006-01-02 15:04:05 -07:00")},
	}
	if f.AheadMs != nil {
		facts = append(facts, fact{Title: l.Say("about.platform_time"), Text: l.ahead(*f.AheadMs)})
	}
	if !f.JumpedAt.IsZero() {
		facts = append(facts, fact{Title: l.Say("about.jump"), Text: l.Say("clock.moved", l.moved(f.JumpedByMs), l.ago(s.Now, f.JumpedAt))})
	}
	return facts
}

// seconds writes milliseconds as seconds, with a fraction only when there is one.
func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', -1, 64) }
