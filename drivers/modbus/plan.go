package modbus

import (
	"cmp"
	"fmt"
	"slices"

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

// What a device accepts when its profile says nothing.
const (
	defaultMaxRegisters = 60
	defaultMaxBits      = 64
)

// plan makes requests of a profile's points: neighbours in one table share a request as long as the device's limits
// hold. Every point is in exactly one request, and no value is torn across two.
func plan(p *config.Profile) []request {
	order := make([]int, len(p.Points))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := p.Points[a], p.Points[b]
		return cmp.Or(cmp.Compare(x.Function, y.Function), cmp.Compare(x.Address, y.Address))
	})
	var requests []request
	for _, i := range order {
		point := p.Points[i]
		alone := span(p.Modbus, request{function: point.Function, start: point.Address, count: max(point.Registers(), 1)})
		alone.points = []int{i}
		if n := len(requests); n > 0 {
			if joined, ok := join(p.Modbus, requests[n-1], alone); ok {
				requests[n-1] = joined
				continue
			}
		}
		requests = append(requests, alone)
	}
	return requests
}

// span widens a request to an even start and count where the device takes no other.
func span(limits config.ModbusLimits, r request) request {
	if limits.EvenOnly && !r.isBits() {
		end := r.start + r.count
		r.start -= r.start % 2
		r.count = end - r.start + (end-r.start)%2
	}
	return r
}

// join puts the points of b, which begins no earlier than a, into one request with a's, if the device takes it.
func join(limits config.ModbusLimits, a, b request) (request, bool) {
	most, hole := cmp.Or(limits.MaxRegisters, defaultMaxRegisters), limits.MaxHole
	if a.isBits() {
		most = cmp.Or(limits.MaxBits, defaultMaxBits)
	}
	end := max(a.start+a.count, b.start+b.count)
	if a.function != b.function || b.start-(a.start+a.count) > hole || end-a.start > most {
		return request{}, false
	}
	return request{a.function, a.start, end - a.start, slices.Concat(a.points, b.points)}, true
}

// split is what to ask instead of a request that the device refuses.
func split(*config.Profile, request) []request { return nil }
