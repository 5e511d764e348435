package main

import (
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"

	"hubagent/agent/demo"
)

func newDemoCommand() *cobra.Command {
	o, asJSON := demo.Options{}, false
	c := &cobra.Command{
		Use:   "demo",
		Short: "Run the whole system on this machine with simulated devices",
		Long: `demo runs a simulated community (8 bins, 4 meters, 2 cameras, a lift contact) behind a real
Modbus TCP server and a real RTU line on a pseudo-terminal, a broker, the reference receiver,
and the agent itself as a process of its own with its own config file. It tells what happens
and judges at the end: exit code 0 only if the receiver holds every journaled reading exactly
once and has recomputed the journal's Merkle root. Without --for it runs until Ctrl-C.`,
		Example: `  hubagent demo
  hubagent demo --for 40s --outage 10s --kill`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Out = c.OutOrStdout()
			if asJSON {
				o.Out = c.ErrOrStderr()
			}
			if err := o.Check(); err != nil {
				return usageError{err}
			}
			sum, err := demo.Run(c.Context(), o)
			if err != nil {
				return err
			}
			sum.Print(o.Out)
			if asJSON {
				if err := json.NewEncoder(c.OutOrStdout()).Encode(sum); err != nil {
					return err
				}
			}
			if !sum.OK {
				return reported{errors.New("not every journaled reading arrived exactly once")}
			}
			return nil
		},
	}
	f := c.Flags()
	f.DurationVar(&o.For, "for", 0, "end by itself after this time (0: at Ctrl-C)")
	f.DurationVar(&o.Outage, "outage", 0, "take the broker away for this long")
	f.DurationVar(&o.OutageAt, "outage-at", 0, "when the outage begins (default: so that it lies in the middle)")
	f.BoolVar(&o.Kill, "kill", false, "kill the agent with SIGKILL in the outage and start it again")
	f.DurationVar(&o.KillAt, "kill-at", 0, "when it is killed (default: in the middle of the outage)")
	f.StringVar(&o.Listen, "listen", "127.0.0.1:8080", "address of the status page; the next free port if it is taken")
	f.StringVar(&o.State, "state", "", "folder for everything, hub.yaml included (default: a fresh temporary one)")
	f.StringVar(&o.Runner, "runner", "", "program that runs the agent's binary, e.g. qemu-aarch64-static")
	f.BoolVar(&asJSON, "json", false, "print the summary as JSON on standard output and everything else on standard error")
	return c
}
