package modbus

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"hubagent/drivers"
)

// The sizes of an RTU answer with unit and CRC: an exception is the shortest there is.
const (
	exceptionFrame = 5
	requestFrame   = 8
	maxFrame       = 256
)

// seen is what came in while an answer was awaited, and was not it.
type seen struct {
	begun   bool   // the end may be the answer's beginning
	noise   int    // bytes that belong to no frame
	foreign []byte // the last whole frame that was not asked for
	master  bool   // a foreign frame was a request: somebody else asks on this line
}

// cut looks for the answer to a request in all that came in, wherever it begins: noise, an echo and answers of others
// may stand before it. It is known by unit, function, byte count and CRC.
func cut(frame, buf []byte) (answer []byte, s seen) {
	if i, n := next(frame, buf, 0); n > 0 {
		return buf[i : i+n : i+n], seen{}
	}
	for i := 0; i < len(buf); {
		rest := buf[i:]
		if n := frameSize(rest); n > 0 {
			if !bytes.Equal(rest[:n], frame) { // adapters with two wires may echo what was sent
				s.foreign, s.master = rest[:n], s.master || isRequest(rest[:n])
			}
			i += n
			continue
		}
		if answerSize(frame, rest) > len(rest) {
			s.begun = true
			break
		}
		s.noise++
		i++
	}
	return nil, s
}

// next finds the first answer to a request in buf that begins at from or behind it; its length is 0 if there is none.
func next(frame, buf []byte, from int) (at, length int) {
	for i := from; i < len(buf); i++ {
		n := answerSize(frame, buf[i:])
		if n == 0 || n > len(buf)-i || !crcFits(buf[i:i+n]) {
			continue
		}
		if !isWrite(frame) && bytes.Equal(buf[i:i+n], frame) {
			// The echo of a request for 17 to 24 bits from 0x0300 on has the form of its own answer. That an answer is
			// the same as its request by chance, too, is a value lost; the other way round it would be one invented.
			i += n - 1
			continue
		}
		return i, n
	}
	return 0, 0
}

// rival says that buf has an answer to the request that is not the same as answer, even one that begins or ends inside
// that: about one broken frame in 65,536 has a CRC that fits it.
func rival(frame, buf, answer []byte) bool {
	for i, n := next(frame, buf, 0); n > 0; i, n = next(frame, buf, i+1) {
		if !bytes.Equal(buf[i:i+n], answer) {
			return true
		}
	}
	return false
}

// damaged says that too much came in to be a glitch, and that it cannot become the answer any more.
func (s seen) damaged() bool { return s.noise >= exceptionFrame && !s.begun }

// failure says why there is no answer in buf, given up at a silence or at the deadline.
func (s seen) failure(buf []byte) *drivers.Error {
	text := fmt.Sprintf("% x", buf[:min(len(buf), 16)])
	switch {
	case s.noise >= exceptionFrame:
		return &drivers.Error{Failure: drivers.CRC, Detail: "it answers, but with errors: wrong baud rate, parity or stop bits, or noise: " + text}
	case s.master:
		return &drivers.Error{Failure: drivers.Frame, Detail: otherMaster(s.foreign)}
	case s.begun:
		return &drivers.Error{Failure: drivers.Frame, Detail: "answer cut short: " + text}
	case s.foreign != nil:
		return &drivers.Error{Failure: drivers.Frame, Detail: fmt.Sprintf("an answer of unit %d, function %d, that was not asked for", s.foreign[0], s.foreign[1])}
	case s.noise > 0:
		return &drivers.Error{Failure: drivers.Timeout, Detail: "only noise came: " + text}
	}
	return &drivers.Error{Failure: drivers.Timeout}
}

// otherMaster says who else is heard to ask.
func otherMaster(request []byte) string {
	return fmt.Sprintf("another master is on this line: it asks unit %d with function %d; two masters destroy each other's answers, so stop one", request[0], request[1])
}

// isRequest says whether a whole frame has the form of a request and not that of an answer: to a read of function 1 to
// 4, or to write one coil or register. The request to write one and its answer are the same bytes and count as an answer.
func isRequest(frame []byte) bool {
	return len(frame) == requestFrame && frame[1] >= 1 && frame[1] <= 4 && int(frame[2]) != len(frame)-exceptionFrame
}

// overheard finds the first request of another master among bytes that came in while none was awaited.
func overheard(b []byte) (request []byte) {
	for i := range b {
		if n := frameSize(b[i:]); n > 0 && isRequest(b[i:i+n]) {
			return b[i : i+n]
		}
	}
	return nil
}

func isWrite(frame []byte) bool { return frame[1] == 5 || frame[1] == 6 || frame[1] == 16 }

// answerSize is the size of the answer to a request that b is the beginning of, or has at its beginning; 0 if b cannot
// be that.
func answerSize(frame, b []byte) int {
	size := answerLength(frame)
	switch {
	case len(b) == 0 || b[0] != frame[0]:
		return 0
	case len(b) > 1 && b[1] == frame[1]|0x80:
		return exceptionFrame
	case len(b) > 1 && b[1] != frame[1]:
		return 0
	case isWrite(frame): // address and value or count come back
		if n := min(len(b), 6); !bytes.Equal(b[:n], frame[:n]) {
			return 0
		}
	case len(b) > 2 && int(b[2]) != size-5:
		return 0
	}
	return size
}

// answerLength is the length of a good answer to a read request of function 1 to 4, or to a write of function 5, 6 or 16.
func answerLength(frame []byte) int {
	if isWrite(frame) {
		return requestFrame
	}
	count := int(binary.BigEndian.Uint16(frame[4:]))
	if frame[1] <= 2 {
		return 5 + (count+7)/8
	}
	return 5 + 2*count
}

// frameSize is the size of the whole frame at the beginning of b, 0 if there is none: an answer to a read, an
// exception, or a request.
func frameSize(b []byte) int {
	if len(b) < exceptionFrame || b[1]&0x7F == 0 || b[1]&0x7F > 16 {
		return 0
	}
	answer := 5 + int(b[2])
	if b[1]&0x80 != 0 {
		answer = exceptionFrame
	}
	for _, n := range []int{answer, requestFrame} {
		if n <= len(b) && n <= maxFrame && crcFits(b[:n]) {
			return n
		}
	}
	return 0
}

// crcFits checks the CRC of Modbus over Serial Line V1.02, 6.2.2: over a frame with its CRC, low byte first, it is 0.
func crcFits(frame []byte) bool {
	crc := uint16(0xFFFF)
	for _, b := range frame {
		crc ^= uint16(b)
		for range 8 {
			if crc&1 == 1 {
				crc = crc>>1 ^ 0xA001
			} else {
				crc >>= 1
			}
		}
	}
	return crc == 0
}
