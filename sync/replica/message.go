package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/tree"
)

// Messages between replicas. The first byte is the kind; integers are
// big-endian, lengths are unsigned varints in their shortest spelling.
//
//	hello   1  version(1) hive(32) members(32) heads    who I am and what I know
//	members 2  membership log
//	commit  3  len manifest  delta, or its first piece
//	told    4  heads                                    what I know now, and have on my disk
//	offer   5  size                                     ask me for the whole state, of about so many bytes
//	want    6  walk(4)                                  let me have the whole state
//	state   7  walk(4)  len checkpoint-manifest  n head*  top    what is signed, the newest commit of each actor
//	ask     8  walk(4)  ref*                            send me these nodes; none: I am done with the state
//	pieces  9  walk(4)  (len piece)*                    of what was asked for, in that order; none: I have it no more
//	more   10  the next piece of the delta              follows the piece before it at once
//	fork   11  manifest of a commit                     you know another history of its author than I do
//	held   20  heads, hashes zero                       send me no commits up to these: I hold them back (guard.go)
//
// head is len manifest n hash(32)*: the manifest with the commit, and the hashes of
// the n commits of the actor before it, as far as the sender knows them.
//
// ref is height(1) group(24) hash(32) and names a node of the Merkle tree over the
// state (package merkle): height 0 is a leaf, and group is one that falls to the
// node. Of one above the leaves it is the first. top is height(1) and first
// group(24) of the node whose hash is the root that the checkpoint signs.
//
// heads is the number of actors, and of each, in ascending order, actor(8),
// number of its newest commit, hash(32) of that commit's manifest, or zeros if
// the hash is not known.
//
// A message stays within 4 MiB, and most are far smaller, so that other messages
// get through between them: a delta of pieceSize bytes and more is sent in pieces, of which
// all but the last have just that size, and the last is shorter, maybe empty.
//
// # States
//
// Who wants a state gives the walk over it a number, another one each time, which all
// messages of that walk have: what was still on its way when a walk was given up is not
// taken for a part of the next.
//
// Who was offered a state and wants it is sent a state message, and walks the tree
// that it names from the top down, as far as its own tree is another one: first
// the nodes above the leaves, then the leaves that it lacks, of which it asks for
// the next ones before the last ones are there. The sender answers out of a
// snapshot until it is told that the walk is done, or for serveIdle without a
// question; a question that comes later is answered with no pieces.
//
// An ask has at most maxRefs refs, and at most maxAsks of a peer wait to be
// answered. The answer to a node above the leaves is one piece, its bytes as they are
// hashed. That to a leaf is its records in order, in one piece or several, of
// which all but the last have partSize bytes and more, and the last fewer, maybe
// none. Such a message has up to maxRefs pieces; if it is longer than partSize, then one.
const (
	msgHello byte = iota + 1
	msgMembers
	msgCommit
	msgTold
	msgOffer
	msgWant
	msgState
	msgAsk
	msgPieces
	msgMore
	msgFork

	msgHeld byte = 20
)

const helloVersion = 3

// Bounds of what is accepted, in bytes.
const (
	maxMembers  = 1 << 20
	maxManifest = manifest.MaxSize
	maxHeads    = manifest.MaxHeads
	pieceSize   = 512 << 10
	partSize    = 512 << 10
	maxOffer    = 1 << 50
	maxHashes   = 16384                                       // in all heads of a state
	maxPart     = partSize + tree.MaxKey + tree.MaxValue + 64 // the record with which it became long enough
	maxRefs     = 512                                         // in an ask
	maxAsks     = 4                                           // of one peer that are not answered yet
)

// errMessage means that a peer sent what cannot be a message.
var errMessage = errors.New("malformed sync message")

type hello struct {
	hive    [32]byte
	members [32]byte
	heads   []manifest.Head
}

func (h hello) encode() []byte {
	b := []byte{msgHello, helloVersion}
	b = append(b, h.hive[:]...)
	b = append(b, h.members[:]...)
	return appendHeads(b, h.heads)
}

