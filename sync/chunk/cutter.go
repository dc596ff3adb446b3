package chunk

import "fmt"

// Cutter is the number of a way to cut content. It is recorded with each
// content; zero means that none has been chosen.
type Cutter uint8

// The cutters: see the package comment.
const (
	Whole     Cutter = 1 // one piece, at most MaxWhole bytes
	CDC256K   Cutter = 2 // content-defined, 256 KiB usually
	CDC1M     Cutter = 3 // content-defined, 1 MiB usually
	Fixed64K  Cutter = 4 // every 64 KiB
	Fixed128K Cutter = 5 // every 128 KiB
)

// MaxWhole is the most content, in bytes, that is kept in one piece: less than
// this costs less to send again than to look after.
const MaxWhole = 512 << 10

const (
	manyCDC   = 1 << 30 // content larger than this gets CDC1M
	manyFixed = 4 << 30 // content larger than this gets Fixed128K
)

// String returns the cutter's name in messages.
func (c Cutter) String() string {
	switch c {
	case Whole:
		return "whole"
	case CDC256K:
		return "cdc-256k"
	case CDC1M:
		return "cdc-1m"
	case Fixed64K:
		return "fixed-64k"
	case Fixed128K:
		return "fixed-128k"
	}
	return fmt.Sprintf("cutter %d", uint8(c))
}

// Choose returns the cutter for content of size bytes.
//
// Head is the first [HeadLen] bytes of the content, or all of it if it has
// fewer. InPlace says that parts of the content were overwritten without a
// change of its size, as databases and virtual machines do. Prev is the cutter
// of the version that this one was made from, and is kept where it can be,
// since another one would send everything again; it is zero for new content and
// for content that was rewritten as a whole.
func Choose(size int64, head []byte, inPlace bool, prev Cutter) Cutter {
	switch prev {
	case CDC256K, CDC1M, Fixed64K, Fixed128K:
		return prev
	case Whole: // nothing is lost: all of it is sent again anyway
	}
	fixed := inPlace || updatedInPlace(head)
	switch {
	case size <= fixedSize64K, size <= MaxWhole && !fixed:
		return Whole
	case fixed && size > manyFixed:
		return Fixed128K
	case fixed:
		return Fixed64K
	case size > manyCDC:
		return CDC1M
	}
	return CDC256K
}
