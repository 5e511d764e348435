package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"hubagent/agent/card"
	"hubagent/agent/contract"
	"hubagent/agent/keys"
	"hubagent/agent/poll"
	"hubagent/agent/record"
	"hubagent/agent/uplink"
	"hubagent/buffer"
	"hubagent/config"
	"hubagent/drivers"
)

func newRunCommand() *cobra.Command {
	path, format := "", ""
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the agent: poll, journal, forward, show the status page",
		Long: `run polls the devices in the config, journals every reading, forwards the journal to the
platform and serves the status page, until it gets SIGTERM or SIGINT. It then stops polling,
commits what it has and ends within 5 seconds.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadConfig(c, path)
			if err != nil {
				return err
			}
			log, err := newLogger(c.ErrOrStderr(), format)
			if err != nil {
				return err
			}
			if os.Getenv("GOMAXPROCS") == "" {
				runtime.GOMAXPROCS(1) // it works a hundredth of the time: waking a second processor for it costs as much again
			}
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(50) // saves 2 MB, and 4 with a large backlog, for hardly any processor time
			}
			return run(c.Context(), cfg, log)
		},
	}
	c.Flags().StringVar(&path, "config", "hub.yaml", "config file")
	c.Flags().StringVar(&format, "log-format", "text", "form of the log on standard error: text or json")
	return c
}

// run is the way of a reading:
//
//	drivers -> poll -> record (journal) -> uplink -> platform
//	             |        |                   |
//	             +--------+--- status page ---+
//
// It ends in that order, too: polls stop first, the recorder commits what they gave, the uplink sends the last leaf.
func run(ctx context.Context, cfg *config.Config, log *slog.Logger) (err error) {
	clock, err := record.NewSystemClock(log)
	if err != nil {
		return err
	}
	place, err := buffer.CheckPlace(keys.JournalDir(cfg))
	if err != nil {
		return err
	}
	if place.Volatile {
		log.Warn("the state folder is in memory: all readings are lost with the power; put it on a disk", "state", cfg.State, "file system", place.FileSystem)
	}
	if place.EagerTimes {
		log.Info("the state folder's file system writes nearly twice as much as it has to: mount it with the option lazytime", "state", cfg.State)
	}
	secret, err := keys.Load(cfg)
	if err != nil {
		return err
	}
	store, err := record.Open(buffer.Options{Dir: keys.JournalDir(cfg), Key: secret.Journal, Log: log, Lasting: record.Lasting()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	good, err := record.LastGood(store)
	if err != nil {
		return err
	}
	clock.NotBefore(good)
	epoch, err := record.Begin(store, cfg, secret.Public, version, clock.Stamp())
	if err != nil {
		return err
	}
	quota, err := record.QuotaOf(store, cfg)
	if err != nil {
		return err
	}
	recorder, err := record.New(store, epoch, cfg, clock.Stamp, log)
	if err != nil {
		return err
	}
	log.Info("journal open", "epoch", epoch.Name, "leaves", store.Size(), "readings", recorder.Stats().Readings)

	a := &agent{cfg: cfg, log: log, started: time.Now(), clock: clock, store: store, epoch: epoch, recorder: recorder, quota: quota, place: place}
	recorder.CountWrites(func() (int64, error) { return card.Written(card.System().Proc) })
	if a.card, err = card.Find(cfg.State, card.System()); err != nil {
		log.Warn("nothing is known of the wear of the disk", "err", err)
	}
	pollers, err := a.pollers()
	if err != nil {
		return err
	}
	keeper := record.Quota{Bytes: quota, Store: store, Epoch: epoch, Clock: clock.Stamp, Log: log}
	if len(cfg.Uplink.Brokers) > 0 {
		a.uplink, err = uplink.New(uplink.Options{
			Config: cfg.Uplink, Gateway: epoch.Gateway, Epoch: epoch.Name, Meta: epoch.Meta,
			Store: store, Signer: secret.Log, Clock: clock.Stamp, Hear: clock.Hear, Log: log,
			Mend: func(n int64) bool { return keeper.Mend(n) },
		})
		if err != nil {
			return err
		}
		keeper.Acked, keeper.Lost = a.uplink.Acked, a.uplink.Gone
	}
	debug.FreeOSMemory() // to open a large journal took more than the agent needs from here on

	carry := record.Carry{Store: store, Epoch: epoch, Clock: clock.Stamp, Log: log, Acked: func(old *buffer.Survey) (contract.SeqSet, error) {
		return uplink.Acked(old)
	}}

	// Each stage ends by itself when the one before it has; behind gives the later ones their time after ctx.
	polling, stopPolling := context.WithCancel(ctx)
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	recording, stopRecording := context.WithCancel(behind)
	defer stopBehind()
	final := make(chan struct{})

	var polls, others sync.WaitGroup
	for _, p := range pollers {
		polls.Go(func() { p.Run(polling) })
	}
	recorded := make(chan error, 1)
	go func() { recorded <- recorder.Run(recording) }()
	sent := make(chan error, 1)
	go func() {
		if a.uplink == nil {
			sent <- nil
			return
		}
		sent <- a.uplink.Run(behind, final)
	}()
	others.Go(func() { a.serveStatus(behind) })
	others.Go(func() {
		if err := store.Maintain(behind); err != nil {
			log.Error("journal gives no disk space back until the agent is started again", "err", err)
		}
	})
	others.Go(func() { keeper.Run(behind) })
	others.Go(func() { carry.Run(behind) })
	others.Go(func() { a.notify(behind) })

	select {
	case <-ctx.Done():
		log.Info("stopping")
		a.tellSystemd(daemon.SdNotifyStopping)
	case err = <-recorded: // the journal failed
		recorded <- nil
	}
	stopPolling()
	polls.Wait()
	stopRecording()
	err = errors.Join(err, <-recorded)
	close(final)
	err = errors.Join(err, <-sent)
	stopBehind()
	others.Wait()
	if err == nil {
		log.Info("stopped", "leaves", store.Size(), "readings", recorder.Stats().Readings)
	}
	return err
}

// agent is what the status page looks at.
type agent struct {
	cfg      *config.Config
	log      *slog.Logger
	started  time.Time
	clock    *record.SystemClock
	store    *buffer.Store
	epoch    record.Epoch
	recorder *record.Recorder
	quota    int64 // bytes
	place    buffer.Place
	card     card.Card
	uplink   *uplink.Uplink // nil without brokers
	polls    []*poll.Bus

	mu   sync.Mutex
	last map[string]map[string]lastReading // by device and point
}

// pollers opens every bus. A device that is absent is no error here.
func (a *agent) pollers() ([]*poll.Bus, error) {
	a.last = map[string]map[string]lastReading{}
	open, pulses := openers(), a.recorder.Pulses()
	for _, bus := range a.cfg.Buses {
		driver, err := open[bus.Kind](bus, drivers.With{Log: a.log, Count: func(device, point string) (uint64, bool) {
			count, known := pulses[device][point]
			return count, known
		}})
		if err != nil {
			return nil, fmt.Errorf("bus %s: %w", bus.Name, err)
		}
		a.polls = append(a.polls, poll.New(bus, driver, a.take, a.log))
	}
	return a.polls, nil
}

// take is where a sample comes in from its bus.
func (a *agent) take(ctx context.Context, s drivers.Sample) {
	if a.recorder.Record(ctx, s) != nil {
		return // stopping: a poll that nobody will see as recorded
	}
	a.remember(s)
}
