package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"hubagent/config"
)

// ServeTCP answers Modbus TCP for the devices of a bus on every connection the listener gives, each in its own
// goroutine and one request at a time. A unit the bus does not have gets exception 0x0B, as a converter gives it. With
// a bus.Baud above 0 the devices are on a line of that speed behind the converter, which carries one request at a time,
// whatever connection it came by. It closes the listener and every connection, and returns nil when ctx ends, else the
// listener's error.
func (s *Site) ServeTCP(ctx context.Context, listener net.Listener, bus config.Bus) error {
	units := newSlave(bus)
	return s.accept(ctx, listener, func(ctx context.Context, conn net.Conn) { s.converse(ctx, conn, bus, units) })
}

// ServeRTUTCP answers Modbus RTU on every connection the listener gives, as a serial-to-Ethernet converter in
// transparent mode does for the one line behind it: see ServeRTU for the line, and ServeTCP for the connections.
func (s *Site) ServeRTUTCP(ctx context.Context, listener net.Listener, bus config.Bus) error {
	units := newSlave(bus)
	return s.accept(ctx, listener, func(ctx context.Context, conn net.Conn) {
		s.serveLine(ctx, conn, bus, units) // until the client hangs up, which is its right: no error concerns the task
	})
}

// accept serves every connection the listener gives until ctx ends, and closes it then or when serve returns.
func (s *Site) accept(ctx context.Context, listener net.Listener, serve func(context.Context, net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		<-ctx.Done()
		listener.Close()
	})
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot accept on %s: %w", listener.Addr(), err)
		}
		s.Counts.Connections.Add(1)
		running.Go(func() {
			ctx, cancel := context.WithCancel(ctx)
			var closing sync.WaitGroup
			closing.Go(func() {
				<-ctx.Done()
				conn.Close()
			})
			serve(ctx, conn)
			cancel()
			closing.Wait()
		})
	}
}

// reset closes a connection so that its client sees a reset and no orderly end, and says whether it is one.
func reset(line any) bool {
	conn, ok := line.(interface {
		SetLinger(seconds int) error
		Close() error
	})
	if ok {
		conn.SetLinger(0)
		conn.Close()
	}
	return ok
}

// converse serves one connection until its end, which is the client's to choose: no error of it concerns the task.
func (s *Site) converse(ctx context.Context, conn net.Conn, bus config.Bus, units *slave) {
	for {
		request, err := readADU(conn)
		if err != nil {
			return
		}
		x, err := s.convert(ctx, bus, units, request)
		if err != nil {
			return
		}
		answer := binary.BigEndian.AppendUint16(request[:4:4], uint16(1+len(x.answer)))
		answer = append(append(answer, request[6]), x.answer...)
		switch x.fault.Kind {
		case Silent:
			continue
		case Reset:
			reset(conn)
			return
		case Noise:
			stray := append([]byte{request[0] ^ 0x5A, request[1]}, answer[2:]...)
			answer = append(stray, answer...)
		}
		if send(ctx, conn, answer, x.fault, 0) != nil {
			return
		}
		s.sent(x)
	}
}

// convert takes a request to its device and waits until the answer is there: for the device, and for the serial line if
// there is one behind the server.
func (s *Site) convert(ctx context.Context, bus config.Bus, units *slave, request []byte) (exchange, error) {
	unit, pdu := request[6], request[mbapSize:]
	perByte := characterTime(bus)
	if perByte == 0 {
		x := s.take(bus, units, unit, pdu)
		return x, wait(ctx, s.Latency)
	}
	release, err := units.seize(ctx)
	if err != nil {
		return exchange{}, err
	}
	defer release()
	x := s.take(bus, units, unit, pdu)
	onLine := 3 + len(pdu) + 3 + len(x.answer) + 7 // unit and CRC around both, and 3.5 characters of silence behind both
	return x, wait(ctx, s.Latency+time.Duration(onLine)*perByte)
}

// The MBAP header is transaction id, protocol id 0, length of what follows it, unit id; a PDU is 1 to 253 bytes
// (Modbus messaging on TCP/IP V1.0b, section 3.1.3).
const (
	mbapSize = 7
	maxPDU   = 253
)

var errNotModbus = errors.New("not Modbus TCP")

// readADU reads one request, header included. After an error the stream is of no more use: without a valid header
// nobody knows where the next request starts.
func readADU(r io.Reader) ([]byte, error) {
	adu := make([]byte, mbapSize, mbapSize+maxPDU)
	if _, err := io.ReadFull(r, adu); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(adu[4:]))
	if binary.BigEndian.Uint16(adu[2:]) != 0 || length < 2 || length > 1+maxPDU {
		return nil, errNotModbus
	}
	adu = adu[:mbapSize+length-1]
	if _, err := io.ReadFull(r, adu[mbapSize:]); err != nil {
		return nil, err
	}
	return adu, nil
}
