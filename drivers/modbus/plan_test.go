package modbus

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"hubagent/config"
)

// refusal says why a device with a profile's registers and limits answers a request with an exception; "" if it
// answers. It looks at every address by itself and shares nothing with the planner.
func refusal(p *config.Profile, r request) string {
	limits, step := p.Modbus, 1
	largest := cmp.Or(limits.MaxRegisters, defaultMaxRegisters)
	if r.function == config.Coil || r.function == config.DiscreteInput {
		largest = cmp.Or(limits.MaxBits, defaultMaxBits)
	} else if limits.EvenOnly {
		step = 2
	}
	first, after := r.start, r.start+r.count
	switch {
	case r.count < 1 || r.count > largest:
		return fmt.Sprintf("asks for %d, the most is %d", r.count, largest)
	case first < 0 || after > 0x10000:
		return "is outside the address space"
	}
	for _, b := range limits.Blocks {
		if b.Function == r.function && first < b.Address+b.Count && b.Address < after {
			if first == b.Address && r.count == b.Count {
				return ""
			}
			return fmt.Sprintf("takes a part of the block %d-%d, or more", b.Address, b.Address+b.Count-1)
		}
	}
	if first%step != 0 || r.count%step != 0 {
		return "must be even in start and count"
	}
	whole := false
	known := make([]bool, r.count)
	for i, point := range p.Points {
		from, to := occupied(p, i)
		whole = whole || point.Function == r.function && from == first && to == after
		for k := max(from, first); k < min(to, after) && point.Function == r.function; k++ {
			known[k-first] = true
		}
	}
	if limits.OneValue && !whole {
		return "asks for more than one value"
	}
	hole := 0
	for k, is := range known {
		if hole++; is {
			hole = 0
		}
		if hole > limits.MaxHole {
			return fmt.Sprintf("has a hole of more than %d before %d", limits.MaxHole, first+k)
		}
	}
	return ""
}

// occupied is from where to where a device must be asked for a point alone.
func occupied(p *config.Profile, i int) (from, to int) {
	point := p.Points[i]
	from, to = point.Address, point.Address+1
	switch {
	case point.Function == config.Coil || point.Function == config.DiscreteInput:
		return from, to
	case point.Type == config.ASCII:
		to = from + point.Length
	case point.Type != config.Bool:
		to = from + point.Type.Registers()
	}
	if p.Modbus.EvenOnly {
		from, to = from&^1, (to+1)&^1
	}
	return from, to
}

// checkWhole reports what the requests for some points must never do: leave one out, ask for one twice, tear one.
func checkWhole(t *testing.T, p *config.Profile, points []int, requests []request) {
	t.Helper()
	seen := map[int]int{}
	for _, r := range requests {
		for _, i := range r.points {
			seen[i]++
			if from, to := occupied(p, i); p.Points[i].Function != r.function || from < r.start || to > r.start+r.count {
				t.Errorf("%s does not hold all of %s %d-%d", r, p.Points[i].Function, from, to-1)
			}
		}
	}
	for _, i := range points {
		if seen[i] != 1 {
			t.Errorf("point %d is in %d requests", i, seen[i])
		}
		delete(seen, i)
	}
	for i := range seen {
		t.Errorf("point %d was not asked for", i)
	}
}

func all(p *config.Profile) []int {
	var points []int
	for i := range p.Points {
		points = append(points, i)
	}
	return points
}

// checkPlan reports what a plan must never do.
func checkPlan(t *testing.T, p *config.Profile, requests []request) {
	t.Helper()
	checkWhole(t, p, all(p), requests)
	for k, r := range requests {
		if why := refusal(p, r); why != "" {
			t.Errorf("%s %s", r, why)
		}
		if k > 0 && byAddress(requests[k-1], r) >= 0 {
			t.Errorf("%s comes after %s", r, requests[k-1])
		}
	}
}

// price is what a plan is judged by, in this order.
type price struct {
	time           time.Duration
	requests, read int
}

func (a price) plus(b price) price {
	return price{a.time + b.time, a.requests + b.requests, a.read + b.read}
}
func (a price) compare(b price) int {
	return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.requests, b.requests), cmp.Compare(a.read, b.read))
}

