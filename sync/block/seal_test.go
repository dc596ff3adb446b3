package block_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/roamfs/roamfs/sync/block"
)

// contents are named pieces of content at which sealing takes different ways.
func contents() map[string][]byte {
	return map[string][]byte{
		"empty":              nil,
		"one byte":           {7},
		"short text":         []byte("nothing is gained by compressing this"),
		"repetitive":         bytes.Repeat([]byte("roam "), 100),
		"text":               text(1, 10000),
		"random":             random(1, 10000),
		"text, probed":       text(2, 100_000),
		"random, probed":     random(2, 100_000),
		"text with a random": append(text(3, 200_000), random(3, 20_000)...),
		"zeros":              make([]byte, 1<<20),
		"most text":          text(4, block.MaxPlain),
		"most random":        random(4, block.MaxPlain),
	}
}

func TestSealOpen(t *testing.T) {
	keys := newKeys(t, 1, 1)
	for name, plain := range contents() {
		for _, typ := range []block.Type{block.Data, block.List, block.Node} {
			t.Run(fmt.Sprintf("%s/%v", name, typ), func(t *testing.T) {
				before := slices.Clone(plain)
				id, sealed := seal(t, keys, typ, plain)
				if !bytes.Equal(plain, before) {
					t.Fatal("Seal changed its argument")
				}
				if id != block.Sum(sealed) {
					t.Errorf("ID %v, but the bytes hash to %v", id, block.Sum(sealed))
				}
				if len(sealed) > block.MaxSealed {
					t.Errorf("sealed to %d bytes, more than MaxSealed", len(sealed))
				}
				before = slices.Clone(sealed)
				got, err := keys.Open(id, typ, sealed)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, plain) {
					t.Errorf("opened %d bytes, not the %d that were sealed", len(got), len(plain))
				}
				if !bytes.Equal(sealed, before) {
					t.Error("Open changed its argument")
				}
			})
		}
	}
}

func TestSealOpenRandomly(t *testing.T) {
	keys := newKeys(t, 3, 1, 3)
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "content")
		plain = bytes.Repeat(plain, rapid.IntRange(1, 200).Draw(t, "times"))
		typ := rapid.SampledFrom([]block.Type{block.Data, block.List, block.Node}).Draw(t, "type")
		id, sealed, err := keys.Seal(typ, plain)
		if err != nil {
			t.Fatal(err)
		}
		got, err := keys.Open(id, typ, sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened %d bytes of %d, error %v", len(got), len(plain), err)
		}
	})
}

// The caller owns what Seal and Open return: it may overwrite it without damage
// to what they return later, although they reuse memory.
func TestResultsAreOwned(t *testing.T) {
	keys := newKeys(t, 1, 1)
	for name, plain := range contents() {
		t.Run(name, func(t *testing.T) {
			id, sealed := seal(t, keys, block.Data, plain)
			kept := slices.Clone(sealed)
			first, err := keys.Open(id, block.Data, sealed)
			if err != nil {
				t.Fatal(err)
			}
			second, err := keys.Open(id, block.Data, sealed)
			if err != nil {
				t.Fatal(err)
			}
			fillWith(first[:cap(first)], 0xaa)
			if !bytes.Equal(second, plain) {
				t.Error("two results of Open share memory")
			}
			_, again := seal(t, keys, block.Data, plain)
			fillWith(again[:cap(again)], 0xaa)
			if !bytes.Equal(sealed, kept) {
				t.Error("a result of Seal shares memory with another result")
			}
		})
	}
}

func fillWith(b []byte, v byte) {
	for i := range b {
		b[i] = v
	}
}

// Equal content gives equal blocks, however often and in whatever order it is
// sealed, with coders that are new or have done much before.
func TestSealIsDeterministic(t *testing.T) {
	used := newKeys(t, 1, 1)
	warm := text(9, 4<<10)
	for range 3000 { // enough for an encoder to start over with its positions
		seal(t, used, block.Data, warm)
	}
	all := contents()
	for round := range 2 {
		for name, plain := range all {
			id, sealed := seal(t, newKeys(t, 1, 1), block.Data, plain)
			gotID, got := seal(t, used, block.Data, plain)
			if gotID != id || !bytes.Equal(got, sealed) {
				t.Errorf("%s, round %d: other bytes from a used encoder", name, round)
			}
		}
	}
}

