package chunk_test

import (
	"testing"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
)

func BenchmarkSplitter(b *testing.B) {
	content := random(1, 64<<20)
	for _, c := range []chunk.Cutter{chunk.CDC256K, chunk.CDC1M} {
		b.Run(c.String(), func(b *testing.B) {
			s := newSplitter(b, c, int64(len(content)))
			b.SetBytes(int64(len(content)))
			pieces := 0
			for b.Loop() {
				pieces = len(cutFrom(s, content, 0))
			}
			b.ReportMetric(float64(len(content)>>10)/float64(pieces), "KiB/piece")
		})
	}
}

func BenchmarkNewSplitter(b *testing.B) {
	for b.Loop() {
		newSplitter(b, chunk.CDC256K, 1<<20)
	}
}

func BenchmarkBuild(b *testing.B) {
	l := pieces(4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := chunk.Build(l, func(plain []byte) (block.ID, error) { return block.ID{1}, nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	l := pieces(4096)
	s := store{}
	depth, id := s.build(b, l)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := chunk.Load(depth, id, l.Size(), s.get); err != nil {
			b.Fatal(err)
		}
	}
}
