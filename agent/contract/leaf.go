// Package contract holds what travels between a gateway and the platform over MQTT (hub/v1): leaves, topics, status,
// acknowledgements and checkpoints. Gateway, receiver and evidence tools share it. It does no input or output.
package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"hubagent/drivers"
)

// Version is the contract's version, the "v" of every message.
const Version = 1

// Kind says what a leaf holds. Receivers keep and acknowledge kinds that they do not know.
type Kind string

// The kinds written so far.
const (
	KindGenesis Kind = "genesis" // first leaf of an epoch: names the one before
	KindMeta    Kind = "meta"    // devices, points and units, whenever they change
	KindData    Kind = "data"    // readings of a leaf interval
	KindEvent   Kind = "event"   // a contact that changed, sent at once
	KindFault   Kind = "fault"   // a device that stopped answering, or answers again, sent at once
	KindGap     Kind = "gap"     // leaves that were given up, or lost, before the platform had them, or readings that became none
	KindOld     Kind = "old"     // carries a leaf of an earlier epoch that the platform may not have
	KindClock   Kind = "clock"   // ClockFix: the clock has become good, or has jumped, sent at once
)

// Clock states of a leaf.
const (
	ClockOK     = "ok"     // the wall clock is right as far as the gateway can know
	ClockUnsync = "unsync" // nobody says that it is: the leaf carries boot id and monotonic time
	ClockStep   = "step"   // it is synchronised and has just jumped: the leaf carries them, too
)

// Stamp is a moment as the gateway knows it.
type Stamp struct {
	At    int64  `json:"at"`  // Unix milliseconds by the wall clock
	Clock string `json:"clk"` // ClockOK, ClockUnsync or ClockStep
	// Boot and Mono place the moment on a time line that no clock step touches: the kernel's boot id and
	// milliseconds since that boot. They travel while Clock is not ok, so that a clock leaf can repair At: RepairedTime.
	Boot string `json:"boot,omitempty"`
	Mono int64  `json:"mono,omitempty"`
}

// Header is what every leaf begins with.
type Header struct {
	Gateway string `json:"gw"`
	Epoch   string `json:"epoch"`
	Seq     int64  `json:"seq"`
	Kind    Kind   `json:"kind"`
	Stamp
}

// Leaf is a parsed leaf. Fields that this version does not know are ignored; the leaf's bytes are what counts.
type Leaf struct {
	Version int `json:"v"`
	Header
	Rows []Row `json:"rows"`
}

// Row is one device at one poll.
type Row struct {
	Device   string              `json:"d"`
	At       int64               `json:"t"` // Unix milliseconds
	Measured map[string]Measured `json:"m"`
	Quality  map[string]Flag     `json:"q"`
}

// Measured is a value as it travels: a number, or a text without its quotes.
type Measured string

// UnmarshalJSON takes a JSON number or string.
func (m *Measured) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '"' {
		var text string
		err := json.Unmarshal(raw, &text)
		*m = Measured(text)
		return err
	}
	var number json.Number
	err := json.Unmarshal(raw, &number)
	*m = Measured(number)
	return err
}

// String is the value's text.
func (m Measured) String() string { return string(m) }

// Fault is what a leaf of KindFault says: a device has given no answer since a moment, and once it answers again, until
// when. A device counts as faulty after three polls in a row without an answer.
type Fault struct {
	Device string `json:"d"`
	Since  int64  `json:"since"`           // of the first poll without an answer, Unix milliseconds
	Until  int64  `json:"until,omitempty"` // of the first answer after it; absent while the fault lasts
	Why    string `json:"why"`             // as in the rows of the time: timeout, link, crc, exception 11 ...
}

// Flag is what is said of a reading that is not good.
type Flag struct {
	Flag drivers.Quality `json:"flag"`
	Why  string          `json:"why"`
}

// AppendHeader appends the opening brace and the header's fields of a leaf, without a comma after them. Gateway,
// epoch and boot id hold only characters that need no escape in JSON.
func AppendHeader(b []byte, h Header) []byte {
	b = append(b, `{"v":1,"gw":"`...)
	b = append(b, h.Gateway...)
	b = append(b, `","epoch":"`...)
	b = append(b, h.Epoch...)
	b = append(b, `","seq":`...)
	b = strconv.AppendInt(b, h.Seq, 10)
	b = append(b, `,"kind":"`...)
	b = append(b, h.Kind...)
	b = append(b, `","at":`...)
	b = strconv.AppendInt(b, h.At, 10)
	b = append(b, `,"clk":"`...)
	b = append(b, h.Clock...)
	b = append(b, '"')
	if h.Clock != ClockOK {
		b = append(b, `,"boot":"`...)
		b = append(b, h.Boot...)
		b = append(b, `","mono":`...)
		b = strconv.AppendInt(b, h.Mono, 10)
	}
	return b
}

