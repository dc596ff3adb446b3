package idmap_test

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"github.com/roamfs/roamfs/cache/internal/idmap"
)

// key makes keys that collide often: few distinct home places.
func key(n int) (k [32]byte) {
	binary.LittleEndian.PutUint32(k[:], uint32(n%5))
	binary.LittleEndian.PutUint32(k[16:], uint32(n+1))
	return k
}

func TestAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m idmap.Map[int]
		model := map[[32]byte]int{}
		k := func(t *rapid.T) [32]byte { return key(rapid.IntRange(0, 300).Draw(t, "key")) }
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, v := k(t), rapid.Int().Draw(t, "value")
				h, added := m.Put(k)
				if _, was := model[k]; was == added {
					t.Fatalf("added = %v, was there: %v", added, was)
				}
				*m.Val(h), model[k] = v, v
			},
			"delete": func(t *rapid.T) {
				k := k(t)
				if h := m.Get(k); h != 0 {
					m.Delete(h)
				}
				delete(model, k)
			},
			"": func(t *rapid.T) {
				if m.Len() != len(model) {
					t.Fatalf("len = %d, want %d", m.Len(), len(model))
				}
				for k, v := range model {
					if h := m.Get(k); h == 0 || *m.Val(h) != v || *m.Key(h) != k {
						t.Fatalf("%x is not %d", k[:8], v)
					}
				}
				seen := map[[32]byte]bool{}
				for from, more := idmap.Handle(0), true; more; more = from != 0 {
					from = m.Scan(from, 7, func(h idmap.Handle) { seen[*m.Key(h)] = true })
				}
				if len(seen) != len(model) {
					t.Fatalf("scan saw %d of %d", len(seen), len(model))
				}
			},
		})
	})
}

func TestZeroKeyIsNoKey(t *testing.T) {
	var m idmap.Map[int]
	if h, added := m.Put([32]byte{}); h != 0 || added || m.Len() != 0 || m.Get([32]byte{}) != 0 {
		t.Fatalf("the zero key was stored as %d", h)
	}
}

func BenchmarkGet(b *testing.B) {
	var m idmap.Map[uint64]
	const n = 1 << 20
	var k [32]byte
	at := func(i uint64) [32]byte { binary.LittleEndian.PutUint64(k[:], i*0x9E3779B97F4A7C15); return k }
	for i := range uint64(n) {
		m.Put(at(i + 1))
	}
	i := uint64(0)
	for b.Loop() {
		i++
		if m.Get(at(i%n+1)) == 0 {
			b.Fatal("lost")
		}
	}
}
