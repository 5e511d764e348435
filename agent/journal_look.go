package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"hubagent/agent/contract"
	"hubagent/buffer"
)

// journalInfo is what info says.
type journalInfo struct {
	Folder       string           `json:"folder"`
	DiskBytes    int64            `json:"disk_bytes"`
	Gateway      string           `json:"gateway"`
	Epoch        string           `json:"epoch"`
	Leaves       int64            `json:"leaves"`
	Root         string           `json:"root"`
	Stored       map[string]int64 `json:"stored"`  // leaves that are there, by kind
	Missing      [][2]int64       `json:"missing"` // first and last of each run
	Blocks       int              `json:"blocks"`  // readings that are not part of a leaf yet
	Acknowledged int64            `json:"acknowledged"`
	Waiting      int64            `json:"waiting"` // stored, and not acknowledged
	Aside        []string         `json:"aside"`   // journals that were set aside
	Damage       []string         `json:"damage"`
}

func newJournalInfoCommand() *cobra.Command {
	var f journalFlags
	asJSON := false
	c := &cobra.Command{
		Use:   "info",
		Short: "Say what the journal holds",
		Long: `info reads the journal's files and says which epoch they hold, how many leaves of which kind, what
the platform has of them, and what was found damaged. It ends with code 1 if anything was.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, v, err := f.examine(c)
			if err != nil {
				return err
			}
			info, err := describeJournal(v)
			if err != nil {
				return err
			}
			info.Gateway = cfg.Gateway.ID
			if asJSON {
				err = json.NewEncoder(c.OutOrStdout()).Encode(info)
			} else {
				err = info.print(c.OutOrStdout())
			}
			if err == nil && len(info.Damage)+len(info.Missing) > 0 {
				err = reported{errors.New("journal is damaged")}
			}
			return err
		},
	}
	f.add(c, true)
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object on standard output")
	return c
}

func describeJournal(v *buffer.Survey) (info journalInfo, err error) {
	dir := v.Dir()
	size, root := v.Root()
	info = journalInfo{
		Folder: dir, Leaves: size, Stored: map[string]int64{}, Missing: [][2]int64{}, Blocks: len(v.Blocks()), Damage: slices.Concat([]string{}, v.Damage),
	}
	for _, r := range v.Missing() {
		info.Missing = append(info.Missing, [2]int64{r.First, r.End - 1})
	}
	if size > 0 {
		info.Root = root.String()
	}
	if info.DiskBytes, err = buffer.DiskUsage(dir); err != nil {
		return info, err
	}
	name, err := v.Get("epoch")
	if err != nil && !errors.Is(err, buffer.ErrNotFound) {
		return info, err
	}
	info.Epoch = string(name)
	acked := acknowledged(v)
	info.Acknowledged = acked.Count()
	for _, n := range v.Leaves() {
		kind := "unreadable"
		if leaf, err := v.Leaf(n); err == nil {
			if l, err := contract.ParseLeaf(leaf.Data); err == nil {
				kind = string(l.Kind)
			}
		}
		info.Stored[kind]++
		if !acked.Contains(n) {
			info.Waiting++
		}
	}
	info.Aside, err = filepath.Glob(strings.TrimSuffix(dir, "/") + ".aside-*")
	return info, err
}

func (i journalInfo) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "folder\t%s, %.1f MB on disk\n", i.Folder, float64(i.DiskBytes)/1e6)
	fmt.Fprintf(w, "gateway, epoch\t%s, %s\n", i.Gateway, i.Epoch)
	total := int64(0)
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(i.Stored)) {
		total += i.Stored[kind]
		kinds = append(kinds, fmt.Sprintf("%d %s", i.Stored[kind], kind))
	}
	fmt.Fprintf(w, "leaves\t%d written, %d here: %s\n", i.Leaves, total, strings.Join(kinds, ", "))
	fmt.Fprintf(w, "root\t%s\n", i.Root)
	fmt.Fprintf(w, "blocks\t%d that are not part of a leaf yet\n", i.Blocks)
	fmt.Fprintf(w, "platform\thas %d, %d wait\n", i.Acknowledged, i.Waiting)
	for _, r := range i.Missing {
		fmt.Fprintf(w, "missing\tleaves %d to %d\n", r[0], r[1])
	}
	for _, dir := range i.Aside {
		fmt.Fprintf(w, "set aside\t%s: a journal that was damaged, or replaced; look at it with --dir\n", dir)
	}
	for _, text := range i.Damage {
		fmt.Fprintf(w, "damaged\t%s\n", text)
	}
	if len(i.Damage)+len(i.Missing) > 0 {
		fmt.Fprintf(w, "mend\tstop the agent and run: hubagent journal repair; or start it: it repairs by itself\n")
	}
	return w.Flush()
}

func newJournalVerifyCommand() *cobra.Command {
	var f journalFlags
	c := &cobra.Command{
		Use:   "verify",
		Short: "Read every leaf and recompute the root",
		Long: `verify reads every leaf of the journal from its files, holds it against its checksum and its hash,
and recomputes the root of the tree. It ends with code 1 if anything does not fit.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			_, v, err := f.examine(c)
			if err != nil {
				return err
			}
			return verifyJournal(c, v)
		},
	}
	f.add(c, true)
	return c
}

