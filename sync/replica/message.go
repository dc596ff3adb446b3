package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/roamfs/roamfs/sync/tree"
)

// Messages between replicas. The first byte is the kind; integers are
// big-endian, lengths are unsigned varints.
//
//	hello   1  version(1) hive(32) members(32) state(32) vector      who I am and what I know
//	members 2  membership log
//	commit  3  len manifest  delta
//	told    4  vector                                                what I know now
//	offer   5                                                        ask me for the whole state
//	want    6                                                        send me the whole state
//	state   7  len checkpoint-manifest  n (len manifest)*            begin: what is signed, the head of each actor
//	part    8  records                                               in key order
//	end     9
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
)

const helloVersion = 1

// Bounds of what is accepted, in bytes.
const (
	maxMembers  = 1 << 20
	maxManifest = 1 << 20
	maxDelta    = 3 << 20
	maxHeads    = 4096
	partSize    = 512 << 10 // a part is sent once it is as long as this
	maxPiece    = 4 << 20   // of a staging file: a message
)

// errMessage means that a peer sent what cannot be a message.
var errMessage = errors.New("malformed sync message")

type hello struct {
	hive    [32]byte
	members [32]byte
	state   [32]byte
	vector  tree.Vector
}

func (h hello) encode() []byte {
	b := []byte{msgHello, helloVersion}
	b = append(b, h.hive[:]...)
	b = append(b, h.members[:]...)
	b = append(b, h.state[:]...)
	return h.vector.Append(b)
}

func decodeHello(b []byte) (h hello, err error) {
	if len(b) < 1+96 {
		return h, fmt.Errorf("%w: hello of %d bytes", errMessage, len(b))
	}
	if b[0] != helloVersion {
		return h, fmt.Errorf("%w: hello of version %d, this program knows %d", errMessage, b[0], helloVersion)
	}
	b = b[1:]
	copy(h.hive[:], b)
	copy(h.members[:], b[32:])
	copy(h.state[:], b[64:])
	if h.vector, err = decodeVector(b[96:]); err != nil {
		return h, fmt.Errorf("hello: %w", err)
	}
	return h, nil
}

// decodeVector reads a version vector that is the rest of a message.
func decodeVector(b []byte) (tree.Vector, error) {
	v, rest, err := tree.DecodeVector(b)
	if err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: version vector: %w", errMessage, err)
	}
	return v, nil
}

func encodeCommit(m, delta []byte) []byte {
	b := make([]byte, 0, 1+binary.MaxVarintLen64+len(m)+len(delta))
	b = append(b, msgCommit)
	b = binary.AppendUvarint(b, uint64(len(m)))
	b = append(b, m...)
	return append(b, delta...)
}

func decodeCommit(b []byte) (m, delta []byte, err error) {
	m, delta, err = cut(b, maxManifest)
	if err == nil && len(delta) > maxDelta {
		err = fmt.Errorf("%w: delta of %d bytes", errMessage, len(delta))
	}
	return m, delta, err
}

func encodeState(checkpoint []byte, heads [][]byte) []byte {
	b := binary.AppendUvarint([]byte{msgState}, uint64(len(checkpoint)))
	b = append(b, checkpoint...)
	b = binary.AppendUvarint(b, uint64(len(heads)))
	for _, h := range heads {
		b = binary.AppendUvarint(b, uint64(len(h)))
		b = append(b, h...)
	}
	return b
}

func decodeState(b []byte) (checkpoint []byte, heads [][]byte, err error) {
	if checkpoint, b, err = cut(b, maxManifest); err != nil {
		return nil, nil, err
	}
	n, w := binary.Uvarint(b)
	if w <= 0 || w > 1 && b[w-1] == 0 || n > maxHeads {
		return nil, nil, fmt.Errorf("%w: number of heads", errMessage)
	}
	b = b[w:]
	for range n {
		var h []byte
		if h, b, err = cut(b, maxManifest); err != nil {
			return nil, nil, err
		}
		heads = append(heads, h)
	}
	if len(b) != 0 {
		return nil, nil, fmt.Errorf("%w: %d bytes after the heads", errMessage, len(b))
	}
	return checkpoint, heads, nil
}

// cut takes a length, in its shortest spelling, and so many bytes off b.
func cut(b []byte, limit uint64) (v, rest []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || w > 1 && b[w-1] == 0 || n > limit || n > uint64(len(b)-w) {
		return nil, nil, fmt.Errorf("%w: bad length", errMessage)
	}
	return b[w : w+int(n)], b[w+int(n):], nil
}
