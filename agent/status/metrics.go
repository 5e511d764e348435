package status

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// metrics is a snapshot in the Prometheus text format, version 0.0.4. It is written out from the snapshot and kept
// nowhere, so it cannot say anything else than the page. The labels of site and devices, which never travel, are not
// in it.
func metrics(s Snapshot) []byte {
	// These three are escaped in a label's value, and nothing else.
	e := exposition{escape: strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)}
	e.family("hubagent_info", "gauge", "The running agent; always 1.")
	e.sample(1, "gateway", s.Gateway, "epoch", s.Epoch, "version", s.Version)
	e.one("hubagent_start_time_seconds", "gauge", "When the agent started, Unix time.", unix(s.StartedAt))
	e.one("hubagent_clock_synchronised", "gauge", "1 if the clock is known to be right.", truth(s.Clock == "ok"))

	e.one("hubagent_clock_jumped", "gauge", "1 if the clock has just jumped, though it is synchronised.", truth(s.Clock == "step"))
	if ahead := s.ClockFacts.AheadMs; ahead != nil {
		e.one("hubagent_clock_ahead_seconds", "gauge", "By how much the clock is ahead of the platform's; absent if that is not known.", float64(*ahead)/1000)
	}

	e.family("hubagent_poll_total", "counter", "Polls since start.")
	for _, d := range s.Devices {
		e.sample(float64(d.Polls), "device", d.Name)
	}
	e.family("hubagent_poll_failures_total", "counter", "Polls since start that gave no full answer.")
	for _, d := range s.Devices {
		e.sample(float64(d.Failures), "device", d.Name)
	}
	e.family("hubagent_poll_left_out_total", "counter", "Beats since start for which the bus was too busy.")
	for _, d := range s.Devices {
		e.sample(float64(d.LeftOut), "device", d.Name)
	}
	e.family("hubagent_bus_busy_seconds_total", "counter", "Time since start that a bus spent in polls.")
	for _, b := range s.Buses {
		e.sample(b.BusySeconds, "bus", b.Name)
	}
	e.family("hubagent_device_up", "gauge", "1 if the device gives readings, 0 if it is silent; absent until it was asked.")
	for _, d := range s.Devices {
		if h := s.health(d); !h.fresh {
			e.sample(truth(!h.silent), "device", d.Name)
		}
	}
	e.family("hubagent_device_failing_polls", "gauge", "Polls in a row that gave no answer.")
	for _, d := range s.Devices {
		e.sample(float64(d.Failing), "device", d.Name)
	}
	e.family("hubagent_reading_age_seconds", "gauge", "Age of the last value of a point; absent if it was never read.")
	e.points(s, func(p Point) (float64, bool) { return age(s.Now, p.At), !p.At.IsZero() })
	e.family("hubagent_reading_quality", "gauge", "QARTOD flag of the last poll: 1 good, 2 not evaluated, 3 suspect, 4 bad, 9 missing.")
	e.points(s, func(p Point) (float64, bool) { return float64(p.Quality), p.Quality != 0 })

	j := s.Journal
	e.one("hubagent_journal_up", "gauge", "1 if the journal takes readings.", truth(j.Error == ""))
	e.one("hubagent_journal_leaves", "gauge", "Leaves in the journal's epoch.", float64(j.Leaves))
	e.one("hubagent_journal_readings", "gauge", "Readings in the journal's epoch.", float64(j.Readings))
	e.one("hubagent_journal_at_risk_readings", "gauge", "Readings polled and not on disk yet.", float64(j.AtRisk))
	e.one("hubagent_journal_lost_readings_total", "counter", "Readings lost since start, because neither disk nor memory had room.", float64(j.Lost))
	e.sometimes("hubagent_journal_last_commit_time_seconds", "When readings were last written, Unix time.", j.LastCommit)
	e.one("hubagent_journal_bytes", "gauge", "Disk space the journal takes.", float64(j.DiskUsed))
	e.one("hubagent_journal_free_bytes", "gauge", "Disk space left for the agent.", float64(j.DiskFree))

	e.one("hubagent_journal_quota_bytes", "gauge", "Most disk space the journal may take.", float64(j.Quota))
	e.known("hubagent_journal_room_seconds", "gauge", "Until readings have to go that the platform does not have; absent until known.", j.RoomSeconds)
	e.known("hubagent_disk_written_bytes_total", "counter", "Written by the agent since the journal was begun, as the kernel counts; absent if it does not.", float64(j.Written))
	e.known("hubagent_disk_written_bytes_per_day", "gauge", "Written in a day; absent until known.", j.WrittenADay)
	e.known("hubagent_disk_write_ratio", "gauge", "Bytes written for each byte of a compressed leaf; absent until known.", j.WriteRatio)
	e.known("hubagent_card_life_used_ratio", "gauge", "Share of its life that the card says is used, upper end of its step; absent if it does not say.", float64(s.Card.LifeUsed)/100)
	e.family("hubagent_card_reserve", "gauge", "State of the card's spare blocks: always 1, with the state as a label; absent if it does not say.")
	if s.Card.Reserve != "" {
		e.sample(1, "state", string(s.Card.Reserve))
	}
	e.known("hubagent_card_years_left", "gauge", "Of the card's rated endurance, at the rate the agent writes; absent until known.", s.Card.YearsLeft)

	u := s.Uplink
	e.one("hubagent_uplink_connected", "gauge", "1 if a broker accepts the connection.", truth(u.State == LinkOnline || u.State == LinkSilent))
	e.one("hubagent_uplink_online", "gauge", "1 if the platform acknowledges.", truth(u.State == LinkOnline))
	e.one("hubagent_uplink_connects_total", "counter", "Connections since start.", float64(u.Connects))
	e.one("hubagent_leaves_published_total", "counter", "Leaves sent since start, repeats included.", float64(u.Published))
	e.one("hubagent_leaves_republished_total", "counter", "Leaves sent since start that had been sent before.", float64(u.Republished))
	e.one("hubagent_leaves_acknowledged", "gauge", "Leaves the platform has stored.", float64(u.Acknowledged))
	e.one("hubagent_leaves_given_up", "gauge", "Leaves that the journal gave up or lost before the platform had them.", float64(u.GivenUp))
	e.one("hubagent_leaves_waiting", "gauge", "Leaves the platform has not stored.", float64(u.Waiting))
	oldest := 0.0
	if u.Waiting > 0 && !u.OldestWaiting.IsZero() {
		oldest = age(s.Now, u.OldestWaiting)
	}
	e.one("hubagent_oldest_waiting_age_seconds", "gauge", "Age of the oldest leaf waiting; 0 if none waits.", oldest)
	e.sometimes("hubagent_last_ack_time_seconds", "When the platform last acknowledged, Unix time.", u.LastAck)
	e.one("hubagent_checkpoint_leaves", "gauge", "Leaves covered by the last checkpoint that the platform confirmed.", float64(u.Checkpoint))
	return e.text
}

