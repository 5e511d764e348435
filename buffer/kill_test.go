package buffer

import (
	"bufio"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// killRuns is how often the journal is killed in a plain test run; HUB_KILL_RUNS asks for more.
const killRuns = 20

// SIGKILL at a random moment of any of the things that a journal does: all that was acknowledged is there, at most one
// Commit more, and nothing torn.
func TestKill(t *testing.T) {
	runs := killRuns
	if text := os.Getenv("HUB_KILL_RUNS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		runs = n
	}
	dir := t.TempDir()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	l := &ledger{}
	cut := map[string]int{} // runs by what was cut off
	// Half of the runs are aimed at one thing, killed so many milliseconds after its beginning at most.
	inside := []struct {
		doing string
		most  int
	}{{"open", 60}, {"drop", 60}, {"gc", 20}, {"close", 20}}
	for run := range runs {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "HUB_JOURNAL_WRITER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		target, aimed := inside[run/2%len(inside)], run%2 == 0
		last := time.AfterFunc(100*time.Millisecond+time.Duration(r.IntN(900))*time.Millisecond, func() { cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if err := l.take(lines.Text()); err != nil {
				t.Fatalf("run %d: %v", run, err)
			}
			if aimed && l.doing == target.doing && r.IntN(2) == 0 {
				aimed = false
				last.Reset(time.Duration(r.IntN(1+target.most*1000)) * time.Microsecond)
			}
		}
		cmd.Wait()
		last.Stop()
		if l.doing == "" {
			l.doing = "commit"
		}
		cut[l.doing]++
		l.doing = ""

		// The check opens a copy: the next writer is to find what the kill left.
		if err := checkCopy(t, dir, l, run == runs-1); err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
	}
	t.Logf("%d kills, %d leaves, of which the oldest %d were dropped; cut off: %v", runs, len(l.hashes), l.gone[0], cut)
	for _, target := range inside {
		if runs >= 200 && cut[target.doing] == 0 {
			t.Errorf("no %s was cut off", target.doing)
		}
	}
}

func checkCopy(t *testing.T, dir string, l *ledger, hashes bool) error {
	copied := filepath.Join(t.TempDir(), "journal")
	defer os.RemoveAll(copied)
	copyJournal(t, dir, copied)
	s, err := Open(writerOptions(copied))
	if err != nil {
		return err
	}
	defer s.Close()
	if err := l.check(s); err != nil || !hashes {
		return err
	}
	return l.checkHashes(s)
}

// Badger refuses its own logs when the process ended between making the file and giving it its size.
func TestOpenAfterKillBetweenMakingALogAndItsSize(t *testing.T) {
	for _, name := range []string{"00009.mem", "000009.vlog"} {
		s := open(t, t.TempDir())
		largeLeaf(t, s, testLeaf(0))
		appendLeaf(t, s, testLeaf(1))
		dir := crashed(t, s)
		if err := os.WriteFile(filepath.Join(dir, "badger", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		checkLeaves(t, open(t, dir), 2)
	}
}