func priceOf(p *config.Profile, requests []request, line Line, latency time.Duration) price {
	var sum price
	for _, r := range requests {
		sum = sum.plus(price{line.exchange(p.Modbus, r, latency), 1, r.count})
	}
	return sum
}

// cheapestOfAll tries every way to divide the points of a profile into requests: with cost of a set of points the
// cheaper of one request for it and its best division in two. It knows nothing of order.
func cheapestOfAll(p *config.Profile, line Line, latency time.Duration) price {
	best := make([]*price, 1<<len(p.Points))
	best[0] = &price{}
	for set := 1; set < len(best); set++ {
		better := func(other price) {
			if best[set] == nil || other.compare(*best[set]) < 0 {
				best[set] = &other
			}
		}
		for _, r := range ranges(p, set) {
			if refusal(p, r) == "" {
				better(priceOf(p, []request{r}, line, latency))
			}
		}
		for part := (set - 1) & set; part > 0; part = (part - 1) & set {
			if a, b := best[part], best[set&^part]; a != nil && b != nil {
				better(a.plus(*b))
			}
		}
	}
	return *best[len(best)-1]
}

// ranges are the ranges worth asking for to read a set of points at once: from the first to the last, or a block.
func ranges(p *config.Profile, set int) []request {
	var r request
	for i, point := range p.Points {
		if set>>i&1 == 0 {
			continue
		}
		from, to := occupied(p, i)
		switch {
		case r.count == 0:
			r = request{function: point.Function, start: from, count: to - from}
		case point.Function != r.function:
			return nil
		default:
			last := max(to, r.start+r.count)
			r.start = min(from, r.start)
			r.count = last - r.start
		}
	}
	each := []request{r}
	for _, b := range p.Modbus.Blocks {
		if b.Function == r.function && b.Address <= r.start && r.start+r.count <= b.Address+b.Count {
			each = append(each, request{function: b.Function, start: b.Address, count: b.Count})
		}
	}
	return each
}

// greedy is how requests were planned before: each point joins the last request if it may.
func greedy(p *config.Profile) []request {
	order := all(p)
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := p.Points[a], p.Points[b]
		return cmp.Or(cmp.Compare(x.Function, y.Function), cmp.Compare(x.Address, y.Address))
	})
	var requests []request
	for _, i := range order {
		from, to := occupied(p, i)
		if n := len(requests); n > 0 {
			r := &requests[n-1]
			after := max(r.start+r.count, to)
			joined := request{r.function, r.start, after - r.start, slices.Concat(r.points, []int{i})}
			if r.function == p.Points[i].Function && refusal(p, joined) == "" {
				*r = joined
				continue
			}
		}
		requests = append(requests, request{p.Points[i].Function, from, to - from, []int{i}})
	}
	return requests
}

// naive asks for each point by itself.
func naive(p *config.Profile) []request {
	var requests []request
	for i, point := range p.Points {
		from, to := occupied(p, i)
		requests = append(requests, request{point.Function, from, to - from, []int{i}})
	}
	return requests
}

