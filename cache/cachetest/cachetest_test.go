package cachetest_test

import (
	"path/filepath"
	"testing"

	"github.com/roamfs/roamfs/cache"
	"github.com/roamfs/roamfs/cache/cachetest"
)

func TestCache(t *testing.T) {
	cachetest.Run(t, func(t *testing.T, f cache.Fetcher) cachetest.Store {
		c, err := cache.Open(filepath.Join(t.TempDir(), "blocks"), cache.Options{Limit: 64 << 20, Fetcher: f})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		return c
	})
}
