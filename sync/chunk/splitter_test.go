package chunk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
)

var cutters = []chunk.Cutter{chunk.Whole, chunk.CDC256K, chunk.CDC1M, chunk.Fixed64K, chunk.Fixed128K}

// testKey is the chunk key of the tests.
func testKey() [32]byte { return block.Sum([]byte("chunk key")) }

// random returns n bytes that are the same for a seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n+7)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b[:n:n]
}

func newSplitter(tb testing.TB, c chunk.Cutter, size int64) *chunk.Splitter {
	tb.Helper()
	s, err := chunk.NewSplitter(c, testKey(), size)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// cuts returns the offsets at which content is cut, its size among them.
func cuts(tb testing.TB, c chunk.Cutter, content []byte) []int {
	tb.Helper()
	return cutFrom(newSplitter(tb, c, int64(len(content))), content, 0)
}

// cutFrom returns the ends of the pieces from off on.
func cutFrom(s *chunk.Splitter, content []byte, off int) []int {
	var ends []int
	for off < len(content) {
		off += s.Next(int64(off), content[off:off+s.Max(int64(off))])
		ends = append(ends, off)
	}
	return ends
}

// lengths returns the lengths of the pieces that end at ends.
func lengths(ends []int) []int {
	var n []int
	begin := 0
	for _, end := range ends {
		n = append(n, end-begin)
		begin = end
	}
	return n
}

// nextBySpecification is the length of a piece as the package comment states
// it, with every hash computed from scratch.
func nextBySpecification(c chunk.Cutter, content []byte, off int) int {
	gear := make([]byte, 2048)
	key := testKey()
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err)
	}
	_, _ = h.WriteString("roamfs chunk gear v1")
	_, _ = h.Digest().Read(gear)

	left := len(content) - off
	if left < 80<<10 {
		return left
	}
	least, turn, most, before, after := 64<<10, 192<<10, 1<<20, 19, 16
	if c == chunk.CDC1M {
		least, turn, most, before, after = 256<<10, 768<<10, 4<<20, 21, 18
	}
	if off < 64<<10 {
		least, turn, most, before, after = 32<<10, 48<<10, 128<<10, 17, 14
	}
	latest := min(most, left-64<<10)
	for n := least; n < latest; n++ {
		var hash uint64
		for _, b := range content[off+n-64 : off+n] {
			hash = 2*hash + binary.LittleEndian.Uint64(gear[8*int(b):])
		}
		bits := before
		if n > turn {
			bits = after
		}
		if hash>>(64-bits) == 0 {
			return n
		}
	}
	return latest
}

func TestCutsAreThoseOfTheSpecification(t *testing.T) {
	for _, c := range []chunk.Cutter{chunk.CDC256K, chunk.CDC1M} {
		for seed, size := range []int{0, 1, 70_000, 80<<10 - 1, 80 << 10, 100_000, 200_000, 1_600_000} {
			content := random(uint64(seed), size)
			off := 0
			for i, end := range cuts(t, c, content) {
				if want := nextBySpecification(c, content, off); end-off != want {
					t.Fatalf("%v, %d bytes: piece %d at %d has %d bytes, want %d", c, size, i, off, end-off, want)
				}
				off = end
			}
		}
	}
}

// Pieces cover the content, keep to their bounds, and Next looks at no more
// than Max says.
func TestCutsKeepToTheirBounds(t *testing.T) {
	pool := random(1, 3<<20)
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.SampledFrom(cutters).Draw(t, "cutter")
		limit := len(pool)
		if c == chunk.Whole {
			limit = chunk.MaxWhole
		}
		size := uniform(t, "size", 0, limit)
		content := slices.Clone(pool[:size])
		for range rapid.IntRange(0, 3).Draw(t, "runs") { // parts that have no cut of their own
			from := uniform(t, "from", 0, size)
			clear(content[from:uniform(t, "to", from, size)])
		}
		s, err := chunk.NewSplitter(c, testKey(), int64(size))
		if err != nil {
			t.Fatal(err)
		}
		off := 0
		for off < size {
			most := s.Max(int64(off))
			if most < 1 || most > block.MaxPlain || off+most > size {
				t.Fatalf("Max(%d) = %d of %d bytes", off, most, size)
			}
			n := s.Next(int64(off), content[off:off+most])
			if n < 1 || n > most {
				t.Fatalf("Next(%d) = %d, Max %d", off, n, most)
			}
			if longer := s.Next(int64(off), content[off:]); longer != n {
				t.Fatalf("Next(%d) = %d with more than Max bytes, %d with just those", off, longer, n)
			}
			checkBounds(t, c, size, off, n)
			off += n
		}
		if s.Max(int64(size)) != 0 || s.Next(int64(size), nil) != 0 || s.Max(-1) != 0 || s.Next(-1, pool) != 0 {
			t.Fatal("pieces outside of the content")
		}
	})
}

