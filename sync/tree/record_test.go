package tree

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/roamfs/roamfs/sync/block"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

var (
	testIno = Ino{1, 2, 3, 23: 24}
	testDot = Dot{Actor{0xa, 0xb}, 300}
)

// samples has every record type, with all optional fields and without.
func samples() map[string]Record {
	id := block.ID{0: 0xee, 31: 0xff}
	blockContent := Content{Kind: File, Rank: 3, Wall: -1, Size: 1 << 40, Ref: Ref{2, 1, id}, MTime: 1e18, Mode: 0o644}
	inline := Content{Kind: File, Rank: 1, Wall: 7, Size: 5, Inline: []byte("hello"), MTime: 8, Mode: 0o7777}
	link := Link{Parent: Root, Name: "näme.txt", Rank: 1, LocTime: 99}
	moved := Link{Parent: testIno, Name: "a (conflict dev 1970-01-01 abcdef).txt", Rank: MaxRank, LocTime: math.MinInt64, Prev: &Place{Root, "a"}, Copy: true, Snap: &inline}
	dir := Link{Parent: Root, Name: "d", Rank: 2, LocTime: 5, Dir: true, Deleted: true}
	r := func(k Key, v []byte) Record { return Record{k, testDot, v} }
	return map[string]Record{
		"content block":   r(ContentKey(testIno), blockContent.Encode()),
		"content inline":  r(ContentKey(testIno), inline.Encode()),
		"content hole":    r(ContentKey(testIno), Content{Kind: File, Rank: 1, Size: 4096, Ref: Ref{Cutter: 3}}.Encode()),
		"content empty":   r(ContentKey(testIno), Content{Kind: File}.Encode()),
		"content symlink": r(ContentKey(testIno), Content{Kind: Symlink, Rank: 1, Size: 4, Inline: []byte("../x"), Mode: 0o777}.Encode()),
		"content fifo":    r(ContentKey(testIno), Content{Kind: Fifo, Rank: 1, Mode: 0o600}.Encode()),
		"link":            r(LinkKey(testIno, LinkID{}), link.Encode()),
		"link moved":      r(LinkKey(testIno, LinkID{7: 9}), moved.Encode()),
		"link directory":  r(LinkKey(testIno, LinkID{}), dir.Encode()),
		"attr":            r(AttrKey(Root), Attr{Rank: 1, Wall: 2, Mode: 0o1755}.Encode()),
		"mtime":           r(MTimeKey(testIno), MTime{Rank: 4, Wall: 5, MTime: -6}.Encode()),
		"xattr":           r(XattrKey(testIno, "user.mime"), Xattr{Rank: 1, Wall: 2, Value: []byte("text/plain")}.Encode()),
		"setting":         r(SettingKey("copies of every folder"), Setting{Rank: 1, Wall: 2, Value: []byte("2")}.Encode()),
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", strings.ReplaceAll(name, " ", "_")+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got %s, want %s", file, got, want)
	}
}

func TestGoldenRecords(t *testing.T) {
	for name, r := range samples() {
		if err := Check(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		b := AppendRecord(nil, r)
		golden(t, "record "+name, hex.EncodeToString(b)+"\n")
		got, rest, err := DecodeRecord(append(b, 1, 2))
		if err != nil || len(rest) != 2 || got.ID() != r.ID() || !bytes.Equal(got.Value, r.Value) {
			t.Errorf("%s: decoded %v, %d bytes left, %v", name, got, len(rest), err)
		}
		for n := range b {
			if _, _, err := DecodeRecord(b[:n]); !errors.Is(err, ErrRecord) {
				t.Errorf("%s: cut to %d bytes: %v", name, n, err)
			}
		}
	}
}

func TestGoldenVector(t *testing.T) {
	v := Vector{Actor{2}: 1, Actor{1}: 1 << 40, Actor{3}: 0}
	b := v.Append(nil)
	golden(t, "vector", hex.EncodeToString(b)+"\n")
	got, rest, err := DecodeVector(append(b, 9))
	if err != nil || len(rest) != 1 || !got.Equal(v) {
		t.Errorf("decoded %v, %d bytes left, %v", got, len(rest), err)
	}
}

// TestGoldenIdentities: inodes and names are formats too.
func TestGoldenIdentities(t *testing.T) {
	name, err := conflictName("photo.jpg", origin{"laptop", 1e18, [32]byte{0xab, 0xcd, 0xef}, false}, func(string) (bool, error) { return true, nil })
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "identities", fmt.Sprintf("file %v\ndir %v\nfresh dir %v\ncopy %v\nsnapshot copy %v\nlink %x\nname %s\n",
		fileIno(Root, testDot, 1, 2), dirIno(testIno, "d"), freshDirIno(testIno, testDot, 1, 2), copyIno(testIno, testDot), snapIno(testIno, testDot), freshLinkID(testDot, 1, 2), name))
}

