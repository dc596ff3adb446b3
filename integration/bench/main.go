// Bench measures roam against the disk's own file system in one run: the same
// work is done on the disk and in a mount, in turns, and the medians are compared.
// Nothing here passes or fails; it prints a table, or JSON with -json.
//
//	make bench
//	go run ./integration/bench -roam bin/roam -runs 5
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	mib  = 1 << 20
	gib  = 1 << 30
	many = 10_000 // small files
)

func main() {
	roam := flag.String("roam", "bin/roam", "the program to measure")
	runs := flag.Int("runs", 5, "runs of each measurement")
	dir := flag.String("dir", "", "directory on the disk to measure (default: a temporary one)")
	asJSON := flag.Bool("json", false, "print JSON")
	only := flag.String("only", "", "measure only lines whose name contains this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lines, err := bench(ctx, *roam, *dir, *runs, *only)
	if err == nil {
		err = show(lines, *asJSON)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// line is one measurement. Disk is absent where there is nothing to compare.
type line struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Roam   spread  `json:"roam"`
	Disk   *spread `json:"disk,omitempty"`
	Ratio  float64 `json:"ratio,omitempty"` // roam's speed over the disk's
	Target string  `json:"target"`
}

// spread is the median of several runs, with the extremes.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(v []float64) spread {
	slices.Sort(v)
	return spread{v[len(v)/2], v[0], v[len(v)-1]}
}

func show(lines []line, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(lines)
	}
	fmt.Printf("%-44s %22s %22s %7s  %s\n", "", "roam", "disk", "ratio", "target")
	for _, l := range lines {
		disk, ratio := "", ""
		if l.Disk != nil {
			disk, ratio = l.Disk.text(l.Unit), fmt.Sprintf("%.2f", l.Ratio)
		}
		fmt.Printf("%-44s %22s %22s %7s  %s\n", l.Name, l.Roam.text(l.Unit), disk, ratio, l.Target)
	}
	return nil
}

func (s spread) text(unit string) string {
	return fmt.Sprintf("%.0f %s (%.0f–%.0f)", s.Median, unit, s.Min, s.Max)
}

// hive is the two devices that are measured.
type hive struct {
	a, b device
	disk string // a directory on the disk that both have their state on
}

type device struct{ roam, name, state, mount string }

func (d device) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.roam, append([]string{"--state", d.state}, args...)...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("roam %s on %s: %w\n%s", strings.Join(args, " "), d.name, err, talk.String())
	}
	return out.String(), nil
}

type status struct {
	Root    string `json:"root"`
	PID     int    `json:"pid"`
	Waiting struct {
		Files int64 `json:"files"`
	} `json:"waiting_to_copy"`
}

func (d device) status(ctx context.Context) (s status, err error) {
	out, err := d.command(ctx, "status", "--json")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

func bench(ctx context.Context, roam, dir string, runs int, only string) (lines []line, err error) {
	if roam, err = filepath.Abs(roam); err != nil {
		return nil, err
	}
	if dir, err = os.MkdirTemp(dir, "roam-bench-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	h := &hive{
		a:    device{roam, "a", filepath.Join(dir, "a.state"), filepath.Join(dir, "a")},
		b:    device{roam, "b", filepath.Join(dir, "b.state"), filepath.Join(dir, "b")},
		disk: filepath.Join(dir, "disk"),
	}
	defer func() {
		for _, d := range []device{h.b, h.a} {
			if _, e := os.Stat(filepath.Join(d.state, "api.sock")); e == nil {
				_, e = d.command(context.WithoutCancel(ctx), "stop")
				err = errors.Join(err, e)
			}
		}
	}()
	if err := h.start(ctx); err != nil {
		return nil, err
	}
	for _, m := range []func(context.Context, int) ([]line, error){h.bigFile, h.smallFiles, h.latency, h.stream, h.idle} {
		l, err := m(ctx, runs)
		if err != nil {
			return lines, err
		}
		for _, x := range l {
			if strings.Contains(x.Name, only) {
				lines = append(lines, x)
			}
		}
	}
	return lines, nil
}

// start makes the hive: a, whose mount is measured, and b, which joins it. Both
// are caches, so that nothing is copied between them while a is measured.
func (h *hive) start(ctx context.Context) error {
	for _, dir := range []string{h.disk, h.a.mount, h.b.mount} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if _, err := h.a.command(ctx, "init", "--name", h.a.name); err != nil {
		return err
	}
	if _, err := h.a.command(ctx, "mount", h.a.mount, "--background"); err != nil {
		return err
	}
	invite := exec.CommandContext(ctx, h.a.roam, "--state", h.a.state, "invite", "--json")
	out, err := invite.StdoutPipe()
	if err != nil {
		return err
	}
	if err := invite.Start(); err != nil {
		return err
	}
	var event struct {
		Code string `json:"code"`
	}
	first, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(first, &event)
	}
	if err == nil {
		_, err = h.b.command(ctx, "join", event.Code, "--name", h.b.name)
	}
	if err != nil {
		return errors.Join(err, invite.Process.Kill(), invite.Wait())
	}
	_, _ = io.Copy(io.Discard, out) // until invite ends
	if err := invite.Wait(); err != nil {
		return err
	}
	_, err = h.b.command(ctx, "mount", h.b.mount, "--background")
	return err
}

