package file

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

var update = flag.Bool("update", false, "rewrite golden files")

// records are one of each shape.
func records() map[string]record {
	small := &layer{seq: 1, lower: 11, size: 9000, mtime: 1_700_000_000_123_456_789, kept: true}
	small.put([]byte("hello"), 3)
	small.set.set(3, 8)
	small.hid.set(8, 11)
	frozen := &layer{seq: 7, lower: 1 << 40, size: 1 << 40, mtime: -5, filed: true}
	frozen.set.set(4096, 8192)
	frozen.set.set(1<<39, 1<<39+1)
	top := &layer{seq: 0x1234, lower: 1 << 40, size: 1<<40 + 100, filed: true}
	top.set.set(1<<40, 1<<40+100)
	top.hid.set(0, 1<<30)
	list := newVersion(tree.Node{Size: 1 << 40, Ref: tree.Ref{Depth: 2, Cutter: 3, ID: block.ID{1, 2, 3}}})
	next := newVersion(tree.Node{Size: 1 << 40, Ref: tree.Ref{Depth: 2, Cutter: 3, ID: block.ID{9}}})
	return map[string]record{
		"small over inline":               {newVersion(tree.Node{Size: 11, Inline: []byte("inline data")}), nil, []*layer{small}},
		"two layers":                      {list, nil, []*layer{top, frozen}},
		"two layers and the next content": {list, next, []*layer{top, frozen}},
		"time only":                       {newVersion(tree.Node{}), nil, []*layer{{seq: 2}}},
	}
}

func TestRecordGolden(t *testing.T) {
	for name, r := range records() {
		path := filepath.Join("testdata", "record_v1_"+string(bytes.ReplaceAll([]byte(name), []byte(" "), []byte("_")))+".hex")
		got := hex.EncodeToString(r.encode()) + "\n"
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got %s want %s", name, got, want)
		}
		b, err := hex.DecodeString(string(bytes.TrimSpace(want)))
		if err != nil {
			t.Fatal(err)
		}
		d, err := decodeRecord(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if again := d.encode(); !bytes.Equal(again, b) {
			t.Errorf("%s: decoded and encoded again: %x, want %x", name, again, b)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	for _, r := range records() {
		f.Add(r.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		if got := r.encode(); !bytes.Equal(got, b) {
			t.Fatalf("%x decodes, but is encoded as %x", b, got)
		}
		for _, l := range r.layers {
			if int64(len(l.mem)) > smallDraft || l.spans() > maxSpans+slackSpans {
				t.Fatalf("%d bytes, %d spans", len(l.mem), l.set.n)
			}
		}
	})
}