// uniform draws a number from least to most, all equally likely: rapid itself
// prefers small ones, and small contents have few cuts.
func uniform(t *rapid.T, label string, least, most int) int {
	seed := rapid.Uint64().Draw(t, label)
	return least + rand.New(rand.NewPCG(seed, 1)).IntN(most-least+1)
}

// checkBounds checks a piece of n bytes at off against what the package comment
// says of its size.
func checkBounds(t *rapid.T, c chunk.Cutter, size, off, n int) {
	least, most := 64<<10, 1<<20
	switch c {
	case chunk.CDC256K:
	case chunk.Whole:
		least, most = size, size
	case chunk.Fixed64K:
		least, most = 64<<10, 64<<10
	case chunk.Fixed128K:
		least, most = 128<<10, 128<<10
	case chunk.CDC1M:
		least, most = 256<<10, 4<<20
	}
	last := off+n == size
	if c == chunk.CDC256K || c == chunk.CDC1M {
		if off < 64<<10 {
			least, most = 32<<10, 128<<10
		}
		if last {
			least, most = 64<<10, 80<<10-1
		} else if size-off-n == 64<<10 || size-off-n < 80<<10 {
			least = 16 << 10 // the last before the tail
		}
		if size < 80<<10 {
			least = size
		}
		if !last && size-off-n < 64<<10 {
			t.Fatalf("piece at %d of %d bytes reaches into the last 64 KiB of %d", off, n, size)
		}
	} else if last {
		least = 1
	}
	if n < least || n > most {
		t.Fatalf("%v: piece at %d of %d bytes in %d, want %d to %d", c, off, n, size, least, most)
	}
}

func TestHeadAndTailAreSmall(t *testing.T) {
	for seed := range 8 {
		content := random(uint64(seed), 5_000_000+seed*1000)
		n := lengths(cuts(t, chunk.CDC256K, content))
		if n[0] > 128<<10 {
			t.Errorf("head of %d bytes", n[0])
		}
		if tail := n[len(n)-1]; tail < 64<<10 || tail >= 80<<10 {
			t.Errorf("tail of %d bytes", tail)
		}
	}
}

func TestUsualSizes(t *testing.T) {
	content := random(3, 40<<20)
	for _, c := range []struct {
		cutter    chunk.Cutter
		min, most int
	}{
		{chunk.CDC256K, 205 << 10, 256 << 10},
		{chunk.CDC1M, 820 << 10, 1024 << 10},
		{chunk.Fixed64K, 64 << 10, 64 << 10},
		{chunk.Fixed128K, 128 << 10, 128 << 10},
	} {
		pieces := len(cuts(t, c.cutter, content))
		if mean := len(content) / pieces; mean < c.min || mean > c.most {
			t.Errorf("%v: pieces of %d KiB on the mean, want %d to %d", c.cutter, mean>>10, c.min>>10, c.most>>10)
		}
	}
}

// resent returns the bytes of pieces of the new content that the old has not.
func resent(tb testing.TB, c chunk.Cutter, before, after []byte) int {
	tb.Helper()
	have := map[block.ID]bool{}
	off := 0
	for _, end := range cuts(tb, c, before) {
		have[block.Sum(before[off:end])] = true
		off = end
	}
	sum := 0
	off = 0
	for _, end := range cuts(tb, c, after) {
		if !have[block.Sum(after[off:end])] {
			sum += end - off
		}
		off = end
	}
	return sum
}

