package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"hubagent/agent/contract"
	"hubagent/agent/receiver"
)

func newReceiveCommand() *cobra.Command {
	o := receiver.Options{Credit: 8}
	keyDir := ""
	c := &cobra.Command{
		Use:   "receive",
		Short: "Reference platform: store, verify and acknowledge what gateways send",
		Long: `receive subscribes to every gateway on a broker, stores their leaves under --dir, drops what
comes twice, recomputes the roots of signed checkpoints and acknowledges end to end. Each
stored leaf is printed on standard output as it came, one JSON object a line.

Register a gateway by putting its state/keys/log.pub into --keys as GATEWAY.pub.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if !strings.HasPrefix(o.Broker, "mqtt://") && !strings.HasPrefix(o.Broker, "mqtts://") {
				return usageError{fmt.Errorf("--broker %s is not an address like mqtt://127.0.0.1:1883", o.Broker)}
			}
			o.Log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
			o.Key = keysIn(keyDir)
			o.Handle = func(_ contract.Leaf, raw []byte) {
				if _, err := c.OutOrStdout().Write(append(raw, '\n')); err != nil {
					o.Log.Error("cannot print a leaf; it is stored", "err", err)
				}
			}
			return receive(c.Context(), o)
		},
	}
	c.Flags().StringVar(&o.Broker, "broker", "mqtt://127.0.0.1:1883", "broker to listen on")
	c.Flags().StringVar(&o.ClientID, "client-id", "hub-receiver", "MQTT client id")
	c.Flags().StringVar(&o.Dir, "dir", "received", "folder for the leaves")
	c.Flags().StringVar(&keyDir, "keys", "keys", "folder of registered log keys, GATEWAY.pub")
	return c
}

func receive(ctx context.Context, o receiver.Options) error {
	r, err := receiver.New(o)
	if err != nil {
		return err
	}
	return errors.Join(r.Run(ctx), r.Close())
}

// keysIn looks a gateway's public log key up in a folder each time, so that a gateway can be registered while the
// receiver runs.
func keysIn(dir string) func(string) (note.Verifier, error) {
	return func(gateway string) (note.Verifier, error) {
		path := filepath.Join(dir, gateway+".pub")
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no %s: copy the gateway's state/keys/log.pub there", path)
		}
		if err != nil {
			return nil, err
		}
		v, err := note.NewVerifier(strings.TrimSpace(string(raw)))
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", path, err)
		}
		return v, nil
	}
}
