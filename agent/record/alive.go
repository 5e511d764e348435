package record

import "context"

// Alive returns nil when Run's loop takes a turn before ctx ends: it is neither stuck on the disk nor dead. A watchdog
// that is fed only then restarts an agent whose disk hangs.
func (r *Recorder) Alive(ctx context.Context) error {
	select {
	case r.ping <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
