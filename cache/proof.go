package cache

import (
	"time"

	"github.com/roamfs/roamfs/sync/block"
)

// Proof says why one block may be removed from this device. The zero Proof proves
// nothing.
type Proof struct {
	id      block.ID
	holders [][32]byte
	asOf    time.Time
	until   time.Time // zero: does not lapse
	garbage bool
}

// NewProof returns the proof that devices other than this one hold block id.
//
// Whoever calls it claims that there are as many holders as the block must have
// copies elsewhere, and that for each of them, as of asOf, one of the following
// is true: it is an archive, which never evicts, and it has said that the block
// is durable there; it has promised to keep the block; or it has said so in
// answer to a question that was put after this device had stopped vouching for
// the block itself, which it still does not. A proof of the last kind must be
// made to lapse with [Proof.Before].
func NewProof(id block.ID, holders [][32]byte, asOf time.Time) Proof {
	return Proof{id: id, holders: holders, asOf: asOf}
}

// Unreferenced returns the proof that block id is garbage.
//
// Whoever calls it claims that nothing names the block, on any version that this
// device keeps, and that nothing will: a writer that puts blocks pins each one
// before Put until what names it is recorded, and pinned blocks are not removed.
func Unreferenced(id block.ID) Proof { return Proof{id: id, garbage: true} }

// Before returns the same proof, good only before t.
func (p Proof) Before(t time.Time) Proof {
	p.until = t
	return p
}

// ID returns the block that p is about.
func (p Proof) ID() block.ID { return p.id }

// Holders returns the devices that hold the block. The caller must not change it.
func (p Proof) Holders() [][32]byte { return p.holders }

// AsOf returns when the holders were known to hold the block.
func (p Proof) AsOf() time.Time { return p.asOf }

// allows reports whether p allows to remove its block now.
func (p Proof) allows(keep bool) bool {
	switch {
	case p.garbage:
		return !p.id.IsZero()
	case p.id.IsZero() || len(p.holders) == 0 || keep:
		return false
	}
	return p.until.IsZero() || time.Now().Before(p.until)
}
