package main

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"hubagent/agent/card"
	"hubagent/agent/poll"
	"hubagent/agent/record"
	"hubagent/agent/status"
	"hubagent/config"
	"hubagent/drivers"
)

// lastReading is the newest reading of a point, and the newest that had a value.
type lastReading struct {
	newest  drivers.Reading
	value   drivers.Value
	valueAt time.Time
}

// remember keeps a sample for the page.
func (a *agent) remember(s drivers.Sample) {
	a.mu.Lock()
	defer a.mu.Unlock()
	points := a.last[s.Device]
	if points == nil {
		points = map[string]lastReading{}
		a.last[s.Device] = points
	}
	for _, r := range s.Readings {
		l := points[r.Point]
		l.newest = r
		if !r.Value.IsNone() {
			l.value, l.valueAt = r.Value, s.At
		}
		points[r.Point] = l
	}
}

// listenRetry is the wait before a taken address is tried again.
const listenRetry = 5 * time.Second

// serveStatus serves the page until ctx ends. A page that cannot be served must not stop readings: it says so once and
// tries again.
func (a *agent) serveStatus(ctx context.Context) {
	address := a.cfg.Status.Listen
	if address == "" {
		return
	}
	handler := status.New(a.snapshot, a.log)
	said := false
	for ctx.Err() == nil {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", address)
		if err == nil {
			said = false
			a.log.Info("status page", "url", "http://"+l.Addr().String()+"/")
			err = status.Serve(ctx, l, handler)
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		if !said {
			said = true
			mend := "change status.listen in the config"
			if errors.Is(err, syscall.EADDRINUSE) {
				mend = "another program has this address: stop it, or change status.listen in the config"
			}
			a.log.Error("status page is not served; readings go on", "address", address, "err", err, "mend", mend)
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenRetry):
		}
	}
}

// snapshot gathers what the page shows.
func (a *agent) snapshot() status.Snapshot {
	rec := a.recorder.Stats()
	used, free, err := a.store.Usage()
	now := time.Now()
	link := a.link(now)
	s := status.Snapshot{
		Now: now.In(a.cfg.Gateway.Zone), Version: version, StartedAt: record.Present(a.started, now),
		Gateway: a.cfg.Gateway.ID, Site: a.cfg.Gateway.Site, Epoch: a.epoch.Name,
		Journal: status.Journal{
			Leaves: a.store.Size(), Readings: rec.Readings, AtRisk: rec.AtRisk, Lost: rec.Lost.Readings,
			SyncIntervalMs: a.cfg.Journal.SyncInterval.Milliseconds(), LastCommit: record.Present(rec.LastCommit, now), DiskUsed: used, DiskFree: free,
		},
		Card:   a.cardHealth(),
		Uplink: link,
	}
	s.Journal.Quota, s.Journal.Volatile = a.quota, a.place.Volatile
	s.Journal.RoomSeconds = rec.Growth.Room(a.quota, used, free, link.Waiting).Seconds()
	if written, all, err := a.recorder.Wear(); err == nil {
		s.Journal.Written = all.Written
		if rate, ratio, ok := record.Rate(written, all); ok {
			s.Journal.WrittenADay, s.Journal.WriteRatio = rate, ratio
			if c := &s.Card; c.Endurance > 0 {
				c.YearsLeft = max(0.01, float64(c.Endurance-all.Written)/rate/365.25) // 0 says that it is not known
			}
		}
	}
	c := a.clock.Status()
	s.Clock = c.State
	s.ClockFacts = status.ClockFacts{Since: record.Present(c.Since, now), Doubt: string(c.Doubt)}
	if c.Compared {
		ahead := c.Ahead.Milliseconds()
		s.ClockFacts.AheadMs = &ahead
	}
	if c.Jumped {
		s.ClockFacts.JumpedAt, s.ClockFacts.JumpedByMs = now.Add(-c.JumpAge), c.JumpedBy.Milliseconds()
	}
	if err = errors.Join(rec.Err, err); err != nil {
		s.Journal.Error = err.Error()
	}
	for i, bus := range a.cfg.Buses {
		s.Buses = append(s.Buses, status.Bus{Name: bus.Name, BusySeconds: a.polls[i].Load().Busy.Seconds()})
		states := a.polls[i].States()
		for _, d := range bus.Devices {
			s.Devices = append(s.Devices, a.device(now, bus, d, states[d.Name]))
		}
	}
	return s
}

// cardHealth is what the device itself tells, and what the config says of it.
func (a *agent) cardHealth() status.Card {
	c := status.Card{Device: a.card.Device, Model: a.card.Model, LifeUsed: a.card.LifeUsed, Reserve: status.Reserve(a.card.Reserve)}
	if a.card.Kind != card.Other {
		c.Kind = status.CardKind(a.card.Kind)
		c.Endurance = int64(a.cfg.Journal.CardEndurance)
	}
	return c
}

func (a *agent) device(now time.Time, bus config.Bus, d config.Device, st poll.State) status.Device {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := status.Device{
		Name: d.Name, Label: d.Label, Kind: d.Model.Kind, Model: d.Model.Model, Bus: bus.Name, IntervalMs: d.Interval.Milliseconds(),
		Polls: st.Polls, Failures: st.Failures, LeftOut: st.Overruns, Failing: st.Failing, RetryAt: record.Present(st.RetryAt, now), Error: st.Err,
	}
	for _, p := range d.Model.Points {
		l := a.last[d.Name][p.Name]
		out.Points = append(out.Points, status.Point{
			Name: p.Name, Title: p.Title, Headline: p.Headline, Bool: p.Type == config.Bool, Unit: p.Unit,
			Value: l.value, At: record.Present(l.valueAt, now), Quality: l.newest.Quality, Why: l.newest.Why,
		})
	}
	return out
}

func (a *agent) link(now time.Time) status.Uplink {
	if a.uplink == nil {
		return status.Uplink{State: status.LinkOff}
	}
	u := a.uplink.Stats()
	l := status.Uplink{
		State: status.LinkOffline, Broker: u.Broker, Since: record.Present(u.Since, now), RetryAt: record.Present(u.RetryAt, now), Acknowledged: u.Acknowledged,
		Waiting: u.Waiting, GivenUp: u.GivenUp, LastAck: record.Present(u.LastAck, now), Published: u.Published, Republished: u.Republished,
		Connects: u.Connects, Checkpoint: u.Checkpoint, OldestWaiting: u.OldestWaiting,
	}
	switch {
	case u.Answered:
		l.State = status.LinkOnline
	case u.Connected:
		l.State = status.LinkSilent
	}
	if u.Err != nil {
		l.Error = u.Err.Error()
	}
	return l
}
