package manifest

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/roamfs/roamfs/sync/tree"
)

func sorted(d Delta) Delta {
	tree.SortRecords(d.Put)
	slices.SortFunc(d.Drop, tree.KeyDot.Compare)
	return d
}

func mustEncode(tb testing.TB, d Delta) []byte {
	tb.Helper()
	b, err := d.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestDelta(t *testing.T) {
	for name, d := range map[string]Delta{
		"both": testDelta(), "empty": {}, "only new": {Put: testDelta().Put}, "only removed": {Drop: testDelta().Drop},
	} {
		b := mustEncode(t, d)
		got, err := DecodeDelta(b)
		if err != nil || !reflect.DeepEqual(got, d) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, d)
		}
	}
}

// raw encodes without checking.
func raw(d Delta) []byte {
	b := []byte{1, byte(len(d.Put))}
	for _, r := range d.Put {
		b = tree.AppendRecord(b, r)
	}
	b = append(b, byte(len(d.Drop)))
	for _, k := range d.Drop {
		b = tree.AppendKeyDot(b, k)
	}
	return b
}

func TestDeltaRefuses(t *testing.T) {
	for name, change := range map[string]func(*Delta){
		"new out of order":     func(d *Delta) { slices.Reverse(d.Put) },
		"removed out of order": func(d *Delta) { slices.Reverse(d.Drop) },
		"new twice":            func(d *Delta) { d.Put = append(d.Put, d.Put[len(d.Put)-1]) },
		"removed twice":        func(d *Delta) { d.Drop = append(d.Drop, d.Drop[len(d.Drop)-1]) },
		"new and removed":      func(d *Delta) { d.Drop = append(d.Drop, d.Put[1].ID()); *d = sorted(*d) },
		"a malformed value":    func(d *Delta) { d.Put[0].Value = []byte{1, 2, 3} },
		"a malformed key":      func(d *Delta) { d.Put = []tree.Record{{Key: "x", Dot: d.Put[0].Dot}} },
		"removed: a bad key":   func(d *Delta) { d.Drop[0].Key = "" },
		"removed: no dot":      func(d *Delta) { d.Drop[0].Dot.Ctr = 0 },
	} {
		d := testDelta()
		change(&d)
		if _, err := d.Encode(); !errors.Is(err, ErrDelta) {
			t.Errorf("%s: Encode gives %v", name, err)
		}
		if got, err := DecodeDelta(raw(d)); !errors.Is(err, ErrDelta) || got.Put != nil || got.Drop != nil {
			t.Errorf("%s: Decode gives %v", name, err)
		}
	}
	good := mustEncode(t, testDelta())
	if !bytes.Equal(raw(testDelta()), good) {
		t.Fatal("the reference encodes otherwise")
	}
	for i := range good {
		if _, err := DecodeDelta(good[:i]); !errors.Is(err, ErrDelta) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	for name, b := range map[string][]byte{
		"a byte at the end": append(bytes.Clone(good), 0),
		"another version":   append([]byte{2}, good[1:]...),
		"a long count":      {1, 0x80, 0x00, 0},
		"a huge count":      {1, 0xff, 0xff, 0xff, 0x07, 0},
		"too long":          make([]byte, MaxDelta+1),
	} {
		if _, err := DecodeDelta(b); !errors.Is(err, ErrDelta) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDeltaBound(t *testing.T) {
	value := tree.Xattr{Rank: 1, Value: make([]byte, tree.MaxXattr)}.Encode()
	var d Delta
	for i := range byte(255) {
		d.Put = append(d.Put, tree.Record{Key: tree.XattrKey(tree.Ino{1, i}, "x"), Dot: tree.Dot{Actor: testActor(1), Ctr: 1}, Value: value})
	}
	b := mustEncode(t, d)
	if _, err := DecodeDelta(b); err != nil || len(b) > MaxDelta {
		t.Errorf("%d bytes: %v", len(b), err)
	}
	for i := range byte(2) {
		d.Put = append(d.Put, tree.Record{Key: tree.XattrKey(tree.Ino{2, i}, "x"), Dot: d.Put[0].Dot, Value: value})
	}
	if _, err := d.Encode(); !errors.Is(err, ErrDelta) {
		t.Errorf("over the bound: %v", err)
	}
}

// A claim of many records in few bytes costs no memory.
func TestDecodeAllocatesLittle(t *testing.T) {
	b := append([]byte{1, 0x80, 0x80, 0x01}, make([]byte, 300_000)...)
	if n := testing.AllocsPerRun(5, func() { _, _ = DecodeDelta(b) }); n > 20 {
		t.Errorf("%v allocations", n)
	}
	m := example(t).Encode()
	if n := testing.AllocsPerRun(5, func() { _, _ = Decode(m[:len(m)-1]) }); n > 20 {
		t.Errorf("%v allocations", n)
	}
}

func TestDeltaModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"a", "b", "user.c"})
		kd := rapid.Custom(func(t *rapid.T) tree.KeyDot {
			return tree.KeyDot{
				Key: tree.XattrKey(tree.Ino{rapid.ByteMax(3).Draw(t, "ino")}, name.Draw(t, "name")),
				Dot: tree.Dot{Actor: testActor(rapid.ByteMax(3).Draw(t, "actor")), Ctr: rapid.Uint64Range(1, 300).Draw(t, "ctr")},
			}
		})
		names := rapid.SliceOfDistinct(kd, func(k tree.KeyDot) tree.KeyDot { return k }).Draw(t, "records")
		var d Delta
		for _, k := range names {
			if rapid.Bool().Draw(t, "put") {
				v := tree.Xattr{Rank: 1, Value: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "value")}
				d.Put = append(d.Put, tree.Record{Key: k.Key, Dot: k.Dot, Value: v.Encode()})
			} else {
				d.Drop = append(d.Drop, k)
			}
		}
		d = sorted(d)
		b, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeDelta(b)
		if err != nil || !reflect.DeepEqual(got, d) {
			t.Fatalf("got %+v, %v; want %+v", got, err, d)
		}
	})
}
