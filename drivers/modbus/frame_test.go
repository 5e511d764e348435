package modbus

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"hubagent/drivers"
)

func TestCRC(t *testing.T) {
	// The check value of CRC-16/MODBUS is 0x4B37; frames as printed in manuals.
	for _, good := range [][]byte{append([]byte("123456789"), 0x37, 0x4B), raw(ask), raw(answer), raw("11 03 00 6B 00 03 76 87")} {
		if !crcFits(good) {
			t.Errorf("% x does not fit", good)
		}
		for i := range good {
			bad := slices.Clone(good)
			bad[i] ^= 0x10
			if crcFits(bad) {
				t.Errorf("% x fits", bad)
			}
		}
	}
}

func TestCut(t *testing.T) {
	foreign := raw(frame("02 04 04 43 99 99 9A"))
	for _, c := range []struct {
		name   string
		in     []byte
		answer string
		want   seen
		fails  drivers.Failure
	}{
		{"nothing", nil, "", seen{}, drivers.Timeout},
		{"whole", raw(answer), answer, seen{}, 0},
		{"with bytes after it", raw(answer + "00 01"), answer, seen{}, 0},
		{"exception", raw(frame("01 84 02")), frame("01 84 02"), seen{}, 0},
		{"unit only", raw("01"), "", seen{begun: true}, drivers.Frame},
		{"all but the last byte", raw(answer)[:8], "", seen{begun: true}, drivers.Frame},
		{"exception but for its last byte", raw(frame("01 84 02"))[:4], "", seen{begun: true}, drivers.Frame},
		{"noise", raw("FF 00"), "", seen{noise: 2}, drivers.Timeout},
		{"noise and a beginning", raw("FF 00 01 04 04"), "", seen{noise: 2, begun: true}, drivers.Frame},
		{"damaged", raw("01 04 04 43 66 33 35 1B 38"), "", seen{noise: 9}, drivers.CRC},
		{"a byte count that is not the data's", raw(frame("01 04 02 43 66 33 34")), "", seen{noise: 9}, drivers.CRC},
		{"foreign", foreign, "", seen{foreign: foreign}, drivers.Frame},
		{"foreign and a beginning", append(slices.Clone(foreign), 1, 4), "", seen{foreign: foreign, begun: true}, drivers.Frame},
		{"echo", raw(ask), "", seen{}, drivers.Timeout},
		{"echo and answer", raw(ask + answer), answer, seen{}, 0},
		{"another master's request", raw(frame("02 03 00 00 00 02")), "", seen{foreign: raw(frame("02 03 00 00 00 02")), master: true}, drivers.Frame},
	} {
		got, s := cut(raw(ask), c.in)
		if !bytes.Equal(got, raw(c.answer)) || s.begun != c.want.begun || s.noise != c.want.noise || !bytes.Equal(s.foreign, c.want.foreign) || s.master != c.want.master {
			t.Errorf("%s: % x and %+v, want %s and %+v", c.name, got, s, c.answer, c.want)
		}
		if c.fails != 0 && s.failure(c.in).Failure != c.fails {
			t.Errorf("%s: %s, want %s", c.name, s.failure(c.in).Failure, c.fails)
		}
	}
}

// A request for 20 coils from 0x0300 on has, to its last byte, the form of an answer with 3 bytes of data.
func TestEchoThatLooksLikeTheAnswer(t *testing.T) {
	request := raw(frame("01 01 03 00 00 14"))
	if got, s := cut(request, request); got != nil || s.failure(request).Failure != drivers.Timeout {
		t.Errorf("its echo is taken for the answer % x", got)
	}
	want := raw(frame("01 01 03 01 02 03"))
	if got, _ := cut(request, slices.Concat(request, want)); !bytes.Equal(got, want) {
		t.Errorf("the answer behind the echo is % x", got)
	}
}