// AppendRow appends a sample as a row. A point without a value is absent from m and stands in q.
func AppendRow(b []byte, s drivers.Sample) []byte {
	b = append(b, `{"d":"`...)
	b = append(b, s.Device...)
	b = append(b, `","t":`...)
	b = strconv.AppendInt(b, s.At.UnixMilli(), 10)
	b = append(b, `,"m":{`...)
	sep := ""
	flagged := false
	for _, r := range s.Readings {
		flagged = flagged || r.Quality != drivers.Good
		text := r.Value.Append(nil)
		if len(text) == 0 {
			continue
		}
		b = append(b, sep...)
		b = strconv.AppendQuote(b, r.Point)
		b = append(b, ':')
		b = append(b, text...)
		sep = ","
	}
	b = append(b, '}')
	if flagged {
		b = append(b, `,"q":{`...)
		sep = ""
		for _, r := range s.Readings {
			if r.Quality == drivers.Good {
				continue
			}
			b = append(b, sep...)
			b = strconv.AppendQuote(b, r.Point)
			b = append(b, `:{"flag":`...)
			b = strconv.AppendUint(b, uint64(r.Quality), 10)
			if r.Why != "" {
				why, _ := json.Marshal(r.Why) // a string cannot fail
				b = append(append(b, `,"why":`...), why...)
			}
			b = append(b, '}')
			sep = ","
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// AppendRows appends a whole leaf of rows, which are AppendRow's texts joined by commas.
func AppendRows(b []byte, h Header, rows []byte) []byte {
	b = AppendHeader(b, h)
	b = append(b, `,"rows":[`...)
	b = append(b, rows...)
	return append(b, "]}"...)
}

// AppendDocument appends a whole leaf that carries one JSON document under the given field.
func AppendDocument(b []byte, h Header, field string, document any) ([]byte, error) {
	text, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("cannot encode %s leaf: %w", h.Kind, err)
	}
	b = AppendHeader(b, h)
	b = append(b, `,"`...)
	b = append(b, field...)
	b = append(b, `":`...)
	b = append(b, text...)
	return append(b, '}'), nil
}

// AppendOld appends a whole leaf that carries a leaf of an earlier epoch, byte for byte.
func AppendOld(b []byte, h Header, leaf []byte) []byte {
	b = AppendHeader(b, h)
	b = append(b, `,"leaf":`...)
	b = append(b, leaf...)
	return append(b, '}')
}

// Carried returns the leaf that a leaf of KindOld carries, with its bytes as they were committed once.
func Carried(old []byte) ([]byte, error) {
	var l struct {
		Leaf json.RawMessage `json:"leaf"`
	}
	if err := json.Unmarshal(old, &l); err != nil {
		return nil, fmt.Errorf("leaf is not valid JSON: %w", err)
	}
	if len(l.Leaf) == 0 {
		return nil, errors.New("leaf of an earlier epoch is missing in it")
	}
	return l.Leaf, nil
}

// Limits on what is taken from outside.
const (
	MaxLeafBytes    = 1 << 20 // one leaf
	MaxMessageBytes = 8 << 20 // one message, unpacked
	MaxSeq          = 1 << 40
)

var (
	gatewayForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	epochForm   = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z-]{0,63}$`)
)

// ValidGateway says whether a text can be a gateway's id: it is used in topics and file names.
func ValidGateway(id string) bool { return gatewayForm.MatchString(id) }

// ValidEpoch says whether a text can be an epoch: it is used in file names.
func ValidEpoch(epoch string) bool { return epochForm.MatchString(epoch) }

// ParseLeaf reads one leaf and checks what every receiver relies on. The error says what is wrong, without the bytes.
func ParseLeaf(data []byte) (Leaf, error) {
	var l Leaf
	if len(data) > MaxLeafBytes {
		return l, fmt.Errorf("leaf has %d bytes, the most is %d", len(data), MaxLeafBytes)
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return l, fmt.Errorf("leaf is not valid JSON: %w", err)
	}
	switch {
	case l.Version != Version:
		return l, fmt.Errorf("leaf has version %d, this receiver knows %d", l.Version, Version)
	case !ValidGateway(l.Gateway):
		return l, errors.New("leaf has no valid gateway id")
	case !ValidEpoch(l.Epoch):
		return l, errors.New("leaf has no valid epoch")
	case l.Seq < 0 || l.Seq > MaxSeq:
		return l, fmt.Errorf("leaf has an impossible seq %d", l.Seq)
	case l.Kind == "":
		return l, errors.New("leaf has no kind")
	}
	return l, nil
}

// SplitLines returns the leaves of a message: one a line.
func SplitLines(payload []byte) [][]byte {
	var lines [][]byte
	for line := range bytes.SplitSeq(payload, []byte("\n")) {
		if len(line) > 0 {
			lines = append(lines, line)
		}
	}
	return lines
}

// Class is the kind in one byte, as the journal keeps it beside the leaf: its first letter, as long as no two kinds share
// one. Gaps would share genesis's, and the letter of clock is kept for checks.
func (k Kind) Class() byte {
	switch k {
	case KindGap:
		return 'p'
	case KindClock:
		return 't'
	}
	return k[0]
}