func TestEditsSendLittle(t *testing.T) {
	const mib = 1 << 20
	before := random(4, 8*mib)
	middle := len(before) / 2
	patch := random(5, 1000)
	overwritten := slices.Clone(before)
	copy(overwritten[middle:], patch)
	for _, c := range []struct {
		name   string
		cutter chunk.Cutter
		after  []byte
		most   int // bytes to send
	}{
		{"nothing", chunk.CDC256K, before, 0},
		{"insert in the middle", chunk.CDC256K, slices.Insert(slices.Clone(before), middle, patch...), mib},
		{"insert at the begin", chunk.CDC256K, slices.Concat(patch, before), mib / 2},
		{"delete in the middle", chunk.CDC256K, slices.Delete(slices.Clone(before), middle, middle+5000), mib},
		{"delete the begin", chunk.CDC256K, before[3000:], mib / 2},
		{"overwrite", chunk.CDC256K, overwritten, mib},
		{"append", chunk.CDC256K, slices.Concat(before, patch), mib},
		{"truncate", chunk.CDC256K, before[:len(before)-777], mib},
		{"move a part", chunk.CDC256K, slices.Concat(before[3*mib:], before[:3*mib]), 2 * mib},
		{"insert, large pieces", chunk.CDC1M, slices.Insert(slices.Clone(before), middle, patch...), 3 * mib},
		{"overwrite, fixed", chunk.Fixed64K, overwritten, 2 * 64 << 10},
		{"append, fixed", chunk.Fixed64K, slices.Concat(before, patch), 64 << 10},
	} {
		if got := resent(t, c.cutter, before, c.after); got > c.most {
			t.Errorf("%s: %d KiB to send again, want at most %d", c.name, got>>10, c.most>>10)
		}
	}
}

// Metadata written into the head of a photo moves all that follows. What has to
// be sent again is about the head, thanks to its content-defined pieces.
func TestInsertIntoHeadsSendsLittle(t *testing.T) {
	sum, all := 0, 0
	for seed := range 12 {
		before := random(100+uint64(seed), 3<<20)
		after := slices.Insert(slices.Clone(before), 200, random(1, 300)...)
		sum += resent(t, chunk.CDC256K, before, after)
		all += len(after)
	}
	if share := float64(sum) / float64(all); share > 0.10 {
		t.Errorf("%.1f %% to send again, want at most 10", 100*share)
	}
}

