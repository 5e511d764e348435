package contract

import (
	"encoding/json"
	"fmt"
	"slices"
)

// SeqSet is a set of leaf numbers: all below Next, and those in the ranges Have, both ends included, which are sorted,
// do not touch each other and lie beyond Next. The zero value is empty.
type SeqSet struct {
	Next int64      `json:"next"`
	Have [][2]int64 `json:"have,omitempty"`
}

// Contains says whether n is in the set.
func (s *SeqSet) Contains(n int64) bool {
	if n < s.Next {
		return true
	}
	i, _ := slices.BinarySearchFunc(s.Have, n, func(r [2]int64, n int64) int { return int(min(1, max(-1, r[1]-n))) })
	return i < len(s.Have) && s.Have[i][0] <= n
}

// Add puts the numbers from first to last, both included, into the set.
func (s *SeqSet) Add(first, last int64) {
	if last < first || last < s.Next {
		return
	}
	// Ranges that overlap or touch the new one melt into it.
	from, _ := slices.BinarySearchFunc(s.Have, first-1, func(r [2]int64, n int64) int { return int(min(1, max(-1, r[1]-n))) })
	to := from
	for to < len(s.Have) && s.Have[to][0] <= last+1 {
		first, last = min(first, s.Have[to][0]), max(last, s.Have[to][1])
		to++
	}
	s.Have = slices.Replace(s.Have, from, to, [2]int64{first, last})
	if s.Have[0][0] <= s.Next {
		s.Next = s.Have[0][1] + 1
		s.Have = slices.Delete(s.Have, 0, 1)
	}
}

// NextMissing returns the smallest number that is at least n and not in the set.
func (s *SeqSet) NextMissing(n int64) int64 {
	n = max(n, s.Next)
	for _, r := range s.Have {
		if n < r[0] {
			break
		}
		n = max(n, r[1]+1)
	}
	return n
}

// Count is the number of numbers in the set.
func (s *SeqSet) Count() int64 {
	n := s.Next
	for _, r := range s.Have {
		n += r[1] - r[0] + 1
	}
	return n
}

// Clone returns an independent copy.
func (s *SeqSet) Clone() SeqSet { return SeqSet{s.Next, slices.Clone(s.Have)} }

// check reports a set that no sender who keeps to the contract can have made.
func (s *SeqSet) check() error {
	if s.Next < 0 || s.Next > MaxSeq {
		return fmt.Errorf("next %d is impossible", s.Next)
	}
	end := s.Next // the smallest number a range may begin with
	for _, r := range s.Have {
		if r[0] < end || r[1] < r[0] || r[1] > MaxSeq {
			return fmt.Errorf("range %d to %d is impossible or out of order", r[0], r[1])
		}
		end = r[1] + 1
	}
	return nil
}

// Ack is what the platform says on dn/ack: which leaves it has stored, and how much backlog it takes.
type Ack struct {
	Epoch string `json:"epoch"`
	SeqSet
	Checkpoint int64 `json:"ckpt"`    // leaves of the newest checkpoint whose root it recomputed; 0 for none
	Credit     int   `json:"credit"`  // fill messages that may be on the way without an acknowledgement
	PaceMs     int64 `json:"pace_ms"` // least time between two of them
	// At is the platform's time when it wrote this, in Unix milliseconds; 0: it does not say. A gateway holds its clock
	// against it and never sets its clock by it.
	At int64 `json:"at,omitempty"`
}

// MaxCredit bounds the credit a gateway believes.
const MaxCredit = 256

// ParseAck reads an acknowledgement from outside and checks it against the gateway's own epoch and size: nobody can
// have stored a leaf that was never written.
func ParseAck(data []byte, epoch string, size int64) (Ack, error) {
	var a Ack
	if len(data) > MaxLeafBytes {
		return a, fmt.Errorf("acknowledgement has %d bytes", len(data))
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return a, fmt.Errorf("acknowledgement is not valid JSON: %w", err)
	}
	if a.Epoch != epoch {
		return a, fmt.Errorf("acknowledgement is for another epoch %.64q", a.Epoch)
	}
	if err := a.check(); err != nil {
		return a, fmt.Errorf("acknowledgement: %w", err)
	}
	last := a.Next - 1
	if n := len(a.Have); n > 0 {
		last = a.Have[n-1][1]
	}
	if last >= size || a.Checkpoint > size {
		return a, fmt.Errorf("acknowledgement is for leaf %d, and %d were written", max(last, a.Checkpoint-1), size)
	}
	if a.Checkpoint < 0 || a.Credit < 0 || a.PaceMs < 0 {
		return a, fmt.Errorf("acknowledgement has a negative number")
	}
	a.Credit = min(a.Credit, MaxCredit)
	a.PaceMs = min(a.PaceMs, 60_000)
	if a.At < 0 || a.At > maxTime {
		return a, fmt.Errorf("acknowledgement has an impossible time %d", a.At)
	}
	return a, nil
}

// Status is a gateway's retained word about itself. Will and birth share its topic and carry the session, so that a
// late will of an old connection does not undo a newer birth.
type Status struct {
	Version int    `json:"v"`
	Gateway string `json:"gw"`
	Session string `json:"session"`
	Online  bool   `json:"online"`
	Epoch   string `json:"epoch"`
	Size    int64  `json:"size"` // leaves in the tree
	Meta    string `json:"meta"` // hash of the meta leaf in force, base64 as tlog prints it
	Clock   string `json:"clk"`
	Backlog int64  `json:"backlog"` // leaves not acknowledged
}

// ParseStatus reads a status from outside.
func ParseStatus(data []byte) (Status, error) {
	var s Status
	if len(data) > 4096 {
		return s, fmt.Errorf("status has %d bytes", len(data))
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("status is not valid JSON: %w", err)
	}
	if s.Version != Version || !ValidGateway(s.Gateway) || !ValidEpoch(s.Epoch) || s.Size < 0 || s.Size > MaxSeq {
		return s, fmt.Errorf("status is not one of hub/v1")
	}
	return s, nil
}
