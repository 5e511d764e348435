package status

import (
	"encoding/json"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

// Snapshot is everything the page, the API and the metrics say, at one moment. The JSON form is /api/v1/status, where
// a time that is zero, which means never, is left out. All times are by the present clock, also those of before it was
// set.
type Snapshot struct {
	Now        time.Time  `json:"now"` // in the time zone the page is to show
	Version    string     `json:"version"`
	StartedAt  time.Time  `json:"started_at,omitzero"`
	Gateway    string     `json:"gateway"`
	Site       string     `json:"site"`
	Epoch      string     `json:"epoch"`
	Clock      string     `json:"clock"` // ok, unsync, step
	ClockFacts ClockFacts `json:"clock_facts"`
	Buses      []Bus      `json:"buses"`
	Devices    []Device   `json:"devices"`
	Journal    Journal    `json:"journal"`
	Card       Card       `json:"card"`
	Uplink     Uplink     `json:"uplink"`
}

// ClockFacts are what is known of the clock beside its state.
type ClockFacts struct {
	Since      time.Time `json:"since,omitzero"`        // of state and doubt as they are
	Doubt      string    `json:"doubt"`                 // why the state is unsync: kernel, past, platform
	AheadMs    *int64    `json:"ahead_ms"`              // of the platform's clock, the way of its message included; null: it said none
	JumpedAt   time.Time `json:"jumped_at,omitzero"`    // last time since the agent's start, by the present clock
	JumpedByMs int64     `json:"jumped_by_ms,omitzero"` // forward is positive
}

// Bus is one bus's use of its time.
type Bus struct {
	Name        string  `json:"name"`
	BusySeconds float64 `json:"busy_s"` // spent in polls since start
}

// Device is one device as last polled.
type Device struct {
	Name       string            `json:"name"`
	Label      string            `json:"label"`
	Kind       config.DeviceKind `json:"kind"`
	Model      string            `json:"model"`
	Bus        string            `json:"bus"`
	IntervalMs int64             `json:"interval_ms"`
	Polls      uint64            `json:"polls"`             // since start
	Failures   uint64            `json:"failures"`          // polls since start that gave no full answer
	LeftOut    uint64            `json:"left_out"`          // beats since start for which the bus was too busy
	Failing    int               `json:"failing"`           // polls in a row that gave no answer at all; 0: answers
	RetryAt    time.Time         `json:"retry_at,omitzero"` // set while quarantined: when it is asked next
	Error      string            `json:"error"`             // the last failure while Failing > 0
	Points     []Point           `json:"points"`
}

// Point is the last reading of one point.
type Point struct {
	Name     string          `json:"name"`
	Title    config.Text     `json:"title"`
	Headline bool            `json:"headline"`
	Bool     bool            `json:"bool"`        // a contact: 1 is active
	Value    drivers.Value   `json:"value"`       // the last value read since start; null for none
	Unit     string          `json:"unit"`        // UCUM
	At       time.Time       `json:"at,omitzero"` // when Value was measured
	Quality  drivers.Quality `json:"quality"`
	Why      string          `json:"why"` // of the last poll, for a quality other than 1
}

// MarshalJSON writes the value as the number it was measured as, and a value that is none, NaN or infinite as null:
// zero always means measured zero.
func (p Point) MarshalJSON() ([]byte, error) {
	type fields Point // without this method
	value := json.RawMessage(p.Value.Append(nil))
	if len(value) == 0 {
		value = json.RawMessage("null")
	}
	return json.Marshal(struct {
		fields
		Value json.RawMessage `json:"value"` // hides the field below
	}{fields(p), value})
}

// Journal is the state of the store.
type Journal struct {
	Leaves         int64     `json:"leaves"`           // in this epoch
	Readings       uint64    `json:"readings"`         // journaled in this epoch
	AtRisk         int       `json:"at_risk"`          // readings polled and not on disk yet
	Lost           uint64    `json:"lost"`             // readings lost since start, because neither disk nor memory had room
	SyncIntervalMs int64     `json:"sync_interval_ms"` // longest time a reading is at risk
	LastCommit     time.Time `json:"last_commit,omitzero"`
	DiskUsed       int64     `json:"disk_used_bytes"`              // blocks the journal takes
	DiskFree       int64     `json:"disk_free_bytes"`              // left for us on its file system
	Quota          int64     `json:"quota_bytes"`                  // most that it may take; 0: none
	RoomSeconds    float64   `json:"room_s,omitzero"`              // until readings have to go that the platform, if there is one, does not have; 0: not known yet
	Volatile       bool      `json:"volatile"`                     // it is in memory and goes with the power
	Written        int64     `json:"written_bytes"`                // by the agent to its disk since the journal was begun, as the kernel counts; 0: not known
	WrittenADay    float64   `json:"written_bytes_a_day,omitzero"` // 0: not known yet
	WriteRatio     float64   `json:"write_ratio,omitzero"`         // bytes written for each byte of a compressed leaf; 0: not known yet
	Error          string    `json:"error"`                        // set while the journal takes no readings: they wait in memory
}

// Card is the device that holds the journal.
type Card struct {
	Device    string   `json:"device"`                     // as the kernel calls it; empty: not known
	Kind      CardKind `json:"kind"`                       // empty: not known
	Model     string   `json:"model"`                      // as it calls itself
	LifeUsed  int      `json:"life_used_percent,omitzero"` // upper end of a step of 10 %, 110: beyond its life; 0: it does not say
	Reserve   Reserve  `json:"reserve"`                    // of its spare blocks; empty: it does not say
	Endurance int64    `json:"endurance_bytes,omitzero"`   // what its maker promises, from the config; 0: not given
	YearsLeft float64  `json:"years_left,omitzero"`        // of Endurance, at the rate the agent writes; 0: not known
}

// CardKind is what a device is.
type CardKind string

// The kinds of device.
const (
	CardEMMC CardKind = "emmc"
	CardSD   CardKind = "sd"
	CardDisk CardKind = "disk"
)

// Reserve is the state of a device's spare blocks.
type Reserve string

// The states of spare blocks.
const (
	ReserveNormal  Reserve = "normal"
	ReserveWarning Reserve = "warning" // 80 % are used
	ReserveUrgent  Reserve = "urgent"  // 90 % are used
)

// worn says whether a device should be replaced soon: it says so itself, or is written nearly as much as was promised.
func (c Card) worn() bool {
	return c.LifeUsed >= 100 || c.Reserve == ReserveWarning || c.Reserve == ReserveUrgent || c.YearsLeft > 0 && c.YearsLeft < 0.5
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
	Since         time.Time `json:"since,omitzero"`          // of State
	Error         string    `json:"error"`                   // why it is offline
	RetryAt       time.Time `json:"retry_at,omitzero"`       // next attempt while offline
	Acknowledged  int64     `json:"acknowledged"`            // leaves the platform has stored
	Waiting       int64     `json:"waiting"`                 // leaves it has not
	OldestWaiting time.Time `json:"oldest_waiting,omitzero"` // time of the oldest leaf waiting
	GivenUp       int64     `json:"given_up"`                // leaves that the journal had no room for before the platform had them, or lost
	LastAck       time.Time `json:"last_ack,omitzero"`
	Published     uint64    `json:"published"`   // leaves sent since start, repeats included
	Republished   uint64    `json:"republished"` // of these, sent before
	Connects      uint64    `json:"connects"`    // since start
	Checkpoint    int64     `json:"checkpoint"`  // leaves covered by the last checkpoint that the platform confirmed
}