func TestSealSeparates(t *testing.T) {
	plain := []byte("the same content")
	ids := map[block.ID]string{}
	for _, epoch := range []uint32{1, 2} {
		for _, typ := range []block.Type{block.Data, block.List, block.Node} {
			id, sealed := seal(t, newKeys(t, epoch, 1, 2), typ, plain)
			name := fmt.Sprintf("epoch %d, %v", epoch, typ)
			if other, ok := ids[id]; ok {
				t.Errorf("%s has the ID of %s", name, other)
			}
			ids[id] = name
			if bytes.Contains(sealed, plain[:8]) {
				t.Errorf("%s: content can be read in the sealed block", name)
			}
		}
	}
}

func TestSealRefuses(t *testing.T) {
	keys := newKeys(t, 1, 1)
	if _, _, err := keys.Seal(block.Data, make([]byte, block.MaxPlain+1)); !errors.Is(err, block.ErrTooLarge) {
		t.Errorf("one byte too many: %v, want ErrTooLarge", err)
	}
	for _, typ := range []block.Type{0, 4, 255} {
		if _, _, err := keys.Seal(typ, []byte("x")); err == nil {
			t.Errorf("%v was sealed", typ)
		}
	}
}

// Every single bit is under the ID; and with the ID made to fit, under the tag.
func TestFlippedByte(t *testing.T) {
	keys := newKeys(t, 1, 1)
	for name, plain := range map[string][]byte{
		"empty":      nil,
		"raw":        random(1, 300),
		"compressed": bytes.Repeat([]byte("roam "), 100),
		"padded":     random(1, 1025),
	} {
		t.Run(name, func(t *testing.T) {
			id, sealed := seal(t, keys, block.Data, plain)
			for i := range sealed {
				for _, flip := range []byte{0x01, 0x80, 0xff} {
					bad := slices.Clone(sealed)
					bad[i] ^= flip
					if _, err := keys.Open(id, block.Data, bad); !errors.Is(err, block.ErrDamaged) {
						t.Fatalf("byte %d changed: %v, want ErrDamaged", i, err)
					} else {
						wantMismatch(t, err, id, block.Sum(bad))
					}
					_, err := keys.Open(block.Sum(bad), block.Data, bad)
					if want := forged(i); !errors.Is(err, want) {
						t.Fatalf("byte %d changed, and the ID with it: %v, want %v", i, err, want)
					}
				}
			}
		})
	}
}

// forged returns the error for a block with a change at offset i under a name
// that fits.
func forged(i int) error {
	switch {
	case i == 0:
		return block.ErrVersion
	case i >= 2 && i < 6:
		return block.ErrNoKey
	}
	return block.ErrDamaged
}

func TestOpenRefuses(t *testing.T) {
	keys := newKeys(t, 1, 1)
	plain := []byte("for the owner's eyes only")
	id, sealed := seal(t, keys, block.Data, plain)

	otherHive, err := block.NewKeys(1, map[uint32]block.Secret{1: {'x'}})
	if err != nil {
		t.Fatal(err)
	}
	long := make([]byte, block.MaxSealed+1)
	for _, c := range []struct {
		name   string
		keys   *block.Keys
		id     block.ID
		typ    block.Type
		sealed []byte
		want   error
	}{
		{"another hive", otherHive, id, block.Data, sealed, block.ErrDamaged},
		{"a device without that epoch", newKeys(t, 2, 2), id, block.Data, sealed, block.ErrNoKey},
		{"as a list", keys, id, block.List, sealed, block.ErrDamaged},
		{"as the block of no name", keys, block.ID{}, block.Data, sealed, block.ErrDamaged},
		{"nothing", keys, block.Sum(nil), block.Data, nil, block.ErrDamaged},
		{"a header only", keys, block.Sum(sealed[:38]), block.Data, sealed[:38], block.ErrDamaged},
		{"one byte less", keys, block.Sum(sealed[:len(sealed)-1]), block.Data, sealed[:len(sealed)-1], block.ErrDamaged},
		{"one byte more", keys, block.Sum(append(sealed, 0)), block.Data, append(sealed, 0), block.ErrDamaged},
		{"more than MaxSealed", keys, block.Sum(long), block.Data, long, block.ErrDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.keys.Open(c.id, c.typ, c.sealed)
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if got != nil {
				t.Errorf("%d bytes besides the error", len(got))
			}
		})
	}
}

