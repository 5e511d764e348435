package record

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"hubagent/agent/contract"
	"hubagent/buffer"
	"hubagent/config"
)

// Epoch is the identity of the log that a store holds.
type Epoch struct {
	Gateway string
	Name    string
	Meta    string // hash of the meta leaf in force, as tlog prints it

	config string // hash of the config that the meta leaf describes
}

// The names of state records.
const (
	stateEpoch    = "epoch"    // name
	stateGateway  = "gateway"  // id of the epoch's gateway
	stateMeta     = "meta"     // metaState
	stateCounts   = "counts"   // Counts
	stateFaults   = "faults"   // device -> openFault
	statePulses   = "pulses"   // device -> point -> count, for pulse counters
	stateContacts = "contacts" // device -> point -> state, for points that are events
	stateWear     = "wear"     // Wear
	stateClock    = "clock"    // told
)

type metaState struct {
	Config string `json:"config"` // config hash that the leaf was made from
	Leaf   string `json:"leaf"`   // the leaf's hash
}

// genesis opens an epoch. Previous stays nil on a gateway's first boot.
type genesis struct {
	Agent    string    `json:"agent"` // version
	LogKey   string    `json:"log_key"`
	Previous *previous `json:"previous"`
}

type metaDocument struct {
	Config  string                `json:"config"` // hash
	Devices map[string]metaDevice `json:"devices"`
}

type metaDevice struct {
	Kind       config.DeviceKind    `json:"kind"`
	Profile    string               `json:"profile"`
	IntervalMs int64                `json:"interval_ms"`
	Points     map[string]metaPoint `json:"points"`
}

type metaPoint struct {
	Unit       string      `json:"unit"` // UCUM
	Type       config.Type `json:"type"`
	IntervalMs int64       `json:"interval_ms,omitempty"` // where it differs from the device's
	Counter    bool        `json:"counter,omitempty"`
	Modulus    int64       `json:"modulus,omitempty"` // in raw units; 0: not known
}

// Begin makes sure that the store has an epoch, and that the meta leaf in force describes this config. What is missing
// is written in one Commit, so a store never holds an epoch without its genesis. Where the store took the place of another
// one, the genesis leaf names that one's epoch, or a gap leaf what was lost of a log that goes on.
func Begin(store *buffer.Store, cfg *config.Config, logKey, version string, now contract.Stamp) (Epoch, error) {
	old, why, err := predecessorOf(store)
	if err != nil {
		return Epoch{Gateway: cfg.Gateway.ID}, err
	}
	return begin(store, cfg, logKey, version, now, old, why)
}

// begin is Begin for a store that takes the place of another one if there is a reason why.
func begin(store *buffer.Store, cfg *config.Config, logKey, version string, now contract.Stamp, old predecessor, why string) (Epoch, error) {
	e, err := ReadEpoch(store, cfg.Gateway.ID)
	if err != nil && !errors.Is(err, buffer.ErrNotFound) {
		return e, err
	}
	if err := sameGateway(store, cfg.Gateway.ID); err != nil {
		return e, err
	}
	lost, err := lostInPlace(store)
	if err != nil {
		return e, err
	}
	if e.Name != "" && e.config == cfg.Hash && lost == nil {
		return e, nil
	}
	err = store.Commit(func(tx *buffer.Tx) error {
		if e.Name == "" {
			e.Name = newEpoch(now)
			tx.Set(stateEpoch, []byte(e.Name))
			tx.Set(stateGateway, []byte(e.Gateway))
			var before *previous
			if why != "" {
				if before, err = takeOver(old, why, tx); err != nil {
					return err
				}
			}
			if _, err := appendDocument(tx, e, contract.KindGenesis, now, genesis{version, logKey, before}); err != nil {
				return err
			}
		}
		if lost != nil {
			tx.Set(buffer.StateReplaced, nil)
		}
		if lost != nil && lost.Blocks+len(lost.Leaves) > 0 {
			if _, err := appendDocument(tx, e, contract.KindGap, now, lost); err != nil {
				return err
			}
		}
		if e.config == cfg.Hash {
			return nil
		}
		hash, err := appendDocument(tx, e, contract.KindMeta, now, describe(cfg))
		if err != nil {
			return err
		}
		e.Meta, e.config = hash, cfg.Hash
		return setState(tx, stateMeta, metaState{cfg.Hash, hash})
	})
	if err != nil {
		return e, fmt.Errorf("cannot begin epoch: %w", err)
	}
	return e, nil
}

