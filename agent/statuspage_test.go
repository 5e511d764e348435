package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"hubagent/agent/contract"
	"hubagent/agent/record"
	"hubagent/buffer"
	"hubagent/config"
)

// lineWriter hands each line that is logged to a channel.
type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

// A page whose address is taken is said once, and is served as soon as the address is free.
func TestPageOnTakenAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lines := make(lineWriter, 10)
	a := newTestAgent(t, slog.New(slog.NewTextHandler(lines, nil)))
	a.cfg.Status.Listen = taken.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); a.serveStatus(ctx) }()

	if line := <-lines; !strings.Contains(line, "readings go on") || !strings.Contains(line, "another program has this address") {
		t.Errorf("said %q", line)
	}
	taken.Close()
	if line := <-lines; !strings.Contains(line, "http://"+a.cfg.Status.Listen) {
		t.Errorf("said %q", line)
	}
	resp, err := http.Get("http://" + a.cfg.Status.Listen + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "ok\n" {
		t.Errorf("health %q", body)
	}
	stop()
	<-done
}

// newTestAgent is an agent without devices and uplink, on a fresh store. Its recorder does not run yet.
func newTestAgent(t *testing.T, log *slog.Logger) *agent {
	t.Helper()
	store, err := buffer.Open(buffer.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	cfg := &config.Config{
		Gateway: config.Gateway{ID: "g1", Zone: time.UTC},
		Journal: config.Journal{SyncInterval: time.Second, LeafInterval: time.Second},
	}
	clock, err := record.NewSystemClock(log)
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := record.Begin(store, cfg, "", "test", contract.Stamp{Clock: contract.ClockOK})
	if err != nil {
		t.Fatal(err)
	}
	recorder, err := record.New(store, epoch, cfg, clock.Stamp, log)
	if err != nil {
		t.Fatal(err)
	}
	return &agent{cfg: cfg, log: log, started: time.Now(), clock: clock, store: store, epoch: epoch, recorder: recorder}
}
