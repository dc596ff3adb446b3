package tree

import (
	"bytes"
	"errors"
	"testing"
)

// imaged is a view with something of everything that an image has: a conflict, a
// skeleton that is shown, a cycle, garbage, and a file without a directory.
func imaged(tb testing.TB) *View {
	tb.Helper()
	for seed := uint64(1); ; seed++ {
		h := newHistory(seed, leftOut{})
		steps := make([]int, 60)
		for i := range steps {
			steps[i] = i
		}
		if err := h.run(steps); err != nil {
			tb.Fatal(err)
		}
		if v := h.devices[0].view; v.noted.len() > 0 && v.displaced.len() > 0 && len(v.garbage.all()) > 0 {
			v.lost.set(Ino{1, 2}, 3)
			return v
		}
	}
}

func TestImage(t *testing.T) {
	v := imaged(t)
	b := v.Image()
	got, err := LoadView(v.s, b, Labels(label))
	if err != nil {
		t.Fatal(err)
	}
	if err := caught(func() { sameMemory(got, v, "loaded") }); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(got.Image(), b) {
		t.Error("the image of the loaded view is another one")
	}
	for n := range b {
		if _, err := LoadView(v.s, b[:n], Labels(label)); !errors.Is(err, ErrRecord) {
			t.Fatalf("the first %d bytes of %d: %v, want ErrRecord", n, len(b), err)
		}
	}
	for what, b := range map[string][]byte{
		"another version": append([]byte{imageVersion + 1}, b[1:]...),
		"a byte too many": append(bytes.Clone(b), 0),
		"no root":         {imageVersion, 0, 0, 0, 0},
		"a billion":       {imageVersion, 0xff, 0xff, 0xff, 0xff, 3},
	} {
		if _, err := LoadView(v.s, b); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v, want ErrRecord", what, err)
		}
	}
}

func FuzzImage(f *testing.F) {
	f.Add(imaged(f).Image())
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = newDelta(emptyView(NewMem(), nil)).loadImage(b) // ends, and asks for no more than b has
	})
}
