package file

import (
	"testing"

	"pgregory.net/rapid"
)

// TestSpans compares the set with an array of kinds.
func TestSpans(t *testing.T) {
	const size = 2000
	rapid.Check(t, func(t *rapid.T) {
		var s spans
		model := [size]bool{}
		draw := func(t *rapid.T) (int64, int64) {
			off := rapid.IntRange(0, size-1).Draw(t, "off")
			return int64(off), int64(min(size, off+rapid.IntRange(0, 40).Draw(t, "len")))
		}
		fill := func(off, end int64, v bool) {
			for i := off; i < end; i++ {
				model[i] = v
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				off, end := draw(t)
				s.set(off, end)
				fill(off, end, true)
			},
			"many": func(t *rapid.T) {
				from := rapid.Int64Range(0, size/2).Draw(t, "from")
				for off := from; off < size-1; off += 3 {
					s.set(off, off+1)
					fill(off, off+1, true)
				}
			},
			"clear": func(t *rapid.T) {
				off, end := draw(t)
				if rapid.Bool().Draw(t, "much") {
					end = size
				}
				s.clear(off, end)
				fill(off, end, false)
			},
			"": func(t *rapid.T) {
				var got [size]bool
				n, last, bytes := 0, span{-1, -1}, int64(0)
				for x := range s.all {
					if x.off >= x.end || x.off <= last.end {
						t.Fatalf("span %v after %v", x, last)
					}
					for i := x.off; i < x.end; i++ {
						got[i] = true
					}
					bytes += x.end - x.off
					n++
					last = x
				}
				if got != model {
					t.Fatalf("got %v\nwant %v", got, model)
				}
				if n != s.n || bytes != s.bytes {
					t.Fatalf("%d spans of %d, counted %d of %d", n, bytes, s.n, s.bytes)
				}
				off, end := draw(t)
				full, any := true, false
				for i := off; i < end; i++ {
					full = full && model[i]
					any = any || model[i]
				}
				if s.covers(off, end) != full || off < end && s.touches(off, end) != any {
					t.Fatalf("%d..%d: covers %v, touches %v", off, end, s.covers(off, end), s.touches(off, end))
				}
			},
		})
	})
}

func BenchmarkSpansRandom(b *testing.B) {
	for b.Loop() {
		var s spans
		x := uint64(1)
		for range maxSpans {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			off := int64(x%(1<<18)) * 8192
			s.set(off, off+4096)
		}
	}
}
