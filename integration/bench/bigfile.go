package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	bigWrite  = "sequential write of 1 GiB with fsync"
	bigReread = "warm re-read of it"
)

// bigFile writes a file of 1 GiB and reads it again.
func (b *bench) bigFile(ctx context.Context, runs int) ([]line, error) {
	write, err := b.compare(ctx, bigWrite, "MB/s", "≥ 0.4", runs, func(p place) (float64, error) {
		name := filepath.Join(p.dir, "big")
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		syscall.Sync()
		began := time.Now()
		if err := writeBig(name, true); err != nil {
			return 0, err
		}
		return gib / 1e6 / time.Since(began).Seconds(), nil
	})
	if err != nil {
		return nil, err
	}
	reread, err := b.compare(ctx, bigReread, "MB/s", "≥ 0.9", runs, func(p place) (float64, error) {
		if _, err := readAll(filepath.Join(p.dir, "big")); err != nil {
			return 0, err
		}
		return readAll(filepath.Join(p.dir, "big"))
	})
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{b.disk, b.a.Mount, b.memory.dir} {
		if err := os.Remove(filepath.Join(dir, "big")); err != nil {
			return nil, err
		}
	}
	return []line{write, reread}, nil
}

// writeBig makes a file of 1 GiB that does not compress and of which no part is
// equal to another. To make it costs next to nothing.
func writeBig(name string, sync bool) error {
	piece := make([]byte, mib)
	_, _ = noise.Read(piece) // never fails
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	for i := range uint64(gib / mib) {
		for at := uint64(0); at < mib; at += 4096 {
			binary.LittleEndian.PutUint64(piece[at:], i*mib+at)
		}
		if _, err = f.Write(piece); err != nil {
			break
		}
	}
	if sync && err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
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
