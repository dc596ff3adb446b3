package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const (
	smallCreate    = "10,000 files of 4 KiB created"
	smallProcessor = "processor time of the daemon per created file"

	many = 10_000 // small files
)

// smallFiles creates many files. The processor time is all that the daemon uses
// for it, also afterwards until it has come to rest.
func (b *bench) smallFiles(ctx context.Context, runs int) ([]line, error) {
	run, used := 0, map[int][]float64{} // by process
	created, err := b.compare(ctx, smallCreate, "/s", "≥ 2000/s", runs, func(p place) (float64, error) {
		run++
		dir := filepath.Join(p.dir, fmt.Sprint("small", run))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return 0, err
		}
		var before time.Duration
		if p.pid != 0 {
			var err error
			if before, err = processorTime(p.pid); err != nil {
				return 0, err
			}
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
		if p.pid != 0 {
			if err := b.calm(ctx); err != nil {
				return 0, err
			}
			after, err := processorTime(p.pid)
			if err != nil {
				return 0, err
			}
			used[p.pid] = append(used[p.pid], (after-before).Seconds()*1000/many)
		}
		return speed, os.RemoveAll(dir)
	})
	if err != nil {
		return nil, err
	}
	roam, _, memory, err := b.places(ctx)
	if err != nil {
		return nil, err
	}
	m := spreadOf(used[memory.pid])
	return []line{created, {Name: smallProcessor, Unit: "ms", Roam: spreadOf(used[roam.pid]), Memory: &m}}, nil
}