// compare measures work in a directory of the disk and in the mount, in turns.
// work returns a speed.
func (h *hive) compare(ctx context.Context, name, unit, target string, runs int, work func(dir string) (float64, error)) (line, error) {
	var disk, roam []float64
	for range runs {
		for dir, to := range map[string]*[]float64{h.disk: &disk, h.a.mount: &roam} {
			// What the run before left to be done in the background is not this one's.
			if err := h.calm(ctx); err != nil {
				return line{}, err
			}
			v, err := work(dir)
			if err != nil {
				return line{}, fmt.Errorf("%s: %w", name, err)
			}
			*to = append(*to, v)
		}
	}
	d := spreadOf(disk)
	l := line{Name: name, Unit: unit, Roam: spreadOf(roam), Disk: &d, Target: target}
	l.Ratio = l.Roam.Median / d.Median
	return l, nil
}

// calm waits until both devices do nothing in the background.
func (h *hive) calm(ctx context.Context) error {
	for _, d := range []device{h.a, h.b} {
		s, err := d.status(ctx)
		if err != nil {
			return err
		}
		for last := ""; ; {
			used, err := processorTime(s.PID)
			if err != nil {
				return err
			}
			if used == last {
				break
			}
			last = used
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(500 * time.Millisecond):
			}
		}
	}
	return nil
}

// processorTime is the time that a process has used, in tens of milliseconds
// for a user and for the kernel.
func processorTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // behind the name
	f := strings.Fields(rest)
	if len(f) < 13 {
		return "", fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	// One tick of housekeeping in half a second is calm.
	u, _ := strconv.Atoi(f[11])
	k, _ := strconv.Atoi(f[12])
	return strconv.Itoa((u + k) / 4), nil
}

// noise is content that does not compress and differs from run to run.
var noise = rand.NewChaCha8([32]byte{1})

func (h *hive) bigFile(ctx context.Context, runs int) ([]line, error) {
	piece := make([]byte, mib)
	write, err := h.compare(ctx, "sequential write of 1 GiB with fsync", "MB/s", "≥ 0.4", runs, func(dir string) (float64, error) {
		name := filepath.Join(dir, "big")
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		syscall.Sync()
		_, _ = noise.Read(piece)
		began := time.Now()
		f, err := os.Create(name)
		if err != nil {
			return 0, err
		}
		for i := range gib / mib {
			piece[0], piece[1] = byte(i), byte(i>>8)
			if _, err = f.Write(piece); err != nil {
				break
			}
		}
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return 0, err
		}
		return gib / 1e6 / time.Since(began).Seconds(), nil
	})
	if err != nil {
		return nil, err
	}
	reread, err := h.compare(ctx, "warm re-read of it", "MB/s", "≥ 0.9", runs, func(dir string) (float64, error) {
		if _, err := readAll(filepath.Join(dir, "big")); err != nil {
			return 0, err
		}
		return readAll(filepath.Join(dir, "big"))
	})
	return []line{write, reread}, err
}

// readAll reads a file and returns the speed in MB/s.
func readAll(name string) (float64, error) {
	began := time.Now()
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // only read
	buf := make([]byte, mib)
	var n int64
	for {
		m, err := f.Read(buf)
		n += int64(m)
		if err == io.EOF {
			return float64(n) / 1e6 / time.Since(began).Seconds(), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func (h *hive) smallFiles(ctx context.Context, runs int) ([]line, error) {
	run := 0
	l, err := h.compare(ctx, "10,000 files of 4 KiB created", "/s", "≥ 2000/s", runs, func(dir string) (float64, error) {
		run++
		dir = filepath.Join(dir, fmt.Sprint("small", run))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return 0, err
		}
		data := make([]byte, 4096)
		began := time.Now()
		for i := range many {
			_, _ = noise.Read(data[:64])
			if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), data, 0o644); err != nil {
				return 0, err
			}
		}
		speed := many / time.Since(began).Seconds()
		return speed, os.RemoveAll(dir)
	})
	return []line{l}, err
}

