package sim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"hubagent/config"
)

// Setup says how the buses of a config are simulated.
type Setup struct {
	World   World
	Latency time.Duration // as Site.Latency
	Faults  []Fault
	// Recording, if not nil, answers for its units on every bus.
	Recording *Recording

	Dir  string // of serial lines and folders of line files
	Host string // TCP servers listen there
	// Before are addresses of TCP servers to take again if they are free, by name of the bus; others get a free port.
	Before map[string]string
	// SameAddresses takes the addresses, serial ports and folders that the config names.
	SameAddresses bool
	Fast          bool // lines carry everything at once, whatever their speed
}

// Hub is a config's buses in simulation, each with a site of its own, so that each is counted by itself.
type Hub struct {
	Buses []config.Bus // as an agent reaches them
	Sites []*Site      // of each bus

	tasks   []func(context.Context) error
	closers []func() error
}

// Open opens the ports and pseudo-terminals of a config's buses; Serve then answers there. Close must be called at the
// end. The error names the bus.
func (s Setup) Open(buses []config.Bus) (*Hub, error) {
	h := &Hub{}
	for i, bus := range buses {
		site := New(s.World)
		site.Latency, site.random = s.Latency, rand.New(rand.NewPCG(s.World.Seed, uint64(i))) // or all would draw alike
		site.Recording = s.Recording
		site.SetFaults(s.Faults...)
		reached := bus
		task, err := s.open(h, site, &reached)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("cannot simulate bus %s: %w", bus.Name, err), h.Close())
		}
		h.Buses, h.Sites, h.tasks = append(h.Buses, reached), append(h.Sites, site), append(h.tasks, task)
	}
	return h, nil
}

// open opens what a bus needs, turns bus into what an agent needs to reach it, and returns the task that answers.
func (s Setup) open(h *Hub, site *Site, bus *config.Bus) (task func(context.Context) error, err error) {
	served := *bus
	if s.Fast {
		served.Baud = 0
	}
	switch bus.Kind {
	case config.ModbusTCP, config.ModbusRTUTCP:
		listener, err := s.listen(*bus)
		if err != nil {
			return nil, err
		}
		h.closers = append(h.closers, func() error { return ignoreClosed(listener.Close()) })
		bus.Address = reachable(listener.Addr())
		if bus.Kind == config.ModbusTCP {
			return func(ctx context.Context) error { return site.ServeTCP(ctx, listener, served) }, nil
		}
		return func(ctx context.Context) error { return site.ServeRTUTCP(ctx, listener, served) }, nil
	case config.ModbusRTU:
		if !s.SameAddresses {
			bus.Port = filepath.Join(s.Dir, "line-"+bus.Name)
		}
		// A pseudo-terminal has no RTS line.
		bus.RS485, bus.RTSBefore, bus.RTSAfter = config.RS485Adapter, 0, 0
		master, path, closePTY, err := OpenPTY()
		if err != nil {
			return nil, err
		}
		h.closers = append(h.closers, closePTY)
		if err := link(path, bus.Port); err != nil {
			return nil, err
		}
		port := bus.Port
		h.closers = append(h.closers, func() error {
			if to, err := os.Readlink(port); err != nil || to != path {
				return nil // somebody else's by now
			}
			return os.Remove(port)
		})
		return func(ctx context.Context) error { return site.ServeRTU(ctx, master, served) }, nil
	case config.GPIO, config.GPIOSim:
		if !s.SameAddresses || bus.Kind == config.GPIO {
			bus.Dir = filepath.Join(s.Dir, "lines-"+bus.Name)
		}
		bus.Kind, bus.Chip = config.GPIOSim, ""
		served := *bus
		return func(ctx context.Context) error { return site.WriteLines(ctx, served) }, nil
	}
	return nil, fmt.Errorf("no simulation of kind %s", bus.Kind)
}

// listen opens the TCP port of a bus.
func (s Setup) listen(bus config.Bus) (net.Listener, error) {
	if s.SameAddresses {
		return net.Listen("tcp", bus.Address)
	}
	if before := s.Before[bus.Name]; before != "" {
		if _, port, err := net.SplitHostPort(before); err == nil {
			if listener, err := net.Listen("tcp", net.JoinHostPort(s.Host, port)); err == nil {
				return listener, nil
			}
		}
	}
	return net.Listen("tcp", net.JoinHostPort(s.Host, "0"))
}

// reachable is how an agent on this machine reaches a server: one that listens everywhere, on the loopback.
func reachable(address net.Addr) string {
	tcp, ok := address.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return address.String()
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(tcp.Port))
}

// link makes a symbolic link to a pseudo-terminal. It takes the place of an earlier one and of nothing else: the stable
// names of real ports are links, too.
func link(terminal, port string) error {
	if to, err := os.Readlink(port); err == nil && strings.HasPrefix(to, terminals) {
		if err := os.Remove(port); err != nil {
			return err
		}
	}
	err := os.Symlink(terminal, port)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and a simulated line takes the place of no other port", port)
	}
	return err
}

// Serve answers on every bus until ctx ends; it returns nil then, else the first error of a bus.
func (h *Hub) Serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, task := range h.tasks {
		g.Go(func() error { return task(ctx) })
	}
	return g.Wait()
}

// Close closes ports and pseudo-terminals, and removes the links to these: their numbers soon name other terminals.
func (h *Hub) Close() error {
	var errs []error
	for _, closer := range slices.Backward(h.closers) {
		errs = append(errs, closer())
	}
	h.closers = nil
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
