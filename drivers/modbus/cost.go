package modbus

import (
	"time"

	"hubagent/config"
)

// Line is what the time of an exchange depends on besides request and device. The zero Line is a device reached over
// Ethernet with no serial line known behind it: an exchange with it takes its latency and nothing else.
type Line struct {
	Baud          int  // bits a second; 0: no serial line, or one whose rate is not known
	CharacterBits int  // bits a byte takes on the line: start bit, eight of data, parity, stop bits
	RTU           bool // the agent itself sends RTU frames, and keeps the pauses a profile asks for; otherwise Modbus TCP
}

// DefaultLatency is what a device is reckoned to take from the end of a request to the first byte of its answer while
// nobody has measured it.
const DefaultLatency = 20 * time.Millisecond

// LineOf takes the line from a bus's settings. Behind a converter it is the converter's line: the bytes between it and
// the agent are on Ethernet, where they take no time worth counting, but each frame crosses the line as RTU.
func LineOf(b config.Bus) Line {
	l := Line{Baud: b.Baud, CharacterBits: 1 + 8 + max(b.StopBits, 1), RTU: b.Kind != config.ModbusTCP}
	if b.Parity == config.ParityEven || b.Parity == config.ParityOdd {
		l.CharacterBits++
	}
	return l
}

// PollTime is how long one poll of all points of a profile takes on a line, and how many requests it makes. latency is
// the device's for each request, DefaultLatency where it is not known. The unit asked before is taken to be another one.
// Nothing is added for answers that do not come.
func PollTime(line Line, profile *config.Profile, latency time.Duration) (total time.Duration, requests int) {
	all := plan(profile, line, latency)
	return line.poll(profile.Modbus, all, latency), len(all)
}

// Pause is the part of a poll's time that comes before its first request: what of it passed while the line was idle
// need not be waited for any more, except for one silence.
func (l Line) Pause(limits config.ModbusLimits) (whole, least time.Duration) {
	whole = l.silence()
	if l.RTU {
		whole = max(whole, limits.InterFrameDelay) + limits.Turnaround
	}
	return whole, l.silence()
}

// poll is the time from the end of the last exchange with another unit to the end of the last answer.
func (l Line) poll(limits config.ModbusLimits, requests []request, latency time.Duration) time.Duration {
	var total time.Duration
	if l.RTU && len(requests) > 0 {
		total = limits.Turnaround
	}
	for _, r := range requests {
		total += l.exchange(limits, r, latency)
	}
	return total
}

// exchange is the time from the end of the frame before to the end of the answer. A refusal takes as long as the answer
// to a request for nothing: it has no data.
func (l Line) exchange(limits config.ModbusLimits, r request, latency time.Duration) time.Duration {
	pause := l.silence()
	if l.RTU {
		pause = max(pause, limits.InterFrameDelay)
	}
	return pause + l.bytes(requestFrame) + latency + l.bytes(r.answerFrame())
}

// answerFrame is the number of bytes of the answer as an RTU frame: unit, function, byte count and CRC around the data.
func (r request) answerFrame() int {
	if r.isBits() {
		return 5 + (r.count+7)/8
	}
	return 5 + 2*r.count
}

// bytes is the time n bytes take on the line.
func (l Line) bytes(n int) time.Duration {
	if l.Baud == 0 {
		return 0
	}
	return time.Duration(n*l.CharacterBits) * time.Second / time.Duration(l.Baud)
}

// silence is t3.5, which ends a frame (Modbus over Serial Line V1.02, 2.5.1.1): 3.5 characters of the standard's 11
// bits, whatever the line is set to, and fixed above 19,200 Bd.
func (l Line) silence() time.Duration {
	switch {
	case l.Baud == 0:
		return 0
	case l.Baud > 19200:
		return 1750 * time.Microsecond
	}
	return 11 * time.Second / time.Duration(l.Baud) * 7 / 2
}
