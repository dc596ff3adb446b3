package merkle

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"slices"
	"sort"
	"testing"

	"github.com/zeebo/blake3"
)

// million is a Source of 1,000,000 files in 100,000 directories, two entries of
// together about 245 bytes each. It makes the entries up as they are asked for.
type million struct {
	inos  [][24]byte
	extra map[[24]byte]byte // files that were written to, and how often
	value [140]byte
}

func newMillion() *million {
	m := &million{inos: make([][24]byte, 1_000_000), extra: make(map[[24]byte]byte)}
	for i := range m.inos {
		dir := blake3.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i/10)))
		uniq := blake3.Sum256(binary.BigEndian.AppendUint64([]byte("f"), uint64(i)))
		copy(m.inos[i][:8], dir[:])
		copy(m.inos[i][8:], uniq[:])
	}
	slices.SortFunc(m.inos, func(a, b [24]byte) int { return bytes.Compare(a[:], b[:]) })
	return m
}

func (m *million) Scan(from, to []byte, fn func(Entry) error) error {
	i := sort.Search(len(m.inos), func(i int) bool { return bytes.Compare(m.inos[i][:], from) >= 0 })
	key := make([]byte, 0, 40)
	for ; i < len(m.inos); i++ {
		key = append(key[:0], m.inos[i][:]...)
		if to != nil && bytes.Compare(key, to) >= 0 {
			return nil
		}
		copy(m.value[:], key)
		m.value[40] = m.extra[m.inos[i]]
		if err := fn(Entry{append(key, 'C'), m.value[:101]}); err != nil {
			return err
		}
		if err := fn(Entry{append(key, "L\x00\x00\x00\x00\x00\x00\x00\x00"...), m.value[:90]}); err != nil {
			return err
		}
	}
	return nil
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

func BenchmarkMillionFiles(b *testing.B) {
	src := newMillion()
	before := heap()
	tree := mustBuild(b, src)
	memory := heap() - before
	saved, err := tree.MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	change := func() {
		p := src.inos[rnd.IntN(len(src.inos))]
		src.extra[p]++
		tree.Touch(p)
	}
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			mustBuild(b, src)
		}
		b.ReportMetric(float64(memory), "heap-bytes")
		b.ReportMetric(float64(len(tree.layers[0].nodes)), "leaves")
		b.ReportMetric(float64(len(tree.layers)), "layers")
	})
	b.Run("one-change", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			change()
			root(b, tree, src)
		}
	})
	b.Run("thousand-changes", func(b *testing.B) {
		for b.Loop() {
			for range 1000 {
				change()
			}
			root(b, tree, src)
		}
	})
	// A new boundary now and then: the worst single change is one that moves
	// all leaves behind it.
	b.Run("insert-and-remove-boundary", func(b *testing.B) {
		p := levelled(testKey, 1, 1)[0]
		p[0] = 0
		for tree.h.level(p) == 0 {
			p[23]++
		}
		for b.Loop() {
			src.inos = slices.Insert(src.inos, 0, p)
			tree.Touch(p)
			root(b, tree, src)
			src.inos = slices.Delete(src.inos, 0, 1)
			tree.Touch(p)
			root(b, tree, src)
		}
	})
	b.Run("touch", func(b *testing.B) {
		i := 0
		for b.Loop() {
			tree.Touch(src.inos[i%1000])
			i++
		}
	})
	root(b, tree, src)
	b.Run("clone", func(b *testing.B) {
		for b.Loop() {
			tree.Clone()
		}
	})
	b.Run("diff-of-thousand-changes", func(b *testing.B) {
		before := tree.Clone()
		for range 1000 {
			change()
		}
		root(b, tree, src)
		n := &network{tree: tree}
		ranges, runs := 0, 0
		for b.Loop() {
			got, err := collect(before, n)
			if err != nil {
				b.Fatal(err)
			}
			ranges += len(got)
			runs++
		}
		b.ReportMetric(float64(ranges)/float64(runs), "ranges/op")
		b.ReportMetric(float64(n.nodes)/float64(runs), "nodes/op")
		b.ReportMetric(float64(n.asks)/float64(runs), "asks/op")
	})
	b.Run("prove-and-verify", func(b *testing.B) {
		top, size, i := tree.Top().Hash, 0, 0
		for b.Loop() {
			i = (i + 7919) % len(src.inos)
			key := append(src.inos[i][:], 'C')
			proof, err := tree.Prove(src, key)
			if err != nil {
				b.Fatal(err)
			}
			size = max(size, len(proof))
			if got, err := Verify(top, key, proof); err != nil || len(got) != 1 {
				b.Fatal(len(got), err)
			}
		}
		b.ReportMetric(float64(size), "max-bytes")
	})
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			if _, err := tree.MarshalBinary(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(saved)), "bytes")
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if _, err := Load(testKey, saved); err != nil {
				b.Fatal(err)
			}
		}
	})
}