// draw makes a profile, and a line to read it on, of numbers that pick returns: each from 0 up to below n. The profile
// is one that config would take, or has points that overlap besides; there are at most so many points.
func draw(pick func(n int) int, most, room int) (*config.Profile, Line, time.Duration) {
	choose := func(these ...int) int { return these[pick(len(these))] }
	p := &config.Profile{Modbus: config.ModbusLimits{
		MaxRegisters: choose(0, 4, 6, 8, 12, 60, 125), MaxBits: choose(0, 1, 8, 2000), EvenOnly: pick(3) == 0,
		MaxHole: choose(0, 0, 1, 2, 5, 16, 124), OneValue: pick(8) == 0,
		InterFrameDelay: time.Duration(choose(0, 0, 5, 100)) * time.Millisecond,
	}}
	functions := []config.Function{config.HoldingRegister, config.HoldingRegister, config.HoldingRegister, config.InputRegister, config.Coil, config.DiscreteInput}
	types := []config.Type{config.U16, config.Bool, config.S16, config.U32, config.F32, config.BCD32, config.U64, config.F64, config.ASCII}
	base := choose(0, 0x10000-room)
	for range choose(0, 0, 1, 2) {
		b := config.Block{Function: functions[pick(len(functions))], Address: base + 2*pick(room/2), Count: 2 + 2*pick(4)}
		p.Modbus.Blocks = append(p.Modbus.Blocks, b)
		if refusal(p, request{function: b.Function, start: b.Address, count: b.Count}) != "" { // too large, or on another block
			p.Modbus.Blocks = p.Modbus.Blocks[:len(p.Modbus.Blocks)-1]
		}
	}
	for range 1 + pick(most) {
		point := config.Point{Function: functions[pick(len(functions))], Address: base + pick(room), Type: types[pick(len(types))]}
		if point.Function == config.Coil || point.Function == config.DiscreteInput {
			point.Type = config.Bool
		} else if point.Type == config.ASCII {
			point.Length = 1 + pick(8)
		}
		p.Points = append(p.Points, point)
		if !slices.ContainsFunc(ranges(p, 1<<(len(p.Points)-1)), func(r request) bool { return refusal(p, r) == "" }) {
			p.Points = p.Points[:len(p.Points)-1] // too large, or on the edge of a block
		}
	}
	line := Line{Baud: choose(0, 1200, 9600, 19200, 115200), CharacterBits: 10 + pick(2), RTU: pick(3) > 0}
	return p, line, time.Duration(choose(0, 1, 20, 200)) * time.Millisecond
}

func TestPlanIsCheapest(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	shorter := map[string]int{}
	for n := range 1500 {
		p, line, latency := draw(random.IntN, 9, 30)
		requests := plan(p, line, latency)
		checkPlan(t, p, requests)
		got := priceOf(p, requests, line, latency)
		if want := cheapestOfAll(p, line, latency); got != want {
			t.Errorf("%+v, best is %+v", got, want)
		}
		for name, other := range map[string][]request{"greedy": greedy(p), "naive": naive(p)} {
			if slices.ContainsFunc(other, func(r request) bool { return refusal(p, r) != "" }) {
				continue
			}
			switch c := got.compare(priceOf(p, other, line, latency)); {
			case c > 0:
				t.Errorf("%s is better", name)
			case c < 0:
				shorter[name]++
			}
		}
		if t.Failed() {
			t.Fatalf("profile %d on %+v, latency %s: %+v\n%v", n, line, latency, p, requests)
		}
	}
	if shorter["greedy"] < 10 || shorter["naive"] < 200 {
		t.Errorf("better than others only so often: %v; the profiles are too easy", shorter)
	}
}

// The maps are larger here than any division of them could be tried.
func TestPlanOfLargeMaps(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for n := range 300 {
		p, line, latency := draw(random.IntN, 256, 600)
		requests := plan(p, line, latency)
		checkPlan(t, p, requests)
		got := priceOf(p, requests, line, latency)
		for name, other := range map[string][]request{"greedy": greedy(p), "naive": naive(p)} {
			if !slices.ContainsFunc(other, func(r request) bool { return refusal(p, r) != "" }) && got.compare(priceOf(p, other, line, latency)) > 0 {
				t.Errorf("%s is better", name)
			}
		}
		if t.Failed() {
			t.Fatalf("profile %d on %+v, latency %s: %+v", n, line, latency, p)
		}
	}
}

func TestPlanHangsOnNoOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for range 200 {
		p, line, latency := draw(random.IntN, 40, 100)
		want := texts(plan(p, line, latency))
		if again := texts(plan(p, line, latency)); !slices.Equal(again, want) {
			t.Fatalf("%q, then %q", want, again)
		}
		random.Shuffle(len(p.Points), func(i, j int) { p.Points[i], p.Points[j] = p.Points[j], p.Points[i] })
		if got := texts(plan(p, line, latency)); !slices.Equal(got, want) {
			t.Fatalf("%q, in other order %q: %+v", want, got, p)
		}
	}
}

func texts(requests []request) []string {
	var texts []string
	for _, r := range requests {
		texts = append(texts, r.String())
	}
	return texts
}

