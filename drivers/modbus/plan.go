package modbus

// How a profile's points become requests.
//
// An exchange on a serial line is a silence of 3.5 characters (Modbus over Serial Line V1.02, 2.5.1.1) or the longer
// pause a device wants, eight bytes of request, the device's own time until it begins to answer (2.4.3), and an answer of
// five bytes and the data (Modbus Application Protocol V1.1b3, 6.1 to 6.4). So a request costs a fixed time, and each
// register in it a little more (2.5.1: 10 to 12 bits a byte). Whether reading registers that nobody wants is cheaper than
// a second request hangs on rate, latency and pauses; cost.go has the arithmetic.
//
// Which of the many ways to divide the points takes the least time is found exactly, and not by a rule of thumb. In each
// table:
//
//  1. Points inside a block of the profile are read by that block, in whole. No choice is left there.
//  2. A point whose registers lie within those of another is read along with the other. It adds nothing to a request that
//     holds the other, and alone it would only cost.
//  3. Of the points that remain none lies within another, so in order of address their last registers increase as their
//     first ones do. Some cheapest plan asks for them in runs: each of its requests holds neighbours in that order,
//     however the points overlap. For take any cheapest plan, order its requests by start, and move each point to the
//     first request whose range holds it. No range grows. Let point u come before v, and v have gone to request R: then u
//     ends before R does. Had u gone to a request S after R, it would not lie in R, so it would begin before R; but S
//     begins no earlier than R, and u lies in S. So u is in R or before it: each request holds neighbours now, and the
//     plan costs no more than it did.
//  4. It is enough, then, to choose where to cut the order, and the cheapest cuts up to a point follow from the cheapest
//     cuts up to each point before it. For 256 points that is at most 32,896 sums.
//
// The third step needs that a shorter request costs no more, and that a device which takes a range also takes what is
// left of it when points at its ends go elsewhere. Therefore a hole is a run of registers that no point of the profile
// uses, whichever request reads those points.

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"hubagent/config"
)

// request is one read: count registers or bits of one table from start on.
type request struct {
	function config.Function
	start    int
	count    int
	points   []int // indexes into the profile's points
}

// String names the registers the way errors and logs do.
func (r request) String() string {
	name := map[config.Function]string{
		config.Coil: "coil", config.DiscreteInput: "discrete input",
		config.HoldingRegister: "holding register", config.InputRegister: "input register",
	}[r.function]
	if r.count == 1 {
		return fmt.Sprintf("%s %d", name, r.start)
	}
	return fmt.Sprintf("%s %d-%d", name, r.start, r.start+r.count-1)
}

// isBits says whether the request reads single bits.
func (r request) isBits() bool {
	return r.function == config.Coil || r.function == config.DiscreteInput
}

// end is the address after the last.
func (r request) end() int { return r.start + r.count }

// What a device accepts when its profile says nothing.
const (
	defaultMaxRegisters = 60
	defaultMaxBits      = 64
)

// registers is the number of registers a point takes, or of bits where its table has those.
func registers(p config.Point) int { return max(p.Registers(), 1) }

// plan makes the requests that read all points of a profile in the least time on the line. Every point is in exactly
// one request, and no value is torn across two. Of plans that take equally long it is the one with the fewest requests,
// then the one that reads the fewest registers. The requests are in order of function and address.
//
// The profile is one that config found good: no value and no block is larger than a request may be, and no point lies
// partly in a block.
func plan(p *config.Profile, line Line, latency time.Duration) []request {
	var requests []request
	var free []int
	blocks := map[config.Block]int{} // where the request for it is
	for i, point := range p.Points {
		block, ok := blockOf(p.Modbus, point)
		if !ok {
			free = append(free, i)
			continue
		}
		at, begun := blocks[block]
		if !begun {
			at = len(requests)
			blocks[block] = at
			requests = append(requests, request{function: block.Function, start: block.Address, count: block.Count})
		}
		requests[at].points = append(requests[at].points, i)
	}
	requests = append(requests, cheapest(p.Modbus, merge(alone(p, free), holds), line, latency)...)
	slices.SortFunc(requests, byAddress)
	return requests
}

