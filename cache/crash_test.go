package cache

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	crashDir   = "ROAM_CACHE_CRASH_DIR"
	crashSeeds = 200 // blocks that a child puts and removes
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crashChild(dir)
		return
	}
	m.Run()
}

// crashSize makes packs and files, and packs that are worth emptying.
func crashSize(seed uint64) int { return []int{500, 2000, 9000, 70_000, 150_000}[seed%5] }

// crashChild puts and forgets blocks until it is killed. It says what has been
// done on its output, one line for each, after it was done.
func crashChild(dir string) {
	c, err := Open(dir, Options{Limit: 16 << 20})
	if err != nil {
		fmt.Fprintln(os.Stdout, "error", err)
		return
	}
	var have []uint64
	for seed := range uint64(crashSeeds) {
		if id, _ := sealed(seed, crashSize(seed)); c.Has(id) {
			have = append(have, seed)
		}
	}
	for {
		seed := rand.Uint64N(crashSeeds)
		id, b := sealed(seed, crashSize(seed))
		fmt.Fprintln(os.Stdout, "begin", seed)
		if len(have) > crashSeeds/2 {
			k := rand.IntN(len(have))
			gone, _ := sealed(have[k], crashSize(have[k]))
			fmt.Fprintln(os.Stdout, "drop", have[k])
			if err := c.Forget(Unreferenced(gone)); err != nil {
				fmt.Fprintln(os.Stdout, "error", err)
				return
			}
			fmt.Fprintln(os.Stdout, "gone", have[k])
			have = append(have[:k], have[k+1:]...)
		}
		if c.Has(id) {
			continue
		}
		if err := c.Put(c.ctx, id, b, Local); err != nil {
			fmt.Fprintln(os.Stdout, "error", err)
			return
		}
		fmt.Fprintln(os.Stdout, "put", seed)
		have = append(have, seed)
		if rand.IntN(40) == 0 {
			if err := c.Sync(); err != nil {
				fmt.Fprintln(os.Stdout, "error", err)
				return
			}
		}
	}
}

// TestKilled kills a process that puts and removes blocks, at random moments,
// and opens the directory again each time: what it said was put is there, what it said is gone
// is gone, no temporary file is left, and the account agrees with du.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blocks")
	there := map[uint64]string{} // what the children said last
	for round := range 8 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		steps := 50 + rand.IntN(600)
		lines := bufio.NewScanner(out)
		for k := 0; lines.Scan(); k++ {
			var seed uint64
			word, rest, _ := strings.Cut(lines.Text(), " ")
			if word == "error" {
				t.Fatalf("child: %s", rest)
			}
			if _, err := fmt.Sscan(rest, &seed); err != nil {
				t.Fatalf("child said %q", lines.Text())
			}
			if word != "begin" || there[seed] != "put" {
				there[seed] = word
			}
			if k == steps {
				time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
		}
		_ = cmd.Wait()

		c, err := Open(dir, Options{Limit: 16 << 20})
		if err != nil {
			t.Fatal(err)
		}
		for seed, said := range there {
			id, want := sealed(seed, crashSize(seed))
			got, err := c.Read(id)
			switch {
			case said == "put" && (err != nil || !bytes.Equal(got, want)):
				t.Errorf("round %d: block %d (%d bytes) was put: %v", round, seed, len(want), err)
			case said == "gone" && err == nil:
				t.Errorf("round %d: block %d was removed and is back", round, seed)
			case err == nil:
				there[seed] = "put"
			default:
				there[seed] = "gone"
			}
		}
		u := c.Usage()
		if real := du(dir); u.Used < real || u.Used > real+64*pageSize {
			t.Errorf("round %d: account %d, du %d", round, u.Used, real)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*", ".*")); len(left) > 0 {
			t.Errorf("round %d: left behind: %v", round, left)
		}
		if round%3 == 2 {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		} // else the test leaves it as a killed process would
	}
}
