package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// body returns a decrypted body with the given fields, padded as it should be.
func body(enc byte, plain, payload uint32, content []byte) []byte {
	b := make([]byte, bodySize, bodySize+Padme(len(content)))
	b[0] = enc
	binary.BigEndian.PutUint32(b[1:], plain)
	binary.BigEndian.PutUint32(b[5:], payload)
	b = append(b, content...)
	return append(b, make([]byte, Padme(len(content))-len(content))...)
}

// sealBody seals a body as a member of the hive could who does not keep to the
// format.
func sealBody(k *Keys, b []byte) (ID, []byte) {
	sealed := append(make([]byte, headSize), b...)
	sealed[0], sealed[1] = version, byte(Data)
	binary.BigEndian.PutUint32(sealed[2:], k.ring.Load().current.epoch)
	tag := prf(&k.ring.Load().current.siv, sealed)
	copy(sealed[tagAt:], tag[:])
	k.ring.Load().current.stream(&tag).XORKeyStream(sealed[headSize:], sealed[headSize:])
	return Sum(sealed), sealed
}

func testKeys(tb testing.TB) *Keys {
	tb.Helper()
	k, err := NewKeys(1, map[uint32]Secret{1: {1}})
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// frame returns plain as one zstd frame.
func frame(plain []byte, options ...zstd.EOption) []byte {
	e, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(1)}, options...)...)
	if err != nil {
		panic(err)
	}
	return e.EncodeAll(plain, nil)
}

// runs is the frame of a content of size bytes stated in its header, made of
// blocks of which each repeats one byte n times.
func runs(size uint32, n ...int) []byte {
	f := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0} // magic; single segment, four bytes of size
	f = binary.LittleEndian.AppendUint32(f, size)
	for _, n := range n {
		head := uint32(n)<<3 | 1<<1
		f = append(f, byte(head), byte(head>>8), byte(head>>16), 'x')
	}
	f[len(f)-4] |= 1 // the last
	return f
}

// Bodies that a member could seal but Seal does not: each is refused, and at a
// cost that its own size bounds.
func TestMalformedBody(t *testing.T) {
	k := testKeys(t)
	zeros := make([]byte, 10_000)
	z := frame(zeros)
	zlen := uint32(len(z))
	const claimed = MaxPlain
	many := slices.Repeat([]int{128 << 10}, 32)
	for _, c := range []struct {
		name string
		body []byte
	}{
		{"unknown encoding", body(2, 3, 3, []byte("abc"))},
		{"raw, fewer bytes stated", body(encRaw, 2, 3, []byte("abc"))},
		{"raw, more bytes stated", body(encRaw, 4, 3, []byte("abc"))},
		{"payload longer than the block", body(encRaw, 4, 4, []byte("abc"))},
		{"payload of 4 GiB", body(encRaw, 1<<32-1, 1<<32-1, []byte("abc"))},
		{"a byte after the padding", append(body(encRaw, 3, 3, []byte("abc")), 0)},
		{"padding missing", body(encRaw, 9, 9, []byte("123456789"))[:bodySize+9]},
		{"padding not zero", func() []byte {
			b := body(encRaw, 9, 9, []byte("123456789"))
			b[len(b)-1] = 1
			return b
		}()},
		{"content of more than MaxPlain", body(encZstd, MaxPlain+1, zlen, z)},
		{"compressed to no less", body(encZstd, zlen, zlen, z)},
		{"compressed to more", func() []byte {
			f := frame([]byte("abc"))
			return body(encZstd, 3, uint32(len(f)), f)
		}()},
		{"no frame", body(encZstd, 100, 3, []byte("abc"))},
		{"an empty payload", body(encZstd, 100, 0, nil)},
		{"frame of other size", body(encZstd, 9_999, zlen, z)},
		{"frame with a checksum", func() []byte {
			f := frame(zeros, zstd.WithEncoderCRC(true))
			return body(encZstd, 10_000, uint32(len(f)), f)
		}()},
		{"a byte after the frame", body(encZstd, 10_000, zlen+1, append(slices.Clone(z), 0))},
		{"two frames", body(encZstd, 20_000, 2*zlen, append(slices.Clone(z), z...))},
		{"a skippable frame after", body(encZstd, 10_000, zlen+8, append(slices.Clone(z), 0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0))},
		{"a skippable frame only", body(encZstd, 10_000, 8, []byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0})},
		{"frame cut short", body(encZstd, 10_000, zlen-1, z[:zlen-1])},
		{"a size the blocks cannot hold", body(encZstd, claimed, 13, runs(claimed, 128<<10))},
		{"a size the frame cannot hold, by a byte", body(encZstd, 128<<10+1, 13, runs(128<<10+1, 128<<10))},
		{"a bomb that decompresses to more than it states", body(encZstd, 1000, 9+4*32, runs(1000, many...))},
		{"a bomb of blocks larger than may be", body(encZstd, 1000, 13, runs(1000, 1<<21-1))},
		{"fewer bytes than stated", body(encZstd, 1000, 13, runs(1000, 999))},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, sealed := sealBody(k, c.body)
			got, err := k.Open(id, Data, sealed)
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%d bytes, error %v, want ErrDamaged", len(got), err)
			}
			if n := allocated(func() { _, _ = k.Open(id, Data, sealed) }); n > 64<<10 {
				t.Errorf("allocated %d bytes for a block of %d", n, len(sealed))
			}
		})
	}
}