// Blocks of earlier epochs stay readable after the epoch has changed, and the
// keys that shape the tree and the chunks stay what they were.
func TestEpochChange(t *testing.T) {
	before, after := newKeys(t, 1, 1), newKeys(t, 2, 1, 2)
	id, sealed := seal(t, before, block.Data, []byte("old"))
	if got, err := after.Open(id, block.Data, sealed); err != nil || string(got) != "old" {
		t.Errorf("block of the earlier epoch: %q, %v", got, err)
	}
	if newID, _ := seal(t, after, block.Data, []byte("old")); newID == id {
		t.Error("sealed under the earlier epoch")
	}
	if before.ChunkKey() != after.ChunkKey() {
		t.Error("the chunk key changed with the epoch")
	}
	if before.ChunkKey() == before.Derive("merkle") || before.ChunkKey() == ([32]byte{}) {
		t.Error("two purposes have one key")
	}
	if before.Epoch() != 1 || after.Epoch() != 2 {
		t.Errorf("epochs %d and %d, want 1 and 2", before.Epoch(), after.Epoch())
	}
}

func TestNewKeysRefuses(t *testing.T) {
	if _, err := block.NewKeys(2, map[uint32]block.Secret{1: {1}}); !errors.Is(err, block.ErrNoKey) {
		t.Errorf("without the current epoch: %v, want ErrNoKey", err)
	}
	if _, err := block.NewKeys(1, map[uint32]block.Secret{1: {1}, 0: {}}); err == nil {
		t.Error("a secret of zeros was taken")
	}
}

func TestSealedSizeFollowsPadme(t *testing.T) {
	keys := newKeys(t, 1, 1)
	for n := range 3000 {
		_, sealed := seal(t, keys, block.Data, random(uint64(n), n))
		if got, want := len(sealed)-block.Overhead, padme(n); got != want {
			t.Fatalf("%d random bytes padded to %d, want %d", n, got, want)
		}
	}
	sizes := map[int]bool{}
	for n := range 100 {
		_, sealed := seal(t, keys, block.Data, random(uint64(n), 1_000_000+n*500))
		sizes[len(sealed)] = true
	}
	if len(sizes) > 4 {
		t.Errorf("100 sizes between 1.00 and 1.05 MB show as %d, want at most 4", len(sizes))
	}
	for _, n := range []int{64 << 10, 128 << 10, block.MaxPlain} {
		if _, sealed := seal(t, keys, block.Data, random(1, n)); len(sealed) != n+block.Overhead {
			t.Errorf("%d random bytes sealed to %d: a power of two was padded", n, len(sealed))
		}
	}
}

// padme is the formula of the paper, in floating-point-free form.
func padme(n int) int {
	if n < 2 {
		return n
	}
	e := bits.Len(uint(n)) - 1
	s := bits.Len(uint(e))
	if e < s {
		return n
	}
	last := 1 << (e - s)
	return (n + last - 1) / last * last
}

func TestPadme(t *testing.T) {
	for n := range 1 << 17 {
		p := block.Padme(n)
		if p < n || p != padme(n) || block.Padme(p) != p {
			t.Fatalf("Padme(%d) = %d, of that %d", n, p, block.Padme(p))
		}
		if 100*(p-n) > 12*n {
			t.Fatalf("Padme(%d) = %d, more than 12 %% on top", n, p)
		}
	}
	if p := block.Padme(block.MaxPlain); p != block.MaxPlain {
		t.Errorf("Padme(MaxPlain) = %d", p)
	}
}

