package manifest

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/tree"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGolden(t *testing.T) {
	c := newChain(1)
	delta := mustEncode(t, testDelta())
	var b bytes.Buffer
	for _, m := range []*Manifest{example(t), c.add(t, c.next(FlagCheckpoint))} {
		fmt.Fprintf(&b, "manifest %v %x\n", m.Hash(), m.Encode())
	}
	fmt.Fprintf(&b, "delta %v %x\n", Sum(delta), delta)
	fmt.Fprintf(&b, "state %v\n", StateID(merkle.Hash{1}, tree.Vector{testActor(1): 2, testActor(2): 300}))

	path := filepath.Join("testdata", "manifest.v1")
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("encodings differ:\n got %s\nwant %s", b.Bytes(), want)
	}
}

// What was written once stays readable.
func TestGoldenStillReadable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "manifest.v1"))
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		raw, err := hex.DecodeString(f[2])
		if err != nil {
			t.Fatal(err)
		}
		read++
		switch f[0] {
		case "manifest":
			m, err := Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Verify(); err != nil || m.Hash().String() != f[1] {
				t.Errorf("manifest %v, want %s: %v", m.Hash(), f[1], err)
			}
		case "delta":
			if _, err := DecodeDelta(raw); err != nil || Sum(raw).String() != f[1] {
				t.Errorf("delta %v, want %s: %v", Sum(raw), f[1], err)
			}
		}
	}
	if read != 3 {
		t.Errorf("%d vectors read, want 3", read)
	}
}

func FuzzDecode(f *testing.F) {
	c := newChain(1)
	f.Add(example(f).Encode())
	f.Add(c.add(f, c.next(FlagCheckpoint)).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzDecode(t, b)
		// With the state id put right, more of it is reached.
		if m, err := parse(b); err == nil {
			m.StateID = StateID(m.Root, m.Vector())
			fuzzDecode(t, m.Encode())
		}
	})
}

func fuzzDecode(t *testing.T, b []byte) {
	t.Helper()
	m, err := Decode(b)
	if err != nil {
		return
	}
	if !bytes.Equal(m.Encode(), b) {
		t.Fatalf("a manifest with a second spelling: %x", b)
	}
	_ = m.Verify() // must not panic
}

func FuzzDecodeDelta(f *testing.F) {
	f.Add(mustEncode(f, testDelta()))
	f.Add(mustEncode(f, Delta{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDelta(b)
		if err != nil {
			return
		}
		again, err := d.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("a delta with a second spelling: %x, %v", b, err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	enc := example(b).Encode()
	for b.Loop() {
		m, err := Decode(enc)
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Verify(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	m := example(b)
	key := testKey(1)
	for b.Loop() {
		if err := m.Sign(key); err != nil {
			b.Fatal(err)
		}
	}
}
