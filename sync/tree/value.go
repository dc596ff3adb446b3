package tree

import (
	"encoding/binary"
	"strings"

	"github.com/roamfs/roamfs/sync/block"
)

// Bounds of the fields of values.
const (
	MaxName      = 255      // bytes of a name in a directory, and of an xattr's or a setting's
	MaxTarget    = 4095     // bytes of a symlink's target
	MaxInline    = 64       // bytes of file data kept in the record itself
	MaxXattr     = 64 << 10 // bytes of an xattr's or a setting's value
	MaxValue     = 66 << 10 // bytes of any encoded value
	MaxRank      = 1 << 48  // ranks stop growing here
	MaxDepth     = 3        // levels of chunk lists
	MaxSize      = 1<<62 - 1
	ModeMask     = 0o7777
	AttrFlags    = 0 // the flags of Attr that have a meaning so far
	DirMode      = 0o755
	valueVersion = 1
)

// Kind is what an inode is.
type Kind uint8

// The kinds of inodes. Devices and sockets are not replicated.
const (
	File Kind = iota + 1
	Dir
	Symlink
	Fifo
)

// String returns the word for the kind.
func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case Dir:
		return "directory"
	case Symlink:
		return "symlink"
	case Fifo:
		return "fifo"
	}
	return "unknown"
}

// Ref says where the bytes of a file are. A zero ID means that there is no
// block: the content is empty, one hole, or inline.
type Ref struct {
	Depth  uint8 // levels of chunk lists above the data, 0 to MaxDepth
	Cutter uint8 // how the content was cut, see sync/chunk
	ID     block.ID
}

// Content is the value of a C record, and the snapshot in an L record.
type Content struct {
	Kind   Kind   // File, Symlink or Fifo
	Rank   uint64 // 1 + the highest rank its author saw; set by Edit
	Wall   int64  // its author's clock, ns; set by Edit
	Size   int64  // bytes of the file; of a symlink, of its target
	Ref    Ref
	Inline []byte // the target of a symlink, or all of the data of a small file
	MTime  int64  // modification time, ns
	Mode   uint32 // permission bits when this was written
}

// same reports whether both show the same thing, whenever and by whomever it
// was written.
func (c *Content) same(o *Content) bool {
	return c.Kind == o.Kind && c.Size == o.Size && c.Ref.ID == o.Ref.ID && c.Ref.Depth == o.Ref.Depth && string(c.Inline) == string(o.Inline)
}

func (c *Content) check() error {
	switch {
	case c.Rank > MaxRank:
		return malformed("rank %d", c.Rank)
	case c.Size < 0 || c.Size > MaxSize:
		return malformed("size %d", c.Size)
	case c.Mode&^uint32(ModeMask) != 0:
		return malformed("mode %o", c.Mode)
	case c.Ref.ID == (block.ID{}) && c.Ref.Depth != 0:
		return malformed("depth without block")
	case c.Ref.Depth > MaxDepth:
		return malformed("depth %d", c.Ref.Depth)
	case len(c.Inline) > 0 && (c.Ref != Ref{} || c.Size != int64(len(c.Inline))):
		return malformed("inline data of %d bytes beside a reference, or for size %d", len(c.Inline), c.Size)
	}
	switch c.Kind {
	case File:
		if len(c.Inline) > MaxInline {
			return malformed("%d bytes inline", len(c.Inline))
		}
		if c.Size == 0 && c.Ref.ID != (block.ID{}) {
			return malformed("empty file with a block")
		}
	case Symlink:
		if len(c.Inline) == 0 || len(c.Inline) > MaxTarget || strings.IndexByte(string(c.Inline), 0) >= 0 {
			return malformed("symlink target")
		}
	case Fifo:
		if c.Size != 0 || c.Ref != (Ref{}) {
			return malformed("fifo with content")
		}
	default:
		return malformed("content of kind %d", c.Kind)
	}
	return nil
}

const (
	hasBlock  = 1
	hasInline = 2
)