// sameGateway is an error when the journal is that of another gateway: leaves of two gateways in one epoch would be refused
// by the platform for ever.
func sameGateway(store *buffer.Store, id string) error {
	raw, err := store.Get(stateGateway)
	if errors.Is(err, buffer.ErrNotFound) {
		return nil
	}
	if err == nil && string(raw) != id {
		err = fmt.Errorf("journal %s is of gateway %s, and hub.yaml says gateway.id is %s: put back %s, or begin with another state folder", store.Options().Dir, raw, id, raw)
	}
	return err
}

// newEpoch names an epoch by its first minute, for people, and 32 random bits, since a gateway's clock may be wrong.
func newEpoch(now contract.Stamp) string {
	b := make([]byte, 4)
	rand.Read(b) // never fails
	return time.UnixMilli(now.At).UTC().Format("20060102T1504Z-") + hex.EncodeToString(b)
}

// appendDocument appends a leaf whose field is named as its kind and returns the leaf's hash.
func appendDocument(tx *buffer.Tx, e Epoch, kind contract.Kind, now contract.Stamp, document any) (string, error) {
	h := contract.Header{Gateway: e.Gateway, Epoch: e.Name, Seq: tx.Next(), Kind: kind, Stamp: now}
	leaf, err := contract.AppendDocument(nil, h, string(kind), document)
	if err != nil {
		return "", err
	}
	_, err = tx.Append(buffer.Class(kind.Class()), leaf)
	return tlog.RecordHash(leaf).String(), err
}

// describe says what the rows' names mean. Labels and the site's name are people's words and stay here.
func describe(cfg *config.Config) metaDocument {
	doc := metaDocument{Config: cfg.Hash, Devices: map[string]metaDevice{}}
	for _, bus := range cfg.Buses {
		for _, d := range bus.Devices {
			points := map[string]metaPoint{}
			for _, p := range d.Model.Points {
				points[p.Name] = metaPoint{p.Unit, p.Type, p.Interval.Milliseconds(), p.Counter || p.Type == config.Pulses, p.Modulus}
			}
			doc.Devices[d.Name] = metaDevice{d.Model.Kind, d.Profile, d.Interval.Milliseconds(), points}
		}
	}
	return doc
}

// getState decodes a state record into v and leaves v alone when there is none.
func getState(store *buffer.Store, name string, v any) error {
	raw, err := store.Get(name)
	if errors.Is(err, buffer.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("state %q: %w", name, err)
	}
	return nil
}

func setState(tx *buffer.Tx, name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("state %q: %w", name, err)
	}
	tx.Set(name, raw)
	return nil
}

// ReadEpoch returns the epoch of a store on which Begin was called before.
func ReadEpoch(store *buffer.Store, gateway string) (Epoch, error) {
	name, err := store.Get(stateEpoch)
	if err != nil {
		return Epoch{Gateway: gateway}, fmt.Errorf("epoch of the journal: %w", err)
	}
	e := Epoch{Gateway: gateway, Name: string(name)}
	var meta metaState
	err = getState(store, stateMeta, &meta)
	e.Meta, e.config = meta.Leaf, meta.Config
	return e, err
}

// ReadCounts returns the totals of the epoch.
func ReadCounts(store *buffer.Store) (c Counts, err error) {
	err = getState(store, stateCounts, &c)
	return c, err
}
