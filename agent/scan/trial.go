package scan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"hubagent/config"
)

// Setting is how a line may be set. A character on it has eight bits always, as RTU wants it.
type Setting struct {
	Baud     int
	Parity   config.Parity
	StopBits int
}

// String is the setting as manuals write it: 9600 8N1.
func (s Setting) String() string {
	letter := map[config.Parity]string{config.ParityNone: "N", config.ParityEven: "E", config.ParityOdd: "O"}[s.Parity]
	return fmt.Sprintf("%d 8%s%d", s.Baud, letter, s.StopBits)
}

// common are the settings that devices are found with, the likely ones first: 9600 8N1 is what most meters and sensors
// are delivered with, 19200 8E1 is the default of Modbus over Serial Line V1.02, 2.5.1, and 2400 8E1 that of DL/T 645.
func common() []Setting {
	const none, even, odd = config.ParityNone, config.ParityEven, config.ParityOdd
	return []Setting{
		{9600, none, 1}, {9600, even, 1}, {19200, even, 1}, {19200, none, 1}, {9600, none, 2},
		{2400, even, 1}, {4800, none, 1}, {4800, even, 1}, {38400, none, 1}, {38400, even, 1},
		{57600, none, 1}, {57600, even, 1}, {115200, none, 1}, {115200, even, 1},
		{2400, none, 1}, {9600, odd, 1}, {19200, odd, 1}, {1200, none, 1}, {1200, even, 1},
	}
}

// Settings gives the settings to try, in order: the common ones, with those that profiles are delivered with near the
// beginning, of the given rates and parities; none given means any. A combination that is not common comes last.
func Settings(bauds []int, parities []config.Parity, profiles []*config.Profile) []Setting {
	all := common()
	for _, p := range profiles {
		d := p.Delivered
		s := Setting{d.Baud, d.Parity, max(d.StopBits, 1)}
		if i := slices.Index(all, s); s.Baud != 0 && s.Parity != "" && (i < 0 || i > likelySettings) {
			if i >= 0 {
				all = slices.Delete(all, i, i+1)
			}
			all = slices.Insert(all, likelySettings, s)
		}
	}
	all = slices.DeleteFunc(all, func(s Setting) bool {
		return len(bauds) > 0 && !slices.Contains(bauds, s.Baud) || len(parities) > 0 && !slices.Contains(parities, s.Parity)
	})
	for _, baud := range bauds {
		for _, parity := range parities {
			if !slices.ContainsFunc(all, func(s Setting) bool { return s.Baud == baud && s.Parity == parity }) {
				all = append(all, Setting{baud, parity, 1})
			}
		}
		if len(parities) == 0 && !slices.ContainsFunc(all, func(s Setting) bool { return s.Baud == baud }) {
			all = append(all, Setting{baud, config.ParityNone, 1})
		}
	}
	return all
}

// likelySettings is how many common settings stay before those that only some profile is delivered with.
const likelySettings = 5

// Trials are the buses to try on a serial port.
func Trials(port string, settings []Setting) []config.Bus {
	var all []config.Bus
	for _, s := range settings {
		all = append(all, config.Bus{Kind: config.ModbusRTU, Port: port, Baud: s.Baud, Parity: s.Parity, StopBits: s.StopBits})
	}
	return all
}

// TrialsAt are the buses to try at host:port, which may be a Modbus TCP server, a converter that speaks Modbus TCP, or
// one that only passes bytes on.
func TrialsAt(address string) []config.Bus {
	return []config.Bus{{Kind: config.ModbusTCP, Address: address}, {Kind: config.ModbusRTUTCP, Address: address}}
}

// Describe names what is tried with a bus: "9600 8N1", "Modbus TCP", "RTU over TCP".
func Describe(b config.Bus) string {
	switch b.Kind {
	case config.ModbusTCP:
		return "Modbus TCP"
	case config.ModbusRTUTCP:
		return "RTU over TCP"
	}
	return Setting{b.Baud, b.Parity, b.StopBits}.String()
}

// waits are the times to wait for an answer. Most devices answer within 100 ms; behind a converter its own time-out and
// the network come on top, and giving up early would leave it with a request that it still works on.
func waits(b config.Bus) (fast, slow time.Duration) {
	switch {
	case b.Kind == config.ModbusTCP:
		return 600 * time.Millisecond, time.Second
	case b.Kind == config.ModbusRTUTCP:
		return 300 * time.Millisecond, time.Second
	case b.Baud < 9600:
		return 200 * time.Millisecond, 500 * time.Millisecond
	}
	return 120 * time.Millisecond, 500 * time.Millisecond
}

// probeTime is what a probe without an answer takes: the request, the room for an answer and the silence around them on
// a serial line, and the wait.
func probeTime(b config.Bus, wait time.Duration) time.Duration {
	if b.Kind == config.ModbusRTU && b.Baud > 0 {
		wait += 22 * 11 * time.Second / time.Duration(b.Baud)
	}
	return wait
}

// ParseUnits reads unit ids as people list them: 1-247, or 1,2,5-9.
func ParseUnits(text string) ([]int, error) {
	var units []int
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		switch {
		case err1 != nil || err2 != nil:
			return nil, fmt.Errorf("%q is no list of units; write it like 1-247 or 1,2,5-9", text)
		case first < 1 || last > 247:
			return nil, errors.New("devices have the unit ids 1 to 247; write it like 1-247 or 1,2,5-9")
		case first > last:
			return nil, fmt.Errorf("%d-%d runs backwards; write %d-%d", first, last, last, first)
		}
		for u := first; u <= last; u++ {
			if !slices.Contains(units, u) {
				units = append(units, u)
			}
		}
	}
	return units, nil
}

// likely are the units to ask at every setting before any setting is searched in whole: those that devices are
// delivered with, of the ones to be asked at all.
func likely(units []int, profiles []*config.Profile) []int {
	first := []int{1, 2, 3}
	for _, p := range profiles {
		if u := p.Delivered.Unit; u > 0 && !slices.Contains(first, u) {
			first = append(first, u)
		}
	}
	return slices.DeleteFunc(first, func(u int) bool { return !slices.Contains(units, u) })
}
