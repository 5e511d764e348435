package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// Lane is the last part of an up topic, without the /gz of a packed payload.
type Lane string

// The lanes. One lane is one topic, and MQTT keeps the order of messages only within a topic.
const (
	LaneStatus     Lane = "status" // Status, retained; also the will
	LaneLive       Lane = "live"   // the newest leaves, one a message
	LaneFill       Lane = "fill"   // backlog: up to MaxFillLeaves leaves, one a line
	LaneEvent      Lane = "event"  // events, one leaf a message, at once
	LaneCheckpoint Lane = "ckpt"   // signed checkpoint
)

// MaxFillLeaves bounds the leaves of one fill message.
const MaxFillLeaves = 15

const root = "hub/v1/"

// UpTopic is where a gateway publishes.
func UpTopic(gateway string, lane Lane, packed bool) string {
	t := root + gateway + "/up/" + string(lane)
	if packed {
		t += "/gz"
	}
	return t
}

// AckTopic is where a gateway hears what is stored.
func AckTopic(gateway string) string { return root + gateway + "/dn/ack" }

// UpFilter matches every up topic of every gateway.
const UpFilter = root + "+/up/#"

// ParseUpTopic undoes UpTopic.
func ParseUpTopic(topic string) (gateway string, lane Lane, packed bool, err error) {
	rest, ok := strings.CutPrefix(topic, root)
	part := strings.Split(rest, "/")
	if !ok || len(part) < 3 || len(part) > 4 || part[1] != "up" || len(part) == 4 && part[3] != "gz" || !ValidGateway(part[0]) {
		return "", "", false, fmt.Errorf("topic %.100q is not one of hub/v1", topic)
	}
	return part[0], Lane(part[2]), len(part) == 4, nil
}

// Packer packs payloads. It keeps its working memory between calls and is not safe for concurrent use.
type Packer struct{ w *gzip.Writer }

// Pack returns the payload gzipped and true when that is shorter, and else the payload itself and false.
func (p *Packer) Pack(payload []byte) ([]byte, bool) {
	var out bytes.Buffer
	if p.w == nil {
		p.w = gzip.NewWriter(&out)
	} else {
		p.w.Reset(&out)
	}
	_, err := p.w.Write(payload)
	if err = errors.Join(err, p.w.Close()); err != nil || out.Len() >= len(payload) {
		return payload, false
	}
	return out.Bytes(), true
}

// Unpack undoes Pack. It refuses what unpacks to more than MaxMessageBytes.
func Unpack(payload []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(payload))
	if err != nil {
		return nil, fmt.Errorf("payload is not gzip: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(r, MaxMessageBytes+1))
	if err != nil {
		return nil, fmt.Errorf("payload is damaged gzip: %w", err)
	}
	if len(out) > MaxMessageBytes {
		return nil, fmt.Errorf("payload unpacks to more than %d bytes", MaxMessageBytes)
	}
	return out, nil
}
