// Demo shows the main job of roam on one computer: a home server that keeps
// everything and a laptop with a small cache become one hive and show one tree.
// It uses real input (the source tree of the Go toolchain and photos that it
// makes), says in plain words what it does, checks every step, and ends with a
// non-zero exit code if one is not true. Everything lies in a temporary
// directory that is removed at the end.
//
//	go run ./examples/demo -roam bin/roam
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
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	mib        = 1 << 20
	cacheLimit = 64 * mib
	photos     = 24
)

func main() {
	roam := flag.String("roam", "bin/roam", "the program to show")
	source := flag.String("source", "", "tree to copy in (default: the sources of the Go toolchain)")
	keep := flag.Bool("keep", false, "leave the temporary directory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *roam, *source, *keep); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: NOT as promised: %v\n", err)
		os.Exit(1)
	}
}

// demo is the hive that is shown.
type demo struct {
	roam   string
	dir    string
	server device
	laptop device
}

// device is one device of the demo, with a state directory and a mount of its own.
type device struct {
	roam, name, state, mount string
}

func run(ctx context.Context, roam, source string, keep bool) (err error) {
	began := time.Now()
	if roam, err = filepath.Abs(roam); err != nil {
		return err
	}
	if source == "" {
		out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
		if err != nil {
			return fmt.Errorf("where is the Go toolchain? %w", err)
		}
		source = filepath.Join(strings.TrimSpace(string(out)), "src")
	}
	dir, err := os.MkdirTemp("", "roam-demo-")
	if err != nil {
		return err
	}
	d := &demo{
		roam: roam, dir: dir,
		server: device{roam, "nas", filepath.Join(dir, "nas.state"), filepath.Join(dir, "nas")},
		laptop: device{roam, "laptop", filepath.Join(dir, "laptop.state"), filepath.Join(dir, "laptop")},
	}
	defer func() {
		err = errors.Join(err, d.end())
		if keep {
			fmt.Println("left in", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
		if err == nil {
			fmt.Printf("\nAll of it was true. It took %.0f seconds.\n", time.Since(began).Seconds())
		}
	}()
	for _, step := range []func(context.Context, string) error{
		d.homeServer, d.copyIn, d.join, d.treeAtOnce, d.photoOnDemand, d.stayUnderLimit, d.edit, d.whereis,
	} {
		if err := step(ctx, source); err != nil {
			return err
		}
	}
	return nil
}

func say(format string, args ...any) { fmt.Printf("\n== "+format+"\n", args...) }

func done(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

// command runs roam on a device and returns what it prints.
func (d device) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.roam, append([]string{"--state", d.state}, args...)...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("roam %s on %s: %w\n%s", strings.Join(args, " "), d.name, err, talk.String())
	}
	return out.String(), nil
}

// status is the part of "roam status --json" that the demo looks at.
type status struct {
	Root  string `json:"root"`
	Cache struct {
		Limit int64 `json:"limit_bytes"`
		Used  int64 `json:"used_bytes"`
	} `json:"cache"`
	Waiting struct {
		Files int64 `json:"files"`
	} `json:"waiting_to_copy"`
	Safe bool `json:"safe_to_stop"`
}

func (d device) status(ctx context.Context) (s status, err error) {
	out, err := d.command(ctx, "status", "--json")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

func (d *demo) homeServer(ctx context.Context, _ string) error {
	say("A home server: it keeps everything")
	if err := os.Mkdir(d.server.mount, 0o755); err != nil {
		return err
	}
	if _, err := d.server.command(ctx, "init", "--name", d.server.name, "--role", "archive"); err != nil {
		return err
	}
	if _, err := d.server.command(ctx, "mount", d.server.mount, "--background"); err != nil {
		return err
	}
	done("roam init --name nas --role archive;  roam mount %s", d.server.mount)
	return nil
}

func (d *demo) copyIn(ctx context.Context, source string) error {
	say("Copy real files into it: the Go sources, and %d photos", photos)
	began := time.Now()
	if out, err := exec.CommandContext(ctx, "cp", "-r", source, filepath.Join(d.server.mount, "go")).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w\n%s", err, out)
	}
	dir := filepath.Join(d.server.mount, "photos")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range photos {
		if err := os.WriteFile(photoPath(dir, i), photo(uint64(i)), 0o644); err != nil {
			return err
		}
	}
	files, bytes, err := measure(d.server.mount)
	if err != nil {
		return err
	}
	done("%d files and folders, %d MB, in %.1f s", files, bytes/1e6, time.Since(began).Seconds())
	if bytes < 150e6 {
		return fmt.Errorf("only %d bytes were copied in", bytes)
	}
	return nil
}

func photoPath(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("IMG_%04d.jpg", i+1)) }

