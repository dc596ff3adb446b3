// Package cachetest is the contract of a store of blocks, for the real cache and
// for whatever stands in for it in tests.
package cachetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/roamfs/roamfs/cache"
	"github.com/roamfs/roamfs/sync/block"
)

// Store is the part of [cache.Cache] that others use.
type Store interface {
	Get(ctx context.Context, id block.ID, p cache.Priority) ([]byte, error)
	Read(id block.ID) ([]byte, error)
	Put(ctx context.Context, id block.ID, sealed []byte, o cache.Origin) error
	Sync() error
	Has(id block.ID) bool
	Missing(ids []block.ID) []block.ID
	Pin(id block.ID)
	Unpin(id block.ID)
	Forget(p cache.Proof) error
}

// Block returns a new block of size bytes.
func Block(t *testing.T, size int) (block.ID, []byte) {
	t.Helper()
	b := make([]byte, size)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return block.Sum(b), b
}

// Run checks the contract. open returns an empty store that fetches from
// fetcher; it ends with the test.
func Run(t *testing.T, open func(t *testing.T, fetcher cache.Fetcher) Store) {
	t.Helper()
	for name, size := range map[string]int{"smallest": 1, "packed": 3000, "largest packed": cache.PackBelow - 1, "file": cache.PackBelow, "largest": block.MaxSealed} {
		t.Run("round trip, "+name, func(t *testing.T) { roundTrip(t, open(t, nil), size) })
	}
	t.Run("refuses what is not the block", func(t *testing.T) {
		s := open(t, nil)
		id, b := Block(t, 5000)
		b[17] ^= 1
		for _, bad := range [][]byte{b, nil, make([]byte, block.MaxSealed+1)} {
			if err := s.Put(t.Context(), id, bad, cache.Local); !errors.Is(err, block.ErrDamaged) {
				t.Errorf("put of %d bytes: %v", len(bad), err)
			}
		}
		if s.Has(id) {
			t.Error("it is resident")
		}
	})
	t.Run("fetches once and keeps", func(t *testing.T) {
		id, b := Block(t, 70_000)
		calls := 0
		s := open(t, Fetch(func(context.Context, block.ID, cache.Priority) ([]byte, error) {
			calls++
			return bytes.Clone(b), nil
		}))
		for range 3 {
			if got, err := s.Get(t.Context(), id, cache.Demand); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("get: %v", err)
			}
		}
		if calls != 1 || !s.Has(id) {
			t.Errorf("%d calls, resident %v", calls, s.Has(id))
		}
	})
	t.Run("believes no fetcher", func(t *testing.T) {
		id, b := Block(t, 5000)
		lie := b
		s := open(t, Fetch(func(context.Context, block.ID, cache.Priority) ([]byte, error) { return lie, nil }))
		for _, lie = range [][]byte{append([]byte{1}, b...), b[:4999], nil, make([]byte, block.MaxSealed+1)} {
			if _, err := s.Get(t.Context(), id, cache.Demand); !errors.Is(err, block.ErrDamaged) {
				t.Errorf("get of %d other bytes: %v", len(lie), err)
			}
		}
		lie = b
		if got, err := s.Get(t.Context(), id, cache.Demand); err != nil || !bytes.Equal(got, b) {
			t.Errorf("the truth after the lies: %v", err)
		}
	})
	t.Run("nothing goes without proof", func(t *testing.T) {
		s := open(t, nil)
		id, b := Block(t, 5000)
		if err := s.Put(t.Context(), id, b, cache.Fetched); err != nil {
			t.Fatal(err)
		}
		if err := s.Forget(cache.Proof{}); !errors.Is(err, cache.ErrNoProof) {
			t.Errorf("the zero proof: %v", err)
		}
		s.Pin(id)
		if err := s.Forget(cache.Unreferenced(id)); !errors.Is(err, cache.ErrPinned) || !s.Has(id) {
			t.Errorf("pinned: %v", err)
		}
		s.Unpin(id)
		if err := s.Forget(cache.Unreferenced(id)); err != nil || s.Has(id) {
			t.Errorf("unpinned: %v", err)
		}
		if _, err := s.Read(id); !errors.Is(err, cache.ErrMissing) {
			t.Errorf("read of what is gone: %v", err)
		}
	})
}

func roundTrip(t *testing.T, s Store, size int) {
	t.Helper()
	id, b := Block(t, size)
	if got := s.Missing([]block.ID{id}); s.Has(id) || len(got) != 1 {
		t.Fatal("it is there before it was put")
	}
	for range 2 { // the second changes nothing
		if err := s.Put(t.Context(), id, b, cache.Local); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	got, err := s.Read(id)
	if err != nil || !bytes.Equal(got, b) || !s.Has(id) || len(s.Missing([]block.ID{id})) != 0 {
		t.Fatalf("read: %v", err)
	}
	got[0] ^= 1 // the caller's own
	if got, err := s.Get(t.Context(), id, cache.Demand); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("get: %v", err)
	}
}

// Fetch is a fetcher made of a function.
type Fetch func(ctx context.Context, id block.ID, p cache.Priority) ([]byte, error)

// Fetch implements [cache.Fetcher].
func (f Fetch) Fetch(ctx context.Context, id block.ID, p cache.Priority) ([]byte, error) {
	return f(ctx, id, p)
}
