package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bounds notes what a device was asked to be bounded by.
type bounds struct {
	asked []int64
	err   error
}

func (b *bounds) Resize(_ context.Context, c Config) error {
	b.asked = append(b.asked, c.Limit(RoleCache))
	return b.err
}

// TestFollowConfig edits config.toml and looks at what is asked of the device.
func TestFollowConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var log bytes.Buffer
		d := &daemon{state: &State{dir: dir}, log: slog.New(slog.NewTextHandler(&log, nil))}
		b := &bounds{}
		edit := func(text string, wait time.Duration) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, configName), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			<-time.After(wait)
			synctest.Wait()
		}
		want := func(what string, sizes ...int64) {
			t.Helper()
			if !slices.Equal(b.asked, sizes) {
				t.Fatalf("%s: asked for %d, want %d", what, b.asked, sizes)
			}
			b.asked = nil
		}
		edit(`cache_size = "20MiB"`, 0)
		go d.followConfig(t.Context(), b)

		edit("# a comment\ncache_size = \"20MiB\"", 5*configEvery)
		want("at the start", 20<<20)
		edit(`cache_size = "32MiB"`, configEvery)
		edit(`cache_size = "3`, configEvery)
		edit(`cache_size = "33MiB"`, configEvery)
		want("while it is being edited")
		edit(`cache_size = "33MiB"`, 5*configEvery)
		want("edited", 33<<20)
		edit("", 5*configEvery)
		want("the default", int64(DefaultCacheSize))

		edit("mdns = true\ncache_size = \"lots\"", 2*resizeAgain)
		want("with a mistake")
		if n := strings.Count(log.String(), "config.toml: line 2: cache_size"); n != 1 {
			t.Errorf("the mistake is logged %d times:\n%s", n, &log)
		}

		b.err = errors.New("everything is needed")
		edit(`cache_size = "16MiB"`, 5*configEvery)
		want("not possible", 16<<20)
		edit(`cache_size = "16MiB"`, resizeAgain)
		want("again", 16<<20)
		b.err = nil
		edit(`cache_size = "16MiB"`, resizeAgain)
		want("possible at last", 16<<20)
		edit(`cache_size = "16MiB"`, 5*resizeAgain)
		want("done")
		if n := strings.Count(log.String(), "everything is needed"); n != 1 {
			t.Errorf("what is not possible is logged %d times:\n%s", n, &log)
		}
	})
}
