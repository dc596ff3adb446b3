package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/roamfs/roamfs/sync/manifest"
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
//	want    6                                           send me the whole state
//	state   7  len checkpoint-manifest  n head*         begin: what is signed, the newest commit of each actor
//	part    8  records                                  in key order
//	end     9
//	more   10  the next piece of the delta              follows the piece before it at once
//	fork   11  manifest of a commit                     you know another history of its author than I do
//	held   20  heads, hashes zero                       send me no commits up to these: I hold them back (guard.go)
//
// head is len manifest n hash(32)*: the manifest with the commit, and the hashes of
// the n commits of the actor before it, as far as the sender knows them.
//
// heads is the number of actors, and of each, in ascending order, actor(8),
// number of its newest commit, hash(32) of that commit's manifest, or zeros if
// the hash is not known.
//
// A message stays within 4 MiB, and most are far smaller, so that other messages
// get through between them: a delta of pieceSize bytes and more is sent in pieces, of which
// all but the last have just that size, and the last is shorter, maybe empty. A
// part of a state is sent once it has partSize bytes; only the last is shorter.
const (
	msgHello byte = iota + 1
	msgMembers
	msgCommit
	msgTold
	msgOffer
	msgWant
	msgState
	msgPart
	msgEnd
	msgMore
	msgFork

	msgHeld byte = 20
)

const helloVersion = 2

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
	maxPiece    = 4 << 20                                     // of a staging file: a message
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

// toldHead is an actor in the begin of a state.
type toldHead struct {
	manifest []byte // with the newest commit
	hashes   []byte // 32 bytes each, of the commits before it
}

func encodeState(checkpoint []byte, heads []toldHead) []byte {
	b := binary.AppendUvarint([]byte{msgState}, uint64(len(checkpoint)))
	b = append(b, checkpoint...)
	b = binary.AppendUvarint(b, uint64(len(heads)))
	for _, h := range heads {
		b = binary.AppendUvarint(b, uint64(len(h.manifest)))
		b = append(b, h.manifest...)
		b = binary.AppendUvarint(b, uint64(len(h.hashes)/32))
		b = append(b, h.hashes...)
	}
	return b
}

func decodeState(b []byte) (checkpoint []byte, heads []toldHead, err error) {
	if checkpoint, b, err = cut(b, maxManifest); err != nil {
		return nil, nil, err
	}
	n, b, err := number(b, maxHeads)
	if err != nil {
		return nil, nil, err
	}
	left := uint64(maxHashes)
	for range n {
		var h toldHead
		if h.manifest, b, err = cut(b, maxManifest); err != nil {
			return nil, nil, err
		}
		var k uint64
		if k, b, err = number(b, left); err != nil || k*32 > uint64(len(b)) {
			return nil, nil, fmt.Errorf("%w: hashes", errMessage)
		}
		left -= k
		h.hashes, b = b[:k*32], b[k*32:]
		heads = append(heads, h)
	}
	if len(b) != 0 {
		return nil, nil, fmt.Errorf("%w: %d bytes after the heads", errMessage, len(b))
	}
	return checkpoint, heads, nil
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
