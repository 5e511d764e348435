package main

import (
	"github.com/spf13/cobra"
)

func newJournalCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "journal",
		Short: "Look after the journal in the state folder",
		Args:  noArguments,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newJournalRotateCommand())
	return c
}
