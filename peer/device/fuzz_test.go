package device

import (
	"bytes"
	"errors"
	"testing"
)

func FuzzDecodeRecord(f *testing.F) {
	for _, r := range allKinds(f).Records() {
		f.Add(r.Encode())
	}
	for _, r := range epochLog(f).Records() {
		f.Add(r.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b)
		if err != nil {
			if !errors.Is(err, ErrRecord) {
				t.Fatalf("error %v does not wrap ErrRecord", err)
			}
			return
		}
		if !bytes.Equal(r.Encode(), b) {
			t.Fatalf("a record with a second spelling:\n%x\n%x", b, r.Encode())
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(allKinds(f).Encode())
	f.Add(newLog(f).Encode())
	f.Add(epochLog(f).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(l.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Encode(), l.Encode()) || again.Hash() != l.Hash() {
			t.Fatal("encoding is not stable")
		}
		if len(l.Encode()) > len(b) {
			t.Fatal("a log grew by being read")
		}
	})
}

func FuzzParseSheet(f *testing.F) {
	f.Add(testSheet().String())
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSheet(text)
		if err != nil {
			return
		}
		if again, err := ParseSheet(s.String()); err != nil || again != s {
			t.Fatalf("%v, %v", again, err)
		}
	})
}

func FuzzParseKeyFile(f *testing.F) {
	f.Add(keyFile(testKey(1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := parseKeyFile(b); err == nil && !bytes.Equal(keyFile(k), b) {
			t.Fatal("a key file with a second spelling")
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add(testKey(1).ID().String())
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil {
			if again, err := ParseID(id.String()); err != nil || again != id {
				t.Fatal(again, err)
			}
		}
	})
}

// A small input must not make the decoder set aside much memory.
func TestDecodeAllocatesLittle(t *testing.T) {
	head := append([]byte{1}, make([]byte, 32)...)
	for name, b := range map[string][]byte{
		"log of many records": append(bytes.Clone(head), 0x80, 0x08),
		"record of many parents": append(append(bytes.Clone(head), 1, 75),
			append(append([]byte{1, 2}, make([]byte, 72)...), 64)...),
	} {
		n := testing.AllocsPerRun(10, func() {
			if _, err := Decode(b); err == nil {
				t.Errorf("%s: no error", name)
			}
		})
		if n > 20 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
