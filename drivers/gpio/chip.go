package gpio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	periph "periph.io/x/conn/v3/gpio"
)

// Flags of a line request and of a line's info, and the id of an output's first value: linux/gpio.h, of which
// golang.org/x/sys/unix has the rest.
const (
	lineUsed        = 1 << 0
	lineInput       = 1 << 2
	lineOutput      = 1 << 3
	lineEdgeRising  = 1 << 4
	lineEdgeFalling = 1 << 5
)

// queueLength is the number of edges that the kernel is asked to keep for us, the most it does: GPIO_V2_LINES_MAX * 16.
// Left to itself it keeps 16 a line. Of more edges the oldest are lost, and their numbers are missing. Edges that come
// before the kernel's interrupt thread has run for the last one become one without a trace.
const queueLength = 1024

// chip is the label or name of a GPIO chip. It is looked for whenever a line is claimed, because chips come and go: an
// expander on a USB bridge, or one whose driver is bound anew.
type chip string

// node is a chip's device file.
type node struct {
	*os.File
	name, label string
	lines       int
}

// claim implements lines. The line's file holds on to the chip; the chip's own need not stay open.
func (c chip) claim(r request) (line, error) {
	n, err := c.find()
	if err != nil {
		return nil, err
	}
	defer n.Close()
	offset, err := n.offset(r)
	if err != nil {
		return nil, err
	}
	q := unix.GPIOV2LineRequest{Num_lines: 1}
	q.Offsets[0] = uint32(offset)
	copy(q.Consumer[:len(q.Consumer)-1], "hubagent "+r.device)
	if r.output {
		q.Config.Flags = lineOutput
		q.Config.Num_attrs = 1
		q.Config.Attrs[0].Mask = 1
		q.Config.Attrs[0].Attr.Id = unix.GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES
		if r.initial {
			q.Config.Attrs[0].Attr.Flags = 1 // values, of the same union
		}
	} else {
		q.Config.Flags = lineInput
		if r.edges != periph.FallingEdge { // one kind alone keeps short pulses apart better, and fills half the queue
			q.Config.Flags |= lineEdgeRising
		}
		if r.edges != periph.RisingEdge {
			q.Config.Flags |= lineEdgeFalling
		}
		q.Event_buffer_size = queueLength
	}
	err = ioctl(n.File, unix.GPIO_V2_GET_LINE_IOCTL, &q)
	reports := err == nil && !r.output
	if err != nil && !errors.Is(err, unix.EBUSY) && !r.output {
		if r.counts {
			return nil, fmt.Errorf("line %d of chip %s reports no edges (%w), and pulses cannot be counted without: use another line", offset, c, err)
		}
		q.Config.Flags, q.Event_buffer_size = lineInput, 0 // an expander without interrupt: its level is looked at
		err = ioctl(n.File, unix.GPIO_V2_GET_LINE_IOCTL, &q)
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("line %d of chip %s is in use%s: one line carries one device", offset, c, n.user(offset))
	case err != nil:
		return nil, fmt.Errorf("cannot claim line %d of chip %s: %w", offset, c, err)
	}
	_ = unix.SetNonblock(int(q.Fd), true) // else close would wait for an edge to come
	l := &chipLine{File: os.NewFile(uintptr(q.Fd), fmt.Sprintf("line %d of chip %s", offset, c))}
	if reports {
		return newEdgeLine(l)
	}
	return l, nil
}

// find opens the chip. One chip may have two nodes, as gpiochip0 and gpiochip4 on a Raspberry Pi 5.
func (c chip) find() (*node, error) {
	paths, err := filepath.Glob("/dev/gpiochip*")
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, errors.New("this machine shows no GPIO chip: there is no /dev/gpiochip0")
	}
	var found *node
	var others []string
	hint := ""
	for _, path := range paths {
		n, err := openNode(path)
		if err != nil {
			hint = "; cannot use " + err.Error()
			if errors.Is(err, os.ErrPermission) {
				hint += ": put the agent's user into the group that owns it"
			}
			continue
		}
		switch {
		case n.label != string(c) && n.name != string(c):
			others = append(others, fmt.Sprintf("%s (%s)", n.label, n.name))
		case found == nil:
			found = n
			continue
		case found.name != n.name:
			n.Close()
			found.Close()
			return nil, fmt.Errorf("two chips are labelled %s: write the name of one, %s or %s", c, found.name, n.name)
		}
		n.Close()
	}
	switch {
	case found != nil:
		return found, nil
	case len(others) == 0:
		return nil, errors.New("there is no GPIO chip to be had" + hint)
	}
	return nil, fmt.Errorf("there is no GPIO chip %s; there are: %s%s", c, strings.Join(others, ", "), hint)
}

func openNode(path string) (*node, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var info unix.GPIOChipInfo
	if err := ioctl(f, unix.GPIO_GET_CHIPINFO_IOCTL, &info); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &node{f, text(info.Name[:]), text(info.Label[:]), int(info.Lines)}, nil
}

