package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"hubagent/config"
)

func newInitCommand() *cobra.Command {
	dir, force, reference := "", false, false
	c := &cobra.Command{
		Use:   "init",
		Short: "Write a starter hub.yaml",
		Long: `init writes a commented hub.yaml that is good as it is: it has one contact to try things with,
and an example of every kind of bus to uncomment.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			if reference {
				_, err := fmt.Fprintf(out, "%s---\n%s", config.Reference(), config.ReferenceProfile())
				return err
			}
			path := filepath.Join(dir, "hub.yaml")
			id := gatewayID(os.Hostname())
			if err := writeStarter(path, config.Starter(id), force); err != nil {
				return err
			}
			_, err := fmt.Fprintf(out, `wrote %[1]s for gateway %[2]s

Next:
  edit %[1]s: the gateway's id, and the buses and devices of this site
  hubagent check --config %[1]s
  hubagent run --config %[1]s
`, path, id)
			return err
		},
	}
	c.Flags().StringVar(&dir, "dir", ".", "folder to write hub.yaml to; made if there is none")
	c.Flags().BoolVar(&force, "force", false, "replace the hub.yaml that is there")
	c.Flags().BoolVar(&reference, "reference", false, "write nothing, print every key of hub.yaml and of profiles with its meaning")
	return c
}

// gatewayID makes the machine's name an id; a name that says nothing or does not fit gives hub-1.
func gatewayID(host string, err error) string {
	id := strings.ToLower(host)
	if err != nil || id == "localhost" || !config.ValidGatewayID(id) {
		return "hub-1"
	}
	return id
}

// writeStarter writes the file, and replaces one only by force.
func writeStarter(path, text string, force bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot make the folder for hub.yaml: %w", err)
	}
	mode := os.O_EXCL
	if force {
		mode = os.O_TRUNC
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|mode, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usageError{fmt.Errorf("%s exists already: keep it, or replace it with --force", path)}
	}
	if err != nil {
		return fmt.Errorf("cannot write hub.yaml: %w", err)
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()) // whatever the umask: the agent's user must read it
	if err != nil {
		return fmt.Errorf("cannot write hub.yaml: %w", err)
	}
	return nil
}
