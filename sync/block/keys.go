package block

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/zeebo/blake3"
)

// Secret is the random secret of one membership epoch, known to the hive's
// devices only.
type Secret [32]byte

// Keys holds what a device needs to seal in the current epoch and to open the
// blocks of every epoch whose secret it knows. It learns new ones with
// [Keys.Learn]. It is safe for concurrent use.
type Keys struct {
	root   Secret // of the lowest epoch: see Derive
	coders coders

	learning sync.Mutex // held while a new ring is made
	ring     atomic.Pointer[ring]
}

// ring is the keys at one time. It is immutable.
type ring struct {
	current *epochKeys
	// epochs are by number: two devices may have begun an epoch of one number.
	epochs map[uint32][]*epochKeys
}

// with returns r with another secret to open with and, if current is set, to
// seal with.
func (r *ring) with(epoch uint32, secret Secret, current bool) (*ring, error) {
	if secret == (Secret{}) {
		return nil, fmt.Errorf("epoch %d: %w", epoch, errNoSecret)
	}
	at := slices.IndexFunc(r.epochs[epoch], func(e *epochKeys) bool { return e.secret == secret })
	next := &ring{current: r.current, epochs: r.epochs}
	if at < 0 {
		e, err := newEpochKeys(epoch, secret)
		if err != nil {
			return nil, err
		}
		at = len(r.epochs[epoch])
		if next.epochs = maps.Clone(r.epochs); next.epochs == nil {
			next.epochs = map[uint32][]*epochKeys{}
		}
		next.epochs[epoch] = append(slices.Clip(r.epochs[epoch]), e)
	}
	if current {
		next.current = next.epochs[epoch][at]
	}
	return next, nil
}

// epochKeys are the keys of one epoch, as pools of hashers that have them built
// in: a hasher is 10 KiB, too much to make for each block.
type epochKeys struct {
	epoch  uint32
	secret Secret
	siv    sync.Pool // of *blake3.Hasher under the tag key
	enc    sync.Pool // of *blake3.Hasher under the encryption key
}

// NewKeys returns the keys of every epoch in secrets. New blocks are sealed in
// epoch current, whose secret must be among them. A secret of only zeros is
// refused, since nobody draws it: it is a secret that was never set. The map is
// not kept.
func NewKeys(current uint32, secrets map[uint32]Secret) (*Keys, error) {
	if _, ok := secrets[current]; !ok {
		return nil, fmt.Errorf("seal in epoch %d: %w", current, ErrNoKey)
	}
	k := &Keys{coders: newCoders()}
	r := &ring{}
	lowest := current
	for epoch, secret := range secrets {
		var err error
		if r, err = r.with(epoch, secret, epoch == current); err != nil {
			return nil, err
		}
		lowest = min(lowest, epoch)
	}
	k.ring.Store(r)
	k.root = secrets[lowest]
	return k, nil
}

// Learn adds the secret of an epoch, to open with from now on and, if current is
// set, to seal with: blocks that are being sealed may still be of the epoch before. What [Keys.Derive]
// returns stays the same. To learn a secret again does no harm.
func (k *Keys) Learn(epoch uint32, secret Secret, current bool) error {
	k.learning.Lock()
	defer k.learning.Unlock()
	next, err := k.ring.Load().with(epoch, secret, current)
	if err != nil {
		return fmt.Errorf("learn: %w", err)
	}
	k.ring.Store(next)
	return nil
}

var errNoSecret = errors.New("secret is all zeros")

func newEpochKeys(epoch uint32, secret Secret) (*epochKeys, error) {
	siv, err := deriveKey(secret, "roamfs block siv v1")
	if err != nil {
		return nil, err
	}
	enc, err := deriveKey(secret, "roamfs block enc v1")
	if err != nil {
		return nil, err
	}
	e := &epochKeys{epoch: epoch, secret: secret}
	e.siv.New = func() any { return newHasher(siv) }
	e.enc.New = func() any { return newHasher(enc) }
	return e, nil
}

func newHasher(key [32]byte) *blake3.Hasher {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only for a key that is not 32 bytes
	}
	return h
}

func deriveKey(secret Secret, info string) (key [32]byte, err error) {
	b, err := hkdf.Key(sha256.New, secret[:], nil, info, len(key))
	if err != nil {
		return key, fmt.Errorf("derive key %q: %w", info, err)
	}
	copy(key[:], b)
	return key, nil
}

// prf returns the keyed hash of data under the hashers of pool.
func prf(pool *sync.Pool, data []byte) (out [32]byte) {
	h := pool.Get().(*blake3.Hasher)
	h.Reset()
	_, _ = h.Write(data) // never fails
	h.Sum(out[:0])
	pool.Put(h)
	return out
}

// Epoch returns the epoch in which Seal seals.
func (k *Keys) Epoch() uint32 { return k.ring.Load().current.epoch }

// ChunkKey returns the key of the gear table that decides where content is cut
// (package sync/chunk). It is Derive("chunk").
func (k *Keys) ChunkKey() [32]byte { return k.Derive("chunk") }

// Derive returns a key for the named purpose, independent of every other
// purpose and of the keys that seal blocks. It comes from the secret of the
// lowest epoch held, which is the hive's first on all devices, and so stays the
// same when the epoch changes: were the chunk key to change, every later
// version of every file would be cut anew.
func (k *Keys) Derive(purpose string) [32]byte {
	key, err := deriveKey(k.root, "roamfs hive "+purpose+" v1")
	if err != nil {
		panic(err) // only for more than 255 hashes of output
	}
	return key
}
