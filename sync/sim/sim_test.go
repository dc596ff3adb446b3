package sim

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var (
	sims    = flag.Uint64("sims", 60, "runs of the simulator")
	simSeed = flag.Uint64("sim-seed", 1, "seed of the first run")
	simLog  = flag.Bool("sim-log", false, "print what happens in each run")
)

// play makes one run in a bubble of its own. steps nil are all of them.
func play(t *testing.T, seed uint64, off off, steps []int) (w *world, err error) {
	t.Helper()
	dir := filepath.Join(disks(t), fmt.Sprint(seed))
	synctest.Test(t, func(*testing.T) {
		w = newWorld(seed, dir, off)
		if steps == nil {
			steps = w.all()
		}
		err = w.run(steps)
	})
	return w, err
}

// disks is where the disks of a run are: in memory, if that can be had.
func disks(t *testing.T) string {
	t.Helper()
	const memory = "/dev/shm"
	if st, err := os.Stat(memory); err == nil && st.IsDir() {
		dir, err := os.MkdirTemp(memory, "roamsim") //nolint:usetesting // which would make it on the disk
		if err == nil {
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			return dir
		}
	}
	return t.TempDir()
}

// shrink leaves out steps as long as the run still fails.
func shrink(t *testing.T, seed uint64, off off, steps []int) []int {
	t.Helper()
	for size := len(steps) / 2; size > 0; size /= 2 {
		for at := len(steps) - size; at >= 0; at -= size {
			fewer := slices.Delete(slices.Clone(steps), at, min(at+size, len(steps)))
			if _, err := play(t, seed, off, fewer); err != nil {
				steps = fewer
			}
		}
	}
	return steps
}

// TestSimulation plays random runs, see the package comment. A failure prints its
// seed and the steps that are needed.
func TestSimulation(t *testing.T) {
	n := *sims
	if testing.Short() {
		n = n/4 + 1
	}
	begin, gone := time.Now(), 0
	for seed := *simSeed; seed < *simSeed+n; seed++ {
		w, err := play(t, seed, off{}, nil)
		if *simLog {
			t.Log(w.text())
		}
		if gone += w.gone; err == nil {
			continue
		}
		small := shrink(t, seed, off{}, w.all())
		w, again := play(t, seed, off{}, small)
		t.Fatalf("sim-seed %d: %v\nshrunk to:\n%s\n%v", seed, err, w.text(), again)
	}
	t.Logf("seeds %d to %d, %.0f runs a minute, %d inodes dropped in the end", *simSeed, *simSeed+n-1, float64(n)/time.Since(begin).Minutes(), gone)
}

// TestOneSeedOneRun: the same seed makes the same run, message by message.
func TestOneSeedOneRun(t *testing.T) {
	for seed := *simSeed; seed < *simSeed+*sims/8; seed++ {
		a, err1 := play(t, seed, off{}, nil)
		b, err2 := play(t, seed, off{}, nil)
		if a.sum == b.sum && fmt.Sprint(err1) == fmt.Sprint(err2) {
			continue
		}
		for i, s := range a.log {
			if i >= len(b.log) || b.log[i] != s {
				t.Errorf("sim-seed %d: line %d of %d, %d:\n%s\n%s", seed, i, len(a.log), len(b.log), s, b.log[min(i, len(b.log)-1)])
				break
			}
		}
	}
}

// TestFaultsAreSeen leaves out something that all rests on, and demands that some
// run then fails.
func TestFaultsAreSeen(t *testing.T) {
	for name, off := range map[string]off{"sync": {sync: true}, "new incarnation": {renew: true}} {
		t.Run(name, func(t *testing.T) {
			const enough = 60
			for seed := uint64(1); seed <= enough; seed++ {
				if _, err := play(t, seed, off, nil); err != nil {
					t.Logf("sim-seed %d: %.200v", seed, err)
					return
				}
			}
			t.Errorf("%d runs hold without it", enough)
		})
	}
}
