package sim

import (
	"bytes"
	"strings"
	"testing"

	"hubagent/config"
)

// recorded has unit 5 over Modbus TCP and unit 9 on a line: good answers, a refusal, noise and an echo before an answer,
// and a silence.
const recorded = `
{"device":"a","at":"2026-11-24T08:08:32Z","exchanges":[
 {"asked":"input register 0","sent":"00 01 00 00 00 06 05 04 00 00 00 01","received":"00 01 00 00 00 05 05 04 02 08 eb","took_ms":34.39},
 {"asked":"input register 9","sent":"00 02 00 00 00 06 05 04 00 09 00 01","received":"00 02 00 00 00 03 05 84 02"}]}
{"device":"a","exchanges":[{"sent":"00 01 00 00 00 06 05 04 00 00 00 01","received":"00 01 00 00 00 05 05 04 02 08 ec"}]}
{"device":"a","exchanges":[{"sent":"00 01 00 00 00 06 05 04 00 00 00 01","received":""}]}
{"device":"b","exchanges":[{"sent":"LINE_REQUEST","received":"ff LINE_REQUEST LINE_ANSWER"}]}
`

func line(b ...byte) string {
	crc := crc16(b)
	return strings.ToLower(strings.TrimSpace(strings.Join(hexBytes(append(b, byte(crc), byte(crc>>8))), " ")))
}

func hexBytes(b []byte) []string {
	const digits = "0123456789abcdef"
	var all []string
	for _, v := range b {
		all = append(all, string([]byte{digits[v>>4], digits[v&15]}))
	}
	return all
}

func TestRecording(t *testing.T) {
	text := strings.NewReplacer("LINE_REQUEST", line(9, 3, 0, 4, 0, 1), "LINE_ANSWER", line(9, 3, 2, 0x12, 0x34)).Replace(recorded)
	r, err := ReadRecording(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	site := New(World{})
	site.Recording = r
	bus := config.Bus{Devices: []config.Device{{Name: "a", Unit: 5, Model: &config.Profile{}}, {Name: "b", Unit: 9, Model: &config.Profile{}}, {Name: "c", Unit: 7, Model: &config.Profile{}}}}
	units := newSlave(bus)
	for i, c := range []struct {
		unit   byte
		pdu    []byte
		answer []byte // nil: silence
		good   bool
	}{
		{5, []byte{4, 0, 0, 0, 1}, []byte{4, 2, 8, 0xEB}, true},
		{5, []byte{4, 0, 0, 0, 1}, []byte{4, 2, 8, 0xEC}, true},
		{5, []byte{4, 0, 0, 0, 1}, nil, false},
		{5, []byte{4, 0, 0, 0, 1}, []byte{4, 2, 8, 0xEB}, true}, // from the first again
		{5, []byte{4, 0, 9, 0, 1}, []byte{0x84, 2}, false},
		{5, []byte{4, 0, 0, 0, 2}, nil, false}, // never asked
		{9, []byte{3, 0, 4, 0, 1}, []byte{3, 2, 0x12, 0x34}, true},
		{7, []byte{3, 0, 4, 0, 1}, []byte{0x83, 2}, false}, // not recorded: simulated, and this one has no registers
	} {
		x := site.take(bus, units, c.unit, c.pdu)
		if silent := x.fault.Kind == Silent; !bytes.Equal(x.answer, c.answer) || x.good != c.good || silent != (c.answer == nil) {
			t.Errorf("%d: unit %d, % x: answer % x, good %v, fault %q", i, c.unit, c.pdu, x.answer, x.good, x.fault.Kind)
		}
	}
}

func TestReadRecordingRefuses(t *testing.T) {
	for text, want := range map[string]string{
		``:                    "there is no exchange in it",
		`{"device":"a"}`:      "there is no exchange in it",
		`version: 1`:          "reading 1 is not what hubagent read --json writes",
		`{"exchanges":[]}{"x`: "reading 2 is not",
		`{"exchanges":[{"sent":"00 01","received":""}]}`:   "reading 1, exchange 1: what was sent is no Modbus frame: 00 01",
		`{"exchanges":[{"sent":"0x01","received":""}]}`:    "reading 1, exchange 1: sent: ",
		`{"exchanges":[{"sent":"","received":"quatsch"}]}`: "reading 1, exchange 1: received: ",
	} {
		if _, err := ReadRecording(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func FuzzReadRecording(f *testing.F) {
	f.Add(recorded)
	f.Add(`{"exchanges":[{"sent":"00 01 00 00 00 06 05 04 00 00 00 01","received":"00 01 00 00 00 03 05 84 02"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ReadRecording(strings.NewReader(text))
		if err != nil {
			return
		}
		for key, answers := range r.answers {
			for range answers {
				answer, ok := r.answer(key[0], []byte(key[1:]))
				if !ok || answer != nil && (len(answer) == 0 || len(answer) > maxPDU) {
					t.Errorf("% x: % x, %v", key, answer, ok)
				}
			}
		}
	})
}
