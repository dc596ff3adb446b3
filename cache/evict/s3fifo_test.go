package evict_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/roamfs/roamfs/cache/evict"
)

func id(n int) (k [32]byte) {
	x := uint64(n+1) * 0x9E3779B97F4A7C15
	for i := range 4 {
		x ^= x >> 29
		x *= 0xBF58476D1CE4E5B9
		binary.LittleEndian.PutUint64(k[8*i:], x)
	}
	return k
}

// naive is S3-FIFO with slices, newest first: slow and plain.
type naive struct {
	queue  map[string][]int // spec, small, main, held
	home   map[int]string
	hits   map[int]int
	size   map[int]int64
	ghosts []int // evictions from small, oldest first; -1 is one taken back
	recent []int
}

func (m *naive) where(n int) string {
	for q, l := range m.queue {
		if slices.Contains(l, n) {
			return q
		}
	}
	return ""
}

func (m *naive) bytes(q string) (sum int64) {
	for _, n := range m.queue[q] {
		sum += m.size[n]
	}
	return sum
}

func (m *naive) head(q string, n int) { m.queue[q] = slices.Insert(m.queue[q], 0, n) }
func (m *naive) tail(q string, n int) { m.queue[q] = append(m.queue[q], n) }
func (m *naive) leave(n int) {
	q := m.where(n)
	m.queue[q] = slices.DeleteFunc(m.queue[q], func(x int) bool { return x == n })
}

func (m *naive) add(n int, size int64, spec bool) {
	if m.where(n) != "" {
		m.size[n] = size
		return
	}
	home := "small"
	if i := slices.Index(m.ghosts, n); i >= 0 {
		m.ghosts[i] = -1
		if i >= len(m.ghosts)-64 {
			home = "main"
		} else if spec {
			home = "spec"
		}
	} else if spec {
		home = "spec"
	}
	m.home[n], m.hits[n], m.size[n] = home, 0, size
	m.head(home, n)
}

func (m *naive) hit(n int) {
	if m.where(n) == "" || slices.Contains(m.recent, n) {
		return
	}
	m.recent = append(m.recent, n)
	if len(m.recent) > 2 {
		m.recent = m.recent[1:]
	}
	if m.home[n] != "spec" {
		m.hits[n] = min(m.hits[n]+1, 3)
		return
	}
	m.home[n] = "small"
	if m.where(n) == "spec" {
		m.leave(n)
		m.head("small", n)
	}
}

func (m *naive) drop(n int, evicted bool) {
	if m.where(n) == "" {
		return
	}
	if evicted && m.home[n] == "small" {
		for i, g := range m.ghosts {
			if g == n {
				m.ghosts[i] = -1
			}
		}
		m.ghosts = append(m.ghosts, n)
	}
	m.leave(n)
	delete(m.home, n)
	delete(m.hits, n)
	delete(m.size, n)
}

func (m *naive) candidate() int {
	for {
		last := func(q string) int {
			if l := m.queue[q]; len(l) > 0 {
				return l[len(l)-1]
			}
			return -1
		}
		if n := last("spec"); n >= 0 {
			return n
		}
		sm, mn := last("small"), last("main")
		switch {
		case sm >= 0 && (mn < 0 || m.bytes("small")*10 >= m.bytes("small")+m.bytes("main")):
			if m.hits[sm] < 2 {
				return sm
			}
			m.leave(sm)
			m.hits[sm], m.home[sm] = 0, "main"
			m.head("main", sm)
		case mn >= 0:
			if m.hits[mn] == 0 {
				return mn
			}
			m.hits[mn]--
			m.leave(mn)
			m.head("main", mn)
		default:
			return -1
		}
	}
}

func TestAgainstNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		order := evict.New()
		m := &naive{queue: map[string][]int{}, home: map[int]string{}, hits: map[int]int{}, size: map[int]int64{}}
		any := func(t *rapid.T) int { return rapid.IntRange(0, 39).Draw(t, "block") }
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				n, size, spec := any(t), rapid.Int64Range(1, 100).Draw(t, "size"), rapid.Bool().Draw(t, "spec")
				order.Add(evict.Item{ID: id(n), Size: size, Spec: spec})
				m.add(n, size, spec)
			},
			"hit":    func(t *rapid.T) { n := any(t); order.Hit(id(n)); m.hit(n) },
			"remove": func(t *rapid.T) { n := any(t); order.Remove(id(n)); m.drop(n, false) },
			"hold": func(t *rapid.T) {
				n := any(t)
				order.Hold(id(n))
				if q := m.where(n); q != "" && q != "held" {
					m.leave(n)
					m.head("held", n)
				}
			},
			"release": func(t *rapid.T) {
				n := any(t)
				order.Release(id(n))
				if m.where(n) == "held" {
					m.leave(n)
					m.tail(m.home[n], n)
				}
			},
			"release some": func(t *rapid.T) {
				k := rapid.IntRange(0, 9).Draw(t, "count")
				held := m.queue["held"]
				want := min(k, len(held))
				for _, n := range slices.Clone(held[len(held)-want:]) {
					m.leave(n)
					m.tail(m.home[n], n)
				}
				if got := order.ReleaseHeld(k); got != want {
					t.Fatalf("released %d, want %d", got, want)
				}
			},
			"victims": func(t *rapid.T) {
				var got, want []string
				verdicts := rapid.SliceOfN(rapid.SampledFrom([]evict.Verdict{evict.Evict, evict.Hold}), 0, 12).Draw(t, "verdicts")
				i := 0
				order.Victims(func(k [32]byte, size int64) evict.Verdict {
					got = append(got, fmt.Sprintf("%x %d", k[:4], size))
					if i == len(verdicts) {
						return evict.Stop
					}
					i++
					return verdicts[i-1]
				})
				for i := 0; ; i++ {
					n := m.candidate()
					if n < 0 {
						break
					}
					k := id(n)
					want = append(want, fmt.Sprintf("%x %d", k[:4], m.size[n]))
					if i == len(verdicts) {
						break
					}
					if verdicts[i] == evict.Evict {
						m.drop(n, true)
					} else {
						m.leave(n)
						m.head("held", n)
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("victims\n got %v\nwant %v", got, want)
				}
			},
			"restart": func(t *rapid.T) {
				// All that is held is let go first: a snapshot does not know it.
				for _, n := range slices.Clone(m.queue["held"]) {
					m.leave(n)
					m.tail(m.home[n], n)
				}
				order.ReleaseHeld(1000)
				snapshot := order.Snapshot(nil)
				order = evict.New()
				for n, size := range m.size {
					order.Add(evict.Item{ID: id(n), Size: size})
				}
				if err := order.Restore(snapshot); err != nil {
					t.Fatal(err)
				}
				if again := order.Snapshot(nil); !bytes.Equal(snapshot, again) {
					t.Fatalf("snapshot of what was restored differs:\n%x\n%x", snapshot, again)
				}
				m.recent = nil
				m.ghosts = slices.DeleteFunc(m.ghosts[max(0, len(m.ghosts)-64):], func(n int) bool { return n < 0 })
			},
			"": func(t *rapid.T) {
				want := evict.Stats{Entries: len(m.size), Held: len(m.queue["held"])}
				for _, size := range m.size {
					want.Bytes += size
				}
				if got := order.Stats(); got != want {
					t.Fatalf("stats %+v, want %+v", got, want)
				}
			},
		})
	})
}

// drain evicts everything and returns the order in which it went.
func drain(o evict.Order, names int) (out []int) {
	o.Victims(func(k [32]byte, _ int64) evict.Verdict {
		for n := range names {
			if id(n) == k {
				out = append(out, n)
			}
		}
		return evict.Evict
	})
	return out
}

