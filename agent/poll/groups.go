package poll

import "hubagent/config"

// groups are the points of a device that are read together: those of every poll, and slower ones that are read at every
// second, third or later one.
type groups struct {
	every    []uint64 // of each point of the model: 1 is at each poll
	model    *config.Profile
	variants map[string]*config.Profile // of the model, with the points of one poll; by which they are
	key      []byte
}

func newGroups(d config.Device) groups {
	g := groups{every: make([]uint64, len(d.Model.Points)), model: d.Model, variants: map[string]*config.Profile{}, key: make([]byte, len(d.Model.Points))}
	for i, p := range d.Model.Points {
		g.every[i] = 1
		if p.Interval > d.Interval && d.Interval > 0 {
			g.every[i] = uint64((p.Interval + d.Interval/2) / d.Interval)
		}
	}
	return g
}

// due is the model with the points that are read at the n-th poll, counted from 0. The same points give the same
// *config.Profile each time, so that drivers need plan them once.
func (g *groups) due(n uint64) *config.Profile {
	slow := false
	for i, every := range g.every {
		g.key[i] = '+'
		if n%every != 0 {
			g.key[i], slow = '-', true
		}
	}
	if !slow {
		return g.model
	}
	if v := g.variants[string(g.key)]; v != nil {
		return v
	}
	v := *g.model
	v.Points = nil
	for i, p := range g.model.Points {
		if g.key[i] == '+' {
			v.Points = append(v.Points, p)
		}
	}
	g.variants[string(g.key)] = &v
	return &v
}
