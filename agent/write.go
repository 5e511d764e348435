package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hubagent/config"
	"hubagent/drivers"
)

func newWriteCommand() *cobra.Command {
	path, length := "", time.Duration(0)
	c := &cobra.Command{
		Use:   "write DEVICE.NAME VALUE",
		Short: "Write to a device what its profile and hub.yaml allow, e.g. sound a siren for a test",
		Long: `write writes one raw value to a device and reads it back. Only what the profile lists under writes,
with one of the values allowed there, and what the device's entry in hub.yaml enables with
writes: [NAME], is ever written; the running agent itself writes nothing.

With --for the value is written, and after that time 0 again, or the least value that is allowed:
a siren that sounds for five seconds. An output on a line of the gateway falls back as soon as the command ends,
so it needs --for. The agent must not have the port meanwhile: systemctl stop hubagent.`,
		Example: `  hubagent write relay-001.relay1 1
  hubagent write siren-001.siren 1 --for 5s`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("%s takes DEVICE.NAME and a value\nsee: %s --help", c.CommandPath(), c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			value, err := strconv.ParseInt(args[1], 0, 64)
			if err != nil {
				return usageError{fmt.Errorf("%q is not a whole number; write a raw value, for example 1", args[1])}
			}
			cfg, err := loadConfig(c, path)
			if err != nil {
				return err
			}
			bus, device, write, err := writable(cfg, args[0], value)
			if err != nil {
				return usageError{err}
			}
			opened, err := openers()[bus.Kind](bus, drivers.With{})
			if err != nil {
				return err
			}
			defer opened.Close()
			writer, ok := opened.(drivers.Writer)
			if !ok {
				return usageError{fmt.Errorf("nothing can be written on a bus of kind %s", bus.Kind)}
			}
			if err := writer.Write(c.Context(), device, write, value); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is %d\n", args[0], value)
			if length <= 0 {
				return nil
			}
			select {
			case <-time.After(length):
			case <-c.Context().Done():
			}
			// Also after Ctrl-C: a siren must not go on because somebody lost patience.
			behind, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), 5*time.Second)
			defer cancel()
			rest := restOf(write, value)
			if err := writer.Write(behind, device, write, rest); err != nil {
				return fmt.Errorf("%s may still be %d: %w", args[0], value, err)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is %d\n", args[0], rest)
			return nil
		},
	}
	c.Flags().StringVar(&path, "config", "hub.yaml", "config file")
	c.Flags().DurationVar(&length, "for", 0, "write 0, or the least value allowed, again after this time")
	return c
}

// restOf is what is written after --for.
func restOf(w config.Write, value int64) int64 {
	rest := slices.Min(w.Allowed)
	if slices.Contains(w.Allowed, 0) {
		rest = 0
	}
	return min(rest, value)
}

// writable finds what is to be written, and says why it may not be.
func writable(cfg *config.Config, name string, value int64) (config.Bus, config.Device, config.Write, error) {
	deviceName, writeName, _ := strings.Cut(name, ".")
	var none config.Write
	for _, bus := range cfg.Buses {
		for _, d := range bus.Devices {
			if d.Name != deviceName {
				continue
			}
			var known []string
			for _, w := range d.Model.Writes {
				known = append(known, w.Name)
				switch {
				case w.Name != writeName:
				case !slices.Contains(d.Writes, w.Name):
					return bus, d, none, fmt.Errorf("%s is not enabled: add writes: [%s] to the entry of %s in hub.yaml", name, w.Name, d.Name)
				case !slices.Contains(w.Allowed, value):
					return bus, d, none, fmt.Errorf("%d may not be written to %s; allowed: %s", value, name, strings.Trim(fmt.Sprint(w.Allowed), "[]"))
				default:
					bus.Devices = []config.Device{d}
					return bus, d, w, nil
				}
			}
			if known == nil {
				return bus, d, none, fmt.Errorf("profile %s has nothing to write", d.Profile)
			}
			return bus, d, none, fmt.Errorf("profile %s cannot write %q; it has: %s", d.Profile, writeName, strings.Join(known, ", "))
		}
	}
	return config.Bus{}, config.Device{}, none, errors.New("there is no device " + strconv.Quote(deviceName) + " in hub.yaml")
}