// cheapest joins neighbours among values so that reading all of them takes the least time. Of the values, which are in
// order, none lies within another.
func cheapest(limits config.ModbusLimits, values []request, line Line, latency time.Duration) []request {
	type total struct { // of the cheapest requests for the values before one
		time           time.Duration
		requests, read int
		last           int // the first value of the last request
	}
	best := make([]total, len(values)+1)
	for j := range values {
		for i := j; i >= 0; i-- {
			r := request{function: values[i].function, start: values[i].start, count: values[j].end() - values[i].start}
			if i < j && (!joinable(limits, values[i], values[i+1]) || r.count > most(limits, r)) {
				break // and no longer request is taken either
			}
			t := total{best[i].time + line.exchange(limits, r, latency), best[i].requests + 1, best[i].read + r.count, i}
			if b := best[j+1]; i == j || cmp.Or(cmp.Compare(t.time, b.time), cmp.Compare(t.requests, b.requests), cmp.Compare(t.read, b.read)) < 0 {
				best[j+1] = t
			}
		}
	}
	var requests []request
	for j := len(values); j > 0; j = best[j].last {
		requests = append(requests, union(values[best[j].last:j]))
	}
	return requests
}

// split makes the requests to send in place of one that the device refused by exception 2 or 3 (illegal data address or
// value, Application Protocol V1.1b3, 7). The holes are left out first, since nothing is known of the registers in
// them; a request without holes is halved between two values. It returns nil where there is nothing left to divide: the
// request is for a block, or all its points have the same registers.
func split(p *config.Profile, r request) []request {
	if _, ok := blockOf(p.Modbus, p.Points[r.points[0]]); ok {
		return nil
	}
	values := merge(alone(p, r.points), same)
	if p.Modbus.OneValue && len(values) > 1 {
		return values
	}
	if pieces := merge(values, touch); len(pieces) > 1 {
		return pieces
	}
	var halves []request
	for k := 1; k < len(values); k++ {
		a, b := union(values[:k]), union(values[k:])
		if halves == nil || max(a.count, b.count) < max(halves[0].count, halves[1].count) {
			halves = []request{a, b}
		}
	}
	return halves
}

// blockOf is the block that a point is in.
func blockOf(limits config.ModbusLimits, p config.Point) (config.Block, bool) {
	i := slices.IndexFunc(limits.Blocks, func(b config.Block) bool {
		return b.Function == p.Function && b.Address <= p.Address && p.Address+registers(p) <= b.Address+b.Count
	})
	if i < 0 {
		return config.Block{}, false
	}
	return limits.Blocks[i], true
}

// alone makes a request of each point, in order of address, the longer of two that begin together first. Start and
// count are widened to even ones where the device takes no others.
func alone(p *config.Profile, points []int) []request {
	var requests []request
	for _, i := range points {
		point := p.Points[i]
		r := request{function: point.Function, start: point.Address, count: registers(point), points: []int{i}}
		if p.Modbus.EvenOnly && !r.isBits() {
			end := r.end() + r.end()%2
			r.start -= r.start % 2
			r.count = end - r.start
		}
		requests = append(requests, r)
	}
	slices.SortStableFunc(requests, byAddress)
	return requests
}

func byAddress(a, b request) int {
	return cmp.Or(cmp.Compare(a.function, b.function), cmp.Compare(a.start, b.start), cmp.Compare(b.count, a.count))
}

// most is how much the device lets one request read.
func most(limits config.ModbusLimits, r request) int {
	if r.isBits() {
		return cmp.Or(limits.MaxBits, defaultMaxBits)
	}
	return cmp.Or(limits.MaxRegisters, defaultMaxRegisters)
}

// joinable says whether a request may go on from one value to the next in order.
func joinable(limits config.ModbusLimits, a, b request) bool {
	return a.function == b.function && !limits.OneValue && b.start-a.end() <= limits.MaxHole &&
		!slices.ContainsFunc(limits.Blocks, func(block config.Block) bool {
			return block.Function == a.function && block.Address < b.start && a.end() < block.Address+block.Count
		})
}

// Three ways in which a request may belong to the one before it in order.
func holds(a, b request) bool { return a.function == b.function && b.end() <= a.end() }
func same(a, b request) bool {
	return a.function == b.function && a.start == b.start && a.count == b.count
}
func touch(a, b request) bool { return a.function == b.function && b.start <= a.end() }

// merge unites each request with those before it that it belongs to.
func merge(requests []request, belongs func(a, b request) bool) []request {
	var merged []request
	for _, r := range requests {
		if n := len(merged); n > 0 && belongs(merged[n-1], r) {
			merged[n-1] = union([]request{merged[n-1], r})
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// union is the request that reads all that the given ones read. The first of them begins first.
func union(requests []request) request {
	r := requests[0]
	r.points = slices.Clone(r.points)
	for _, other := range requests[1:] {
		r.count = max(r.end(), other.end()) - r.start
		r.points = append(r.points, other.points...)
	}
	return r
}