func TestScanDoesNotFlushWhatIsUsed(t *testing.T) {
	o := evict.New()
	const hot, capacity = 50, 100
	touch := func(n int) {
		if before := o.Stats().Entries; before > 0 {
			o.Hit(id(n))
		}
		o.Add(evict.Item{ID: id(n), Size: 1})
		for o.Stats().Entries > capacity {
			once := false
			o.Victims(func([32]byte, int64) evict.Verdict {
				if once {
					return evict.Stop
				}
				once = true
				return evict.Evict
			})
		}
	}
	for range 4 {
		for n := range hot {
			touch(n)
		}
	}
	for n := range 10_000 {
		touch(hot + n)
	}
	left := 0
	for _, n := range drain(o, hot) {
		if n < hot {
			left++
		}
	}
	if left != hot {
		t.Errorf("%d of %d blocks in use survived a scan", left, hot)
	}
}

func TestWhatReturnsSoonStays(t *testing.T) {
	o := evict.New()
	for n := range 20 {
		o.Add(evict.Item{ID: id(n), Size: 1})
	}
	o.Evicted(id(3))
	o.Add(evict.Item{ID: id(3), Size: 1}) // back: it goes to main
	for n := 20; n < 40; n++ {
		o.Add(evict.Item{ID: id(n), Size: 1})
	}
	got := drain(o, 40)
	if i := slices.Index(got, 3); i < 30 {
		t.Errorf("went as number %d: %v", i, got)
	}
}

func TestFetchedAheadGoesFirst(t *testing.T) {
	o := evict.New()
	o.Add(evict.Item{ID: id(0), Size: 1})
	o.Add(evict.Item{ID: id(1), Size: 1, Spec: true})
	o.Add(evict.Item{ID: id(2), Size: 1, Spec: true})
	o.Hit(id(2)) // asked for after all
	if got := drain(o, 3); !slices.Equal(got, []int{1, 0, 2}) {
		t.Errorf("order %v", got)
	}
}

// TestHeldIsOfferedOnce is the bound on work: with everything held, a second
// search looks at nothing.
func TestHeldIsOfferedOnce(t *testing.T) {
	o := evict.New()
	const n = 10_000
	for i := range n {
		o.Add(evict.Item{ID: id(i), Size: 1})
	}
	calls := 0
	hold := func([32]byte, int64) evict.Verdict { calls++; return evict.Hold }
	o.Victims(hold)
	o.Victims(hold)
	if calls != n {
		t.Errorf("%d candidates offered, want %d", calls, n)
	}
	if k := o.ReleaseHeld(7); k != 7 {
		t.Errorf("released %d", k)
	}
	if got := drain(o, n); !slices.Equal(got, []int{0, 1, 2, 3, 4, 5, 6}) {
		t.Errorf("after release: %v", got)
	}
}

func FuzzRestore(f *testing.F) {
	o := evict.New()
	for n := range 12 {
		o.Add(evict.Item{ID: id(n), Size: 1, Spec: n%4 == 0})
	}
	o.Hit(id(5))
	o.Evicted(id(7))
	f.Add(o.Snapshot(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		o := evict.New()
		for n := range 12 {
			o.Add(evict.Item{ID: id(n), Size: 1})
		}
		before := o.Snapshot(nil)
		if err := o.Restore(b); err != nil && !bytes.Equal(before, o.Snapshot(nil)) {
			t.Fatalf("changed although %v", err)
		}
		s := o.Snapshot(nil)
		if err := o.Restore(s); err != nil || !bytes.Equal(s, o.Snapshot(nil)) {
			t.Fatalf("its own snapshot does not restore: %v", err)
		}
		if got := drain(o, 12); len(got) != 12 {
			t.Fatalf("%d of 12 left: %v", len(got), got)
		}
	})
}

func BenchmarkAddHitEvict(b *testing.B) {
	o := evict.New()
	const resident = 1 << 17
	n := 0
	for b.Loop() {
		o.Add(evict.Item{ID: id(n), Size: 4096})
		o.Hit(id(n - n%7))
		if o.Stats().Entries > resident {
			stop := false
			o.Victims(func([32]byte, int64) evict.Verdict {
				if stop {
					return evict.Stop
				}
				stop = true
				return evict.Evict
			})
		}
		n++
	}
}