func (c *Content) append(b []byte) []byte {
	var form byte
	if c.Ref.ID != (block.ID{}) {
		form |= hasBlock
	}
	if len(c.Inline) > 0 {
		form |= hasInline
	}
	b = append(b, valueVersion, byte(c.Kind), form)
	b = binary.AppendUvarint(b, c.Rank)
	b = appendInt64(b, c.Wall)
	b = binary.AppendUvarint(b, uint64(c.Size))
	b = appendInt64(b, c.MTime)
	b = binary.AppendUvarint(b, uint64(c.Mode))
	b = append(b, c.Ref.Depth, c.Ref.Cutter)
	if form&hasBlock != 0 {
		b = append(b, c.Ref.ID[:]...)
	}
	if form&hasInline != 0 {
		b = appendBytes(b, c.Inline)
	}
	return b
}

// Encode returns the canonical encoding. It is legal only if c is, which
// [Check] tells.
func (c Content) Encode() []byte { return c.append(nil) }

// DecodeContent is the inverse of Encode. The result owns its memory.
func DecodeContent(b []byte) (Content, error) {
	r := reader{b: b}
	r.version()
	c := Content{Kind: Kind(r.byte())}
	form := r.byte()
	if form > hasBlock|hasInline {
		r.fail("form %d", form)
	}
	c.Rank = r.uvarint(MaxRank)
	c.Wall = r.int64()
	c.Size = int64(r.uvarint(MaxSize))
	c.MTime = r.int64()
	c.Mode = uint32(r.uvarint(ModeMask))
	c.Ref.Depth, c.Ref.Cutter = r.byte(), r.byte()
	if form&hasBlock != 0 {
		copy(c.Ref.ID[:], r.take(len(block.ID{})))
		if r.err == nil && c.Ref.ID == (block.ID{}) {
			r.fail("zero block")
		}
	}
	if form&hasInline != 0 {
		c.Inline = append([]byte(nil), r.bytes(MaxTarget)...)
		if r.err == nil && len(c.Inline) == 0 {
			r.fail("nothing inline")
		}
	}
	if err := r.end(); err != nil {
		return Content{}, err
	}
	if err := c.check(); err != nil {
		return Content{}, err
	}
	return c, nil
}

// CheckName returns [ErrName] unless name may stand in a directory: 1 to 255
// bytes, neither "." nor "..", without '/' and NUL. Names are bytes; they need
// not be UTF-8.
func CheckName(name string) error {
	if len(name) == 0 || len(name) > MaxName || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return ErrName
	}
	return nil
}

// Link is the value of an L record: one name of an inode.
type Link struct {
	Parent  Ino
	Name    string
	Rank    uint64 // 1 + the highest rank its author saw
	LocTime int64  // its author's clock at the last change of place, ns
	Prev    *Place // where it was shown before that; nil for a new link
	Dir     bool   // the inode is a directory
	Deleted bool   // the directory was removed; this is its skeleton
	Copy    bool   // the name was made for a conflict copy; [Notable] is true for it
	// Snap is what the inode showed when this was written, with its permission
	// bits. It stands in for the content if a delete that did not see this link
	// takes the content away.
	Snap *Content
}

// Flags of an encoded link.
const (
	linkDir = 1 << iota
	linkDeleted
	linkCopy
	linkPrev
	linkSnap
)

func (l *Link) check() error {
	if l.Rank > MaxRank {
		return malformed("rank %d", l.Rank)
	}
	if CheckName(l.Name) != nil || l.Prev != nil && CheckName(l.Prev.Name) != nil {
		return malformed("name %q", l.Name)
	}
	if l.Copy && !Notable(l.Name) {
		return malformed("name %q of a conflict copy", l.Name)
	}
	if l.Snap == nil {
		return nil
	}
	if l.Dir {
		return malformed("directory with content")
	}
	return l.Snap.check()
}

// Encode returns the canonical encoding. It is legal only if l is, which
// [Check] tells.
func (l Link) Encode() []byte {
	var flags byte
	set := func(bit byte, on bool) {
		if on {
			flags |= bit
		}
	}
	set(linkDir, l.Dir)
	set(linkDeleted, l.Deleted)
	set(linkCopy, l.Copy)
	set(linkPrev, l.Prev != nil)
	set(linkSnap, l.Snap != nil)
	b := make([]byte, 0, 64+len(l.Name))
	b = append(b, valueVersion, flags)
	b = binary.AppendUvarint(b, l.Rank)
	b = appendInt64(b, l.LocTime)
	b = append(b, l.Parent[:]...)
	b = appendBytes(b, l.Name)
	if l.Prev != nil {
		b = append(b, l.Prev.Parent[:]...)
		b = appendBytes(b, l.Prev.Name)
	}
	if l.Snap != nil {
		b = appendBytes(b, l.Snap.Encode())
	}
	return b
}

