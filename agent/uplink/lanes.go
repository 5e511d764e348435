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
		leaf, ok, err := s.u.leaf(n)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		event := leaf.Class == buffer.Class(contract.KindEvent.Class()) || leaf.Class == buffer.Class(contract.KindFault.Class())
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
			leaf, ok, err := s.u.leaf(n)
			if err != nil {
				return err
			}
			if _, sent := s.live[n]; ok && !sent {
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

// pumpCheckpoint signs the tree when the interval has passed, when the platform first answers on a connection, at the
// end, and right after an event. A checkpoint that the platform did not confirm is sent again at the next interval.
func (s *session) pumpCheckpoint() error {
	size := s.u.o.Store.Size()
	due := time.Now().After(s.signAt) || s.signNow && size != s.checkpoint
	if !due || !s.answered || s.confirmed >= size {
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
	if s.u.o.Hear != nil && a.At != 0 {
		s.u.o.Hear(a.At)
	}
	if s.u.accept(a, !s.answered) {
		s.fillNext = 0
	}
	if !s.answered || a.Checkpoint < s.confirmed { // the platform has just come, or come back without its memory
		s.signNow, s.checkpoint = true, 0
	}
	s.answered = true
	s.credit, s.pace, s.confirmed = a.Credit, time.Duration(a.PaceMs)*time.Millisecond, a.Checkpoint

	late := s.lateBefore()
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

// lateBefore is the time before which leaves were sent that count as not arrived, if the acknowledgement that just came
// does not name them. Brokers keep the order of one publisher, so what was sent well before something that arrived is
// lost; where a broker does not, the platform drops what comes twice.
func (s *session) lateBefore() time.Time {
	late := time.Now().Add(-s.u.o.AckTime)
	for n, at := range s.live {
		if overtaken := at.Add(-overtakeTime); overtaken.After(late) && s.u.isAcked(n) {
			late = overtaken
		}
	}
	for _, m := range s.fill {
		if overtaken := m.at.Add(-overtakeTime); overtaken.After(late) && s.u.isAcked(m.leaves[0]) {
			late = overtaken
		}
	}
	return late
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
