package block

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Padme returns n rounded up to the next length that Padmé allows: the length
// of the payload and padding of a block whose payload has n >= 0 bytes.
func Padme(n int) int {
	if n < 2 {
		return n
	}
	exp := bits.Len(uint(n)) - 1    // of the leading one
	keep := bits.Len(uint(exp))     // bits below it that may be set
	mask := 1<<max(exp-keep, 0) - 1 // bits that may not
	return (n + mask) &^ mask
}

// pack returns a whole sealed block but for the header, which is zero, and the
// encryption.
func (c *coders) pack(plain []byte) []byte {
	if frame := c.compress(plain); frame != nil {
		defer c.release(frame)
		return packed(encZstd, len(plain), *frame)
	}
	return packed(encRaw, len(plain), plain)
}

func packed(enc byte, plain int, payload []byte) []byte {
	b := make([]byte, Overhead+Padme(len(payload)))
	body := b[headSize:]
	body[0] = enc
	binary.BigEndian.PutUint32(body[1:], uint32(plain))
	binary.BigEndian.PutUint32(body[5:], uint32(len(payload)))
	copy(body[bodySize:], payload)
	return b
}

// unpack returns the content of a decrypted body, which has at least bodySize
// bytes. Raw content is returned where it stands in body, other content in new
// memory.
func (c *coders) unpack(body []byte) ([]byte, error) {
	enc := body[0]
	size := int64(binary.BigEndian.Uint32(body[1:]))
	n := int64(binary.BigEndian.Uint32(body[5:]))
	body = body[bodySize:]
	if n > int64(len(body)) || Padme(int(n)) != len(body) {
		return nil, fmt.Errorf("%w: payload of %d bytes in %d", ErrDamaged, n, len(body))
	}
	if size > MaxPlain {
		return nil, fmt.Errorf("%w: content of %d bytes", ErrDamaged, size)
	}
	payload, padding := body[:n:n], body[n:]
	for _, b := range padding {
		if b != 0 {
			return nil, fmt.Errorf("%w: padding is not zero", ErrDamaged)
		}
	}
	switch enc {
	case encRaw:
		if n != size {
			return nil, fmt.Errorf("%w: %d raw bytes stated as %d", ErrDamaged, n, size)
		}
		return payload, nil
	case encZstd:
		if n >= size {
			return nil, fmt.Errorf("%w: %d bytes compressed to %d", ErrDamaged, size, n)
		}
		return c.decompress(payload, int(size))
	}
	return nil, fmt.Errorf("%w: encoding %d", ErrDamaged, enc)
}
