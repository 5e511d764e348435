package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"hubagent/agent/contract"
	"hubagent/agent/keys"
	"hubagent/agent/record"
	"hubagent/agent/uplink"
	"hubagent/buffer"
	"hubagent/config"
)

// stoppedJournal opens the journal of an agent that is stopped, as the agent does: what is damaged is repaired.
func stoppedJournal(c *cobra.Command, cfg *config.Config) (store *buffer.Store, secret keys.Keys, clock record.Clock, log *slog.Logger, err error) {
	log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
	system, err := record.NewSystemClock(log)
	if err != nil {
		return nil, secret, nil, nil, err
	}
	if secret, err = keys.Load(cfg); err != nil {
		return nil, secret, nil, nil, err
	}
	store, err = record.Open(buffer.Options{Dir: keys.JournalDir(cfg), Key: secret.Journal, Log: log, Lasting: record.Lasting()})
	if err != nil {
		return nil, secret, nil, nil, err
	}
	good, err := record.LastGood(store)
	if err != nil {
		return nil, secret, nil, nil, errors.Join(err, store.Close())
	}
	system.NotBefore(good)
	return store, secret, system.Stamp, log, nil
}

func newJournalRepairCommand() *cobra.Command {
	var f journalFlags
	c := &cobra.Command{
		Use:   "repair",
		Short: "Repair a damaged journal, as the agent does when it starts",
		Long: `repair opens the journal of a stopped agent. If it is damaged, a new one takes its place: one that
goes on with its numbers where everything could be accounted for, or else one of a new epoch, which
names the old one and carries over what is left of it. What is lost is named in a gap leaf. The
damaged journal is set aside in a folder beside it, unchanged. A sound journal stays as it is.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			cfg, _, err := f.open(c)
			if err != nil {
				return err
			}
			store, secret, clock, log, err := stoppedJournal(c, cfg)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			before := store.Size()
			if _, err := store.Get(buffer.StateReplaced); err == nil {
				fmt.Fprintln(c.OutOrStdout(), "journal was damaged, and another one has taken its place")
			}
			damaged, err := damagedLeaves(c, store)
			if err != nil {
				return err
			}
			epoch, err := record.Begin(store, cfg, secret.Public, version, clock())
			if err != nil {
				return err
			}
			record.Carry{Store: store, Epoch: epoch, Clock: clock, Log: log, Acked: func(old *buffer.Survey) (contract.SeqSet, error) {
				return uplink.Acked(old)
			}}.Run(c.Context())
			keeper := record.Quota{Store: store, Epoch: epoch, Clock: clock, Log: log}
			for _, n := range damaged {
				keeper.Mend(n)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "journal is sound: epoch %s, %d leaves, %d of them new\n", epoch.Name, store.Size(), store.Size()-before)
			return err
		},
	}
	f.add(c, false)
	return c
}

// damagedLeaves reads every leaf and returns the numbers of those that are damaged.
func damagedLeaves(c *cobra.Command, store *buffer.Store) (list []int64, err error) {
	p := leafProgress{c: c, what: "repair", of: store.Size()}
	for n := range store.Size() {
		var damage *buffer.DamageError
		_, err := store.Leaf(n)
		switch {
		case errors.As(err, &damage):
			list = append(list, n)
		case err != nil && !errors.Is(err, buffer.ErrDropped):
			return nil, err
		}
		p.tell(n)
	}
	return list, nil
}

func newJournalCompactCommand() *cobra.Command {
	var f journalFlags
	c := &cobra.Command{
		Use:   "compact",
		Short: "Give back the disk space of what was deleted or replaced",
		Long: `compact rewrites the files of a stopped agent's journal that hold much that was deleted or replaced.
The agent does so by itself, but only where it gains much, to spare the card.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, opts, err := f.open(c)
			if err != nil {
				return err
			}
			before, err := buffer.DiskUsage(opts.Dir)
			if err != nil {
				return err
			}
			store, _, _, _, err := stoppedJournal(c, cfg)
			if err != nil {
				return err
			}
			if err := errors.Join(store.Compact(), store.Close()); err != nil {
				return err
			}
			after, err := buffer.DiskUsage(opts.Dir)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "journal takes %.1f MB on disk, it took %.1f MB\n", float64(after)/1e6, float64(before)/1e6)
			return err
		},
	}
	f.add(c, false)
	return c
}

func newJournalExportCommand() *cobra.Command {
	var f journalFlags
	file := ""
	c := &cobra.Command{
		Use:   "export -o FILE",
		Short: "Write what the platform does not have to a file, for another gateway",
		Long: `export writes all leaves that the platform has not acknowledged to a file that "hubagent journal
import" takes on the gateway that replaces this one. Stop the agent first, and do not start it again:
two gateways of one id are an alarm at the platform.

The file is not encrypted. It holds readings, no names and no addresses.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if file == "" {
				return usageError{errors.New("export needs a file: -o FILE")}
			}
			cfg, v, err := f.examine(c)
			if err != nil {
				return err
			}
			if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
				return usageError{fmt.Errorf("%s is there already: name another file", file)}
			}
			out, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
			if err != nil {
				return fmt.Errorf("cannot export: %w", err)
			}
			size, _ := v.Root()
			p := leafProgress{c: c, what: "export", of: size}
			leaves, err := record.Export(out, v, cfg.Gateway.ID, acknowledged(v), p.tell)
			if err = errors.Join(err, out.Sync(), out.Close()); err == nil {
				err = os.Rename(file+".new", file)
			}
			if err != nil {
				return errors.Join(fmt.Errorf("cannot export: %w", err), os.Remove(file+".new"))
			}
			if sayMissing(c, v) > 0 {
				fmt.Fprintln(c.ErrOrStderr(), "the file says so, too")
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %d leaves that the platform does not have\n", file, leaves)
			return err
		},
	}
	f.add(c, true)
	c.Flags().StringVarP(&file, "output", "o", "", "file to write")
	return c
}

func newJournalImportCommand() *cobra.Command {
	var f journalFlags
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Take over what another gateway exported",
		Long: `import takes a file of "hubagent journal export" into the journal of this gateway, whose hub.yaml
has the same gateway.id. Do it before the agent's first start: the new journal's epoch then names the
old one. The leaves travel to the platform, which keeps those that it does not have. Register the
new state/keys/log.pub there. Nothing tells whether the file was altered on its way: carry it yourself.`,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if len(args) != 1 {
				return usageError{errors.New("import needs one file to take: hubagent journal import FILE")}
			}
			cfg, err := loadConfig(c, f.config)
			if err != nil {
				return err
			}
			in, err := os.Open(args[0])
			if err != nil {
				return usageError{fmt.Errorf("cannot import: %w", err)}
			}
			defer in.Close()
			store, secret, clock, log, err := stoppedJournal(c, cfg)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			if err := record.Import(c.Context(), in, store, cfg, secret.Public, version, clock, log); err != nil {
				return fmt.Errorf("cannot import %s: %w", filepath.Base(args[0]), err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "journal has %d leaves; start the agent to send them\n", store.Size())
			return err
		},
	}
	f.add(c, false)
	return c
}