func FuzzPlan(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte(strings.Repeat("\x00\x01\x02\x03\x04\x05", 20)))
	f.Add([]byte(strings.Repeat("\x02\x00\x07\x01\xFF", 40)))
	f.Fuzz(func(t *testing.T, data []byte) {
		pick := func(n int) int {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return int(b) % n
		}
		p, line, latency := draw(pick, 60, 200)
		requests := plan(p, line, latency)
		checkPlan(t, p, requests)
		for _, r := range requests {
			checkSplit(t, p, r)
		}
	})
}

// checkSplit divides a request until nothing is left to divide.
func checkSplit(t *testing.T, p *config.Profile, r request) {
	t.Helper()
	pieces := split(p, r)
	if pieces == nil {
		if block := slices.Contains(p.Modbus.Blocks, config.Block{Function: r.function, Address: r.start, Count: r.count}); !block {
			from, to := occupied(p, r.points[0])
			for _, i := range r.points {
				if a, b := occupied(p, i); a != from || b != to {
					t.Errorf("%s is not divided", r)
				}
			}
		}
		return
	}
	checkWhole(t, p, r.points, pieces)
	for _, piece := range pieces {
		if why := refusal(p, piece); why != "" {
			t.Errorf("%s of %s %s", piece, r, why)
		}
		if len(piece.points) == len(r.points) {
			t.Fatalf("%s has all points of %s still", piece, r)
		}
		checkSplit(t, p, piece)
	}
}

func TestPlansOfShippedProfiles(t *testing.T) {
	profiles, err := config.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	most := map[string]int{ // what a poll costs; more requests would not be wrong, but slow
		"acrel-adl400": 7, "eastron-sdm630": 3, "hub-bin": 1, "waveshare-io-8ch-camera": 1,
	}
	for _, p := range profiles {
		if p.Points[0].Function == config.Line {
			continue
		}
		t.Run(p.ID, func(t *testing.T) {
			requests := plan(p, at9600(), DefaultLatency)
			checkPlan(t, p, requests)
			if got := len(requests); most[p.ID] != 0 && got != most[p.ID] {
				t.Errorf("%d requests, want %d: %s", got, most[p.ID], strings.Join(texts(requests), ", "))
			}
			for _, r := range requests {
				checkSplit(t, p, r)
			}
		})
	}
	for id := range most {
		if !slices.ContainsFunc(profiles, func(p *config.Profile) bool { return p.ID == id }) {
			t.Errorf("there is no profile %s any more", id)
		}
	}
}

const in, hold = config.InputRegister, config.HoldingRegister

func at(f config.Function, address int, kind config.Type) config.Point {
	return config.Point{Function: f, Address: address, Type: kind}
}

