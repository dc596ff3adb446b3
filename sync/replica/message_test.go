package replica

import (
	"bytes"
	"testing"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/tree"
)

func FuzzDecodeHello(f *testing.F) {
	f.Add(hello{hive: [32]byte{1}, members: [32]byte{2}, heads: someHeads}.encode()[1:])
	f.Add(hello{}.encode()[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err == nil && !bytes.Equal(h.encode()[1:], b) {
			t.Fatalf("%x is another spelling of %x", b, h.encode()[1:])
		}
	})
}

func FuzzDecodeCommit(f *testing.F) {
	f.Add(encodeCommit([]byte("manifest"), []byte("delta"))[1:])
	f.Add(encodeCommit(nil, nil)[1:])
	f.Add([]byte{0x80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, delta, err := decodeCommit(b)
		if err != nil {
			return
		}
		if len(m) > maxManifest || len(delta) > pieceSize {
			t.Fatalf("%d and %d bytes", len(m), len(delta))
		}
		if !bytes.Equal(encodeCommit(m, delta)[1:], b) {
			t.Fatalf("%x is another spelling", b)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	f.Add(encodeState([]byte("checkpoint"), []toldHead{{[]byte("head"), make([]byte, 64)}, {}})[1:])
	f.Add(encodeState(nil, nil)[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, heads, err := decodeState(b)
		if err != nil {
			return
		}
		hashes := 0
		for _, h := range heads {
			hashes += len(h.hashes) / 32
		}
		if len(heads) > maxHeads || hashes > maxHashes {
			t.Fatalf("%d heads, %d hashes", len(heads), hashes)
		}
		if !bytes.Equal(encodeState(c, heads)[1:], b) {
			t.Fatalf("%x is another spelling", b)
		}
	})
}

var someHeads = []manifest.Head{{Actor: tree.Actor{1}, Ctr: 7, Hash: manifest.Hash{1}}, {Actor: tree.Actor{2}, Ctr: 300}}

func FuzzDecodeHeads(f *testing.F) {
	f.Add(appendHeads(nil, someHeads))
	f.Add(appendHeads(nil, nil))
	f.Add([]byte{0xff, 0x1f, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHeads(b)
		if err == nil && !bytes.Equal(appendHeads(nil, h), b) {
			t.Fatalf("%x is another spelling", b)
		}
	})
}

func FuzzDecodeOffer(f *testing.F) {
	f.Add(encodeOffer(300)[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeOffer(b)
		if err == nil && (!bytes.Equal(encodeOffer(n)[1:], b) || allowance(n) < int64(n)) {
			t.Fatalf("%x is another spelling, or %d is too much", b, n)
		}
	})
}

// A claim of many heads in few bytes costs no memory.
func TestHeadsAllocateLittle(t *testing.T) {
	b := append([]byte{0xff, 0x1f}, make([]byte, 300)...)
	if n := testing.AllocsPerRun(5, func() { _, _ = decodeHeads(b) }); n > 10 {
		t.Errorf("%v allocations", n)
	}
}