// exposition collects metrics, family by family.
type exposition struct {
	text   []byte
	name   string // of the family being written
	escape *strings.Replacer
}

func (e *exposition) family(name, kind, help string) {
	e.name = name
	e.text = fmt.Appendf(e.text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample adds a value to the family; labels are names and values in turn.
func (e *exposition) sample(v float64, labels ...string) {
	e.text = append(e.text, e.name...)
	for i := 0; i < len(labels); i += 2 {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		e.text = append(e.text, sep)
		e.text = append(e.text, labels[i]+`="`+e.escape.Replace(strings.ToValidUTF8(labels[i+1], "�"))+`"`...)
	}
	if len(labels) > 0 {
		e.text = append(e.text, '}')
	}
	e.text = strconv.AppendFloat(append(e.text, ' '), v, 'f', -1, 64)
	e.text = append(e.text, '\n')
}

func (e *exposition) one(name, kind, help string, v float64) {
	e.family(name, kind, help)
	e.sample(v)
}

// known is a value that is absent while it is 0, which means that it is not known.
func (e *exposition) known(name, kind, help string, v float64) {
	e.family(name, kind, help)
	if v != 0 {
		e.sample(v)
	}
}

// sometimes is a time that is absent when it has never come.
func (e *exposition) sometimes(name, help string, t time.Time) {
	e.family(name, "gauge", help)
	if !t.IsZero() {
		e.sample(unix(t))
	}
}

func (e *exposition) points(s Snapshot, value func(Point) (v float64, ok bool)) {
	for _, d := range s.Devices {
		for _, p := range d.Points {
			if v, ok := value(p); ok {
				e.sample(v, "device", d.Name, "point", p.Name)
			}
		}
	}
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func age(now, t time.Time) float64 { return max(0, now.Sub(t).Round(time.Millisecond).Seconds()) }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
