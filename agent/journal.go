package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"hubagent/agent/contract"
	"hubagent/agent/keys"
	"hubagent/agent/uplink"
	"hubagent/buffer"
	"hubagent/config"
)

func newJournalCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "journal",
		Short: "Look after the journal in the state folder",
		Long: `journal looks at what the agent has written, and mends it.

info, verify, cat and export only read, and may be used while the agent runs. repair, compact,
import and rotate-key want the agent stopped. All of them take --config; info, verify, cat and export also take
--dir for a journal that was set aside.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newJournalInfoCommand(), newJournalVerifyCommand(), newJournalCatCommand(), newJournalExportCommand(),
		newJournalRepairCommand(), newJournalCompactCommand(), newJournalImportCommand(), newJournalRotateCommand())
	return c
}

// journalFlags say which journal is meant.
type journalFlags struct {
	config string
	dir    string
}

func (f *journalFlags) add(c *cobra.Command, aside bool) {
	c.Flags().StringVar(&f.config, "config", "hub.yaml", "config file")
	if aside {
		c.Flags().StringVar(&f.dir, "dir", "", "another journal with the same key, such as one that was set aside (default that of the config)")
	}
}

// open finds out where the journal is and with which key it is read, and makes nothing.
func (f *journalFlags) open(c *cobra.Command) (*config.Config, buffer.Options, error) {
	cfg, err := loadConfig(c, f.config)
	if err != nil {
		return nil, buffer.Options{}, err
	}
	dir := f.dir
	if dir == "" {
		dir = keys.JournalDir(cfg)
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return cfg, buffer.Options{}, fmt.Errorf("there is no journal in %s: the agent makes it at its first start", dir)
	}
	secret, err := keys.Load(cfg)
	return cfg, buffer.Options{Dir: dir, Key: secret.Journal}, err
}

// examine opens, and looks at the journal's files.
func (f *journalFlags) examine(c *cobra.Command) (*config.Config, *buffer.Survey, error) {
	cfg, opts, err := f.open(c)
	if err != nil {
		return nil, nil, err
	}
	v, err := examine(opts)
	return cfg, v, err
}

// examine looks at a journal's files. An agent that has it open may change them meanwhile, so what looks damaged is looked
// at again.
func examine(opts buffer.Options) (v *buffer.Survey, err error) {
	for range 3 {
		v, err = buffer.Examine(opts)
		if err != nil || len(v.Damage) == 0 && v.Missing() == nil {
			break
		}
		time.Sleep(time.Second)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not a journal", opts.Dir)
	}
	return v, err
}

// acknowledged is what the platform has of a journal, as far as it says.
func acknowledged(v *buffer.Survey) contract.SeqSet {
	acked, err := uplink.Acked(v)
	if err != nil {
		return contract.SeqSet{} // not known: nothing
	}
	return acked
}

// leafProgress tells on standard error how far a long work is, every few seconds.
type leafProgress struct {
	c    *cobra.Command
	what string
	of   int64
	said time.Time
}

func (p *leafProgress) tell(n int64) {
	if p.said.IsZero() {
		p.said = time.Now()
	}
	if time.Since(p.said) < 3*time.Second {
		return
	}
	p.said = time.Now()
	fmt.Fprintf(p.c.ErrOrStderr(), "%s: %d of %d leaves\n", p.what, n, p.of)
}
