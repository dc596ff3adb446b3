package merkle

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"

	"github.com/zeebo/blake3"
)

// A Hash names a node of a tree and all that is below it.
type Hash [32]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is the zero Hash, which no node has.
func (h Hash) IsZero() bool { return h == Hash{} }

// prefixLen is the length of a group's name.
const prefixLen = 24

// Prefix returns the group of a key: its first 24 bytes, with zero bytes after a
// shorter one. It is what [Tree.Touch] takes.
func Prefix(key []byte) (p [prefixLen]byte) {
	copy(p[:], key)
	return p
}

// bound returns the least key that belongs to group p or a later one. Every key
// of an earlier group is less. Only trailing zeros can be missing from a key.
func bound(p [prefixLen]byte) []byte {
	n := len(p)
	for n > 0 && p[n-1] == 0 {
		n--
	}
	return p[:n]
}

// Bound returns the least key that belongs to group p or a later one: where
// [Source.Scan] begins to read it.
func Bound(p [24]byte) []byte { return bound(p) }

const (
	nodeVersion = 1
	nodeDomain  = "roamfs merkle node v1"
	keyDomain   = "roamfs merkle boundary v1"
	// levelBits is the number of zero bits that raise a group by one level: nodes
	// have 2^levelBits children on average.
	levelBits = 5
	// nodeHead is the length of version and height, with which a node begins.
	nodeHead = 2
)

// hasher computes levels and node hashes. It keeps two BLAKE3 states, since
// making one costs more than hashing a node.
type hasher struct {
	keyed *blake3.Hasher
	node  *blake3.Hasher
	buf   []byte
	out   [32]byte // a field, since a result on the stack would escape to the heap
	in    [prefixLen]byte
}

func newHasher(key [32]byte) *hasher {
	var k [32]byte
	blake3.DeriveKey(keyDomain, key[:], k[:])
	keyed, err := blake3.NewKeyed(k[:])
	if err != nil {
		panic(err) // the key has the one length that is right
	}
	return &hasher{keyed: keyed, node: blake3.NewDeriveKey(nodeDomain)}
}

// newNodeHasher returns a hasher that does not know the key, so no levels.
func newNodeHasher() *hasher { return &hasher{node: blake3.NewDeriveKey(nodeDomain)} }

func (h *hasher) clone() *hasher { return &hasher{keyed: h.keyed.Clone(), node: h.node.Clone()} }

// level returns the level of group p.
func (h *hasher) level(p [prefixLen]byte) uint8 {
	h.in = p
	h.keyed.Reset()
	_, _ = h.keyed.Write(h.in[:]) // never fails
	h.keyed.Sum(h.out[:0])
	return uint8(bits.LeadingZeros64(binary.BigEndian.Uint64(h.out[:8])) / levelBits)
}

// check returns bytes by which a saved tree knows its key.
func (h *hasher) check() [16]byte {
	h.keyed.Reset()
	_, _ = h.keyed.WriteString("roamfs merkle saved")
	h.keyed.Sum(h.out[:0])
	return [16]byte(h.out[:16])
}

// begin starts the hash of a node.
func (h *hasher) begin(height int) {
	h.node.Reset()
	h.buf = append(h.buf[:0], nodeVersion, byte(height))
	_, _ = h.node.Write(h.buf)
}

func (h *hasher) entry(e Entry) {
	h.buf = binary.AppendUvarint(h.buf[:0], uint64(len(e.Key)))
	h.buf = append(h.buf, e.Key...)
	h.buf = binary.AppendUvarint(h.buf, uint64(len(e.Value)))
	if len(e.Value) > 4096 {
		_, _ = h.node.Write(h.buf)
		_, _ = h.node.Write(e.Value)
		return
	}
	h.buf = append(h.buf, e.Value...)
	_, _ = h.node.Write(h.buf)
}

func (h *hasher) child(n *node) {
	h.buf = append(h.buf[:0], n.first[:]...)
	h.buf = append(h.buf, n.hash[:]...)
	_, _ = h.node.Write(h.buf)
}

// sum returns the hash of a node whose encoding behind its head is body.
func (h *hasher) sum(height int, body []byte) Hash {
	h.begin(height)
	_, _ = h.node.Write(body)
	return h.end()
}

func (h *hasher) end() Hash {
	h.node.Sum(h.out[:0])
	return h.out
}
