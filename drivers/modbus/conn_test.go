package modbus

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// The connection without the scheduler's notice keeps what every net.Conn promises.
func TestPlainConn(t *testing.T) {
	nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, nil, err
		}
		defer listener.Close()
		near, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			return nil, nil, nil, err
		}
		far, err := listener.Accept()
		if err != nil {
			near.Close()
			return nil, nil, nil, err
		}
		a, b = plain(near), plain(far)
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}
