package gpio

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	periph "periph.io/x/conn/v3/gpio"

	"hubagent/config"
	"hubagent/drivers"
)

// lines is where lines are: a GPIO chip, or its twin in files.
type lines interface {
	// claim takes hold of a line. The error says what is in the way, and what mends it.
	claim(request) (line, error)
}

// request says which line is wanted, and for what.
type request struct {
	device string // who wants it
	offset int
	name   string // if not empty, instead of offset

	output  bool
	initial periph.Level // of an output
	edges   periph.Edge  // of an input: those wanted
	counts  bool         // of an input: without edges it is of no use
}

// line is a line that was claimed. level, set and close are called by one goroutine at a time.
type line interface {
	level() (periph.Level, error) // the electrical level
	set(periph.Level) error       // of an output
	close() error
}

// edges is a line that reports its edges itself. Another one is looked at from poll to poll.
type edges interface {
	line
	// next waits for edges, and gives them in their order. They stay valid until it is called again. It fails for good
	// when the chip is gone, or by close.
	next() ([]edge, error)
}

// edge is one change of level.
type edge struct {
	level periph.Level // after it
	at    time.Time
	seqno uint32 // counts the line's edges from 1, those that were lost included
}

// gone is why a line is of no more use: it must be claimed anew.
type gone struct{ error }

// watch is one device's line and what is known of it.
type watch struct {
	lines   lines
	request request

	line  line          // nil when it is not claimed
	ended chan struct{} // closed when nothing reads the line's edges any more; nil for a line that reports none

	mu     sync.Mutex // guards points and what follows
	points []point    // of the device's profile, in its order
	level  periph.Level
	seqno  uint32
	lost   uint64 // edges since the last reading
	err    error  // why the line's edges ended
}

// newWatch makes the watch of a device. Its line is an output when the device's entry enables a write to it.
func newWatch(l lines, d config.Device, count func(device, point string) (uint64, bool)) *watch {
	w := &watch{lines: l, request: request{device: d.Name, offset: d.Line, name: d.LineName}}
	w.request.output = slices.ContainsFunc(d.Model.Writes, func(write config.Write) bool {
		return write.Function == config.Line && slices.Contains(d.Writes, write.Name)
	})
	w.request.initial = !activeLevel(d)
	for _, p := range d.Model.Points {
		if w.request.output {
			p.Debounce, p.Hold = 0, 0 // nothing bounces
		}
		w.points = append(w.points, newPoint(p, d.Name, count))
		switch edge := countedEdge(p); {
		case p.Type != config.Pulses, w.request.edges != periph.NoEdge && w.request.edges != edge:
			w.request.edges = periph.BothEdges
		default:
			w.request.edges = edge
		}
		w.request.counts = w.request.counts || p.Type == config.Pulses
	}
	return w
}

// activeLevel is the level at which the device's contact is active.
func activeLevel(d config.Device) periph.Level {
	return periph.Level(!slices.ContainsFunc(d.Model.Points, func(p config.Point) bool { return p.Type == config.Bool && p.Invert }))
}

func countedEdge(p config.Point) periph.Edge {
	if p.Invert {
		return periph.FallingEdge
	}
	return periph.RisingEdge
}

// look claims the line if need be, and takes its level. A line that is gone is given up: the next look claims it anew.
func (w *watch) look() error {
	if w.line == nil {
		return w.claim()
	}
	level, err := w.line.level()
	select {
	case <-w.ended:
		err = w.err
	default:
	}
	if _, away := errors.AsType[gone](err); away {
		w.mu.Lock()
		for _, p := range w.points {
			p.doubt()
		}
		w.mu.Unlock()
		_ = w.close() // nothing is lost with a line that is gone
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if level == w.level {
		return nil
	}
	// Of a line that reports edges this one is still on its way, or went by unseen: the contact is where it is, but it
	// is not a pulse.
	w.level = level
	for _, p := range w.points {
		if _, counts := p.(*counter); !counts || w.ended == nil {
			p.edge(level, time.Now())
		}
	}
	return nil
}

func (w *watch) claim() error {
	if w.request.output && w.request.counts {
		return errors.New("its profile counts pulses on it, and a line that is written has none: take the name out of the device's writes")
	}
	l, err := w.lines.claim(w.request)
	if err != nil {
		return err
	}
	level, err := l.level()
	if err != nil {
		_ = l.close()
		return err
	}
	w.line, w.ended, w.level, w.seqno = l, nil, level, 0
	for _, p := range w.points {
		p.begin(level, time.Now())
	}
	if e, ok := l.(edges); ok {
		w.ended = make(chan struct{})
		go w.read(e)
	}
	return nil
}

// read takes edges as they come, so that the kernel's queue has room, until the line is gone or closed.
func (w *watch) read(l edges) {
	defer close(w.ended)
	for {
		news, err := l.next()
		if err != nil {
			w.err = gone{err}
			return
		}
		w.mu.Lock()
		for _, e := range news {
			w.take(e)
		}
		w.mu.Unlock()
	}
}

func (w *watch) take(e edge) {
	w.seqno++
	if missed := e.seqno - w.seqno; missed != 0 {
		w.lost += uint64(missed)
		w.seqno = e.seqno
		for _, p := range w.points {
			p.doubt()
		}
	}
	w.level = e.level
	for _, p := range w.points {
		p.edge(e.level, e.at)
	}
}

// close gives the line up, and returns when nothing reads it any more.
func (w *watch) close() error {
	if w.line == nil {
		return nil
	}
	err := w.line.close()
	if w.ended != nil {
		<-w.ended
	}
	w.line = nil
	return err
}

// settle is the time between two looks at a line that reports no edges, while its contact comes to rest.
const settle = 5 * time.Millisecond

// reading gives the value of point i and why it is suspect, if it is. It waits until there is one.
func (w *watch) reading(ctx context.Context, i int, r *drivers.Reading) error {
	for {
		w.mu.Lock()
		value, why, wait, err := w.points[i].reading(time.Now())
		if c, ok := w.points[i].(*counter); ok {
			r.Count = c.count
		}
		w.mu.Unlock()
		if err != nil || wait <= 0 {
			r.Value, r.Why = value, why
			return err
		}
		if w.ended == nil {
			wait = min(wait, settle)
		}
		select {
		case <-time.After(wait):
		case <-w.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := w.look(); err != nil {
			return err
		}
	}
}

// takeLost is the number of edges lost since it was called last.
func (w *watch) takeLost() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := w.lost
	w.lost = 0
	return lost
}
