package gpio

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	periph "periph.io/x/conn/v3/gpio"
)

// The layouts of linux/gpio.h, the same on every architecture.
func TestLayouts(t *testing.T) {
	for name, c := range map[string]struct{ got, want uintptr }{
		"gpiochip_info":             {unsafe.Sizeof(unix.GPIOChipInfo{}), 68},
		"gpio_v2_line_values":       {unsafe.Sizeof(unix.GPIOV2LineValues{}), 16},
		"gpio_v2_line_attribute":    {unsafe.Sizeof(unix.GPIOV2LineAttribute{}), 16},
		"gpio_v2_line_config":       {unsafe.Sizeof(unix.GPIOV2LineConfig{}), 272},
		"gpio_v2_line_request":      {unsafe.Sizeof(unix.GPIOV2LineRequest{}), 592},
		"gpio_v2_line_request.fd":   {unsafe.Offsetof(unix.GPIOV2LineRequest{}.Fd), 588},
		"gpio_v2_line_info":         {unsafe.Sizeof(unix.GPIOV2LineInfo{}), 256},
		"gpio_v2_line_event":        {unsafe.Sizeof(unix.GPIOV2LineEvent{}), 48},
		"gpio_v2_line_event.seqno":  {unsafe.Offsetof(unix.GPIOV2LineEvent{}.Line_seqno), 20},
		"gpio_v2_line_event (wire)": {uintptr(binary.Size(unix.GPIOV2LineEvent{})), 48},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", name, c.got, c.want)
		}
	}
}

// event is a gpio_v2_line_event as the kernel writes it.
func event(stamp uint64, id, seqno uint32) []byte {
	b := binary.NativeEndian.AppendUint64(nil, stamp)
	for _, word := range []uint32{id, 17, seqno + 1000, seqno, 0, 0, 0, 0, 0, 0} {
		b = binary.NativeEndian.AppendUint32(b, word)
	}
	return b
}

func TestAppendEdges(t *testing.T) {
	boot := time.Now()
	raw := bytes.Join([][]byte{event(5e9, 1, 7), event(5e9+2e6, 2, 8), event(6e9, 1, 1<<32-1)}, nil)
	got, err := appendEdges(nil, raw, boot)
	want := []edge{{true, boot.Add(5 * time.Second), 7}, {false, boot.Add(5002 * time.Millisecond), 8}, {true, boot.Add(6 * time.Second), 1<<32 - 1}}
	if err != nil || len(got) != len(want) || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for name, raw := range map[string][]byte{"part of an event": raw[:100], "unknown kind": event(1, 3, 1)} {
		if _, err := appendEdges(nil, raw, boot); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzAppendEdges(f *testing.F) {
	f.Add(event(5e9, 1, 7))
	f.Add(append(event(1, 2, 1), event(1<<63, 1, 1<<31)...))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := appendEdges(nil, raw, time.Now())
		if whole := len(raw) / eventSize; len(got) > whole || err == nil && (len(got) != whole || len(raw)%eventSize != 0) {
			t.Errorf("%d edges of %d bytes, %v", len(got), len(raw), err)
		}
	})
}

func FuzzParseLevel(f *testing.F) {
	for _, text := range []string{"0", "1\n", " 1 ", "01", "", "high"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		level, ok := parseLevel(raw)
		if ok && !bytes.Contains(raw, []byte{'0' + map[periph.Level]byte{true: 1}[level]}) || !ok && len(raw) == 1 && (raw[0] == '0' || raw[0] == '1') {
			t.Errorf("%q: %s, %t", raw, level, ok)
		}
	})
}