// measure counts what is below dir and the bytes of the files.
func measure(dir string) (entries int, bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entries++
		if e.Type().IsRegular() {
			info, err := e.Info()
			if err != nil {
				return err
			}
			bytes += info.Size()
		}
		return nil
	})
	return entries - 1, bytes, err
}

func (d *demo) join(ctx context.Context, _ string) error {
	say("A laptop joins with an invite; it may use 64 MiB of disk")
	invite := exec.CommandContext(ctx, d.roam, "--state", d.server.state, "invite", "--json")
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
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &event)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("invite: %w", err), invite.Process.Kill(), invite.Wait())
	}
	done("on the server:  roam invite   -> %.40s…", event.Code)
	began := time.Now()
	_, err = d.laptop.command(ctx, "join", event.Code, "--name", d.laptop.name, "--cache-size", "64MiB")
	_, _ = io.Copy(io.Discard, out) // until invite ends
	if err := errors.Join(err, invite.Wait()); err != nil {
		return err
	}
	done("on the laptop:  roam join …   -> a member, with the whole tree, in %.1f s", time.Since(began).Seconds())
	if err := os.Mkdir(d.laptop.mount, 0o755); err != nil {
		return err
	}
	if _, err := d.laptop.command(ctx, "mount", d.laptop.mount, "--background"); err != nil {
		return err
	}
	done("on the laptop:  roam mount %s", d.laptop.mount)
	return nil
}

func (d *demo) treeAtOnce(ctx context.Context, _ string) error {
	say("The laptop shows the whole tree at once, though it holds next to nothing of it")
	began := time.Now()
	files, size, err := measure(d.laptop.mount)
	if err != nil {
		return err
	}
	took := time.Since(began)
	wantFiles, wantSize, err := measure(d.server.mount)
	if err != nil {
		return err
	}
	if files != wantFiles || size != wantSize {
		return fmt.Errorf("the laptop shows %d entries with %d bytes, the server %d with %d", files, size, wantFiles, wantSize)
	}
	used, err := diskUse(d.laptop.state)
	if err != nil {
		return err
	}
	done("%d files and folders, %d MB, listed in %.1f s; on its disk: %d MB", files, size/1e6, took.Seconds(), used/1e6)
	return d.sameRoot(ctx)
}

// sameRoot waits until both devices say that they show the same tree.
func (d *demo) sameRoot(ctx context.Context) error {
	var a, b status
	err := eventually(ctx, 10*time.Second, func() (ok bool, err error) {
		if a, err = d.server.status(ctx); err != nil {
			return false, err
		}
		b, err = d.laptop.status(ctx)
		return a.Root != "" && a.Root == b.Root, err
	})
	if err != nil {
		return fmt.Errorf("the roots of the two trees differ (%.12s, %.12s): %w", a.Root, b.Root, err)
	}
	done("both have the root %.16s…", a.Root)
	return nil
}

func (d *demo) photoOnDemand(context.Context, string) error {
	say("Open a photo on the laptop: its bytes come from the server as they are read")
	began := time.Now()
	got, err := os.ReadFile(photoPath(filepath.Join(d.laptop.mount, "photos"), 0))
	if err != nil {
		return err
	}
	took := time.Since(began)
	if !bytes.Equal(got, photo(0)) {
		return errors.New("the photo is not the one that was copied in")
	}
	began = time.Now()
	if _, err = os.ReadFile(photoPath(filepath.Join(d.laptop.mount, "photos"), 0)); err != nil {
		return err
	}
	done("%d KB in %d ms, byte for byte the same; again, now that it is here: %d ms", len(got)/1000, took.Milliseconds(), time.Since(began).Milliseconds())
	return nil
}

