// Command hubagent is the edge gateway agent of a community sensor hub.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the release build: -ldflags "-X main.version=1.2.3".
var version = "dev"

// Exit codes, the same for every command.
const (
	exitProblem = 1 // something in the world is not as it should be: device, link, evidence, disk
	exitUsage   = 2 // wrong use, or a wrong config
)

// usageError marks an error of whoever called: exit code 2 instead of 1.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// reported marks an error whose text is on the terminal already.
type reported struct{ error }

func (e reported) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := execute(ctx, newRootCommand())
	stop()
	os.Exit(code)
}

// execute runs the command line and turns its error into an exit code.
func execute(ctx context.Context, root *cobra.Command) int {
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !errors.As(err, new(reported)) {
		fmt.Fprintln(root.ErrOrStderr(), "hubagent: "+err.Error())
	}
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	return exitProblem
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "hubagent",
		Short: "Edge gateway agent for community sensor hubs",
		Long: `hubagent polls smart bins, energy meters, cameras and facility contacts, journals every
reading before anyone sees it, and forwards it to the central platform over MQTT.

Try it without any device:   hubagent demo
Start a gateway:             hubagent init && hubagent check && hubagent run`,
		Version: version,
		Args:    knownCommand,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },

		SuggestionsMinimumDistance: 2,

		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w\nsee: %s --help", err, c.CommandPath())}
	})
	root.AddCommand(newInitCommand(), newCheckCommand(), newScanCommand(), newReadCommand(), newWriteCommand(), newRunCommand(),
		newJournalCommand(), newReceiveCommand(), newDemoCommand(), newSimCommand())
	return root
}

// knownCommand says what was meant by a command that there is not.
func knownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	mend := "see: hubagent --help"
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		mend = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{fmt.Errorf("there is no command %q; %s", args[0], mend)}
}

// noArguments is cobra.NoArgs with exit code 2.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument, got %q\nsee: %s --help", c.CommandPath(), args[0], c.CommandPath())}
	}
	return nil
}