func TestCompressionPays(t *testing.T) {
	keys := newKeys(t, 1, 1)
	for _, c := range []struct {
		name      string
		plain     []byte
		min, most int // sealed bytes
	}{
		{"text", text(1, 100_000), 10_000, 50_000},
		{"zeros", make([]byte, block.MaxPlain), 50, 1000},
		{"digits, which only entropy coding shortens", digits(100_000), 40_000, 55_000},
		{"records that repeat but have all bytes", bytes.Repeat(random(1, 2048), 50), 2048, 5000},
		{"random", random(1, 100_000), 100_000, 104_000},
		{"random where the probe looks", slices.Concat(random(1, 4096), text(1, 40_000), random(2, 6000), text(2, 40_000), random(3, 4096)), 94_192, 98_304},
		{"saves a twentieth only", slices.Concat(random(1, 19_000), make([]byte, 1_000)), 20_000, 21_000},
		{"saves a tenth", slices.Concat(random(1, 18_000), make([]byte, 2_000)), 18_000, 19_600},
	} {
		if _, sealed := seal(t, keys, block.Data, c.plain); len(sealed) < c.min || len(sealed) > c.most {
			t.Errorf("%s: %d bytes sealed to %d, want %d to %d", c.name, len(c.plain), len(sealed), c.min, c.most)
		}
	}
}

func digits(n int) []byte {
	b := random(5, n)
	for i := range b {
		b[i] = '0' + b[i]%10
	}
	return b
}

func TestConcurrentUse(t *testing.T) {
	keys := newKeys(t, 1, 1)
	type want struct {
		plain, sealed []byte
		id            block.ID
	}
	var wants []want
	for i := range 6 {
		for _, plain := range [][]byte{text(uint64(i), 40_000), random(uint64(i), 40_000), text(uint64(i), 300)} {
			id, sealed := seal(t, keys, block.Data, plain)
			wants = append(wants, want{plain, sealed, id})
		}
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 3 * len(wants) {
				w := wants[(i*5+g)%len(wants)]
				if id, sealed, err := keys.Seal(block.Data, w.plain); err != nil || id != w.id || !bytes.Equal(sealed, w.sealed) {
					t.Errorf("sealed to %v, want %v (error %v)", id, w.id, err)
				}
				if got, err := keys.Open(w.id, block.Data, w.sealed); err != nil || !bytes.Equal(got, w.plain) {
					t.Errorf("opened %d bytes of %d: %v", len(got), len(w.plain), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestUnavailableError(t *testing.T) {
	cause := errors.New("timed out")
	err := fmt.Errorf("read: %w", &block.UnavailableError{ID: block.ID{0xab}, Holders: []string{"nas", "laptop"}, Err: cause})
	if !errors.Is(err, block.ErrNoReplica) {
		t.Error("is not ErrNoReplica")
	}
	if errors.Is(err, cause) {
		t.Error("is the error of the last attempt")
	}
	for _, part := range []string{"ab00", "nas, laptop", "timed out"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if msg := (&block.UnavailableError{}).Error(); strings.Contains(msg, "held by") {
		t.Errorf("%q names holders, but none is known", msg)
	}
}

func seal(tb testing.TB, keys *block.Keys, typ block.Type, plain []byte) (block.ID, []byte) {
	tb.Helper()
	id, sealed, err := keys.Seal(typ, plain)
	if err != nil {
		tb.Fatal(err)
	}
	return id, sealed
}

func wantMismatch(t *testing.T, err error, want, got block.ID) {
	t.Helper()
	m, ok := errors.AsType[*block.MismatchError](err)
	if !ok || m.Want != want || m.Got != got || !errors.Is(err, block.ErrDamaged) {
		t.Errorf("error %v, want a MismatchError of %v and %v", err, want, got)
	}
}
