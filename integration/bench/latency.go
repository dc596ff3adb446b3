package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const closeToRead = "close on A to readable on B"

// latency is the time from close on a to the same bytes on b.
func (b *bench) latency(ctx context.Context, runs int) ([]line, error) {
	if err := b.oneTree(ctx); err != nil {
		return nil, err
	}
	var took []float64
	for i := range runs * 4 {
		name, data := fmt.Sprint("note", i), make([]byte, 20_000)
		_, _ = noise.Read(data)
		if err := os.WriteFile(filepath.Join(b.a.Mount, name), data, 0o644); err != nil {
			return nil, err
		}
		began := time.Now()
		for { // not with cli.Await, which looks too seldom
			got, err := os.ReadFile(filepath.Join(b.b.Mount, name))
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
	return []line{{Name: closeToRead, Unit: "ms", Roam: spreadOf(took), Target: "< 100 ms"}}, nil
}
