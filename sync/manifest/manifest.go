package manifest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/zeebo/blake3"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/tree"
)

var (
	// ErrManifest reports a manifest that is malformed: bytes that are none in its
	// one spelling, or fields that contradict each other.
	ErrManifest = errors.New("malformed manifest")
	// ErrSignature reports a manifest that the device it names did not sign.
	ErrSignature = errors.New("manifest has a wrong signature")
)

// A Hash names a manifest or a delta, or is a state id.
type Hash [32]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h names nothing.
func (h Hash) IsZero() bool { return h == Hash{} }

// Flags say what kind of manifest it is. Exactly one is set.
type Flags uint8

const (
	// FlagCommit marks a manifest that adds a delta.
	FlagCommit Flags = 1
	// FlagCheckpoint marks one that states the tree as it is.
	FlagCheckpoint Flags = 2
)

// A Head is the newest commit that somebody had of an actor.
type Head struct {
	Actor tree.Actor
	Ctr   uint64 // number of the commit, from 1
	Hash  Hash   // of its manifest
}

// MaxHeads is the greatest number of heads in a frontier.
const MaxHeads = tree.MaxActors

// A Manifest is one device's signed statement of the whole tree. The package
// comment says what the fields mean together.
type Manifest struct {
	Flags   Flags
	Hive    device.HiveID
	Epoch   uint32
	Members [32]byte // device.Log.Hash
	Actor   tree.Actor
	Device  device.ID
	Seq     uint64
	Prev    Hash
	Ctr     uint64
	Root    merkle.Hash
	StateID Hash
	Wall    int64 // nanoseconds since 1970

	DeltaHash Hash   // commits only
	DeltaLen  uint64 // bytes; commits only

	Frontier []Head // ascending by actor
	Sig      [64]byte
}

// StateID returns the name of a state: its records, by their root, and what it
// has seen.
func StateID(root merkle.Hash, v tree.Vector) (id Hash) {
	b := make([]byte, 0, len(root)+10+17*len(v))
	b = append(b, root[:]...)
	blake3.DeriveKey("roamfs state id v1", v.Append(b), id[:])
	return id
}

// Sum returns the hash of an encoded delta.
func Sum(delta []byte) (h Hash) {
	blake3.DeriveKey("roamfs delta v1", delta, h[:])
	return h
}

// Vector returns what a state has seen that has the manifest's root. The caller
// owns it.
func (m *Manifest) Vector() tree.Vector {
	v := make(tree.Vector, len(m.Frontier)+1)
	for _, h := range m.Frontier {
		v[h.Actor] = h.Ctr
	}
	if m.Ctr > 0 {
		v[m.Actor] = m.Ctr
	}
	return v
}

// Hash returns the name of the manifest. It does not depend on the signature.
func (m *Manifest) Hash() (h Hash) {
	blake3.DeriveKey("roamfs manifest v1", m.body(), h[:])
	return h
}

// CommitHash returns the hash of the manifest with the author's commit ctr, as far
// as m says it, or zeros.
func (m *Manifest) CommitHash(ctr uint64) Hash {
	if m.Flags&FlagCommit != 0 && m.Ctr == ctr {
		return m.Hash()
	}
	for _, h := range m.Frontier {
		if h.Actor == m.Actor && h.Ctr == ctr {
			return h.Hash
		}
	}
	return Hash{}
}

const signDomain = "roamfs manifest v1\x00"

// Sign sorts the frontier, and signs the manifest as the device it names, which
// must be that of key. It gives [ErrManifest] if nobody would accept the result.
func (m *Manifest) Sign(key device.Key) error {
	if m.Device != key.ID() {
		return fmt.Errorf("%w: signed by %s as %s", ErrManifest, key.ID().Short(), m.Device.Short())
	}
	slices.SortFunc(m.Frontier, func(a, b Head) int { return a.Actor.Compare(b.Actor) })
	if err := m.check(); err != nil {
		return err
	}
	m.Sig = [64]byte(key.Sign(append([]byte(signDomain), m.body()...)))
	return nil
}

// Verify checks that the manifest is well formed, with [ErrManifest] if not, and
// that its device signed it, with [ErrSignature] if not.
func (m *Manifest) Verify() error {
	if err := m.check(); err != nil {
		return err
	}
	if !m.Device.Verify(append([]byte(signDomain), m.body()...), m.Sig[:]) {
		return fmt.Errorf("%w: %d of %s", ErrSignature, m.Seq, m.Device.Short())
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrManifest, fmt.Sprintf(format, args...))
}

// check returns an error that wraps [ErrManifest] unless the fields fit together.
func (m *Manifest) check() error {
	switch {
	case m.Actor == tree.Actor{}:
		return malformed("no actor")
	case m.Device.IsZero():
		return malformed("no device")
	case m.Seq == 0 || m.Seq > math.MaxInt64:
		return malformed("number %d", m.Seq)
	case (m.Seq == 1) != m.Prev.IsZero():
		return malformed("number %d after %v", m.Seq, m.Prev)
	case m.Ctr > math.MaxInt64:
		return malformed("counter %d", m.Ctr)
	}
	own, err := m.checkFrontier()
	if err != nil {
		return err
	}
	switch m.Flags {
	case FlagCommit:
		switch {
		case m.Ctr == 0 || own != m.Ctr-1:
			return malformed("commit %d after %d", m.Ctr, own)
		case m.DeltaLen == 0 || m.DeltaLen > MaxDelta:
			return malformed("delta of %d bytes", m.DeltaLen)
		}
	case FlagCheckpoint:
		switch {
		case own != m.Ctr:
			return malformed("checkpoint at %d of %d commits", m.Ctr, own)
		case m.DeltaLen != 0 || !m.DeltaHash.IsZero():
			return malformed("checkpoint with a delta")
		}
	default:
		return malformed("flags %#x", uint8(m.Flags))
	}
	if m.StateID != StateID(m.Root, m.Vector()) {
		return malformed("state id does not follow from root and frontier")
	}
	return nil
}

// checkFrontier returns the counter of the manifest's own actor in the frontier,
// or 0.
func (m *Manifest) checkFrontier() (own uint64, err error) {
	if len(m.Frontier) > MaxHeads {
		return 0, malformed("frontier of %d heads", len(m.Frontier))
	}
	for i, h := range m.Frontier {
		switch {
		case h.Ctr == 0 || h.Ctr > math.MaxInt64:
			return 0, malformed("head at commit %d", h.Ctr)
		case h.Hash.IsZero():
			return 0, malformed("head of %v without its hash", h.Actor)
		case i > 0 && bytes.Compare(m.Frontier[i-1].Actor[:], h.Actor[:]) >= 0:
			return 0, malformed("frontier out of order")
		}
		if h.Actor == m.Actor {
			own = h.Ctr
		}
	}
	return own, nil
}
