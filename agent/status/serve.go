package status

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// Limits on clients, so that slow or many ones cost a bounded amount of memory and no goroutine for ever.
const (
	maxConns    = 64
	maxHeader   = 8 << 10
	headerTime  = 5 * time.Second
	requestTime = 10 * time.Second
	answerTime  = 20 * time.Second
	idleTime    = 15 * time.Second // longer than the page's refresh, so that a reader keeps his connection
	stopTime    = 800 * time.Millisecond
)

// Serve answers on listener with h until ctx ends, then gives requests under way a moment, closes every connection and
// the listener, and returns nil within a second. An error means the listener failed.
func Serve(ctx context.Context, listener net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       requestTime,
		WriteTimeout:      answerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0), // what clients do wrong; New's handler logs our own bugs
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	err := server.Serve(netutil.LimitListener(listener, maxConns))
	if stop() { // ctx has not ended
		server.Close()
		return fmt.Errorf("cannot serve the status page on %s: %w", listener.Addr(), err)
	}
	<-stopped
	return nil
}
