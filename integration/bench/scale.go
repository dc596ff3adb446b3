package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/roamfs/roamfs/integration/cli"
)

// filesPerFolder makes folders of a usual size.
const filesPerFolder = 10

// scale measures a hive of many small files: files in a tenth as many folders,
// written on one device. A second device joins at the end. The files fit into their records, so that what
// is measured is the tree and not its content.
//
// On 2 cores (AMD EPYC) of a virtual machine, "make bench-scale" and the same with
// SCALE=100000. Both on 2026-11-29, when the machine took 0.5 s to touch a GiB of memory; the last
// column is by the program of 2026-11-24, when it took 0.22 s and did all else twice as fast, too:
//
//	                                    1,000,000    100,000    100,000, before
//	database per file, bytes            153          186        216
//	the mount answers after, s          0.33         0.09       0.26
//	names found cold, /s                8,617        11,025     15,695
//	names found warm, /s                29,043       41,846     67,163
//	idle memory after a restart, MiB    247          77         101
//	a new device has joined after, s    64           5.0        5.7
//	time of one change, author, ms      10           7.0        4.6
//	time of one change, other, ms       5.4          5.6        4.8
//
// Other work of the author, which makes a snapshot of the hour meanwhile, is in its processor
// time and in that of the join. A third of the 247 MiB are pages of the database
// that the kernel can take back. After all inodes were made or found, the kernel knows them, and the
// daemon has 700 bytes more for each, until ten minutes of rest later the kernel is asked
// to forget them.
//
// Of a cold find with a million inodes, the daemon spends a fifth in the garbage collector, which
// has to look at all of them again and again, a fifth in reading directories (185 us
// for ten files, 50 of them in Badger's iterators), and most of the rest in waking
// threads: each directory takes three requests that programs wait for. A warm one
// asks again for the attributes of each directory, since the kernel drops its access time when it was
// read.
func scale(ctx context.Context, roam, dir string, files int) (r report, err error) {
	b, end, err := newBench(roam, dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, end(ctx)) }()
	if r.FirstTouch, err = firstTouch(); err != nil {
		return r, err
	}
	add := func(name, unit string, v float64, target string) {
		l := line{Name: name, Unit: unit, Roam: spreadOf([]float64{v}), Target: target}
		r.Lines = append(r.Lines, l)
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, l.Roam.text(unit)) // it takes long
	}
	if err := errors.Join(b.a.Init(ctx, "--role", "archive"), b.a.Start(ctx)); err != nil {
		return r, err
	}
	began := time.Now()
	if err := b.writeMany(files); err != nil {
		return r, err
	}
	add("files created", "/s", float64(files)/time.Since(began).Seconds(), "")
	rest := func(name, target string) error {
		l, err := b.atRestOf(ctx, b.a)
		if err == nil {
			add(name, "MiB", l, target)
		}
		return err
	}
	if err := rest("idle memory after writing", ""); err != nil {
		return r, err
	}
	if err := b.a.Stop(ctx); err != nil {
		return r, err
	}
	use, err := cli.DiskUse(filepath.Join(b.a.State, "db"))
	if err != nil {
		return r, err
	}
	add("database per file", "bytes", float64(use)/float64(files), "≤ 400")

	began = time.Now()
	if err := b.a.Start(ctx); err != nil {
		return r, err
	}
	add("the mount answers after", "s", time.Since(began).Seconds(), "≤ 1")
	for _, c := range []struct{ name, target string }{{"names found, cold", "≥ 20000/s"}, {"names found, warm", "≥ 50000/s"}} {
		began, n := time.Now(), 0
		if err := filepath.WalkDir(b.a.Mount, func(_ string, d fs.DirEntry, err error) error {
			if err == nil {
				_, err = d.Info() // as find does where it is asked for anything but names
			}
			n++
			return err
		}); err != nil {
			return r, err
		}
		add(c.name, "/s", float64(n)/time.Since(began).Seconds(), c.target)
	}
	if err := b.a.Stop(ctx); err != nil {
		return r, err
	}
	if err := b.a.Start(ctx); err != nil {
		return r, err
	}
	if err := rest("idle memory after a restart", "≤ 250 at 1,000,000, ≤ 150 at 100,000"); err != nil {
		return r, err
	}

	began = time.Now()
	if err := b.b.Join(ctx, b.a); err != nil {
		return r, err
	}
	add("a new device has joined after", "s", time.Since(began).Seconds(), "≤ 60")
	if err := b.b.Start(ctx); err != nil {
		return r, err
	}
	if err := b.oneTree(ctx); err != nil {
		return r, err
	}
	if err := b.calm(ctx); err != nil {
		return r, err
	}
	l, err := b.change(ctx)
	if err != nil {
		return r, err
	}
	add("processor time of one change, on the author", "ms", l[0], "≤ 5")
	add("processor time of one change, on the other", "ms", l[1], "≤ 5")
	return r, nil
}

// writeMany writes the files.
func (b *bench) writeMany(files int) error {
	var folder string
	for i := range files {
		if i%filesPerFolder == 0 {
			n := i / filesPerFolder
			if n%100 == 0 {
				if err := os.Mkdir(filepath.Join(b.a.Mount, fmt.Sprint(n/100)), 0o755); err != nil {
					return err
				}
			}
			folder = filepath.Join(b.a.Mount, fmt.Sprint(n/100), fmt.Sprintf("folder %d", n))
			if err := os.Mkdir(folder, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file number %d.txt", i)), fmt.Append(nil, i), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// changes is how many changes are averaged, since the kernel counts processor
// time in steps of 10 ms.
const changes = 50

// change measures the processor time in ms that one new file costs each device,
// until it can be read on the other one.
func (b *bench) change(ctx context.Context) (of [2]float64, err error) {
	var pids [2]int
	for i, d := range []*cli.Device{b.a, b.b} {
		s, err := d.Status(ctx)
		if err != nil {
			return of, err
		}
		pids[i] = s.PID
	}
	used := func() (t [2]time.Duration, err error) {
		for i, pid := range pids {
			var perr error
			t[i], perr = processorTime(pid)
			err = errors.Join(err, perr)
		}
		return t, err
	}
	before, err := used()
	if err != nil {
		return of, err
	}
	for i := range changes {
		name := filepath.Join("0", "folder 0", fmt.Sprint("change ", i)) // which every scale has
		text := fmt.Sprint("text ", i)
		if err := os.WriteFile(filepath.Join(b.a.Mount, name), []byte(text), 0o644); err != nil {
			return of, err
		}
		if err := cli.Await(ctx, time.Minute, "the change arrives", func() error {
			got, err := os.ReadFile(filepath.Join(b.b.Mount, name))
			if err == nil && string(got) != text {
				err = fmt.Errorf("it is %q", got)
			}
			return err
		}); err != nil {
			return of, err
		}
	}
	after, err := used()
	for i := range of {
		of[i] = float64((after[i] - before[i]).Microseconds()) / 1000 / changes
	}
	return of, err
}
