package sim

import (
	"math"
	"slices"

	"hubagent/config"
)

// factor is what a point's value is multiplied by according to another register of the device, 1 for none.
func (w World) factor(d config.Device, p config.Point) float64 {
	name := p.ScalePower + p.ScaleFactor // one of the two at most
	if name == "" {
		return 1
	}
	i := slices.IndexFunc(d.Model.Points, func(by config.Point) bool { return by.Name == name })
	if i < 0 {
		panic("BUG: no point " + name + " in profile " + d.Model.ID)
	}
	v := w.Value(d, d.Model.Points[i], w.Start)
	if p.ScalePower != "" {
		return math.Pow10(int(v))
	}
	return v
}

// setting is the value of a point that others are scaled by, which never changes: the finest power of ten, or the
// smallest ratio, with which they have room for four times what they are at Start. A ratio is more than 1 but for
// voltages, so that who forgets it is found out.
func (w World) setting(d config.Device, p config.Point) (v float64, known bool) {
	var scaled []config.Point
	candidates, exponents := []float64{20, 40, 100, 400, 1000, 4000, 10000}, false
	for _, q := range d.Model.Points {
		switch p.Name {
		case q.ScalePower:
			scaled, candidates, exponents = append(scaled, q), []float64{-2, -1, 0, 1, 2, 3, 4}, true
		case q.ScaleFactor:
			scaled = append(scaled, q)
		}
	}
	if scaled == nil {
		return 0, false
	}
	if !exponents && slices.ContainsFunc(scaled, func(q config.Point) bool { return q.Unit == "V" }) {
		candidates = append([]float64{1}, candidates...)
	}
	fits := func(candidate float64) bool {
		factor := candidate
		if exponents {
			factor = math.Pow10(int(candidate))
		}
		return !slices.ContainsFunc(scaled, func(q config.Point) bool {
			low, end := rawRange(q)
			raw := 4 * unscale(q, w.unclamped(d, q, w.Start), factor)
			return raw < low || raw >= end
		})
	}
	for _, candidate := range candidates {
		if fits(candidate) {
			return candidate, true
		}
	}
	return candidates[len(candidates)-1], true
}
