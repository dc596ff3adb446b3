package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/merkle"
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
	f.Add(encodeState([]byte("checkpoint"), []toldHead{{[]byte("head"), make([]byte, 64)}, {}}, merkle.Ref{Height: 3, First: [24]byte{1}})[1:])
	f.Add(encodeState(nil, nil, merkle.Ref{})[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, heads, top, err := decodeState(b)
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
		if !bytes.Equal(encodeState(c, heads, top)[1:], b) {
			t.Fatalf("%x is another spelling", b)
		}
	})
}

func FuzzDecodeAsk(f *testing.F) {
	f.Add(encodeAsk(someRefs)[1:])
	f.Add(encodeAsk(nil)[1:])
	f.Add(make([]byte, (maxRefs+1)*refLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		refs, err := decodeAsk(b)
		if err == nil && (!bytes.Equal(encodeAsk(refs)[1:], b) || len(refs) > maxRefs) {
			t.Fatalf("%x is another spelling, or too long", b)
		}
	})
}

func FuzzDecodePieces(f *testing.F) {
	f.Add(appendPiece(appendPiece(nil, []byte("piece")), nil))
	f.Add(make([]byte, maxRefs+1))
	f.Add(appendPiece(appendPiece(nil, make([]byte, partSize)), []byte("one too many")))
	f.Fuzz(func(t *testing.T, b []byte) {
		pieces, err := decodePieces(b)
		if err != nil {
			return
		}
		var again []byte
		for _, p := range pieces {
			again = appendPiece(again, p)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x is another spelling", b)
		}
		if len(pieces) > maxRefs || len(pieces) > 1 && len(b) > partSize || len(b) > maxPart+3 {
			t.Fatalf("%d pieces in %d bytes", len(pieces), len(b))
		}
	})
}

func FuzzReadPlan(f *testing.F) {
	plan := func(b []byte) []byte { // with the right check
		sum := sha256.Sum256(b)
		return append(b, sum[:]...)
	}
	encode := func(begin []byte, regions []region) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(begin)))
		b = binary.BigEndian.AppendUint32(append(b, begin...), uint32(len(regions)))
		for i := range regions {
			b = appendRegion(b, &regions[i])
		}
		return b
	}
	f.Add(encode([]byte("begin"), []region{{to: [24]byte{1}}, {from: [24]byte{1}, open: true, leaf: merkle.Hash{2}, extent: extent{3, 4}}}))
	f.Add(encode(nil, nil))
	f.Add([]byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		begin, regions, err := readPlan(plan(bytes.Clone(b)))
		if err == nil && !bytes.Equal(encode(begin, regions), b) {
			t.Fatalf("%x is another spelling", b)
		}
		if _, _, err := readPlan(b); err == nil {
			t.Fatalf("%x is taken without a check", b)
		}
	})
}

// TestGoldenMessages: what is on the wire does not change unnoticed.
func TestGoldenMessages(t *testing.T) {
	for name, c := range map[string]struct {
		msg  []byte
		want string
	}{
		"state": {
			encodeState([]byte("cp"), []toldHead{{[]byte("m"), bytes.Repeat([]byte{7}, 32)}}, merkle.Ref{Height: 2, First: [24]byte{1}}),
			"07 02 6370 01 01 6d 01 " + strings.Repeat("07", 32) + " 02 01" + strings.Repeat("00", 23),
		},
		"ask": {
			encodeAsk(someRefs),
			"08 01 05" + strings.Repeat("00", 23) + " 09" + strings.Repeat("00", 31) + " 00" + strings.Repeat("00", 24) + " 0a" + strings.Repeat("00", 31),
		},
		"done":    {encodeAsk(nil), "08"},
		"pieces":  {appendPiece(appendPiece([]byte{msgPieces}, []byte("ab")), nil), "09 02 6162 00"},
		"no more": {[]byte{msgPieces}, "09"},
		"hello":   {hello{hive: [32]byte{1}, members: [32]byte{2}}.encode(), "01 03 01" + strings.Repeat("00", 31) + "02" + strings.Repeat("00", 31) + "00"},
	} {
		if want := strings.ReplaceAll(c.want, " ", ""); hex.EncodeToString(c.msg) != want {
			t.Errorf("%s: %x, want %s", name, c.msg, want)
		}
	}
}

var someRefs = []merkle.Ref{{Height: 1, First: [24]byte{5}, Hash: merkle.Hash{9}}, {Hash: merkle.Hash{10}}}

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
