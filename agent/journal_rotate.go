package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"hubagent/agent/keys"
	"hubagent/agent/record"
	"hubagent/buffer"
)

func newJournalRotateCommand() *cobra.Command {
	path, next := "", ""
	c := &cobra.Command{
		Use:   "rotate-key",
		Short: "Give the journal of a stopped agent a new key",
		Long: `rotate-key changes the key of the journal: to a random one, or with --new to the one in a file, 32
bytes or 64 hexadecimal digits. Stop the agent first. A power cut at any moment leaves a journal
that opens; the agent finds out with which of the two keys.

Where hub.yaml takes the key from a credential or a command, rotate-key cannot put the new one
there: give it with --new, and then put the same one where the old one was.

What was written before stays encrypted with the data keys of that time, which are now kept under
the new key. Whoever has the old key and an older copy of the journal can still read that copy.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadConfig(c, path)
			if err != nil {
				return err
			}
			var replacement []byte
			if next != "" {
				if replacement, err = readKeyFile(next); err != nil {
					return err
				}
			}
			err = keys.Rotate(cfg, replacement, buffer.Options{Lasting: record.Lasting()})
			if errors.Is(err, keys.ErrNeedsKey) {
				return usageError{fmt.Errorf("%w: make a key, give it with --new FILE, and put it there afterwards", err)}
			}
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			if k := cfg.Journal.Key; k.Credential != "" || len(k.Command) > 0 {
				_, err = fmt.Fprintf(out, "journal %s has its new key; put the key in %s where the agent gets it from, or it will not start\n", keys.JournalDir(cfg), next)
			} else {
				_, err = fmt.Fprintf(out, "journal %s has its new key\n", keys.JournalDir(cfg))
			}
			return err
		},
	}
	c.Flags().StringVar(&path, "config", "hub.yaml", "config file")
	c.Flags().StringVar(&next, "new", "", "file that holds the new key")
	return c
}

// readKeyFile reads a file that should hold a key, and no more of it than shows that it does not.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usageError{fmt.Errorf("cannot read new key: %w", err)}
	}
	defer f.Close()
	key, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return nil, fmt.Errorf("cannot read new key: %w", err)
	}
	return key, nil
}