// offset finds the line that is wanted.
func (n *node) offset(r request) (int, error) {
	if r.name == "" {
		if r.offset >= n.lines {
			return 0, fmt.Errorf("chip %s has lines 0 to %d, and no line %d", n.label, n.lines-1, r.offset)
		}
		return r.offset, nil
	}
	found := -1
	for offset := range n.lines {
		info, err := n.info(offset)
		if err != nil {
			return 0, err
		}
		if text(info.Name[:]) != r.name {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("lines %d and %d of chip %s are both named %s: write line: %d or line: %d instead of the name",
				found, offset, n.label, r.name, found, offset)
		}
		found = offset
	}
	if found < 0 {
		return 0, fmt.Errorf("chip %s has no line named %s: gpioinfo prints the names", n.label, r.name)
	}
	return found, nil
}

func (n *node) info(offset int) (unix.GPIOV2LineInfo, error) {
	info := unix.GPIOV2LineInfo{Offset: uint32(offset)}
	if err := ioctl(n.File, unix.GPIO_V2_GET_LINEINFO_IOCTL, &info); err != nil {
		return info, fmt.Errorf("cannot look at line %d of chip %s: %w", offset, n.label, err)
	}
	return info, nil
}

// user says by whom a line is used, if that is known.
func (n *node) user(offset int) string {
	info, err := n.info(offset)
	if consumer := text(info.Consumer[:]); err == nil && info.Flags&lineUsed != 0 && consumer != "" {
		return " by " + consumer
	}
	return ""
}

// chipLine is a line that was claimed.
type chipLine struct{ *os.File }

func (l *chipLine) level() (periph.Level, error) {
	values := unix.GPIOV2LineValues{Mask: 1}
	err := l.ioctl(unix.GPIO_V2_LINE_GET_VALUES_IOCTL, &values)
	return values.Bits&1 == 1, err
}

func (l *chipLine) set(level periph.Level) error {
	values := unix.GPIOV2LineValues{Mask: 1}
	if level {
		values.Bits = 1
	}
	return l.ioctl(unix.GPIO_V2_LINE_SET_VALUES_IOCTL, &values)
}

func (l *chipLine) ioctl(request uint, values *unix.GPIOV2LineValues) error {
	return l.judge(ioctl(l.File, request, values))
}

// judge tells a chip that is gone from one that fails.
func (l *chipLine) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODEV):
		return gone{fmt.Errorf("the chip of %s is gone", l.Name())}
	}
	return fmt.Errorf("%s: %w", l.Name(), err)
}

func (l *chipLine) close() error { return l.Close() }

// edgeLine is a line that reports its edges.
type edgeLine struct {
	*chipLine
	begin time.Time // an instant,
	clock int64     // and the same on CLOCK_MONOTONIC, by which the kernel stamps edges
	raw   [64 * eventSize]byte
	edges []edge
}

func newEdgeLine(l *chipLine) (*edgeLine, error) {
	var clock unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &clock); err != nil {
		l.Close()
		return nil, err
	}
	return &edgeLine{chipLine: l, begin: time.Now(), clock: clock.Nano()}, nil
}

func (l *edgeLine) next() ([]edge, error) {
	n, err := l.Read(l.raw[:])
	if err != nil {
		return nil, l.judge(err)
	}
	l.edges, err = appendEdges(l.edges[:0], l.raw[:n], l.begin.Add(-time.Duration(l.clock)))
	return l.edges, err
}

// eventSize is the size of struct gpio_v2_line_event.
const eventSize = int(unsafe.Sizeof(unix.GPIOV2LineEvent{}))

// appendEdges decodes what the kernel gave, whole events of one line. Their stamps count from boot.
func appendEdges(to []edge, raw []byte, boot time.Time) ([]edge, error) {
	for len(raw) > 0 {
		var e unix.GPIOV2LineEvent
		if _, err := binary.Decode(raw, binary.NativeEndian, &e); err != nil {
			return to, fmt.Errorf("the kernel gave part of an event, %d bytes: %w", len(raw), err)
		}
		raw = raw[eventSize:]
		if e.Id != unix.GPIO_V2_LINE_EVENT_RISING_EDGE && e.Id != unix.GPIO_V2_LINE_EVENT_FALLING_EDGE {
			return to, fmt.Errorf("the kernel gave an event of unknown kind %d", e.Id)
		}
		to = append(to, edge{
			level: e.Id == unix.GPIO_V2_LINE_EVENT_RISING_EDGE,
			at:    boot.Add(time.Duration(e.Timestamp_ns)),
			seqno: e.Line_seqno,
		})
	}
	return to, nil
}

// ioctl asks f's driver. It holds f open meanwhile.
func ioctl[T any](f *os.File, request uint, argument *T) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) {
		for errno = unix.EINTR; errno == unix.EINTR; {
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(unsafe.Pointer(argument)))
		}
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

// text is a C string.
func text(raw []byte) string {
	s, _, _ := bytes.Cut(raw, []byte{0})
	return string(s)
}
