package history

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// MaxObject bounds a directory object, in bytes: some two million entries with
// usual names.
const MaxObject = 256 << 20

// The forms of an entry's content.
const (
	formNone   = 0
	formRef    = 1
	formInline = 2
)

// Object names a directory object.
type Object struct {
	tree.Ref
	Size int64 // bytes of its encoding
}

// Entry is one name in a directory, as it was.
type Entry struct {
	Name   string
	Kind   tree.Kind
	Mode   uint32 // permission bits
	MTime  int64  // ns since 1970
	Size   int64  // bytes of a file or of a symlink's target; of a directory, of its object
	Ref    tree.Ref
	Inline []byte     // target of a symlink, or all of the data of a small file
	Author tree.Actor // of the content; zero for a directory
	Ino    tree.Ino
	Xattrs map[string][]byte
}

// Object returns the object of a directory.
func (e *Entry) Object() Object { return Object{e.Ref, e.Size} }

// SameContent reports whether both hold the same, whatever their attributes.
func (e *Entry) SameContent(o *Entry) bool {
	return e.Kind == o.Kind && e.Size == o.Size && e.Ref.ID == o.Ref.ID && e.Ref.Depth == o.Ref.Depth && string(e.Inline) == string(o.Inline)
}

// Content returns what a file, symlink or fifo holds.
func (e *Entry) Content() tree.Content {
	return tree.Content{Kind: e.Kind, Size: e.Size, Ref: e.Ref, Inline: e.Inline, MTime: e.MTime, Mode: e.Mode}
}

// Encode returns the object of a directory with these entries, which are sorted
// by name.
func Encode(entries []Entry) ([]byte, error) {
	b := []byte{formatVersion}
	for i := range entries {
		e := &entries[i]
		if i > 0 && e.Name <= entries[i-1].Name {
			return nil, malformed("%q after %q", e.Name, entries[i-1].Name)
		}
		if err := e.check(); err != nil {
			return nil, err
		}
		if b = e.append(b); len(b) > MaxObject {
			return nil, malformed("directory of more than %d bytes", MaxObject)
		}
	}
	return b, nil
}

func (e *Entry) append(b []byte) []byte {
	b = appendBytes(b, e.Name)
	b = append(b, byte(e.Kind))
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = appendInt64(b, e.MTime)
	b = binary.AppendUvarint(b, uint64(e.Size))
	switch {
	case !e.Ref.ID.IsZero():
		b = appendRef(append(b, formRef), e.Ref)
	case len(e.Inline) > 0:
		b = appendBytes(append(b, formInline), e.Inline)
	default:
		b = append(b, formNone)
	}
	b = append(b, e.Author[:]...)
	b = append(b, e.Ino[:]...)
	b = binary.AppendUvarint(b, uint64(len(e.Xattrs)))
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		b = appendBytes(appendBytes(b, name), e.Xattrs[name])
	}
	return b
}

func appendRef(b []byte, r tree.Ref) []byte {
	return append(append(b, r.Depth, r.Cutter), r.ID[:]...)
}

func (r *reader) ref() (x tree.Ref) {
	x.Depth, x.Cutter = r.byte(), r.byte()
	copy(x.ID[:], r.take(len(block.ID{})))
	if r.err == nil && (x.ID.IsZero() || x.Depth > tree.MaxDepth) {
		r.fail("reference of depth %d to %v", x.Depth, x.ID)
	}
	return x
}

// Decode is the inverse of [Encode]. Inline data and values of attributes alias b.
func Decode(b []byte) ([]Entry, error) {
	if len(b) > MaxObject {
		return nil, malformed("directory of %d bytes", len(b))
	}
	r := reader{b: b}
	r.version()
	var out []Entry
	for r.err == nil && len(r.b) > 0 {
		e := r.entry()
		if n := len(out); r.err == nil && n > 0 && e.Name <= out[n-1].Name {
			r.fail("%q after %q", e.Name, out[n-1].Name)
		}
		if r.err == nil {
			r.err = e.check()
		}
		out = append(out, e)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return out, nil
}

func (r *reader) entry() (e Entry) {
	e.Name = string(r.bytes(tree.MaxName))
	e.Kind = tree.Kind(r.byte())
	e.Mode = uint32(r.number(tree.ModeMask))
	e.MTime = r.int64()
	e.Size = int64(r.number(tree.MaxSize))
	switch form := r.byte(); form {
	case formNone:
	case formRef:
		e.Ref = r.ref()
	case formInline:
		if e.Inline = r.bytes(tree.MaxTarget); len(e.Inline) == 0 {
			r.fail("nothing inline")
		}
	default:
		r.fail("form %d", form)
	}
	copy(e.Author[:], r.take(len(e.Author)))
	copy(e.Ino[:], r.take(len(e.Ino)))
	last := ""
	for n := r.number(uint64(len(r.b))); n > 0 && r.err == nil; n-- {
		name, value := string(r.bytes(tree.MaxName)), r.bytes(tree.MaxXattr)
		if name <= last {
			r.fail("attribute %q after %q", name, last)
		}
		if e.Xattrs == nil {
			e.Xattrs = map[string][]byte{}
		}
		e.Xattrs[name], last = value, name
	}
	return e
}

// check reports what of e cannot be.
func (e *Entry) check() error {
	if err := tree.CheckName(e.Name); err != nil {
		return malformed("name %q: %v", e.Name, err)
	}
	ref, inline := !e.Ref.ID.IsZero(), len(e.Inline) > 0
	bad := e.Size < 0 || e.Mode&^uint32(tree.ModeMask) != 0 || ref && inline || inline && e.Size != int64(len(e.Inline)) ||
		!ref && e.Ref != tree.Ref{}
	switch e.Kind {
	case tree.File:
		bad = bad || len(e.Inline) > tree.MaxInline || ref && e.Size == 0
	case tree.Dir:
		bad = bad || !ref || e.Size < 1 || e.Size > MaxObject || e.Author != tree.Actor{}
	case tree.Symlink:
		bad = bad || !inline
	case tree.Fifo:
		bad = bad || ref || inline || e.Size != 0
	default:
		bad = true
	}
	for name, value := range e.Xattrs {
		bad = bad || name == "" || len(name) > tree.MaxName || len(value) > tree.MaxXattr
	}
	if bad {
		return malformed("%v %q", e.Kind, e.Name)
	}
	return nil
}