func (d *demo) stayUnderLimit(ctx context.Context, _ string) error {
	say("Read every photo and all sources on the laptop, more than three times its limit")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var most atomic.Int64
	sampled := make(chan error, 1)
	go func() { sampled <- sample(ctx, d.laptop.state, &most) }()
	began := time.Now()
	var read int64
	err := filepath.WalkDir(d.laptop.mount, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // only read
		n, err := io.Copy(io.Discard, f)
		read += n
		return err
	})
	cancel()
	if err := errors.Join(err, <-sampled); err != nil {
		return err
	}
	for i := range photos {
		got, err := os.ReadFile(photoPath(filepath.Join(d.laptop.mount, "photos"), i))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, photo(uint64(i))) {
			return fmt.Errorf("photo %d is not the one that was copied in", i+1)
		}
	}
	done("%d MB read in %.1f s; its disk use was at most %.1f MiB of 64", read/1e6, time.Since(began).Seconds(), float64(most.Load())/mib)
	if most.Load() > cacheLimit {
		return fmt.Errorf("the laptop used %d bytes, its limit is %d", most.Load(), cacheLimit)
	}
	return nil
}

// sample keeps the largest disk use of dir in most until ctx ends.
func sample(ctx context.Context, dir string, most *atomic.Int64) error {
	for {
		n, err := diskUse(dir)
		if err != nil {
			return err
		}
		most.Store(max(most.Load(), n))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// diskUse is what du says: the bytes that are allocated below dir.
func diskUse(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			n += st.Blocks * 512
		}
		return nil
	})
	return n, err
}

func (d *demo) edit(ctx context.Context, _ string) error {
	say("Edit a file on the laptop: the server has it")
	const line = "\n// edited on the laptop\n"
	name := filepath.Join("go", "fmt", "print.go")
	f, err := os.OpenFile(filepath.Join(d.laptop.mount, name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	began := time.Now()
	err = eventually(ctx, 10*time.Second, func() (bool, error) {
		b, err := os.ReadFile(filepath.Join(d.server.mount, name))
		return bytes.HasSuffix(b, []byte(line)), err
	})
	if err != nil {
		return fmt.Errorf("the edit did not reach the server: %w", err)
	}
	done("%s ends with the new line on the server %d ms after it was closed on the laptop", name, time.Since(began).Milliseconds())
	if err := d.sameRoot(ctx); err != nil {
		return err
	}
	err = eventually(ctx, 10*time.Second, func() (bool, error) {
		s, err := d.laptop.status(ctx)
		return s.Waiting.Files == 0 && s.Safe, err
	})
	if err != nil {
		return fmt.Errorf("the edit was not copied away: %w", err)
	}
	done("the laptop says that nothing exists only on it: it may be shut down")
	return nil
}

func (d *demo) whereis(ctx context.Context, _ string) error {
	say("Where is a photo, and how is the laptop?")
	path := photoPath(filepath.Join(d.laptop.mount, "photos"), 0)
	// The server says what it holds in the background of everything else.
	err := eventually(ctx, 20*time.Second, func() (bool, error) {
		out, err := d.laptop.command(ctx, "whereis", "--json", path)
		if err != nil {
			return false, err
		}
		var w struct {
			Holders []struct {
				Name     string `json:"name"`
				Complete bool   `json:"complete"`
			} `json:"holders"`
		}
		if err := json.Unmarshal([]byte(out), &w); err != nil {
			return false, err
		}
		for _, h := range w.Holders {
			if h.Name == d.server.name && h.Complete {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("whereis does not name the server: %w", err)
	}
	for _, args := range [][]string{{"whereis", path}, {"status"}} {
		out, err := d.laptop.command(ctx, args...)
		if err != nil {
			return err
		}
		fmt.Printf("   $ roam %s\n   %s\n", args[0], strings.ReplaceAll(strings.TrimSpace(out), "\n", "\n   "))
	}
	return nil
}

// end stops both devices.
func (d *demo) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var all error
	for _, dev := range []device{d.laptop, d.server} {
		if _, err := os.Stat(filepath.Join(dev.state, "api.sock")); err != nil {
			continue // it was never started
		}
		if _, err := dev.command(ctx, "stop"); err != nil {
			all = errors.Join(all, err)
		}
	}
	return all
}

// eventually tries until ok, an error, or the time is over.
func eventually(ctx context.Context, limit time.Duration, try func() (ok bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		ok, err := try()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v", limit)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