func TestCheckRefuses(t *testing.T) {
	good := Link{Parent: Root, Name: "a"}
	long := strings.Repeat("x", 256)
	link := func(f func(*Link)) Record {
		l := good
		f(&l)
		return Record{LinkKey(testIno, LinkID{}), testDot, l.Encode()}
	}
	content := func(c Content) Record { return Record{ContentKey(testIno), testDot, c.Encode()} }
	for name, r := range map[string]Record{
		"no key":                    {"", testDot, nil},
		"short key":                 {Key(testIno[:20]), testDot, nil},
		"unknown type":              {Key(testIno[:]) + "Z", testDot, nil},
		"reserved inode":            {AttrKey(Ino{0xff, 1}), testDot, Attr{}.Encode()},
		"link of the root":          {LinkKey(Root, LinkID{}), testDot, good.Encode()},
		"content of the root":       {ContentKey(Root), testDot, Content{Kind: File}.Encode()},
		"content with a sub":        {ContentKey(testIno) + "x", testDot, Content{Kind: File}.Encode()},
		"short link key":            {LinkKey(testIno, LinkID{})[:30], testDot, good.Encode()},
		"xattr without a name":      {XattrKey(testIno, ""), testDot, Xattr{}.Encode()},
		"xattr with NUL":            {XattrKey(testIno, "a\x00"), testDot, Xattr{}.Encode()},
		"xattr with a long name":    {XattrKey(testIno, long), testDot, Xattr{}.Encode()},
		"setting with a short name": {SettingKey(strings.Repeat("x", MinSetting-1)), testDot, Setting{}.Encode()},
		"counter 0":                 {AttrKey(testIno), Dot{Actor{1}, 0}, Attr{}.Encode()},
		"counter too high":          {AttrKey(testIno), Dot{Actor{1}, 1 << 63}, Attr{}.Encode()},
		"name empty":                link(func(l *Link) { l.Name = "" }),
		"name .":                    link(func(l *Link) { l.Name = "." }),
		"name ..":                   link(func(l *Link) { l.Name = ".." }),
		"name with slash":           link(func(l *Link) { l.Name = "a/b" }),
		"name with NUL":             link(func(l *Link) { l.Name = "a\x00" }),
		"name too long":             link(func(l *Link) { l.Name = long }),
		"prev name":                 link(func(l *Link) { l.Prev = &Place{Root, ".."} }),
		"rank":                      link(func(l *Link) { l.Rank = MaxRank + 1 }),
		"copy with a plain name":    link(func(l *Link) { l.Copy = true }),
		"directory with content":    link(func(l *Link) { l.Dir, l.Snap = true, &Content{Kind: File} }),
		"snapshot of nothing":       link(func(l *Link) { l.Snap = &Content{} }),
		"second link of directory":  {LinkKey(testIno, LinkID{1}), testDot, Link{Name: "a", Dir: true}.Encode()},
		"kind 0":                    content(Content{}),
		"directory as content":      content(Content{Kind: Dir}),
		"size without data":         content(Content{Kind: File, Size: 3, Inline: []byte("ab")}),
		"inline too long":           content(Content{Kind: File, Size: 65, Inline: make([]byte, 65)}),
		"inline and block":          content(Content{Kind: File, Size: 1, Inline: []byte("a"), Ref: Ref{ID: block.ID{1}}}),
		"empty with block":          content(Content{Kind: File, Ref: Ref{ID: block.ID{1}}}),
		"depth without block":       content(Content{Kind: File, Size: 1, Ref: Ref{Depth: 1}}),
		"depth":                     content(Content{Kind: File, Size: 1, Ref: Ref{Depth: 4, ID: block.ID{1}}}),
		"mode":                      content(Content{Kind: File, Mode: 0o10000}),
		"symlink without target":    content(Content{Kind: Symlink}),
		"symlink too long":          content(Content{Kind: Symlink, Size: 4096, Inline: bytes.Repeat([]byte("a"), 4096)}),
		"symlink with NUL":          content(Content{Kind: Symlink, Size: 1, Inline: []byte{0}}),
		"fifo with size":            content(Content{Kind: Fifo, Size: 1}),
		"attr with flags":           {AttrKey(testIno), testDot, Attr{Flags: 1}.Encode()},
		"attr mode":                 {AttrKey(testIno), testDot, Attr{Mode: 0o10000}.Encode()},
		"xattr too big":             {XattrKey(testIno, "a"), testDot, Xattr{Value: make([]byte, MaxXattr+1)}.Encode()},
		"version":                   {AttrKey(testIno), testDot, append([]byte{2}, Attr{}.Encode()[1:]...)},
		"trailing byte":             {AttrKey(testIno), testDot, append(Attr{}.Encode(), 0)},
		"number not minimal":        {AttrKey(testIno), testDot, []byte{1, 0x80, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
	} {
		if err := Check(r); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVectorRefuses(t *testing.T) {
	entry := func(a byte, ctr ...byte) []byte { return append([]byte{a, 0, 0, 0, 0, 0, 0, 0}, ctr...) }
	for name, b := range map[string][]byte{
		"nothing":      {},
		"cut":          append([]byte{2}, entry(1, 1)...),
		"zero":         append([]byte{1}, entry(1, 0)...),
		"not sorted":   bytes.Join([][]byte{{2}, entry(2, 1), entry(1, 1)}, nil),
		"twice":        bytes.Join([][]byte{{2}, entry(1, 1), entry(1, 2)}, nil),
		"too many":     append([]byte{0x81, 0x20}, make([]byte, 100)...),
		"not minimal":  append([]byte{1}, entry(1, 0x81, 0)...),
		"many, no end": {0xff, 0x1f},
	} {
		if _, _, err := DecodeVector(b); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVector(t *testing.T) {
	v := Vector{Actor{1}: 3}
	if !v.Has(Dot{Actor{1}, 3}) || v.Has(Dot{Actor{1}, 4}) || v.Has(Dot{Actor{2}, 1}) {
		t.Error("Has")
	}
	w := v.Clone()
	w.Merge(Vector{Actor{1}: 2, Actor{2}: 5, Actor{3}: 0})
	if !w.Covers(v) || v.Covers(w) || v.Equal(w) || !w.Equal(Vector{Actor{1}: 3, Actor{2}: 5}) || v[Actor{2}] != 0 {
		t.Errorf("Merge: %v", w)
	}
}

func FuzzRecord(f *testing.F) {
	for _, r := range samples() {
		f.Add(AppendRecord(nil, r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, rest, err := DecodeRecord(b)
		if err != nil {
			return
		}
		if got := AppendRecord(nil, r); !bytes.Equal(got, b[:len(b)-len(rest)]) {
			t.Fatalf("%x decodes to %v, which encodes to %x", b, r, got)
		}
		if err := Check(r); err != nil {
			t.Fatal(err)
		}
		if got, ok := reencode(r); !ok || !bytes.Equal(got, r.Value) {
			t.Fatalf("value %x encodes to %x", r.Value, got)
		}
	})
}

// reencode decodes a value and encodes it again.
func reencode(r Record) ([]byte, bool) {
	switch r.Key.Type() {
	case TypeLink:
		v, err := DecodeLink(r.Value)
		return v.Encode(), err == nil
	case TypeContent:
		v, err := DecodeContent(r.Value)
		return v.Encode(), err == nil
	case TypeAttr:
		v, err := DecodeAttr(r.Value)
		return v.Encode(), err == nil
	case TypeMTime:
		v, err := DecodeMTime(r.Value)
		return v.Encode(), err == nil
	case TypeXattr, TypeSetting:
		v, err := DecodeXattr(r.Value)
		return v.Encode(), err == nil
	}
	return nil, false
}

func FuzzKeyDot(f *testing.F) {
	f.Add(AppendKeyDot(nil, KeyDot{AttrKey(testIno), testDot}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, rest, err := DecodeKeyDot(b); err == nil && !bytes.Equal(AppendKeyDot(nil, k), b[:len(b)-len(rest)]) {
			t.Fatalf("%x decodes to %v", b, k)
		}
	})
}

func FuzzVector(f *testing.F) {
	f.Add(Vector{Actor{2}: 1, Actor{1}: 1 << 40}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, rest, err := DecodeVector(b); err == nil && !bytes.Equal(v.Append(nil), b[:len(b)-len(rest)]) {
			t.Fatalf("%x decodes to %v", b, v)
		}
	})
}

// TestDecodeAllocates: what a decoder allocates is bounded by its input.
func TestDecodeAllocates(t *testing.T) {
	short := []byte{0xff, 0x1f} // a vector of 4095 entries, none of which follows
	if n := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _, _ = DecodeVector(short)
		}
	}).AllocedBytesPerOp(); n > 4096 {
		t.Errorf("%d bytes for a vector that ends at once", n)
	}
}
