package wire

import (
	"encoding/binary"

	"github.com/roamfs/roamfs/sync/block"
)

// decoder takes fields off the front of b. Once something is missing or wrong it
// is bad and gives zeros.
type decoder struct {
	b   []byte
	bad bool
}

var zeros [48]byte

// take returns the next n bytes, n at most len(zeros) unless n is known to be there.
func (d *decoder) take(n int) []byte {
	if d.bad || len(d.b) < n {
		d.bad = true
		return zeros[:n]
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) u8() uint8   { return d.take(1)[0] }
func (d *decoder) u16() uint16 { return binary.BigEndian.Uint16(d.take(2)) }
func (d *decoder) u32() uint32 { return binary.BigEndian.Uint32(d.take(4)) }
func (d *decoder) u64() uint64 { return binary.BigEndian.Uint64(d.take(8)) }

// rest returns all that is left.
func (d *decoder) rest() []byte {
	p := d.b
	d.b = nil
	return p
}

// require makes d bad unless ok.
func (d *decoder) require(ok bool) {
	if !ok {
		d.bad = true
	}
}

// ids returns the next n ids, in memory of their own.
func (d *decoder) ids(n int) []block.ID {
	if d.bad || len(d.b) < 32*n {
		d.bad = true
		return nil
	}
	if n == 0 {
		return nil
	}
	ids := make([]block.ID, n)
	for i := range ids {
		ids[i] = block.ID(d.take(32))
	}
	return ids
}

// query returns the ids of a question, which are all that is left.
func (d *decoder) query() []block.ID {
	n := len(d.b) / 32
	d.require(n >= 1 && n <= MaxQuery)
	return d.ids(n)
}

// bits returns a bitmap.
func (d *decoder) bits() []bool {
	n := int(d.u16())
	d.require(n <= MaxQuery && len(d.b) >= (n+7)/8)
	if d.bad || n == 0 {
		return nil
	}
	m := d.b[:(n+7)/8]
	d.b = d.b[len(m):]
	d.require(n%8 == 0 || m[len(m)-1]>>(n%8) == 0)
	bits := make([]bool, n)
	for i := range bits {
		bits[i] = m[i/8]>>(i%8)&1 == 1
	}
	return bits
}

func appendBits(b []byte, bits []bool) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(bits)))
	at := len(b)
	b = append(b, make([]byte, (len(bits)+7)/8)...)
	for i, bit := range bits {
		if bit {
			b[at+i/8] |= 1 << (i % 8)
		}
	}
	return b
}

func appendIDs(b []byte, ids []block.ID) []byte {
	for i := range ids {
		b = append(b, ids[i][:]...)
	}
	return b
}
