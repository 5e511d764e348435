package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hubagent/config"
)

func newCheckCommand() *cobra.Command {
	path, asJSON, profiles, latency := "", false, false, time.Duration(0)
	c := &cobra.Command{
		Use:   "check",
		Short: "Check hub.yaml and show every problem with its place and mend",
		Long: `check reads hub.yaml and the site's own profiles beside it and prints every problem as
file:line:column: key: what is wrong; what to do. It ends with code 2 if there is any, and else
prints what the gateway will do. It touches no device.

For every Modbus bus it reckons beforehand, by the schedule that the agent keeps, which share of
the line's time the polls need, and how old a reading gets until the next one comes, with all
devices alive and with 1 and 5 % of them dead. Devices are taken to answer 20 ms after they were
asked; --latency says another. A line behind a converter is reckoned when the bus's baud is given.
If a bus cannot do what is asked of it, check says what would help and ends with code 1.

It also says what sync_interval means: how much a power cut takes, how much is written to the card
in a day and how long that lasts, of card_endurance or else of 10 TB. These are figures measured on
other data, for the agent's own writes: file system and card add theirs.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			if profiles {
				return listProfiles(c, filepath.Join(filepath.Dir(path), config.ProfileFolder), asJSON)
			}
			if asJSON {
				return checkJSON(out, path, latency)
			}
			cfg, err := loadConfig(c, path)
			if err != nil {
				return err
			}
			if err := summarize(out, path, cfg); err != nil {
				return err
			}
			list := budgets(cfg, latency)
			if err := printBudgets(out, list); err != nil {
				return err
			}
			return tooMuch(list)
		},
	}
	c.Flags().StringVar(&path, "config", "hub.yaml", "config file")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object on standard output")
	c.Flags().DurationVar(&latency, "latency", 0, "how long a device takes to answer, beside the bytes (default 20ms)")
	c.Flags().BoolVar(&profiles, "profiles", false, "list the device profiles, the site's own ones included")
	return c
}

// loadConfig loads the config at path. Problems in it go to standard error, and the error is then marked as reported.
func loadConfig(c *cobra.Command, path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	return cfg, reportProblems(c, err)
}

// reportProblems prints the problems that err is made of. Whatever err says, the config is at fault: exit code 2.
func reportProblems(c *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	var problems config.Problems
	if errors.As(err, &problems) {
		fmt.Fprintf(c.ErrOrStderr(), "%v\nhubagent: %s to mend\n", problems, count(len(problems), "problem"))
		return reported{usageError{err}}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; write one with: hubagent init", err)
	}
	return usageError{err}
}

// count is a number with its noun.
func count(n int, noun string) string {
	switch {
	case n == 1:
	case noun == "bus":
		noun = "buses"
	default:
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// busPoints is the number of devices of a bus and of their points.
func busPoints(b config.Bus) (devices, points int) {
	for _, d := range b.Devices {
		points += len(d.Model.Points)
	}
	return len(b.Devices), points
}

// summarize prints what the agent would do with a config.
func summarize(out io.Writer, path string, cfg *config.Config) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s is good\n", path)
	fmt.Fprintf(w, "gateway\t%s, time zone %s\n", cfg.Gateway.ID, cfg.Gateway.Zone)
	fmt.Fprintf(w, "state\t%s\n", cfg.State)
	journal, card := flashOf(cfg).words()
	fmt.Fprintf(w, "journal\t%s\n", journal)
	if card != "" {
		fmt.Fprintf(w, "card\t%s\n", card)
	}
	page := "off"
	if cfg.Status.Listen != "" {
		page = cfg.Status.Listen
	}
	fmt.Fprintf(w, "page\t%s\n", page)
	if len(cfg.Uplink.Brokers) == 0 {
		fmt.Fprintf(w, "uplink\tnone: readings stay in the journal and on the page\n")
	}
	for _, broker := range cfg.Uplink.Brokers {
		fmt.Fprintf(w, "uplink\t%s\n", broker)
	}
	devices, points := 0, 0
	for _, b := range cfg.Buses {
		d, p := busPoints(b)
		devices, points = devices+d, points+p
		fmt.Fprintf(w, "bus\t%s, %s %s%s%s%s: %s, %s\n", b.Name, b.Kind, b.Address, b.Port, b.Chip, b.Dir, count(d, "device"), count(p, "point"))
	}
	fmt.Fprintf(w, "in all\t%s, %s, %s\n", count(len(cfg.Buses), "bus"), count(devices, "device"), count(points, "point"))
	return w.Flush()
}

// checkResult is what check --json prints.
type checkResult struct {
	File     string          `json:"file"`
	Good     bool            `json:"good"`
	Problems config.Problems `json:"problems"`
	Gateway  string          `json:"gateway,omitempty"`
	Hash     string          `json:"hash,omitempty"`
	Buses    int             `json:"buses"`
	Devices  int             `json:"devices"`
	Points   int             `json:"points"`
	Budgets  []busBudget     `json:"budgets"`
	Flash    *flashCost      `json:"flash,omitempty"`
}

// tooMuch is the error of a config that asks more of a bus than it can do. What there is to say was printed.
func tooMuch(list []busBudget) error {
	for _, b := range list {
		if !b.Fits {
			return reported{fmt.Errorf("bus %s cannot do what is asked of it", b.Bus)}
		}
	}
	return nil
}

func checkJSON(out io.Writer, path string, latency time.Duration) error {
	r := checkResult{File: path, Problems: config.Problems{}}
	cfg, err := config.Load(path)
	if err != nil && !errors.As(err, &r.Problems) {
		return usageError{err}
	}
	if cfg != nil {
		r.Good, r.Gateway, r.Hash, r.Buses = true, cfg.Gateway.ID, cfg.Hash, len(cfg.Buses)
		for _, b := range cfg.Buses {
			d, p := busPoints(b)
			r.Devices, r.Points = r.Devices+d, r.Points+p
		}
		r.Budgets = budgets(cfg, latency)
		flash := flashOf(cfg)
		r.Flash = &flash
	}
	if e := json.NewEncoder(out).Encode(r); e != nil {
		return e
	}
	if err != nil {
		return reported{usageError{err}}
	}
	return tooMuch(r.Budgets)
}

// profileRow is one profile of check --profiles --json.
type profileRow struct {
	ID     string            `json:"id"`
	Kind   config.DeviceKind `json:"kind"`
	Points int               `json:"points"`
	Model  string            `json:"model"`
	Manual string            `json:"manual"`
}

func listProfiles(c *cobra.Command, folder string, asJSON bool) error {
	profiles, err := config.Profiles(folder)
	if err != nil {
		return reportProblems(c, err)
	}
	rows := make([]profileRow, len(profiles))
	for i, p := range profiles {
		rows[i] = profileRow{p.ID, p.Kind, len(p.Points), p.Model, p.Manual}
	}
	if asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(rows)
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROFILE\tKIND\tPOINTS\tMODEL")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", r.ID, r.Kind, r.Points, r.Model)
	}
	return w.Flush()
}