// DecodeLink is the inverse of Encode. The result owns its memory.
func DecodeLink(b []byte) (Link, error) {
	r := reader{b: b}
	r.version()
	flags := r.byte()
	if flags >= linkSnap<<1 {
		r.fail("flags %#x", flags)
	}
	l := Link{Dir: flags&linkDir != 0, Deleted: flags&linkDeleted != 0, Copy: flags&linkCopy != 0}
	l.Rank = r.uvarint(MaxRank)
	l.LocTime = r.int64()
	l.Parent = r.ino()
	l.Name = string(r.bytes(MaxName))
	if flags&linkPrev != 0 {
		l.Prev = &Place{Parent: r.ino(), Name: string(r.bytes(MaxName))}
	}
	var snap []byte
	if flags&linkSnap != 0 {
		snap = r.bytes(MaxValue)
	}
	if err := r.end(); err != nil {
		return Link{}, err
	}
	if flags&linkSnap != 0 {
		c, err := DecodeContent(snap)
		if err != nil {
			return Link{}, err
		}
		l.Snap = &c
	}
	if err := l.check(); err != nil {
		return Link{}, err
	}
	return l, nil
}

// Attr is the value of an A record.
type Attr struct {
	Rank  uint64
	Wall  int64  // its author's clock, ns
	Mode  uint32 // permission bits, within ModeMask
	Flags uint32 // none has a meaning so far: 0
}

// Encode returns the canonical encoding.
func (a Attr) Encode() []byte {
	b := binary.AppendUvarint([]byte{valueVersion}, a.Rank)
	b = appendInt64(b, a.Wall)
	b = binary.AppendUvarint(b, uint64(a.Mode))
	return binary.AppendUvarint(b, uint64(a.Flags))
}

// DecodeAttr is the inverse of Encode.
func DecodeAttr(b []byte) (Attr, error) {
	r := reader{b: b}
	r.version()
	a := Attr{Rank: r.uvarint(MaxRank), Wall: r.int64(), Mode: uint32(r.uvarint(ModeMask)), Flags: uint32(r.uvarint(AttrFlags))}
	if err := r.end(); err != nil {
		return Attr{}, err
	}
	return a, nil
}

// MTime is the value of an M record.
type MTime struct {
	Rank  uint64
	Wall  int64 // its author's clock, ns
	MTime int64 // modification time, ns
}

// Encode returns the canonical encoding.
func (m MTime) Encode() []byte {
	b := binary.AppendUvarint([]byte{valueVersion}, m.Rank)
	return appendInt64(appendInt64(b, m.Wall), m.MTime)
}

// DecodeMTime is the inverse of Encode.
func DecodeMTime(b []byte) (MTime, error) {
	r := reader{b: b}
	r.version()
	m := MTime{Rank: r.uvarint(MaxRank), Wall: r.int64(), MTime: r.int64()}
	if err := r.end(); err != nil {
		return MTime{}, err
	}
	return m, nil
}

// Xattr is the value of an X record.
type Xattr struct {
	Rank  uint64
	Wall  int64  // its author's clock, ns
	Value []byte // at most MaxXattr bytes
}

// Encode returns the canonical encoding.
func (x Xattr) Encode() []byte {
	b := binary.AppendUvarint([]byte{valueVersion}, x.Rank)
	return appendBytes(appendInt64(b, x.Wall), x.Value)
}

// DecodeXattr is the inverse of Encode. Value aliases b.
func DecodeXattr(b []byte) (Xattr, error) {
	r := reader{b: b}
	r.version()
	x := Xattr{Rank: r.uvarint(MaxRank), Wall: r.int64(), Value: r.bytes(MaxXattr)}
	if err := r.end(); err != nil {
		return Xattr{}, err
	}
	return x, nil
}

// Setting is the value of a setting: the same fields and encoding as [Xattr].
type Setting = Xattr

// DecodeSetting is the inverse of Encode. Value aliases b.
func DecodeSetting(b []byte) (Setting, error) { return DecodeXattr(b) }