func TestKeyDecidesCuts(t *testing.T) {
	content := random(6, 4<<20)
	other, err := chunk.NewSplitter(chunk.CDC256K, block.Sum([]byte("another hive's")), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	ends := cuts(t, chunk.CDC256K, content)
	same := 0
	for _, end := range cutFrom(other, content, 0) {
		if slices.Contains(ends, end) {
			same++
		}
	}
	if same > 2 { // the tail and the end
		t.Errorf("%d cuts of %d are the same under two keys", same, len(ends))
	}
}

// Cutting anew from any old boundary, with a splitter that has seen nothing,
// gives the same cuts.
func TestRestartAtAnyBoundary(t *testing.T) {
	content := random(7, 5<<20)
	for _, c := range cutters[1:] {
		ends := cuts(t, c, content)
		for i, end := range ends[:len(ends)-1] {
			if got := cutFrom(newSplitter(t, c, int64(len(content))), content, end); !slices.Equal(got, ends[i+1:]) {
				t.Errorf("%v: restarted at %d cuts at %v, want %v", c, end, got, ends[i+1:])
			}
		}
	}
}

// The hash at the least size is that of the 64 bytes before, as it is anywhere
// else: a cut that moves to the least size stays a cut.
func TestHashIsWarmAtTheLeastSize(t *testing.T) {
	const begin, least = 1 << 20, 64 << 10
	content := random(11, 4<<20)
	s := newSplitter(t, chunk.CDC256K, int64(len(content)))
	end, n := begin, 0
	for n < least+1000 || n > 190<<10 { // cut by the bits that count before the turn
		n = s.Next(int64(end), content[end:])
		end += n
	}
	window := slices.Clone(content[end-64 : end])
	for _, at := range []int{least, least + 1, least + 63, least + 64, least + 1000} {
		moved := random(12, len(content))
		copy(moved[begin+at-64:], window)
		if got := s.Next(begin, moved[begin:]); got != at {
			t.Errorf("the end of a piece moved to %d: piece of %d bytes", at, got)
		}
	}
	moved := random(12, len(content))
	copy(moved[begin+least-1-64:], window)
	if got := s.Next(begin, moved[begin:]); got < least {
		t.Errorf("a piece of %d bytes, less than the least", got)
	}
}

// A caller that knows of a hole passes what comes before it: the piece ends
// there, or earlier if its content says so.
func TestNextEndsBeforeHole(t *testing.T) {
	content := random(8, 3<<20)
	s := newSplitter(t, chunk.CDC256K, int64(len(content)))
	off := int64(256 << 10)
	n := s.Next(off, content[off:])
	for _, c := range []struct{ have, want int }{{0, 0}, {1, 1}, {64 << 10, 64 << 10}, {n - 1, n - 1}, {n, n}, {n + 1, n}} {
		if got := s.Next(off, content[off:off+int64(c.have)]); got != c.want {
			t.Errorf("with %d bytes before a hole: %d, want %d", c.have, got, c.want)
		}
	}
	fixed := newSplitter(t, chunk.Fixed64K, int64(len(content)))
	if got, want := fixed.Next(100<<10, content[100<<10:]), 28<<10; got != want {
		t.Errorf("fixed, after a hole: %d bytes, want %d, to be aligned again", got, want)
	}
}

// Keeps tells the truth: what it promises is cut the same in the new version.
func TestKeeps(t *testing.T) {
	pool := random(9, 4<<20)
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.SampledFrom(cutters[1:]).Draw(t, "cutter")
		size := uniform(t, "size", 1, len(pool)/2)
		newSize := uniform(t, "new size", 0, 2*size)
		if rapid.Bool().Draw(t, "a little") {
			newSize = max(0, size+uniform(t, "grown by", -200_000, 200_000))
		}
		before, err := chunk.NewSplitter(c, testKey(), int64(size))
		if err != nil {
			t.Fatal(err)
		}
		after, err := chunk.NewSplitter(c, testKey(), int64(newSize))
		if err != nil {
			t.Fatal(err)
		}
		off := 0
		lost := 0
		for _, end := range cutFrom(before, pool[:size], 0) {
			n := end - off
			if after.Keeps(int64(size), int64(off), n) {
				if got := after.Next(int64(off), pool[off:newSize]); got != n {
					t.Fatalf("piece at %d of %d bytes is kept but cut to %d", off, n, got)
				}
			} else if end <= newSize {
				lost++
			}
			off = end
		}
		if size == newSize && lost > 0 || lost > 3 {
			t.Fatalf("%d pieces are not kept", lost)
		}
		if after.Keeps(int64(size), int64(size), 1) || after.Keeps(int64(size), -1, 1) || after.Keeps(int64(size), 0, 0) {
			t.Fatal("keeps pieces that cannot be")
		}
	})
}

func TestNewSplitterRefuses(t *testing.T) {
	for _, c := range []struct {
		cutter chunk.Cutter
		size   int64
	}{{0, 1}, {6, 1}, {255, 1}, {chunk.Whole, chunk.MaxWhole + 1}, {chunk.CDC256K, -1}, {chunk.Fixed64K, -1}} {
		if _, err := chunk.NewSplitter(c.cutter, testKey(), c.size); !errors.Is(err, chunk.ErrCutter) {
			t.Errorf("%v for %d bytes: %v, want ErrCutter", c.cutter, c.size, err)
		}
	}
}

func TestSplitterConcurrently(t *testing.T) {
	content := random(10, 4<<20)
	s := newSplitter(t, chunk.CDC256K, int64(len(content)))
	want := cutFrom(s, content, 0)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if got := cutFrom(s, content, 0); !slices.Equal(got, want) {
				t.Errorf("cut at %v, want %v", got, want)
			}
		})
	}
	wg.Wait()
}

// Content that stands still, such as one byte repeated, is cut at the bounds.
func TestMonotonousContent(t *testing.T) {
	for _, b := range []byte{0, 1, 'x', 0xff} {
		n := lengths(cuts(t, chunk.CDC256K, bytes.Repeat([]byte{b}, 5<<20)))
		for i, l := range n[2 : len(n)-2] {
			if l != 64<<10 && l != 192<<10+1 && l != 1<<20 {
				t.Errorf("byte %#x: piece %d has %d bytes", b, i+2, l)
			}
		}
	}
}
