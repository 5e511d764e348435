package main

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notify tells systemd that the agent is ready, and feeds its watchdog while the recorder's loop turns. Outside
// systemd it does nothing.
func (a *agent) notify(ctx context.Context) {
	a.tellSystemd(daemon.SdNotifyReady)
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			wait, cancel := context.WithTimeout(ctx, interval/3)
			if a.recorder.Alive(wait) == nil {
				a.tellSystemd(daemon.SdNotifyWatchdog)
			}
			cancel()
		}
	}
}

func (a *agent) tellSystemd(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		a.log.Warn("cannot notify systemd", "state", state, "err", err)
	}
}
