package replica

import (
	"bytes"
	"testing"

	"github.com/roamfs/roamfs/sync/tree"
)

func FuzzDecodeHello(f *testing.F) {
	f.Add(hello{hive: [32]byte{1}, members: [32]byte{2}, state: [32]byte{3}, vector: tree.Vector{{1}: 7, {2}: 300}}.encode()[1:])
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
		if len(m) > maxManifest || len(delta) > maxDelta {
			t.Fatalf("%d and %d bytes", len(m), len(delta))
		}
		if !bytes.Equal(encodeCommit(m, delta)[1:], b) {
			t.Fatalf("%x is another spelling", b)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	f.Add(encodeState([]byte("checkpoint"), [][]byte{[]byte("head"), nil})[1:])
	f.Add(encodeState(nil, nil)[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, heads, err := decodeState(b)
		if err != nil {
			return
		}
		if len(heads) > maxHeads {
			t.Fatalf("%d heads", len(heads))
		}
		if !bytes.Equal(encodeState(c, heads)[1:], b) {
			t.Fatalf("%x is another spelling", b)
		}
	})
}

func FuzzDecodeVector(f *testing.F) {
	f.Add(tree.Vector{{1}: 7, {2}: 300}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decodeVector(b)
		if err == nil && !bytes.Equal(v.Append(nil), b) {
			t.Fatalf("%x is another spelling", b)
		}
	})
}
