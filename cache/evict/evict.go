// Package evict says in which order resident blocks should leave a cache: pure
// data, without I/O, locks or a clock.
//
// An [Order] is told what is added, hit and removed. It never removes anything
// itself: [Order.Victims] offers one candidate after the other, the best victim
// first, and whoever asked says of each whether it goes, or is held because it
// may not go now (pinned, or without proof that others have it). What is held is
// not offered again until it is released, so looking for victims costs O(1)
// amortised however much is held: each candidate that is offered was added, hit
// or released before.
//
// [S3FIFO] is the one implementation.
package evict

// MaxSize is the most bytes an entry counts for: larger ones count as MaxSize.
const MaxSize = 1<<24 - 1

// Verdict is the answer about one candidate.
type Verdict uint8

// The verdicts.
const (
	Stop  Verdict = iota // ends the search; the candidate stays where it is
	Evict                // the candidate leaves, and is remembered as evicted
	Hold                 // the candidate stays, and is not offered until released
)

// Item is what an order learns of a block when it becomes resident.
type Item struct {
	ID   [32]byte // not zero
	Size int64    // bytes it takes up, 1 to MaxSize
	// Cost is what a miss of it would cost, in seconds of waiting; zero if that
	// is not known. An order may disregard it, as S3FIFO does.
	Cost float32
	// Spec marks a block that nobody has asked for yet: it was fetched ahead.
	// Its first hit counts as its insertion.
	Spec bool
}

// Order is an order of eviction. Implementations need not be safe for
// concurrent use.
type Order interface {
	// Add puts a block under the order's care. Of one that is there already, only
	// the size is changed.
	Add(Item)

	// Hit records that a block was asked for. Others than those in the order are
	// disregarded, as they are by Hold, Release, Remove and Evicted.
	Hit(id [32]byte)

	// Remove takes out a block that is gone for another reason than eviction.
	Remove(id [32]byte)

	// Evicted takes out a block as if fn had said Evict: its soon return would
	// show that it should have stayed.
	Evicted(id [32]byte)

	// Victims offers candidates, the best victim first, until fn says Stop or
	// there is nothing left but what is held. fn must not call the order.
	Victims(fn func(id [32]byte, size int64) Verdict)

	// Hold sets a block aside as the verdict does.
	Hold(id [32]byte)

	// Release makes a held block a candidate again, among the first.
	Release(id [32]byte)

	// ReleaseHeld releases up to n blocks, those first that have been held the
	// longest, and returns how many.
	ReleaseHeld(n int) int

	// Stats returns the present figures.
	Stats() Stats

	// Snapshot appends the whole order to b in a form of its own. What is held is
	// recorded as not held.
	Snapshot(b []byte) []byte

	// Restore brings back the order of a snapshot among the blocks that were
	// added before the call. Blocks that the snapshot does not know count as newer
	// than those it knows, and those that were not added are disregarded. A
	// snapshot that cannot be read changes nothing.
	Restore(snapshot []byte) error
}

// Stats are the figures of an order.
type Stats struct {
	Entries int   // blocks under its care
	Bytes   int64 // their sizes
	Held    int   // those of Entries that are held
}
