package block_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/roamfs/roamfs/sync/block"
)

// sizes are the lengths of content that the benchmarks seal and open, in bytes.
var sizes = []int{4 << 10, 64 << 10, 1 << 20}

var kinds = []struct {
	name string
	make func(n int) []byte
}{
	{"random", func(n int) []byte { return random(uint64(n), n) }},
	{"text", func(n int) []byte { return text(uint64(n), n) }},
}

func BenchmarkSeal(b *testing.B) {
	each(b, func(b *testing.B, keys *block.Keys, plain []byte) {
		for b.Loop() {
			if _, _, err := keys.Seal(block.Data, plain); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	each(b, func(b *testing.B, keys *block.Keys, plain []byte) {
		id, sealed, err := keys.Seal(block.Data, plain)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(sealed))/float64(len(plain)), "sealed/plain")
		for b.Loop() {
			if _, err := keys.Open(id, block.Data, sealed); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	each(b, func(b *testing.B, keys *block.Keys, plain []byte) {
		id, sealed, err := keys.Seal(block.Data, plain)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := block.Verify(id, sealed); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func each(b *testing.B, run func(b *testing.B, keys *block.Keys, plain []byte)) {
	b.Helper()
	keys := newKeys(b, 1, 1)
	for _, kind := range kinds {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%dKiB", kind.name, n>>10), func(b *testing.B) {
				plain := kind.make(n)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				run(b, keys, plain)
			})
		}
	}
}

// random returns n bytes that do not compress, the same ones for a seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	fill(rand.New(rand.NewPCG(seed, 1)), b)
	return b
}

func fill(r *rand.Rand, b []byte) {
	for i := 0; i < len(b); i += 8 {
		v := r.Uint64()
		for j := i; j < min(i+8, len(b)); j++ {
			b[j] = byte(v)
			v >>= 8
		}
	}
}

// text returns n bytes of words, of which few are frequent, the same ones for a
// seed. They compress to about a third.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	words := make([]string, 2000)
	for i := range words {
		w := make([]byte, 2+r.IntN(9))
		for j := range w {
			w[j] = 'a' + byte(r.IntN(26)*r.IntN(26)/26)
		}
		words[i] = string(w)
	}
	b := make([]byte, 0, n+16)
	for len(b) < n {
		f := r.Float64()
		b = append(b, words[int(f*f*f*float64(len(words)))]...)
		b = append(b, " ,.\n"[max(0, r.IntN(20)-16)])
	}
	return b[:n]
}

// newKeys returns keys that seal in epoch current and hold the epochs, each
// with a secret of its own.
func newKeys(tb testing.TB, current uint32, epochs ...uint32) *block.Keys {
	tb.Helper()
	secrets := map[uint32]block.Secret{}
	for _, e := range epochs {
		secrets[e] = block.Secret{'s', byte(e >> 8), byte(e)}
	}
	keys, err := block.NewKeys(current, secrets)
	if err != nil {
		tb.Fatal(err)
	}
	return keys
}