// The bodies above differ from these in what they are refused for.
func TestWellFormedBody(t *testing.T) {
	k := testKeys(t)
	z := frame(make([]byte, 10_000))
	for _, c := range []struct {
		name string
		body []byte
		want []byte
	}{
		{"raw", body(encRaw, 3, 3, []byte("abc")), []byte("abc")},
		{"empty", body(encRaw, 0, 0, nil), nil},
		{"a frame", body(encZstd, 10_000, uint32(len(z)), z), make([]byte, 10_000)},
		{"a run", body(encZstd, 1000, 13, runs(1000, 1000)), bytes.Repeat([]byte("x"), 1000)},
		{"as much as blocks can hold", body(encZstd, MaxPlain, 9+4*32, runs(MaxPlain, slices.Repeat([]int{128 << 10}, 32)...)), bytes.Repeat([]byte("x"), MaxPlain)},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, sealed := sealBody(k, c.body)
			got, err := k.Open(id, Data, sealed)
			if err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("%d bytes, error %v, want %d bytes", len(got), err, len(c.want))
			}
		})
	}
}

// allocated returns the fewest bytes that f allocates in a few runs; a
// collection may empty the pools in any one of them.
func allocated(f func()) uint64 {
	least := ^uint64(0)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

func FuzzUnpack(f *testing.F) {
	z := frame(bytes.Repeat([]byte("roam"), 1000))
	f.Add(body(encRaw, 3, 3, []byte("abc")))
	f.Add(body(encZstd, 4000, uint32(len(z)), z))
	f.Add(body(encZstd, 1000, 13, runs(1000, 999)))
	f.Add(body(encZstd, MaxPlain, 13, runs(MaxPlain, 128<<10)))
	f.Add(make([]byte, bodySize))
	k := testKeys(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < bodySize || len(b) > MaxSealed-headSize {
			t.Skip("of a length that unpack never sees")
		}
		kept := slices.Clone(b)
		plain, err := k.coders.unpack(b)
		if !bytes.Equal(b, kept) {
			t.Fatal("unpack changed its argument")
		}
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("error %v, want ErrDamaged", err)
			}
			return
		}
		if uint32(len(plain)) != binary.BigEndian.Uint32(b[1:]) {
			t.Fatalf("%d bytes, stated as %d", len(plain), binary.BigEndian.Uint32(b[1:]))
		}
		if b[0] == encRaw && !bytes.Equal(body(encRaw, uint32(len(plain)), uint32(len(plain)), plain), b) {
			t.Fatal("a second spelling of raw content")
		}
	})
}
