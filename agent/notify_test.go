package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// systemd hears that the agent is ready, then a sign of life only while the recorder's loop turns.
func TestSystemdNotification(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "150000")
	hear := func(within time.Duration) string {
		b := make([]byte, 100)
		socket.SetReadDeadline(time.Now().Add(within))
		n, err := socket.Read(b)
		if err != nil {
			return ""
		}
		return string(b[:n])
	}
	a := newTestAgent(t, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	notified := make(chan struct{})
	go func() { defer close(notified); a.notify(ctx) }()
	if got := hear(10 * time.Second); got != "READY=1" {
		t.Fatalf("first word %q", got)
	}
	if got := hear(400 * time.Millisecond); got != "" {
		t.Fatalf("%q, and the recorder does not run", got)
	}
	recording, stopRecorder := context.WithCancel(t.Context())
	recorded := make(chan error, 1)
	go func() { recorded <- a.recorder.Run(recording) }()
	for range 3 {
		if got := hear(10 * time.Second); got != "WATCHDOG=1" {
			t.Fatalf("got %q", got)
		}
	}
	stop()
	<-notified
	stopRecorder()
	if err := <-recorded; err != nil {
		t.Fatal(err)
	}
}
