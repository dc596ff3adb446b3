package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"
)

// Status is what is looked at of "roam status --json".
type Status struct {
	Device struct{ ID string }
	Root   string
	PID    int
	Cache  struct {
		Limit    int64 `json:"limit_bytes"`
		Used     int64 `json:"used_bytes"`
		OnlyHere int64 `json:"only_here_bytes"`
	}
	Peers []struct {
		Name      string
		Connected bool
	}
	Waiting struct {
		Files, Bytes int64
	} `json:"waiting_to_copy"`
	Conflicts   int
	Safe        bool `json:"safe_to_stop"`
	Unavailable []struct {
		Path    string
		Holders []struct{ Name string }
	}
	Addresses []string
}

// Status asks the device, which runs, how it is.
func (d *Device) Status(ctx context.Context) (s Status, err error) {
	return s, d.ask(ctx, &s, "status", "--json")
}

// Whereis is what is looked at of "roam whereis --json".
type Whereis struct {
	Copies  int
	Holders []struct {
		Name     string
		Complete bool
	}
}

// Whereis asks the device which devices hold a file.
func (d *Device) Whereis(ctx context.Context, path string) (w Whereis, err error) {
	return w, d.ask(ctx, &w, "whereis", "--json", path)
}

func (d *Device) ask(ctx context.Context, answer any, args ...string) error {
	out, err := d.Run(ctx, args...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), answer)
}

// awaitEvery is the pause between two tries of [Await].
const awaitEvery = 5 * time.Millisecond

// Await tries until try returns nil. After the limit, or when ctx ends, it
// returns the last error of try.
func Await(ctx context.Context, limit time.Duration, what string, try func() error) error {
	late := time.After(limit)
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), fmt.Errorf("%s: %w", what, err))
		case <-late:
			return fmt.Errorf("not within %v: %s: %w", limit, what, err)
		case <-time.After(awaitEvery):
		}
	}
}

// SameRoot returns an error if the devices do not have one root now, and else
// the root.
func SameRoot(ctx context.Context, devices ...*Device) (root string, err error) {
	for i, d := range devices {
		s, err := d.Status(ctx)
		switch {
		case err != nil:
			return "", err
		case s.Root == "":
			return "", fmt.Errorf("%s has no root", d.Name)
		case i > 0 && s.Root != root:
			return "", fmt.Errorf("root of %s %.12s, of %s %.12s", devices[0].Name, root, d.Name, s.Root)
		}
		root = s.Root
	}
	return root, nil
}

// DiskUse is what du says of a directory, in bytes. What vanishes meanwhile
// counts nothing.
func DiskUse(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = e.Info()
		}
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