func TestPlanKeepsToLimits(t *testing.T) {
	text := config.Point{Function: hold, Address: 2, Type: config.ASCII, Length: 8}
	flag := func(address, bit int) config.Point {
		return config.Point{Function: hold, Address: address, Type: config.Bool, Bits: config.Bits{Low: bit, Width: 1}}
	}
	block := func(f config.Function, address, count int) []config.Block {
		return []config.Block{{Function: f, Address: address, Count: count}}
	}
	for _, c := range []struct {
		name   string
		limits config.ModbusLimits
		points []config.Point
		want   []string
	}{
		{"neighbours", config.ModbusLimits{}, []config.Point{at(in, 2, config.F32), at(in, 0, config.F32)}, []string{"input register 0-3"}},
		{"a hole, forbidden", config.ModbusLimits{}, []config.Point{at(in, 0, config.U16), at(in, 2, config.U16)}, []string{"input register 0", "input register 2"}},
		{"a hole, allowed", config.ModbusLimits{MaxHole: 1}, []config.Point{at(in, 0, config.U16), at(in, 2, config.U16)}, []string{"input register 0-2"}},
		{"a hole too long", config.ModbusLimits{MaxHole: 1}, []config.Point{at(in, 0, config.U16), at(in, 3, config.U16)}, []string{"input register 0", "input register 3"}},
		{"two tables", config.ModbusLimits{MaxHole: 9}, []config.Point{at(in, 0, config.U16), at(hold, 1, config.U16)}, []string{"holding register 1", "input register 0"}},
		{"the most", config.ModbusLimits{MaxRegisters: 4}, []config.Point{at(in, 0, config.F32), at(in, 2, config.F32), at(in, 4, config.F32)}, []string{"input register 0-3", "input register 4-5"}},
		{"never torn", config.ModbusLimits{MaxRegisters: 5}, []config.Point{at(in, 0, config.U64), at(in, 4, config.U32)}, []string{"input register 0-3", "input register 4-5"}},
		{"cut at the hole and not where the first request is full", config.ModbusLimits{MaxRegisters: 8, MaxHole: 4},
			[]config.Point{at(in, 0, config.U16), at(in, 1, config.U16), at(in, 6, config.U32), at(in, 8, config.U32)}, []string{"input register 0-1", "input register 6-9"}},
		{"even", config.ModbusLimits{EvenOnly: true}, []config.Point{at(in, 2, config.U16), at(in, 4, config.U16)}, []string{"input register 2-5"}},
		{"bits know no evenness", config.ModbusLimits{EvenOnly: true}, bits(config.Coil, 3, 1), []string{"coil 3"}},
		{"one value", config.ModbusLimits{OneValue: true, MaxHole: 9}, []config.Point{at(in, 0, config.F32), at(in, 2, config.U16)}, []string{"input register 0-1", "input register 2"}},
		{"one value with two fields", config.ModbusLimits{OneValue: true}, []config.Point{flag(7, 0), flag(7, 9), flag(8, 0)}, []string{"holding register 7", "holding register 8"}},
		{"fields of one register", config.ModbusLimits{}, []config.Point{flag(7, 3), flag(7, 0), at(hold, 8, config.U16)}, []string{"holding register 7-8"}},
		{"a register of a longer value", config.ModbusLimits{}, []config.Point{at(in, 1, config.U16), at(in, 0, config.U32)}, []string{"input register 0-1"}},
		{"overlapping values", config.ModbusLimits{MaxRegisters: 4}, []config.Point{at(in, 3, config.U16), at(in, 2, config.U64), at(in, 0, config.U64)}, []string{"input register 0-3", "input register 2-5"}},
		{"text", config.ModbusLimits{}, []config.Point{text, at(hold, 10, config.U16), at(hold, 1, config.U16)}, []string{"holding register 1-10"}},
		{"bits", config.ModbusLimits{MaxBits: 8}, bits(config.Coil, 3, 10), []string{"coil 3-10", "coil 11-12"}},
		{"a block, in whole", config.ModbusLimits{Blocks: block(in, 10, 8)}, []config.Point{at(in, 12, config.U16), at(in, 14, config.F32)}, []string{"input register 10-17"}},
		{"a block, by itself", config.ModbusLimits{Blocks: block(in, 10, 2)}, []config.Point{at(in, 9, config.U16), at(in, 10, config.U16), at(in, 11, config.U16), at(in, 12, config.U16)},
			[]string{"input register 9", "input register 10-11", "input register 12"}},
		{"no reading through a block", config.ModbusLimits{Blocks: block(in, 10, 2), MaxHole: 9}, []config.Point{at(in, 9, config.U16), at(in, 12, config.U16)}, []string{"input register 9", "input register 12"}},
		{"a block of another table", config.ModbusLimits{Blocks: block(hold, 10, 2), MaxHole: 9}, []config.Point{at(in, 9, config.U16), at(in, 12, config.U16)}, []string{"input register 9-12"}},
		{"a block where only one value may be read", config.ModbusLimits{Blocks: block(in, 10, 2), OneValue: true}, []config.Point{at(in, 10, config.U16), at(in, 11, config.U16)}, []string{"input register 10-11"}},
	} {
		p := &config.Profile{Modbus: c.limits, Points: c.points}
		requests := plan(p, at9600(), DefaultLatency)
		checkPlan(t, p, requests)
		if got := texts(requests); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// A second request costs its eight bytes, the five around its answer, a silence and the latency. A hole is read where
// its registers take less, two bytes each, and not where they take more.
func TestHolesAreReadWhereThatIsCheaper(t *testing.T) {
	for _, c := range []struct {
		name    string
		line    Line
		delay   time.Duration
		latency time.Duration
		longest int // hole that is read along
	}{
		{"slow line, quick device: 13 bytes and 3.85", Line{1200, 10, true}, 0, 0, 8},
		{"latency of 20 ms is 2.4 bytes more", Line{1200, 10, true}, 0, 20 * time.Millisecond, 9},
		{"and 19.2 bytes at 9600 Bd", at9600(), 0, 20 * time.Millisecond, 18},
		{"delay of 100 ms is 96 bytes in place of 3.85", at9600(), 100 * time.Millisecond, 20 * time.Millisecond, 64},
		{"Ethernet", Line{}, 0, time.Millisecond, 116},
	} {
		got := -1
		for hole := range 120 {
			p := &config.Profile{Modbus: config.ModbusLimits{MaxRegisters: 120, MaxHole: 120, InterFrameDelay: c.delay}, Points: []config.Point{
				at(in, 0, config.U32), at(in, 2+hole, config.U32),
			}}
			if len(plan(p, c.line, c.latency)) == 1 {
				got = hole
			}
		}
		if got != c.longest {
			t.Errorf("%s: the longest hole that is read has %d, want %d", c.name, got, c.longest)
		}
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits config.ModbusLimits
		points []config.Point
		want   []string // after each refusal of all that is asked
	}{
		{"holes first", config.ModbusLimits{MaxHole: 9}, []config.Point{at(in, 0, config.F32), at(in, 2, config.F32), at(in, 5, config.U16), at(in, 7, config.U16)},
			[]string{"input register 0-7", "input register 0-3, input register 5, input register 7", "input register 0-1, input register 2-3"}},
		{"halves, between values", config.ModbusLimits{}, []config.Point{at(in, 0, config.U16), at(in, 1, config.U16), at(in, 2, config.U64), at(in, 6, config.F32)},
			[]string{"input register 0-7", "input register 0-1, input register 2-7", "input register 0, input register 1, input register 2-5, input register 6-7"}},
		{"even", config.ModbusLimits{EvenOnly: true, MaxHole: 4}, []config.Point{at(in, 0, config.U16), at(in, 2, config.U16), at(in, 6, config.U16)},
			[]string{"input register 0-7", "input register 0-3, input register 6-7", "input register 0-1, input register 2-3"}},
		{"fields of one register", config.ModbusLimits{}, []config.Point{at(in, 4, config.U16), at(in, 4, config.Bool)}, []string{"input register 4"}},
		{"a value and a part of it", config.ModbusLimits{}, []config.Point{at(in, 4, config.U32), at(in, 5, config.U16)}, []string{"input register 4-5", "input register 4-5, input register 5"}},
		{"a value and parts of it, one value a request", config.ModbusLimits{OneValue: true}, []config.Point{at(in, 4, config.U64), at(in, 5, config.U16), at(in, 7, config.U16)},
			[]string{"input register 4-7", "input register 4-7, input register 5, input register 7"}},
		{"a block", config.ModbusLimits{Blocks: []config.Block{{Function: in, Address: 4, Count: 4}}}, []config.Point{at(in, 4, config.U16), at(in, 6, config.U16)}, []string{"input register 4-7"}},
		{"bits", config.ModbusLimits{}, bits(config.Coil, 8, 4), []string{"coil 8-11", "coil 8-9, coil 10-11", "coil 8, coil 9, coil 10, coil 11"}},
	} {
		p := &config.Profile{Modbus: c.limits, Points: c.points}
		var got []string
		for asked := plan(p, at9600(), DefaultLatency); len(asked) > 0; {
			got = append(got, strings.Join(texts(asked), ", "))
			var next []request
			for _, r := range asked {
				checkSplit(t, p, r)
				next = append(next, split(p, r)...)
			}
			asked = next
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	profiles, err := config.Profiles()
	if err != nil {
		b.Fatal(err)
	}
	largest := slices.MaxFunc(profiles, func(x, y *config.Profile) int { return cmp.Compare(len(x.Points), len(y.Points)) })
	// As many points as a profile may have, and few cuts that a limit forces.
	full := &config.Profile{ID: "256 points", Modbus: config.ModbusLimits{MaxRegisters: 125, MaxHole: 124}}
	for i := range 256 {
		full.Points = append(full.Points, at(hold, i+i/3, config.U16))
	}
	for _, p := range []*config.Profile{largest, full} {
		b.Run(p.ID, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				plan(p, at9600(), DefaultLatency)
			}
		})
	}
}
