// Bench measures roam against the disk's own file system and against a trivial
// file system in memory, in one run: the same work is done in each of them, in
// turns, and the medians are compared. Nothing here passes or fails; it prints a
// table, or JSON with -json.
//
//	make bench
//	go run ./integration/bench -roam bin/roam -runs 5
//	make bench-scale
//
// The file system in memory does nothing that a user-space file system could
// leave out: it shows what FUSE itself allows on this machine. It runs in a
// process of its own, as the daemons of roam do.
//
// # Memory that the host takes back
//
// The first line says what it costs to touch memory that was free. Where the
// hypervisor of a virtual machine takes free memory back (free page reporting),
// the first touch of a page that it took costs ten times what it costs otherwise,
// and whether a page is such a one depends on what ran before. It distorts
// ratios threefold: the disk writes its file into the pages of the one that was
// just deleted, while a write through FUSE needs memory twice, in the kernel and
// in the daemon. A first value far above the second is a sign of it. As root,
//
//	echo 11 > /sys/module/page_reporting/parameters/page_reporting_order
//
// stops it where the module has this parameter, once all memory was touched (by
// a program that allocates most of it and ends). This program changes no setting.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/roamfs/roamfs/integration/cli"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == memoryFlag {
		end(serveMemory(os.Args[2]))
	}
	roam := flag.String("roam", "bin/roam", "the program to measure")
	runs := flag.Int("runs", 5, "runs of each measurement")
	dir := flag.String("dir", "", "directory on the disk to measure (default: a temporary one)")
	asJSON := flag.Bool("json", false, "print JSON")
	only := flag.String("only", "", "measure only lines whose name contains this")
	large := flag.Int("scale", 0, "measure a tree of so many files, and nothing else")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var r report
	var err error
	if *large > 0 {
		r, err = scale(ctx, *roam, *dir, *large)
	} else {
		r, err = run(ctx, *roam, *dir, *runs, *only)
	}
	if err == nil {
		err = r.show(os.Stdout, *asJSON)
	}
	end(err)
}

func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// bench is what is measured: two devices of one hive, of which a has the mount
// that is compared, the disk, and a file system in memory.
type bench struct {
	dir    string
	a, b   *cli.Device
	disk   string // directory on the disk that both devices have their state on
	memory *memory
}

// group is lines that are measured together.
type group struct {
	names   []string
	measure func(ctx context.Context, runs int) ([]line, error)
}

// newBench makes the devices in a new directory in dir; end stops them and
// removes it.
func newBench(roam, dir string) (b *bench, end func(context.Context) error, err error) {
	if roam, err = filepath.Abs(roam); err != nil {
		return nil, nil, err
	}
	if dir, err = os.MkdirTemp(dir, "roam-bench-"); err != nil {
		return nil, nil, err
	}
	b = &bench{dir: dir}
	for name, d := range map[string]**cli.Device{"a": &b.a, "b": &b.b} {
		if *d, err = cli.New(roam, dir, name); err != nil {
			return nil, nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	return b, func(ctx context.Context) error {
		ctx = context.WithoutCancel(ctx)
		return errors.Join(b.b.Stop(ctx), b.a.Stop(ctx), os.RemoveAll(dir))
	}, nil
}

func run(ctx context.Context, roam, dir string, runs int, only string) (r report, err error) {
	b, end, err := newBench(roam, dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, end(ctx)) }()
	if r.FirstTouch, err = firstTouch(); err != nil {
		return r, err
	}
	b.disk = filepath.Join(b.dir, "disk")
	if err := os.Mkdir(b.disk, 0o755); err != nil {
		return r, err
	}
	if b.memory, err = startMemory(ctx, filepath.Join(b.dir, "memory")); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.memory.end()) }()
	if err := b.start(ctx); err != nil {
		return r, err
	}
	for _, g := range []group{
		{[]string{bigWrite, bigReread}, b.bigFile},
		{[]string{smallCreate, smallProcessor}, b.smallFiles},
		{[]string{closeToRead}, b.latency},
		{[]string{coldRead}, b.stream},
		{[]string{idleAfterWriting, idleAfterRestart}, b.idle},
	} {
		wanted := func(name string) bool { return strings.Contains(name, only) }
		if !slices.ContainsFunc(g.names, wanted) {
			continue
		}
		lines, err := g.measure(ctx, runs)
		if err != nil {
			return r, err
		}
		for _, l := range lines {
			if wanted(l.Name) {
				r.Lines = append(r.Lines, l)
			}
		}
	}
	return r, nil
}

// start makes the hive. Both devices are caches, so that nothing is copied
// between them while a is measured.
func (b *bench) start(ctx context.Context) error {
	if err := b.a.Init(ctx); err != nil {
		return err
	}
	if err := b.a.Start(ctx); err != nil {
		return err
	}
	if err := b.b.Join(ctx, b.a); err != nil {
		return err
	}
	return b.b.Start(ctx)
}

// oneTree waits until both devices show the same tree.
func (b *bench) oneTree(ctx context.Context) error {
	return cli.Await(ctx, 2*time.Minute, "both devices show one tree", func() error {
		_, err := cli.SameRoot(ctx, b.a, b.b)
		return err
	})
}

// noise is content that does not compress and differs from run to run.
var noise = rand.NewChaCha8([32]byte{1})
