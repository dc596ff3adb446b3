package chunk_test

import (
	"slices"
	"testing"

	"github.com/roamfs/roamfs/sync/chunk"
)

func TestChoose(t *testing.T) {
	const kib, mib, gib = 1 << 10, 1 << 20, 1 << 30
	sqlite := head("SQLite format 3\x00", 0)
	text := head("From roam@example.org", 0)
	for _, c := range []struct {
		name    string
		size    int64
		head    []byte
		inPlace bool
		prev    chunk.Cutter
		want    chunk.Cutter
	}{
		{"empty", 0, nil, false, 0, chunk.Whole},
		{"small", 4 * kib, text, false, 0, chunk.Whole},
		{"the most that stays whole", 512 * kib, text, false, 0, chunk.Whole},
		{"a byte more", 512*kib + 1, text, false, 0, chunk.CDC256K},
		{"large", gib, text, false, 0, chunk.CDC256K},
		{"very large", gib + 1, text, false, 0, chunk.CDC1M},
		{"a small database", 64 * kib, sqlite, false, 0, chunk.Whole},
		{"a database", 64*kib + 1, sqlite, false, 0, chunk.Fixed64K},
		{"a large database", 4 * gib, sqlite, false, 0, chunk.Fixed64K},
		{"a very large database", 4*gib + 1, sqlite, false, 0, chunk.Fixed128K},
		{"overwritten in place", mib, text, true, 0, chunk.Fixed64K},
		{"disk image", 10 * gib, head("\x53\xef", 1080), false, 0, chunk.Fixed128K},
		{"magic at the wrong place", mib, head("SQLite format 3\x00", 1), false, 0, chunk.CDC256K},
		{"magic cut short", mib, []byte("SQLite form"), false, 0, chunk.CDC256K},
		{"sticky: grown past a bound", 2 * gib, text, false, chunk.CDC256K, chunk.CDC256K},
		{"sticky: shrunk", 100, text, false, chunk.CDC1M, chunk.CDC1M},
		{"sticky: now overwritten in place", mib, text, true, chunk.CDC256K, chunk.CDC256K},
		{"sticky: no database any more", mib, text, false, chunk.Fixed64K, chunk.Fixed64K},
		{"grown out of one piece", mib, text, false, chunk.Whole, chunk.CDC256K},
		{"still one piece", 100 * kib, text, false, chunk.Whole, chunk.Whole},
		{"one piece, now a database", 100 * kib, sqlite, false, chunk.Whole, chunk.Fixed64K},
		{"cut by a later program", mib, text, false, 77, chunk.CDC256K},
	} {
		if got := chunk.Choose(c.size, c.head, c.inPlace, c.prev); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func head(magic string, at int) []byte {
	b := make([]byte, chunk.HeadLen)
	copy(b[at:], magic)
	return b
}

// Whatever is chosen can be used.
func TestChosenCutterFits(t *testing.T) {
	for _, size := range []int64{0, 1, 64 << 10, 512 << 10, 512<<10 + 1, 1 << 30, 1 << 40} {
		for _, prev := range append(slices.Clone(cutters), 0, 99) {
			for _, inPlace := range []bool{false, true} {
				c := chunk.Choose(size, nil, inPlace, prev)
				if _, err := chunk.NewSplitter(c, testKey(), size); err != nil {
					t.Errorf("%d bytes, in place %v, after %v: %v", size, inPlace, prev, err)
				}
			}
		}
	}
}
