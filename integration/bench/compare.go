package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/roamfs/roamfs/integration/cli"
)

// place is where a work is done.
type place struct {
	dir string
	pid int // the daemon behind it; 0 for the disk
}

// places returns the mount of a, the disk and the file system in memory.
func (b *bench) places(ctx context.Context) (roam, disk, memory place, err error) {
	s, err := b.a.Status(ctx)
	return place{b.a.Mount, s.PID}, place{b.disk, 0}, place{b.memory.dir, b.memory.pid()}, err
}

// compare measures work in each place, in turns of changing order. work returns
// a speed.
func (b *bench) compare(ctx context.Context, name, unit, target string, runs int, work func(place) (float64, error)) (line, error) {
	roam, disk, memory, err := b.places(ctx)
	if err != nil {
		return line{}, err
	}
	turns := []place{disk, memory, roam}
	speeds := map[place][]float64{}
	for range runs {
		for _, p := range turns {
			// What the run before left to be done in the background is not this one's.
			if err := b.calm(ctx); err != nil {
				return line{}, err
			}
			v, err := work(p)
			if err != nil {
				return line{}, fmt.Errorf("%s: %w", name, err)
			}
			speeds[p] = append(speeds[p], v)
		}
		turns = append(turns[1:], turns[0])
	}
	d, m := spreadOf(speeds[disk]), spreadOf(speeds[memory])
	l := line{Name: name, Unit: unit, Roam: spreadOf(speeds[roam]), Disk: &d, Memory: &m, Target: target}
	l.Ratio, l.OfMemory = l.Roam.Median/d.Median, l.Roam.Median/m.Median
	return l, nil
}

// A daemon that uses no more than calmUse of processor time in calmTime does
// its housekeeping and nothing else.
const (
	calmTime = 500 * time.Millisecond
	calmUse  = 30 * time.Millisecond
)

// calm waits until both devices do nothing in the background.
func (b *bench) calm(ctx context.Context) error { return calm(ctx, b.a, b.b) }

func calm(ctx context.Context, devices ...*cli.Device) error {
	for _, d := range devices {
		s, err := d.Status(ctx)
		if err != nil {
			return err
		}
		for last := time.Duration(-1); ; {
			used, err := processorTime(s.PID)
			if err != nil {
				return err
			}
			if last >= 0 && used-last <= calmUse {
				break
			}
			last = used
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(calmTime):
			}
		}
	}
	return nil
}

// tick is the unit of processor time in /proc, the same on every Linux that Go
// runs on.
const tick = 10 * time.Millisecond

// processorTime is the time that a process has used, for itself and in the
// kernel.
func processorTime(pid int) (time.Duration, error) {
	name := fmt.Sprintf("/proc/%d/stat", pid)
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // behind the name
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("%s: %q", name, b)
	}
	user, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	kernel, err := strconv.ParseInt(f[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return time.Duration(user+kernel) * tick, nil
}
