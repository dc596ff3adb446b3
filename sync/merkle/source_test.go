package merkle

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"

	"github.com/zeebo/blake3"
)

var testKey = [32]byte{1, 2, 3}

// list is a Source over sorted entries. It counts what it was asked for.
type list struct {
	entries []Entry
	scanned int
	err     error // given back after half of a scan, if set
}

func compareEntries(a, b Entry) int {
	if c := bytes.Compare(a.Key, b.Key); c != 0 {
		return c
	}
	return bytes.Compare(a.Value, b.Value)
}

func newList(entries ...Entry) *list {
	l := &list{entries: slices.Clone(entries)}
	slices.SortFunc(l.entries, compareEntries)
	return l
}

func (l *list) Scan(from, to []byte, fn func(Entry) error) error {
	i, _ := slices.BinarySearchFunc(l.entries, from, func(e Entry, k []byte) int { return bytes.Compare(e.Key, k) })
	for ; i < len(l.entries) && (to == nil || bytes.Compare(l.entries[i].Key, to) < 0); i++ {
		l.scanned++
		if l.err != nil && l.scanned > 2 {
			return l.err
		}
		if err := fn(l.entries[i]); err != nil {
			return err
		}
	}
	return nil
}

func (l *list) put(e Entry) {
	if i, ok := slices.BinarySearchFunc(l.entries, e, compareEntries); !ok {
		l.entries = slices.Insert(l.entries, i, e)
	}
}

// drop removes all entries of a group.
func (l *list) drop(p [24]byte) {
	l.entries = slices.DeleteFunc(l.entries, func(e Entry) bool { return Prefix(e.Key) == p })
}

// levels computes the level of groups.
type levels struct{ h *blake3.Hasher }

func newLevels(key [32]byte) levels {
	var k [32]byte
	blake3.DeriveKey("roamfs merkle boundary v1", key[:], k[:])
	h, err := blake3.NewKeyed(k[:])
	if err != nil {
		panic(err)
	}
	return levels{h}
}

func (l levels) of(p [24]byte) int {
	h := l.h
	h.Reset()
	_, _ = h.Write(p[:])
	zeros := 0
	for _, b := range h.Sum(nil)[:8] {
		zeros += bits.LeadingZeros8(b)
		if b != 0 {
			break
		}
	}
	return zeros / 5
}

// A part is a node of the reference.
type part struct {
	first [24]byte
	hash  []byte
	size  int // bytes of the encoding
	items int // groups or children
}

func nodeHash(height int, body []byte) []byte {
	out := make([]byte, 32)
	blake3.DeriveKey("roamfs merkle node v1", append([]byte{1, byte(height)}, body...), out)
	return out
}

// naive computes the nodes of every height straight from the package comment,
// from the sorted entries and nothing else.
func naive(key [32]byte, entries []Entry, lim limits) (layers [][]part) {
	type group struct {
		name   [24]byte
		body   []byte
		weight int
	}
	level := newLevels(key)
	var groups []group
	for _, e := range entries {
		p := Prefix(e.Key)
		if len(groups) == 0 || groups[len(groups)-1].name != p {
			groups = append(groups, group{name: p})
		}
		g := &groups[len(groups)-1]
		g.weight += len(e.Key) + len(e.Value)
		for _, s := range [][]byte{e.Key, e.Value} {
			g.body = binary.AppendUvarint(g.body, uint64(len(s)))
			g.body = append(g.body, s...)
		}
	}
	var leaves []part
	for i := 0; i < len(groups); {
		var body []byte
		n, weight := 0, 0
		for i+n < len(groups) {
			g := groups[i+n]
			if n > 0 && (level.of(g.name) >= 1 || n >= lim.groups || weight >= lim.bytes) {
				break
			}
			body = append(body, g.body...)
			weight += g.weight
			n++
		}
		leaves = append(leaves, part{groups[i].name, nodeHash(0, body), len(body), n})
		i += n
	}
	layers = append(layers, leaves)
	for h := 1; len(layers[h-1]) > 1; h++ {
		below := layers[h-1]
		var nodes []part
		for i := 0; i < len(below); {
			var body []byte
			n := 0
			for i+n < len(below) {
				c := below[i+n]
				if n > 0 && (level.of(c.first) >= h+1 || n >= lim.children) {
					break
				}
				body = append(append(body, c.first[:]...), c.hash...)
				n++
			}
			nodes = append(nodes, part{below[i].first, nodeHash(h, body), len(body) + 2, n})
			i += n
		}
		layers = append(layers, nodes)
	}
	return layers
}

func naiveRoot(key [32]byte, entries []Entry, lim limits) (h Hash) {
	layers := naive(key, entries, lim)
	top := layers[len(layers)-1]
	if len(top) == 0 {
		return Hash(nodeHash(0, nil))
	}
	return Hash(top[0].hash)
}

// synthetic returns n numbered groups with two entries each.
func synthetic(n int) []Entry {
	var out []Entry
	for i := range n {
		p := numbered(uint64(i))
		for _, typ := range []string{"C", "L"} {
			out = append(out, Entry{
				Key:   append(bytes.Clone(p[:]), typ...),
				Value: []byte(strings.Repeat(typ, i%40)),
			})
		}
	}
	return out
}

func numbered(n uint64) [24]byte {
	sum := blake3.Sum256(binary.BigEndian.AppendUint64([]byte("group"), n))
	return [24]byte(sum[:24])
}

// levelled returns n groups of the given level, by trial. It stands for somebody
// who knows the key.
func levelled(key [32]byte, level uint8, n int) (out [][24]byte) {
	h := newHasher(key)
	for i := uint64(0); len(out) < n; i++ {
		p := numbered(uint64(level)<<40 | i)
		if h.level(p) == level {
			out = append(out, p)
		}
	}
	return out
}

// groupsOfAllLevels returns some 100 groups, among them the first of all and short
// ones.
func groupsOfAllLevels() [][24]byte {
	pool := [][24]byte{{}, Prefix([]byte("\xffG")), Prefix([]byte("\xffGa"))}
	for level, n := range []int{40, 40, 16, 6} {
		pool = append(pool, levelled(testKey, uint8(level), n)...)
	}
	return pool
}

func single(p [24]byte, value string) Entry {
	return Entry{Key: append(p[:], 'C'), Value: []byte(value)}
}