func verifyJournal(c *cobra.Command, v *buffer.Survey) error {
	out, wrong := c.OutOrStdout(), 0
	say := func(format string, a ...any) {
		wrong++
		fmt.Fprintf(out, format+"\n", a...)
	}
	for _, text := range v.Damage {
		say("%s", text)
	}
	for _, r := range v.Missing() {
		say("leaves %d to %d are missing", r.First, r.End-1)
	}
	size, root := v.Root()
	list := v.Leaves()
	p := leafProgress{c: c, what: "verify", of: int64(len(list))}
	for i, n := range list {
		if _, err := v.Leaf(n); err != nil {
			say("%v", err)
		}
		p.tell(int64(i))
	}
	if err := v.Whole(); err != nil {
		say("the log cannot go on: %v", err)
	}
	if wrong > 0 {
		return reported{errors.New("journal is damaged")}
	}
	_, err := fmt.Fprintf(out, "%d leaves are here and good; the root of all %d is %v, recomputed\n", len(list), size, root)
	return err
}

// sayMissing names on standard error what should be in a journal and is not, and returns how many runs of leaves that are.
func sayMissing(c *cobra.Command, v *buffer.Survey) int {
	for _, r := range v.Missing() {
		fmt.Fprintf(c.ErrOrStderr(), "leaves %d to %d are missing: hubagent journal info says more\n", r.First, r.End-1)
	}
	return len(v.Missing())
}

func newJournalCatCommand() *cobra.Command {
	var f journalFlags
	from, to, kinds := int64(0), int64(-1), []string{}
	c := &cobra.Command{
		Use:   "cat",
		Short: "Print leaves, one a line, as they travel",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			_, v, err := f.examine(c)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(c.OutOrStdout())
			broken := 0
			for _, n := range v.Leaves() {
				if n < from || to >= 0 && n > to {
					continue
				}
				leaf, err := v.Leaf(n)
				if err != nil {
					fmt.Fprintln(c.ErrOrStderr(), err)
					broken++
					continue
				}
				if l, err := contract.ParseLeaf(leaf.Data); len(kinds) > 0 && (err != nil || !slices.Contains(kinds, string(l.Kind))) {
					continue
				}
				out.Write(leaf.Data)
				if err := out.WriteByte('\n'); err != nil {
					return fmt.Errorf("cannot print leaves: %w", err)
				}
			}
			if err := out.Flush(); err != nil {
				return fmt.Errorf("cannot print leaves: %w", err)
			}
			if missing := sayMissing(c, v); broken+missing > 0 {
				return reported{errors.New("not all leaves can be read")}
			}
			return nil
		},
	}
	f.add(c, true)
	c.Flags().Int64Var(&from, "from", 0, "number of the first leaf")
	c.Flags().Int64Var(&to, "to", -1, "number of the last leaf (default the last one)")
	c.Flags().StringSliceVar(&kinds, "kind", nil, "only leaves of these kinds, such as event,fault,gap")
	return c
}