func decodeHello(b []byte) (h hello, err error) {
	if len(b) < 1+64 {
		return h, fmt.Errorf("%w: hello of %d bytes", errMessage, len(b))
	}
	if b[0] != helloVersion {
		return h, fmt.Errorf("%w: hello of version %d, this program knows %d", errMessage, b[0], helloVersion)
	}
	b = b[1:]
	copy(h.hive[:], b)
	copy(h.members[:], b[32:])
	if h.heads, err = decodeHeads(b[64:]); err != nil {
		return h, fmt.Errorf("hello: %w", err)
	}
	return h, nil
}

func appendHeads(b []byte, heads []manifest.Head) []byte {
	b = binary.AppendUvarint(b, uint64(len(heads)))
	for i := range heads {
		b = append(b, heads[i].Actor[:]...)
		b = binary.AppendUvarint(b, heads[i].Ctr)
		b = append(b, heads[i].Hash[:]...)
	}
	return b
}

// decodeHeads reads heads that are the rest of a message.
func decodeHeads(b []byte) ([]manifest.Head, error) {
	const least = 8 + 1 + 32
	n, b, err := number(b, maxHeads)
	if err != nil || n > uint64(len(b)/least) {
		return nil, fmt.Errorf("%w: number of heads", errMessage)
	}
	heads := make([]manifest.Head, n)
	for i := range heads {
		h := &heads[i]
		if len(b) < least {
			return nil, fmt.Errorf("%w: head cut short", errMessage)
		}
		copy(h.Actor[:], b)
		if h.Ctr, b, err = number(b[8:], math.MaxInt64); err != nil || h.Ctr == 0 || len(b) < 32 {
			return nil, fmt.Errorf("%w: head", errMessage)
		}
		copy(h.Hash[:], b)
		b = b[32:]
		if i > 0 && heads[i-1].Actor.Compare(h.Actor) >= 0 {
			return nil, fmt.Errorf("%w: heads out of order", errMessage)
		}
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes after the heads", errMessage, len(b))
	}
	return heads, nil
}

func vectorOf(heads []manifest.Head) tree.Vector {
	v := make(tree.Vector, len(heads))
	for i := range heads {
		v[heads[i].Actor] = heads[i].Ctr
	}
	return v
}

// encodeCommit returns a commit with its delta or the first piece of it.
func encodeCommit(m, delta []byte) []byte {
	b := make([]byte, 0, 1+binary.MaxVarintLen64+len(m)+len(delta))
	b = append(b, msgCommit)
	b = binary.AppendUvarint(b, uint64(len(m)))
	b = append(b, m...)
	return append(b, delta...)
}

func decodeCommit(b []byte) (m, delta []byte, err error) {
	m, delta, err = cut(b, maxManifest)
	if err == nil && len(delta) > pieceSize {
		err = fmt.Errorf("%w: piece of a delta of %d bytes", errMessage, len(delta))
	}
	return m, delta, err
}

func encodeOffer(size uint64) []byte { return binary.AppendUvarint([]byte{msgOffer}, size) }

func decodeOffer(b []byte) (size uint64, err error) {
	size, b, err = number(b, maxOffer)
	if err == nil && len(b) != 0 {
		err = fmt.Errorf("%w: %d bytes after an offer", errMessage, len(b))
	}
	return size, err
}

// ofWalk puts the number of a walk behind the kind of a message.
func ofWalk(n uint32, msg []byte) []byte {
	b := make([]byte, 0, len(msg)+4)
	b = binary.BigEndian.AppendUint32(append(b, msg[0]), n)
	return append(b, msg[1:]...)
}

// walkOf takes the number off the rest of a message.
func walkOf(b []byte) (n uint32, rest []byte, err error) {
	if len(b) < 4 {
		return 0, nil, fmt.Errorf("%w: no number of a walk", errMessage)
	}
	return binary.BigEndian.Uint32(b), b[4:], nil
}

// toldHead is an actor in the begin of a state.
type toldHead struct {
	manifest []byte // with the newest commit
	hashes   []byte // 32 bytes each, of the commits before it
}

