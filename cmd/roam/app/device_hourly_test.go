package app

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/sync/history"
)

// shared is a hive in memory: a tree that is a number, and its snapshots.
type shared struct {
	mu    sync.Mutex
	tree  byte
	snaps []time.Time
	kept  byte // the tree of the newest
	walks int
	fail  error
}

// device returns what decides on a device of the hive.
func (s *shared) device(waits time.Duration) *hourly {
	locked := func() func() { s.mu.Lock(); return s.mu.Unlock }
	return &hourly{
		up: time.Now(), waits: waits,
		root: func() ([32]byte, error) { defer locked()(); return [32]byte{1, s.tree, byte(len(s.snaps))}, nil },
		newest: func() (time.Time, error) {
			defer locked()()
			if len(s.snaps) == 0 {
				return time.Time{}, nil
			}
			return s.snaps[len(s.snaps)-1], nil
		},
		make: func(context.Context) (bool, error) {
			defer locked()()
			s.walks++
			if s.fail != nil {
				return false, s.fail
			}
			if len(s.snaps) > 0 && s.kept == s.tree {
				return false, nil
			}
			s.snaps, s.kept = append(s.snaps, time.Now()), s.tree
			return true, nil
		},
		thin: func(time.Time) error { return nil },
	}
}

// TestHourly runs an archive and a cache: one snapshot for each hour in which
// something changed, made by the archive as long as there is one, none when nothing
// changes, and then no work either.
func TestHourly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared{tree: 1}
		ctx, stop := context.WithCancel(t.Context())
		archive, stopArchive := context.WithCancel(ctx)
		var running sync.WaitGroup
		running.Go(func() { _ = s.device(history.ArchiveWaits).run(archive, slog.New(slog.DiscardHandler)) })
		running.Go(func() { _ = s.device(history.CacheWaits).run(ctx, slog.New(slog.DiscardHandler)) })
		pass := func(d time.Duration) { <-time.After(d); synctest.Wait() } // of the virtual clock
		count := func(when string, want int) {
			t.Helper()
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.snaps) != want {
				t.Errorf("%s: %d snapshots, want %d: %v", when, len(s.snaps), want, s.snaps)
			}
		}
		walked := func() int { s.mu.Lock(); defer s.mu.Unlock(); return s.walks }
		change := func() { s.mu.Lock(); s.tree++; s.mu.Unlock() }

		pass(30 * time.Second)
		count("before anybody has waited", 0)
		pass(20 * time.Minute)
		count("the first", 1)
		change()
		pass(20 * time.Minute)
		count("a change in the same hour", 1)
		pass(time.Hour)
		count("the next hour", 2)
		walks := walked()
		pass(100 * time.Hour)
		count("nothing changes", 2)
		if n := walked() - walks; n > 2 { // each device looks once at what the last snapshot itself changed
			t.Errorf("the tree was gone through %d times while nothing changed", n)
		}
		stopArchive()
		change()
		pass(2 * time.Hour)
		count("without the archive", 3)
		for range 10 {
			change()
			pass(time.Hour)
		}
		count("ten hours of changes", 13)
		hours := map[time.Time]bool{}
		s.mu.Lock()
		for _, at := range s.snaps {
			hours[at.Truncate(time.Hour)] = true
		}
		if len(hours) != len(s.snaps) || !slices.IsSortedFunc(s.snaps, time.Time.Compare) {
			t.Errorf("two in one hour: %v", s.snaps)
		}
		s.fail = errors.New("the cache is full")
		s.mu.Unlock()
		walks = walked()
		change()
		pass(time.Hour)
		if n := walked() - walks; n < 2 || n > 7 {
			t.Errorf("what failed is tried %d times in an hour", n)
		}
		stop()
		stopArchive()
		running.Wait()
	})
}
