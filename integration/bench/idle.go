package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/roamfs/roamfs/integration/cli"
)

const (
	idleAfterWriting = "idle memory with 20,000 files, after writing them"
	idleAfterRestart = "idle memory with 20,000 files, after a restart"
)

// idle is the resident memory of a with 20,000 files, half a minute after what
// follows from writing them is done, and after a restart.
func (b *bench) idle(ctx context.Context, _ int) ([]line, error) {
	for i := range 20_000 {
		dir := filepath.Join(b.a.Mount, "idle", strconv.Itoa(i/200))
		if i%200 == 0 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return nil, err
			}
		}
		text := fmt.Appendf(nil, "file %d of many, with some text in it that is longer than what fits a record", i)
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), text, 0o644); err != nil {
			return nil, err
		}
	}
	if err := b.oneTree(ctx); err != nil {
		return nil, err
	}
	written, err := b.atRest(ctx, idleAfterWriting)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(b.a.Stop(ctx), b.a.Start(ctx)); err != nil {
		return nil, err
	}
	restarted, err := b.atRest(ctx, idleAfterRestart)
	return []line{written, restarted}, err
}

// atRest measures a at rest.
func (b *bench) atRest(ctx context.Context, name string) (line, error) {
	rss, err := b.atRestOf(ctx, b.a)
	return line{Name: name, Unit: "MiB", Roam: spreadOf([]float64{rss}), Target: "< 150 MiB"}, err
}

// atRestOf returns the resident memory of d in MiB after half a minute without
// work. Other measurements may have left some, such as garbage to be dropped.
func (b *bench) atRestOf(ctx context.Context, d *cli.Device) (float64, error) {
	if err := calm(ctx, d); err != nil {
		return 0, err
	}
	time.Sleep(30 * time.Second)
	s, err := d.Status(ctx)
	if err != nil {
		return 0, err
	}
	return resident(s.PID)
}

// resident returns the resident memory of a process in MiB.
func resident(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 64)
			return kb / 1024, err
		}
	}
	return 0, errors.New("no VmRSS")
}
