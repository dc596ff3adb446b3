package manifest

import (
	"encoding/binary"
	"math"
	"math/bits"
)

const (
	manifestVersion = 1
	sigLen          = 64
	headMin         = 8 + 1 + 32
	// MaxSize is the length of the longest encoded manifest, in bytes.
	MaxSize = 2 + 32 + 4 + 32 + 8 + 32 + 9 + 32 + 9 + 32 + 32 + 8 + 32 + 4 + 2 + MaxHeads*(8+9+32) + sigLen
)

// Encode returns the bytes of a signed manifest, which the caller owns.
func (m *Manifest) Encode() []byte { return append(m.body(), m.Sig[:]...) }

// body returns the encoding without the signature.
func (m *Manifest) body() []byte {
	b := make([]byte, 0, 512+50*len(m.Frontier))
	b = append(b, manifestVersion, byte(m.Flags))
	b = append(b, m.Hive[:]...)
	b = binary.BigEndian.AppendUint32(b, m.Epoch)
	b = append(b, m.Members[:]...)
	b = append(b, m.Actor[:]...)
	b = append(b, m.Device[:]...)
	b = binary.AppendUvarint(b, m.Seq)
	b = append(b, m.Prev[:]...)
	b = binary.AppendUvarint(b, m.Ctr)
	b = append(b, m.Root[:]...)
	b = append(b, m.StateID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Wall))
	if m.Flags&FlagCommit != 0 {
		b = append(b, m.DeltaHash[:]...)
		b = binary.AppendUvarint(b, m.DeltaLen)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Frontier)))
	for i := range m.Frontier {
		h := &m.Frontier[i]
		b = append(b, h.Actor[:]...)
		b = binary.AppendUvarint(b, h.Ctr)
		b = append(b, h.Hash[:]...)
	}
	return b
}

// Decode reads one manifest, which must fill b. It checks the form, with
// [ErrManifest] if it is wrong, but not the signature: see [Manifest.Verify]. The
// result does not share memory with b.
func Decode(b []byte) (*Manifest, error) {
	m, err := parse(b)
	if err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

// parse reads the fields of a manifest, whether or not they fit together.
func parse(b []byte) (*Manifest, error) {
	if len(b) > MaxSize {
		return nil, malformed("%d bytes", len(b))
	}
	d := decoder{b: b}
	if v := d.byte(); v != manifestVersion {
		return nil, malformed("version %d", v)
	}
	m := &Manifest{Flags: Flags(d.byte())}
	d.into(m.Hive[:])
	m.Epoch = d.uint32()
	d.into(m.Members[:])
	d.into(m.Actor[:])
	d.into(m.Device[:])
	m.Seq = d.uvarint(math.MaxInt64)
	d.into(m.Prev[:])
	m.Ctr = d.uvarint(math.MaxInt64)
	d.into(m.Root[:])
	d.into(m.StateID[:])
	m.Wall = int64(d.uint64())
	if m.Flags&FlagCommit != 0 {
		d.into(m.DeltaHash[:])
		m.DeltaLen = d.uvarint(MaxDelta)
	}
	n := d.uvarint(MaxHeads)
	if d.bad || n > uint64(len(d.b)/headMin) {
		return nil, malformed("cut short")
	}
	if n > 0 {
		m.Frontier = make([]Head, n)
	}
	for i := range m.Frontier {
		h := &m.Frontier[i]
		d.into(h.Actor[:])
		h.Ctr = d.uvarint(math.MaxInt64)
		d.into(h.Hash[:])
	}
	d.into(m.Sig[:])
	if d.bad || len(d.b) != 0 {
		return nil, malformed("wrong length or number")
	}
	return m, nil
}

// A decoder takes fields off the front of b. After something that is cut short,
// out of bounds or not in its shortest spelling it yields zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.b, d.bad = nil, true
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) into(p []byte) { copy(p, d.take(len(p))) }

func (d *decoder) byte() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if p := d.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if p := d.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > limit || n != max(1, (bits.Len64(v)+6)/7) {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}