// latency is the time from close on a to the same bytes on b.
func (h *hive) latency(ctx context.Context, runs int) ([]line, error) {
	if err := h.quiet(ctx); err != nil {
		return nil, err
	}
	var took []float64
	for i := range runs * 4 {
		name, data := fmt.Sprint("note", i), make([]byte, 20_000)
		_, _ = noise.Read(data)
		if err := os.WriteFile(filepath.Join(h.a.mount, name), data, 0o644); err != nil {
			return nil, err
		}
		began := time.Now()
		for {
			got, err := os.ReadFile(filepath.Join(h.b.mount, name))
			if err == nil && bytes.Equal(got, data) {
				break
			}
			if time.Since(began) > time.Minute {
				return nil, fmt.Errorf("%s did not reach b: %w", name, err)
			}
			time.Sleep(200 * time.Microsecond)
		}
		took = append(took, float64(time.Since(began).Microseconds())/1000)
		time.Sleep(100 * time.Millisecond) // a person's pace: no batching
	}
	return []line{{Name: "close on A to readable on B", Unit: "ms", Roam: spreadOf(took), Target: "< 100 ms"}}, nil
}

// quiet waits until both devices show the same tree.
func (h *hive) quiet(ctx context.Context) error {
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		a, err := h.a.status(ctx)
		if err != nil {
			return err
		}
		b, err := h.b.status(ctx)
		if err != nil {
			return err
		}
		if a.Root == b.Root {
			return nil
		}
		if time.Since(began) > 2*time.Minute {
			return errors.New("the two devices do not come to one tree")
		}
	}
}

// stream reads files of 1 GiB on b that only a holds.
func (h *hive) stream(ctx context.Context, runs int) ([]line, error) {
	var speeds []float64
	for i := range min(runs, 3) {
		name := fmt.Sprint("stream", i)
		f, err := os.Create(filepath.Join(h.a.mount, name))
		if err != nil {
			return nil, err
		}
		piece := make([]byte, mib)
		for range gib / mib {
			_, _ = noise.Read(piece)
			if _, err = f.Write(piece); err != nil {
				break
			}
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		if err := h.settled(ctx, name); err != nil {
			return nil, err
		}
		v, err := readAll(filepath.Join(h.b.mount, name))
		if err != nil {
			return nil, err
		}
		speeds = append(speeds, v)
		for _, d := range []device{h.a} {
			if err := os.Remove(filepath.Join(d.mount, name)); err != nil {
				return nil, err
			}
		}
	}
	return []line{{Name: "cold 1 GiB from A to B over loopback", Unit: "MB/s", Roam: spreadOf(speeds), Target: "≥ 150 MB/s"}}, nil
}

// settled waits until b shows the whole file.
func (h *hive) settled(ctx context.Context, name string) error {
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		info, err := os.Stat(filepath.Join(h.b.mount, name))
		if err == nil && info.Size() == gib {
			return h.quiet(ctx)
		}
		if time.Since(began) > 2*time.Minute {
			return fmt.Errorf("%s did not reach b: %w", name, err)
		}
	}
}

// idle is the resident memory of a with 20,000 files, after a restart.
func (h *hive) idle(ctx context.Context, _ int) ([]line, error) {
	for i := range 20_000 {
		dir := filepath.Join(h.a.mount, "idle", strconv.Itoa(i/200))
		if i%200 == 0 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return nil, err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), fmt.Appendf(nil, "file %d of many, with some text in it that is longer than what fits a record", i), 0o644); err != nil {
			return nil, err
		}
	}
	if err := h.quiet(ctx); err != nil {
		return nil, err
	}
	var out []line
	for _, when := range []string{"after writing them", "after a restart"} {
		if when == "after a restart" {
			if _, err := h.a.command(ctx, "stop"); err != nil {
				return nil, err
			}
			if _, err := h.a.command(ctx, "mount", h.a.mount, "--background"); err != nil {
				return nil, err
			}
		}
		time.Sleep(5 * time.Second) // idle
		s, err := h.a.status(ctx)
		if err != nil {
			return nil, err
		}
		rss, err := resident(s.PID)
		if err != nil {
			return nil, err
		}
		out = append(out, line{Name: "idle memory with 20,000 files, " + when, Unit: "MiB", Roam: spreadOf([]float64{rss}), Target: "< 150 MiB"})
	}
	return out, nil
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
