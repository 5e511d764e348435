package buffer

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// killRuns is how often the journal is killed in a plain test run; HUB_KILL_RUNS asks for more.
const killRuns = 20

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HUB_JOURNAL_WRITER"); dir != "" {
		writeUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// writeUntilKilled appends leaves and prints the number of each one when its Commit has returned.
func writeUntilKilled(dir string) {
	s, err := Open(Options{Dir: dir})
	if err != nil {
		fmt.Println("cannot open:", err)
		os.Exit(1)
	}
	for {
		var n int64
		err := s.Commit(func(tx *Tx) (err error) {
			n = tx.Next()
			if n%17 == 0 {
				tx.large = directBytes // to Badger, and with it what waits in the redo log
			}
			switch n % 3 { // flushes of blocks among the leaves, as a recorder makes them
			case 1:
				err = tx.Hold(testLeaf(n))
			case 2:
				tx.Release()
			}
			if err != nil {
				return err
			}
			tx.Set("last", []byte(strconv.FormatInt(n, 10)))
			_, err = tx.Append('d', testLeaf(n))
			return err
		})
		if err != nil {
			fmt.Println("cannot commit:", err)
			os.Exit(1)
		}
		fmt.Println(n)
		if n%1000 == 999 { // a range of the oldest leaves goes, and tables and value logs are rewritten
			fmt.Println("drop", n-500)
			if err := s.Drop(Range{0, n - 500}, false, nil); err != nil {
				fmt.Println("cannot drop:", err)
				os.Exit(1)
			}
		}
	}
}

// Every leaf whose Commit returned must be there after SIGKILL at a random moment - unless it was being dropped -, at most
// one more, and nothing torn: state and leaves agree.
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
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	total, dropped := int64(0), int64(0)
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
		kill := time.AfterFunc(200*time.Millisecond+time.Duration(r.IntN(700))*time.Millisecond, func() { cmd.Process.Kill() })
		acked := total - 1
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, err := fmt.Sscanf(lines.Text(), "drop %d", &dropped); err == nil {
				continue
			}
			n, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil {
				t.Fatalf("run %d: writer says %q", run, lines.Text())
			}
			if n != acked+1 {
				t.Fatalf("run %d: number %d after %d", run, n, acked)
			}
			acked = n
		}
		cmd.Wait()
		kill.Stop()

		s := open(t, dir)
		if size := s.Size(); size != acked+1 && size != acked+2 {
			t.Fatalf("run %d: acknowledged up to %d, found %d leaves", run, acked, size)
		}
		total = s.Size()
		checkLeavesFrom(t, s, dropped, total)
		if total > 0 {
			if last, err := s.Get("last"); err != nil || string(last) != strconv.FormatInt(total-1, 10) {
				t.Fatalf("run %d: state says %q (%v), and there are %d leaves", run, last, err, total)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d leaves, of which %d were dropped", runs, total, dropped)
}
