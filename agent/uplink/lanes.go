package uplink

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"hubagent/agent/contract"
	"hubagent/buffer"
)

var errNotConnected = errors.New("connection to the broker is closed")

// pump sends what may be sent now: events and live leaves first, then backlog as far as credit goes, then a checkpoint
// when one is due.
func (s *session) pump() error {
	if !s.conn.Open() {
		return errNotConnected
	}
	if err := s.pumpLive(); err != nil {
		return err
	}
	if err := s.pumpFill(); err != nil {
		return err
	}
	return s.pumpCheckpoint()
}

func (s *session) publish(lane contract.Lane, payload []byte) {
	packed := false
	if lane != contract.LaneCheckpoint && lane != contract.LaneEvent {
		payload, packed = s.packer.Pack(payload)
	}
	s.conn.Publish(contract.UpTopic(s.u.o.Gateway, lane, packed), false, payload)
}

// pumpLive sends leaves appended since the connection began, as far as the windows go. The others are left to fill.
func (s *session) pumpLive() error {
	for size := s.u.o.Store.Size(); s.liveNext < size; s.liveNext++ {
		n := s.liveNext
		if s.u.isAcked(n) {
			continue
		}
		leaf, err := s.u.o.Store.Leaf(n)
		if err != nil {
			return fmt.Errorf("cannot send: %w", err)
		}
		event := leaf.Class == buffer.Class(contract.KindEvent.Class())
		switch {
		case event && len(s.event) < eventWindow:
			s.publish(contract.LaneEvent, leaf.Data)
			s.event[n] = struct{}{}
			s.signNow = true
		case !event && len(s.live)-len(s.event) < liveWindow:
			s.publish(contract.LaneLive, leaf.Data)
		default:
			continue
		}
		s.live[n] = time.Now()
		s.u.count(n)
	}
	return nil
}

// pumpFill sends backlog, oldest first.
func (s *session) pumpFill() error {
	for len(s.fill) < s.credit && time.Since(s.fillAt) >= s.pace {
		var m fillMessage
		var payload bytes.Buffer
		for n := s.u.nextUnacked(s.fillNext); n < s.liveNext && len(m.leaves) < contract.MaxFillLeaves; n = s.u.nextUnacked(n + 1) {
			if _, sent := s.live[n]; !sent {
				leaf, err := s.u.o.Store.Leaf(n)
				if err != nil {
					return fmt.Errorf("cannot send: %w", err)
				}
				if len(m.leaves) > 0 && payload.Len()+len(leaf.Data) > fillBytes {
					break
				}
				payload.Write(leaf.Data)
				payload.WriteByte('\n')
				m.leaves = append(m.leaves, n)
			}
			s.fillNext = n + 1
		}
		if len(m.leaves) == 0 {
			return nil
		}
		s.publish(contract.LaneFill, payload.Bytes())
		for _, n := range m.leaves {
			s.u.count(n)
		}
		m.at = time.Now()
		s.fill, s.fillAt = append(s.fill, m), m.at
	}
	return nil
}

// pumpCheckpoint signs the tree when the interval has passed, at the beginning and end of a connection, and right after
// an event.
func (s *session) pumpCheckpoint() error {
	size := s.u.o.Store.Size()
	due := s.signNow || time.Now().After(s.signAt)
	if !due || size == s.checkpoint || size == 0 {
		return nil
	}
	root, err := s.u.o.Store.Root(size)
	if err != nil {
		return err
	}
	c := contract.Checkpoint{Origin: contract.Origin(s.u.o.Config.Origin, s.u.o.Gateway, s.u.o.Epoch), Size: size, Root: root}
	signed, err := c.Sign(s.u.o.Signer)
	if err != nil {
		return fmt.Errorf("cannot sign a checkpoint: %w", err)
	}
	s.publish(contract.LaneCheckpoint, signed)
	s.checkpoint, s.signNow, s.signAt = size, false, time.Now().Add(s.u.o.Config.CheckpointInterval)
	return nil
}

// hear takes in an acknowledgement. One that cannot be true is refused and changes nothing.
func (s *session) hear(payload []byte) {
	a, err := contract.ParseAck(payload, s.u.o.Epoch, s.u.o.Store.Size())
	if err != nil {
		s.u.mu.Lock()
		s.u.stats.Refused++
		s.u.mu.Unlock()
		s.u.o.Log.Warn("acknowledgement refused", "err", err)
		return
	}
	s.u.accept(a, !s.answered)
	s.answered = true
	s.credit, s.pace, s.confirmed = a.Credit, time.Duration(a.PaceMs)*time.Millisecond, max(s.confirmed, a.Checkpoint)

	late := time.Now().Add(-s.u.o.AckTime)
	for n, at := range s.live {
		if acked := s.u.isAcked(n); acked || at.Before(late) {
			delete(s.live, n)
			delete(s.event, n)
			if !acked { // the platform answers, and has not got it
				s.fillNext = min(s.fillNext, n)
			}
		}
	}
	waiting := s.fill[:0]
	for _, m := range s.fill {
		missing := int64(-1)
		for _, n := range m.leaves {
			if !s.u.isAcked(n) {
				missing = n
				break
			}
		}
		switch {
		case missing < 0:
		case m.at.Before(late):
			s.fillNext = min(s.fillNext, missing)
		default:
			waiting = append(waiting, m)
		}
	}
	s.fill = waiting
}

// probe asks a platform that has been silent too long whether it is there, by sending status again. Until it answers,
// nothing more goes on credit.
func (s *session) probe() {
	late := time.Now().Add(-s.u.o.AckTime)
	if s.probedAt.After(late) {
		return
	}
	silent := !s.answered
	for _, at := range s.live {
		silent = silent || at.Before(late)
	}
	for _, m := range s.fill {
		silent = silent || m.at.Before(late)
	}
	if silent {
		s.credit = 0
		s.sendStatus(true)
	}
}