func encodeState(checkpoint []byte, heads []toldHead, top merkle.Ref) []byte {
	b := binary.AppendUvarint([]byte{msgState}, uint64(len(checkpoint)))
	b = append(b, checkpoint...)
	b = binary.AppendUvarint(b, uint64(len(heads)))
	for _, h := range heads {
		b = binary.AppendUvarint(b, uint64(len(h.manifest)))
		b = append(b, h.manifest...)
		b = binary.AppendUvarint(b, uint64(len(h.hashes)/32))
		b = append(b, h.hashes...)
	}
	b = append(b, byte(top.Height))
	return append(b, top.First[:]...)
}

// decodeState returns a top without its hash, which is in the checkpoint.
func decodeState(b []byte) (checkpoint []byte, heads []toldHead, top merkle.Ref, err error) {
	if checkpoint, b, err = cut(b, maxManifest); err != nil {
		return nil, nil, top, err
	}
	n, b, err := number(b, maxHeads)
	if err != nil {
		return nil, nil, top, err
	}
	left := uint64(maxHashes)
	for range n {
		var h toldHead
		if h.manifest, b, err = cut(b, maxManifest); err != nil {
			return nil, nil, top, err
		}
		var k uint64
		if k, b, err = number(b, left); err != nil || k*32 > uint64(len(b)) {
			return nil, nil, top, fmt.Errorf("%w: hashes", errMessage)
		}
		left -= k
		h.hashes, b = b[:k*32], b[k*32:]
		heads = append(heads, h)
	}
	if len(b) != 1+len(top.First) || b[0] > merkle.MaxHeight {
		return nil, nil, top, fmt.Errorf("%w: top of the tree", errMessage)
	}
	top.Height, top.First = int(b[0]), [24]byte(b[1:])
	return checkpoint, heads, top, nil
}

const refLen = 1 + 24 + 32

func encodeAsk(refs []merkle.Ref) []byte {
	b := make([]byte, 0, 1+refLen*len(refs))
	b = append(b, msgAsk)
	for i := range refs {
		b = append(b, byte(refs[i].Height))
		b = append(b, refs[i].First[:]...)
		b = append(b, refs[i].Hash[:]...)
	}
	return b
}

func decodeAsk(b []byte) ([]merkle.Ref, error) {
	if len(b)%refLen != 0 || len(b) > maxRefs*refLen {
		return nil, fmt.Errorf("%w: ask of %d bytes", errMessage, len(b))
	}
	refs := make([]merkle.Ref, len(b)/refLen)
	for i := range refs {
		if b[0] > merkle.MaxHeight {
			return nil, fmt.Errorf("%w: node of height %d", errMessage, b[0])
		}
		refs[i] = merkle.Ref{Height: int(b[0]), First: [24]byte(b[1:]), Hash: merkle.Hash(b[25:])}
		b = b[refLen:]
	}
	return refs, nil
}

func appendPiece(b, piece []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(piece))), piece...)
}

// decodePieces returns the pieces, which alias b.
func decodePieces(b []byte) (pieces [][]byte, err error) {
	for total := len(b); len(b) > 0; {
		var piece []byte
		if piece, b, err = cut(b, uint64(maxPart)); err != nil {
			return nil, err
		}
		if pieces = append(pieces, piece); len(pieces) > maxRefs || len(pieces) > 1 && total > partSize {
			return nil, fmt.Errorf("%w: %d bytes of pieces", errMessage, total)
		}
	}
	return pieces, nil
}

// number takes a number of at most limit, in its shortest spelling, off b.
func number(b []byte, limit uint64) (n uint64, rest []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || w > 1 && b[w-1] == 0 || n > limit {
		return 0, nil, fmt.Errorf("%w: bad number", errMessage)
	}
	return n, b[w:], nil
}

// cut takes a length and so many bytes off b.
func cut(b []byte, limit uint64) (v, rest []byte, err error) {
	n, b, err := number(b, limit)
	if err != nil || n > uint64(len(b)) {
		return nil, nil, fmt.Errorf("%w: bad length", errMessage)
	}
	return b[:n], b[n:], nil
}
