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
	"bytes"
	"context"
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

	"github.com/roamfs/roamfs/integration/cli"
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
	server, laptop *cli.Device
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
	defer func() {
		if keep {
			fmt.Println("left in", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
		if err == nil {
			fmt.Printf("\nAll of it was true. It took %.0f seconds.\n", time.Since(began).Seconds())
		}
	}()
	d := &demo{}
	if d.server, err = cli.New(roam, dir, "nas"); err != nil {
		return err
	}
	if d.laptop, err = cli.New(roam, dir, "laptop"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end()) }()
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

func (d *demo) homeServer(ctx context.Context, _ string) error {
	say("A home server: it keeps everything")
	if err := d.server.Init(ctx, "--role", "archive"); err != nil {
		return err
	}
	if err := d.server.Start(ctx); err != nil {
		return err
	}
	done("roam init --name nas --role archive;  roam mount %s", d.server.Mount)
	return nil
}

func (d *demo) copyIn(ctx context.Context, source string) error {
	say("Copy real files into it: the Go sources, and %d photos", photos)
	began := time.Now()
	if out, err := exec.CommandContext(ctx, "cp", "-r", source, filepath.Join(d.server.Mount, "go")).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w\n%s", err, out)
	}
	dir := filepath.Join(d.server.Mount, "photos")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range photos {
		if err := os.WriteFile(photoPath(dir, i), photo(uint64(i)), 0o644); err != nil {
			return err
		}
	}
	files, bytes, err := measure(d.server.Mount)
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
	invite, err := d.server.Invite(ctx)
	if err != nil {
		return err
	}
	done("on the server:  roam invite   -> %.40s…", invite.Code)
	began := time.Now()
	if err := d.laptop.Accept(ctx, invite, "--cache-size", "64MiB"); err != nil {
		return err
	}
	done("on the laptop:  roam join …   -> a member, with the whole tree, in %.1f s", time.Since(began).Seconds())
	if err := d.laptop.Start(ctx); err != nil {
		return err
	}
	done("on the laptop:  roam mount %s", d.laptop.Mount)
	return nil
}

func (d *demo) treeAtOnce(ctx context.Context, _ string) error {
	say("The laptop shows the whole tree at once, though it holds next to nothing of it")
	began := time.Now()
	files, size, err := measure(d.laptop.Mount)
	if err != nil {
		return err
	}
	took := time.Since(began)
	wantFiles, wantSize, err := measure(d.server.Mount)
	if err != nil {
		return err
	}
	if files != wantFiles || size != wantSize {
		return fmt.Errorf("the laptop shows %d entries with %d bytes, the server %d with %d", files, size, wantFiles, wantSize)
	}
	used, err := cli.DiskUse(d.laptop.State)
	if err != nil {
		return err
	}
	done("%d files and folders, %d MB, listed in %.1f s; on its disk: %d MB", files, size/1e6, took.Seconds(), used/1e6)
	return d.sameRoot(ctx)
}

// sameRoot waits until both devices say that they show the same tree.
func (d *demo) sameRoot(ctx context.Context) error {
	var root string
	err := cli.Await(ctx, 10*time.Second, "both have one root", func() (err error) {
		root, err = cli.SameRoot(ctx, d.server, d.laptop)
		return err
	})
	if err != nil {
		return err
	}
	done("both have the root %.16s…", root)
	return nil
}

func (d *demo) photoOnDemand(context.Context, string) error {
	say("Open a photo on the laptop: its bytes come from the server as they are read")
	began := time.Now()
	got, err := os.ReadFile(photoPath(filepath.Join(d.laptop.Mount, "photos"), 0))
	if err != nil {
		return err
	}
	took := time.Since(began)
	if !bytes.Equal(got, photo(0)) {
		return errors.New("the photo is not the one that was copied in")
	}
	began = time.Now()
	if _, err = os.ReadFile(photoPath(filepath.Join(d.laptop.Mount, "photos"), 0)); err != nil {
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
	go func() { sampled <- sample(ctx, d.laptop.State, &most) }()
	began := time.Now()
	var read int64
	err := filepath.WalkDir(d.laptop.Mount, func(path string, e fs.DirEntry, err error) error {
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
		got, err := os.ReadFile(photoPath(filepath.Join(d.laptop.Mount, "photos"), i))
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
		n, err := cli.DiskUse(dir)
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

func (d *demo) edit(ctx context.Context, _ string) error {
	say("Edit a file on the laptop: the server has it")
	const line = "\n// edited on the laptop\n"
	name := filepath.Join("go", "fmt", "print.go")
	f, err := os.OpenFile(filepath.Join(d.laptop.Mount, name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	began := time.Now()
	err = cli.Await(ctx, 10*time.Second, "the edit is on the server", func() error {
		b, err := os.ReadFile(filepath.Join(d.server.Mount, name))
		if err == nil && !bytes.HasSuffix(b, []byte(line)) {
			err = fmt.Errorf("%s is as before", name)
		}
		return err
	})
	if err != nil {
		return err
	}
	done("%s ends with the new line on the server %d ms after it was closed on the laptop", name, time.Since(began).Milliseconds())
	if err := d.sameRoot(ctx); err != nil {
		return err
	}
	err = cli.Await(ctx, 10*time.Second, "the laptop may be shut down", func() error {
		s, err := d.laptop.Status(ctx)
		if err == nil && (s.Waiting.Files > 0 || !s.Safe) {
			err = fmt.Errorf("%d files wait to be copied", s.Waiting.Files)
		}
		return err
	})
	if err != nil {
		return err
	}
	done("the laptop says that nothing exists only on it: it may be shut down")
	return nil
}

func (d *demo) whereis(ctx context.Context, _ string) error {
	say("Where is a photo, and how is the laptop?")
	path := photoPath(filepath.Join(d.laptop.Mount, "photos"), 0)
	// The server says what it holds in the background of everything else.
	err := cli.Await(ctx, 20*time.Second, "whereis names the server", func() error {
		w, err := d.laptop.Whereis(ctx, path)
		if err != nil {
			return err
		}
		for _, h := range w.Holders {
			if h.Name == d.server.Name && h.Complete {
				return nil
			}
		}
		return fmt.Errorf("it names %v", w.Holders)
	})
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"whereis", path}, {"status"}} {
		out, err := d.laptop.Run(ctx, args...)
		if err != nil {
			return err
		}
		fmt.Printf("   $ roam %s\n   %s\n", args[0], strings.ReplaceAll(strings.TrimSpace(out), "\n", "\n   "))
	}
	return nil
}

// end stops both devices.
func (d *demo) end() error {
	ctx := context.Background() // also when the demo was interrupted
	return errors.Join(d.laptop.Stop(ctx), d.server.Stop(ctx))
}
