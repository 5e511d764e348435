package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hubagent/config"
	"hubagent/drivers"
	"hubagent/drivers/drivertest"
	"hubagent/drivers/sim"
)

// counter is a slave whose answers hold the number of the request and the register asked for, so that a value taken from
// any other answer is known as wrong.
type counter struct {
	tcp bool

	mu     sync.Mutex
	number uint32
	latest map[string]uint32 // unit and address asked for -> number of the last request for it
}

// pdu answers request: for each two registers the number of the request and their address.
func (c *counter) pdu(unit byte, request []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	start, count := int(binary.BigEndian.Uint16(request[1:])), int(binary.BigEndian.Uint16(request[3:]))
	b := []byte{request[0], byte(2 * count)}
	for at := start; at < start+count; at += 2 {
		c.latest[fmt.Sprint(unit, at)] = c.number
		b = binary.BigEndian.AppendUint32(b, c.number<<12|uint32(unit)<<8|uint32(at))
	}
	return b
}

// serve answers on one connection, at once and well.
func (c *counter) serve(conn net.Conn) {
	defer conn.Close()
	request := make([]byte, 8) // a read's frame; over TCP the header is longer and there is no CRC
	if c.tcp {
		request = make([]byte, 12)
	}
	for {
		if _, err := io.ReadFull(conn, request); err != nil {
			return
		}
		if c.tcp {
			pdu := c.pdu(request[6], request[7:])
			answer := binary.BigEndian.AppendUint16(slices.Clone(request[:4]), uint16(1+len(pdu)))
			conn.Write(append(append(answer, request[6]), pdu...))
			continue
		}
		conn.Write(raw(frame(fmt.Sprintf("%02x%x", request[0], c.pdu(request[0], request[1:])))))
	}
}

// Through thousands of faults no value is taken that is not the answer to the last request for its register. With
// HUB_EXCHANGES set it makes so many exchanges, of which one in ten meets a fault (make faults-million).
func TestNoWrongValueThroughFaults(t *testing.T) {
	exchanges, odds := 18_000, 3
	if text := os.Getenv("HUB_EXCHANGES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		exchanges, odds = n, 10
	}
	rtuOverTCP := func(t *testing.T, dial func() (net.Conn, error)) *Bus {
		bus := rtu(t, dial)
		bus.line.(*rtuLine).reopens = true
		return bus
	}
	for _, c := range []struct {
		name string
		tcp  bool
		make func(*testing.T, func() (net.Conn, error)) *Bus
	}{
		{"RTU", false, rtu},
		{"TCP", true, tcp},
		{"RTU over TCP", false, rtuOverTCP},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slave := &counter{tcp: c.tcp, latest: map[string]uint32{}}
				proxy := &sim.Proxy{TCP: c.tcp, Odds: odds, Lag: testTimeout / 10, Late: testTimeout, Seed: uint64(len(c.name))}
				var serving sync.WaitGroup
				bus := c.make(t, func() (net.Conn, error) {
					near, master := drivertest.Wire()
					slaveSide, far := drivertest.Wire()
					serving.Go(func() { slave.serve(far) })
					serving.Go(func() { proxy.Carry(master, slaveSide) })
					return near, nil
				})
				point := func(name string, address int) config.Point {
					return config.Point{Name: name, Function: config.InputRegister, Address: address, Type: config.U32, Unit: "1"}
				}
				var devices []config.Device
				for unit := 1; unit <= 3; unit++ { // blocks of one size, so that only the line's discipline tells them apart
					devices = append(devices, device(unit, point("a", 0), point("b", 10), point("c", 20)))
				}
				good, wrong, failed, n := 0, 0, map[string]int{}, 0
				for asked := uint32(0); int(asked) < exchanges/3; n++ {
					d := devices[n%len(devices)]
					s, err := bus.Read(t.Context(), d)
					drivertest.CheckSample(t, d, s)
					slave.mu.Lock()
					for i, r := range s.Readings {
						at := d.Model.Points[i].Address
						if r.Quality == drivers.Missing {
							failed[r.Why]++
							continue
						}
						good++
						want := drivers.Uint(uint64(slave.latest[fmt.Sprint(byte(d.Unit), at)]<<12 | uint32(d.Unit)<<8 | uint32(at)))
						if r.Value != want {
							wrong++
							t.Errorf("poll %d: register %d of unit %d is %s, want %s", n, at, d.Unit, r.Value, want)
						}
					}
					asked = slave.number
					slave.mu.Unlock()
					var e *drivers.Error
					if err != nil && (!errors.As(err, &e) || e.Device == "" || e.At == "") {
						t.Errorf("poll %d: %v", n, err)
					}
					time.Sleep(200 * time.Millisecond)
				}
				t.Logf("%d exchanges, faults %v; %d values accepted, %d of them wrong; missing for %v", slave.number, proxy.Told(), good, wrong, failed)
				if good < n || len(failed) < 4 {
					t.Errorf("%d values came through, missing for %v: the test tests little", good, failed)
				}
				bus.Close()
				serving.Wait()
			})
		})
	}
}