func TestOverheard(t *testing.T) {
	request, reply := raw(frame("05 03 00 10 00 02")), raw(frame("05 03 04 00 01 00 02"))
	for name, c := range map[string]struct{ in, want []byte }{
		"nothing":               {nil, nil},
		"an answer only":        {reply, nil},
		"a request and answer":  {slices.Concat(request, reply), request},
		"behind noise":          {slices.Concat(raw("FF 00 FF"), request), request},
		"cut short":             {request[:7], nil},
		"an answer of 8 bytes":  {raw(frame("05 01 03 01 02 03")), nil},
		"a write or its answer": {raw(frame("05 06 00 01 00 03")), nil},
	} {
		if got := overheard(c.in); !bytes.Equal(got, c.want) {
			t.Errorf("%s: % x, want % x", name, got, c.want)
		}
	}
}

func TestDelay(t *testing.T) {
	const ms = time.Millisecond
	var d delay
	if got := d.timeout(200*ms, 500*ms); got != 500*ms {
		t.Errorf("of an unknown device %s", got)
	}
	for range 20 {
		d.add(30 * ms)
	}
	if got := d.timeout(20*ms, 500*ms); got < 30*ms || got > 35*ms {
		t.Errorf("of a steady device %s", got)
	}
	if got := d.timeout(200*ms, 500*ms); got != 200*ms {
		t.Errorf("of a fast device %s, below its least", got)
	}
	d.add(200 * ms)
	if got := d.timeout(20*ms, 500*ms); got < 200*ms {
		t.Errorf("after a slow answer %s", got)
	}
	for range 20 {
		d.add(900 * ms)
	}
	if got := d.timeout(20*ms, 500*ms); got != 500*ms {
		t.Errorf("of a slow device %s, beyond its longest", got)
	}
	d.forget()
	if got := d.timeout(20*ms, 500*ms); got != 500*ms {
		t.Errorf("after a silence %s", got)
	}
}

func FuzzCut(f *testing.F) {
	f.Add([]byte{}, raw(ask))
	f.Add(raw("00 FF"), raw(ask))
	f.Add(raw("01 04 04 43 66"), raw(ask))
	f.Add(raw(frame("02 04 04 43 99 99 9A")), raw(frame("02 01 00 13 00 13")))
	f.Fuzz(func(t *testing.T, before, request []byte) {
		if len(request) != 8 || request[1] < 1 || request[1] > 4 {
			return
		}
		request[4], request[5] = 0, max(1, request[5]%126) // what the planner asks for
		check := func(got []byte) {
			if got == nil {
				return
			}
			size := answerLength(request)
			if got[1] != request[1] {
				size = exceptionFrame
			}
			if len(got) != size || cap(got) != size || got[0] != request[0] || got[1]&0x7F != request[1] || !crcFits(got) {
				t.Fatalf("% x is no answer to % x", got, request)
			}
		}
		got, s := cut(request, before)
		check(got)
		if got == nil {
			if s.noise > len(before) || s.failure(before) == nil {
				t.Fatalf("%+v of % x", s, before)
			}
			// One byte at a time comes to the same end, whatever was there before.
			whole := append(slices.Clone(before), raw(good(request))...)
			for n := len(before); n < len(whole); n++ {
				if got, _ := cut(request, whole[:n]); got != nil {
					check(got)
					return
				}
			}
			if got, _ = cut(request, whole); got == nil {
				t.Fatalf("the answer to % x is lost after % x", request, before)
			}
			check(got)
		}
	})
}

func FuzzReadADU(f *testing.F) {
	f.Add(raw("00 01 00 00 00 07 01 04 04 43 66 33 34"))
	f.Add(raw("00 01 00 00 00 03 01 84 02 FF"))
	f.Add(raw("00 01 00 00 00 FF 01"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		adu, err := readADU(r)
		if err != nil {
			var failed *drivers.Error
			if errors.As(err, &failed) && failed.Failure != drivers.Frame {
				t.Errorf("%v", err)
			}
			return
		}
		if len(adu) < 9 || len(adu) > 260 || !bytes.Equal(adu, in[:len(adu)]) || int(adu[4])<<8|int(adu[5]) != len(adu)-6 || adu[2]|adu[3] != 0 {
			t.Errorf("% x of % x", adu, in)
		}
		if r.Len() != len(in)-len(adu) {
			t.Errorf("%d bytes left of %d, the answer has %d", r.Len(), len(in), len(adu))
		}
	})
}
