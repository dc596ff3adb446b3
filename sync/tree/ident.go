package tree

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"

	"github.com/zeebo/blake3"
)

// Actor names one incarnation of one device. A device that lost or rolled back
// its local state comes back as a new actor, so that no dot is ever used twice.
type Actor [8]byte

// String returns 16 hexadecimal digits.
func (a Actor) String() string { return hex.EncodeToString(a[:]) }

// Compare orders actors by their bytes.
func (a Actor) Compare(b Actor) int { return bytes.Compare(a[:], b[:]) }

// Dot names one commit batch: the Ctr-th of its actor, from 1. All records of a
// batch carry its dot, and there is at most one record for a key and a dot.
type Dot struct {
	Actor Actor
	Ctr   uint64
}

// Compare orders dots by actor, then by counter.
func (d Dot) Compare(o Dot) int {
	if c := d.Actor.Compare(o.Actor); c != 0 {
		return c
	}
	return cmp.Compare(d.Ctr, o.Ctr)
}

// Ino is the identity of a file or directory: 8 bytes that say where it was
// born, for locality in the Merkle order, and 16 unique ones. It survives
// rename. The first byte of an inode that has records is never 0xff, which
// keeps the keys of settings apart.
type Ino [24]byte

var (
	// Root is the top directory: 24 zero bytes. It exists always and has no link.
	Root = Ino{}
	// Recovered is the virtual directory /.recovered, which appears while
	// there are links whose parent directory is unknown. It has no records.
	Recovered = Ino{0xff, 'R'}
)

// RecoveredName is the name of [Recovered] in the root.
const RecoveredName = ".recovered"

// String returns 48 hexadecimal digits.
func (i Ino) String() string { return hex.EncodeToString(i[:]) }

// Compare orders inodes by their bytes.
func (i Ino) Compare(o Ino) int { return bytes.Compare(i[:], o[:]) }

// LinkID tells the links of one inode apart. It is zero for the first.
type LinkID [8]byte

// Place is a name in a directory.
type Place struct {
	Parent Ino
	Name   string
}

func (p Place) compare(o Place) int {
	if c := p.Parent.Compare(o.Parent); c != 0 {
		return c
	}
	return cmp.Compare(p.Name, o.Name)
}

// hash is BLAKE3-256 of a domain and the parts, each after its length.
func hash(domain string, parts ...[]byte) [32]byte {
	b := make([]byte, 0, 128)
	b = append(b, "roamfs/tree "...)
	b = append(b, domain...)
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return blake3.Sum256(b)
}

// makeIno joins the birth tag and the unique half.
func makeIno(tag [8]byte, h [32]byte) (i Ino) {
	copy(i[:8], tag[:])
	copy(i[8:], h[:16])
	return i
}

// birthTag is the first half of the inodes born in parent.
func birthTag(parent Ino) (tag [8]byte) {
	h := hash("tag", parent[:])
	copy(tag[:], h[:8])
	if tag[0] == 0xff {
		tag[0] = 0x7f
	}
	return tag
}

func dotBytes(d Dot) []byte {
	b := make([]byte, 0, 16)
	b = append(b, d.Actor[:]...)
	return binary.BigEndian.AppendUint64(b, d.Ctr)
}

func numBytes(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// fileIno names the n-th inode made by call index of the batch dot.
func fileIno(parent Ino, dot Dot, index, n uint64) Ino {
	return makeIno(birthTag(parent), hash("f", dotBytes(dot), numBytes(index), numBytes(n)))
}

// dirIno names the directory that whoever first makes it there gets, so that
// two devices which make the same directory make one.
func dirIno(parent Ino, name string) Ino {
	return makeIno(birthTag(parent), hash("d", parent[:], []byte(name)))
}

// freshDirIno names a directory where dirIno is taken.
func freshDirIno(parent Ino, dot Dot, index, n uint64) Ino {
	return makeIno(birthTag(parent), hash("dx", dotBytes(dot), numBytes(index), numBytes(n)))
}

// copyIno names the conflict copy of ino that shows the content written by dot.
// It is the same on every device, before and after the copy is materialised.
func copyIno(ino Ino, dot Dot) Ino {
	var tag [8]byte
	copy(tag[:], ino[:8])
	return makeIno(tag, hash("m", []byte(ContentKey(ino)), dotBytes(dot)))
}

// snapIno names the conflict copy of ino that shows the snapshot of the link that
// dot wrote.
func snapIno(ino Ino, dot Dot) Ino {
	var tag [8]byte
	copy(tag[:], ino[:8])
	return makeIno(tag, hash("ms", []byte(ContentKey(ino)), dotBytes(dot)))
}

// freshLinkID names the n-th link made by call index of the batch dot.
func freshLinkID(dot Dot, index, n uint64) (l LinkID) {
	h := hash("l", dotBytes(dot), numBytes(index), numBytes(n))
	copy(l[:], h[:8])
	if l == (LinkID{}) {
		l[7] = 1
	}
	return l
}
