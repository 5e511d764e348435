package sim

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// maxRecording bounds the recordings that are read.
const maxRecording = 64 << 20

// Recording is bus traffic as hubagent read --json writes it: what units were asked, and what they answered. Its units
// answer a request that was recorded as they did then, one answer after the other and from the first again, and are
// silent where they were, and to all else: what they would have said nobody knows. It is safe for concurrent use.
type Recording struct {
	units map[byte]bool

	mu      sync.Mutex
	answers map[string][][]byte // unit id and request PDU -> answer PDUs; nil for a silence
	turn    map[string]int
}

// ReadRecording reads what hubagent read --json wrote, one JSON object a reading, of Modbus TCP and RTU alike. The error
// names the reading.
func ReadRecording(r io.Reader) (*Recording, error) {
	rec := &Recording{units: map[byte]bool{}, answers: map[string][][]byte{}, turn: map[string]int{}}
	limited := &io.LimitedReader{R: r, N: maxRecording}
	in := json.NewDecoder(limited)
	for n := 1; ; n++ {
		var reading struct {
			Exchanges []struct{ Sent, Received string }
		}
		err := in.Decode(&reading)
		switch {
		case limited.N == 0:
			return nil, fmt.Errorf("it has more than %d MiB; record less", maxRecording>>20)
		case errors.Is(err, io.EOF) && len(rec.units) == 0:
			return nil, errors.New("there is no exchange in it; write one with: hubagent read DEVICE --json")
		case errors.Is(err, io.EOF):
			return rec, nil
		case err != nil:
			return nil, fmt.Errorf("reading %d is not what hubagent read --json writes: %w", n, err)
		}
		for i, x := range reading.Exchanges {
			if err := rec.add(x.Sent, x.Received); err != nil {
				return nil, fmt.Errorf("reading %d, exchange %d: %w", n, i+1, err)
			}
		}
	}
}

// add takes in an exchange, both frames in hexadecimal.
func (r *Recording) add(sent, received string) error {
	request, err := hex.DecodeString(strings.ReplaceAll(sent, " ", ""))
	if err != nil {
		return fmt.Errorf("sent: %w", err)
	}
	heard, err := hex.DecodeString(strings.ReplaceAll(received, " ", ""))
	if err != nil {
		return fmt.Errorf("received: %w", err)
	}
	var unit byte
	var asked, answer []byte
	switch {
	case isADU(request):
		unit, asked = request[6], request[mbapSize:]
		for in := bytes.NewReader(heard); answer == nil; { // late answers to earlier requests may stand before it
			adu, err := readADU(in)
			if err != nil {
				break
			}
			if bytes.Equal(adu[:2], request[:2]) && adu[6] == unit {
				answer = adu[mbapSize:]
			}
		}
	case len(request) >= 4 && valid(request):
		unit, asked = request[0], request[1:len(request)-2]
		for i := range heard { // noise and the echo of the request may stand before it
			n := answerSize(heard[i:])
			if n > 0 && n <= min(maxFrame, len(heard)-i) && heard[i] == unit && heard[i+1]&0x7F == asked[0] && valid(heard[i:i+n]) {
				answer = heard[i+1 : i+n-2]
			}
		}
	default:
		return fmt.Errorf("what was sent is no Modbus frame: %s", sent)
	}
	key := string([]byte{unit}) + string(asked)
	r.units[unit], r.answers[key] = true, append(r.answers[key], answer)
	return nil
}

// isADU says whether b is one whole frame of Modbus TCP.
func isADU(b []byte) bool {
	return len(b) > mbapSize && len(b) <= mbapSize+maxPDU && binary.BigEndian.Uint16(b[2:]) == 0 && int(binary.BigEndian.Uint16(b[4:])) == len(b)-6
}

// answer is what a unit says next to a request, nil if nothing; ok is false for a unit that the recording does not have.
func (r *Recording) answer(unit byte, pdu []byte) (answer []byte, ok bool) {
	if r == nil || !r.units[unit] {
		return nil, false
	}
	key := string([]byte{unit}) + string(pdu)
	r.mu.Lock()
	defer r.mu.Unlock()
	answers := r.answers[key]
	if len(answers) == 0 {
		return nil, true
	}
	r.turn[key]++
	return answers[(r.turn[key]-1)%len(answers)], true
}
