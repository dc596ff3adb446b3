package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/roamfs/roamfs/integration/cli"
)

const coldRead = "cold 1 GiB from A to B over loopback"

// stream reads files of 1 GiB on b that only a holds.
func (b *bench) stream(ctx context.Context, runs int) ([]line, error) {
	var speeds []float64
	for i := range min(runs, 3) {
		name := fmt.Sprint("stream", i)
		if err := writeBig(filepath.Join(b.a.Mount, name), false); err != nil {
			return nil, err
		}
		err := cli.Await(ctx, 2*time.Minute, name+" is on b", func() error {
			info, err := os.Stat(filepath.Join(b.b.Mount, name))
			if err == nil && info.Size() != gib {
				return fmt.Errorf("%d bytes", info.Size())
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if err := b.oneTree(ctx); err != nil {
			return nil, err
		}
		v, err := readAll(filepath.Join(b.b.Mount, name))
		if err != nil {
			return nil, err
		}
		speeds = append(speeds, v)
		if err := os.Remove(filepath.Join(b.a.Mount, name)); err != nil {
			return nil, err
		}
	}
	return []line{{Name: coldRead, Unit: "MB/s", Roam: spreadOf(speeds), Target: "≥ 150 MB/s"}}, nil
}
