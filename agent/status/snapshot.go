package status

import (
	"encoding/json"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

// Snapshot is everything the page, the API and the metrics say, at one moment. The JSON form is /api/v1/status.
// A time that is zero means never.
type Snapshot struct {
	Now       time.Time `json:"now"`
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	Gateway   string    `json:"gateway"`
	Site      string    `json:"site"`
	Epoch     string    `json:"epoch"`
	Clock     string    `json:"clock"` // ok, unsync, step
	Devices   []Device  `json:"devices"`
	Journal   Journal   `json:"journal"`
	Uplink    Uplink    `json:"uplink"`
}

// Device is one device as last polled.
type Device struct {
	Name       string            `json:"name"`
	Label      string            `json:"label"`
	Kind       config.DeviceKind `json:"kind"`
	Model      string            `json:"model"`
	Bus        string            `json:"bus"`
	IntervalMs int64             `json:"interval_ms"`
	Polls      uint64            `json:"polls"`    // since start
	Failures   uint64            `json:"failures"` // polls since start that gave no full answer
	Failing    int               `json:"failing"`  // polls in a row that gave no answer at all; 0: answers
	RetryAt    time.Time         `json:"retry_at"` // set while quarantined: when it is asked next
	Error      string            `json:"error"`    // the last failure while Failing > 0
	Points     []Point           `json:"points"`
}

// Point is the last reading of one point.
type Point struct {
	Name     string          `json:"name"`
	Title    config.Text     `json:"title"`
	Headline bool            `json:"headline"`
	Bool     bool            `json:"bool"`  // a contact: 1 is active
	Value    json.Number     `json:"value"` // the last value ever read since start; "" for none
	Unit     string          `json:"unit"`  // UCUM
	At       time.Time       `json:"at"`    // when Value was measured
	Quality  drivers.Quality `json:"quality"`
	Why      string          `json:"why"` // of the last poll, for a quality other than 1
}

// Journal is the state of the store.
type Journal struct {
	Leaves         int64     `json:"leaves"`           // in this epoch
	Readings       uint64    `json:"readings"`         // journaled in this epoch
	AtRisk         int       `json:"at_risk"`          // readings polled and not on disk yet
	SyncIntervalMs int64     `json:"sync_interval_ms"` // longest time a reading is at risk
	LastCommit     time.Time `json:"last_commit"`
	DiskUsed       int64     `json:"disk_used_bytes"` // blocks the journal takes
	DiskFree       int64     `json:"disk_free_bytes"` // left for us on its file system
	Error          string    `json:"error"`           // set when the journal takes no more readings
}

// LinkState says how the gateway stands with the platform.
type LinkState string

// The states of the uplink.
const (
	LinkOff     LinkState = "off"     // no broker configured
	LinkOffline LinkState = "offline" // no connection to a broker
	LinkSilent  LinkState = "silent"  // broker connected, but the platform has acknowledged nothing yet on this connection
	LinkOnline  LinkState = "online"  // the platform acknowledges
)

// Uplink is the state of the way to the platform.
type Uplink struct {
	State         LinkState `json:"state"`
	Broker        string    `json:"broker"`
	Since         time.Time `json:"since"`          // of State
	Error         string    `json:"error"`          // why it is offline
	RetryAt       time.Time `json:"retry_at"`       // next attempt while offline
	Acknowledged  int64     `json:"acknowledged"`   // leaves the platform has stored
	Waiting       int64     `json:"waiting"`        // leaves it has not
	OldestWaiting time.Time `json:"oldest_waiting"` // time of the oldest leaf waiting
	LastAck       time.Time `json:"last_ack"`
	Published     uint64    `json:"published"`   // leaves sent since start, repeats included
	Republished   uint64    `json:"republished"` // of these, sent before
	Connects      uint64    `json:"connects"`    // since start
	Checkpoint    int64     `json:"checkpoint"`  // leaves covered by the last checkpoint that the platform confirmed
}
