package block

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Type says what a block's content is. It is visible without keys, and sealed
// in: a block of one type does not open as another.
type Type byte

// The types of block. All others are reserved.
const (
	Data Type = 1 // a piece of a file's content
	List Type = 2 // where a file's pieces are: see package sync/chunk
	Node Type = 3 // a node of the tree of records
)

// String returns the type's name in messages.
func (t Type) String() string {
	switch t {
	case Data:
		return "data"
	case List:
		return "list"
	case Node:
		return "node"
	}
	return fmt.Sprintf("type %d", byte(t))
}

func (t Type) known() bool { return t >= Data && t <= Node }

const (
	// MaxPlain is the most content one block holds, in bytes.
	MaxPlain = 4 << 20

	// Overhead is what a sealed block adds to its padded payload, in bytes.
	Overhead = headSize + bodySize

	// MaxSealed bounds the bytes of any sealed block. MaxPlain is a power of
	// two, which is not padded.
	MaxSealed = Overhead + MaxPlain
)

const (
	version = 1

	tagAt    = 6               // version, type, epoch
	tagSize  = 32              //
	headSize = tagAt + tagSize // what stands in the clear

	bodySize = 1 + 4 + 4 // encoding, plain, payload
)

const (
	encRaw  = 0
	encZstd = 1
)

// Seal returns content as a sealed block and its ID. The same type and content
// give the same block as long as the epoch is the same. Content is 0 to
// [MaxPlain] bytes, else [ErrTooLarge]; it is neither changed nor kept. The
// caller owns the sealed bytes.
func (k *Keys) Seal(t Type, plain []byte) (ID, []byte, error) {
	if !t.known() {
		return ID{}, nil, fmt.Errorf("seal block of %v: reserved", t)
	}
	if len(plain) > MaxPlain {
		return ID{}, nil, fmt.Errorf("seal %d bytes: %w", len(plain), ErrTooLarge)
	}
	e := k.ring.Load().current
	sealed := k.coders.pack(plain)
	sealed[0] = version
	sealed[1] = byte(t)
	binary.BigEndian.PutUint32(sealed[2:], e.epoch)
	tag := prf(&e.siv, sealed) // the tag's own field is still zero
	copy(sealed[tagAt:], tag[:])
	e.stream(&tag).XORKeyStream(sealed[headSize:], sealed[headSize:])
	return Sum(sealed), sealed, nil
}

// Open returns the content of block id, of type t. It fails with a
// [*MismatchError] if sealed is not block id, with [ErrNoKey] if the secret of
// its epoch is not held, with [ErrVersion] if it is in a later format, and with
// [ErrDamaged] for anything else that Seal would not have written. Sealed is
// neither changed nor kept; the caller owns the content.
func (k *Keys) Open(id ID, t Type, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead || len(sealed) > MaxSealed {
		return nil, fmt.Errorf("open block %v of %d bytes: %w", id, len(sealed), ErrDamaged)
	}
	if err := Verify(id, sealed); err != nil {
		return nil, err
	}
	return k.OpenVerified(id, t, sealed)
}

// OpenVerified is [Keys.Open] for sealed bytes that were compared with id since
// they came from a disk or the network, as those are that a cache returns: it
// does not hash them again for that. They were sealed by the hive in any case, or
// it fails with [ErrDamaged]; but whether as block id is the caller's word.
func (k *Keys) OpenVerified(id ID, t Type, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead || len(sealed) > MaxSealed {
		return nil, fmt.Errorf("open block %v of %d bytes: %w", id, len(sealed), ErrDamaged)
	}
	plain, err := k.open(t, sealed)
	if err != nil {
		return nil, fmt.Errorf("open block %v: %w", id, err)
	}
	return plain, nil
}

// open is Open once the length and the ID have been checked.
func (k *Keys) open(t Type, sealed []byte) ([]byte, error) {
	if sealed[0] != version {
		return nil, fmt.Errorf("version %d: %w", sealed[0], ErrVersion)
	}
	epoch := binary.BigEndian.Uint32(sealed[2:])
	all := k.ring.Load().epochs[epoch]
	if len(all) == 0 {
		return nil, fmt.Errorf("%w %d", ErrNoKey, epoch)
	}
	if got := Type(sealed[1]); got != t {
		return nil, fmt.Errorf("%w: is of type %v, want %v", ErrDamaged, got, t)
	}

	for _, e := range all[:len(all)-1] {
		if plain, err := k.openWith(e, sealed); !errors.Is(err, errTag) {
			return plain, err
		}
	}
	return k.openWith(all[len(all)-1], sealed)
}

// errTag means that a block was sealed with another secret, or is none.
var errTag = fmt.Errorf("%w: not sealed with the hive's secret", ErrDamaged)

// openWith is open with one secret of the epoch that the block names.
func (k *Keys) openWith(e *epochKeys, sealed []byte) ([]byte, error) {
	var tag [tagSize]byte
	copy(tag[:], sealed[tagAt:])
	stream := e.stream(&tag)

	// What the encoding says is not to be believed yet. It only decides where
	// to decrypt to: raw content is returned where it stands.
	var enc [1]byte
	stream.XORKeyStream(enc[:], sealed[headSize:headSize+1])
	var opened []byte
	if enc[0] == encRaw {
		opened = make([]byte, len(sealed))
	} else {
		buf := k.coders.scratch.Get().(*[]byte)
		defer k.coders.release(buf)
		*buf = slices.Grow((*buf)[:0], len(sealed))
		opened = (*buf)[:len(sealed)]
	}
	copy(opened, sealed[:tagAt])
	clear(opened[tagAt:headSize]) // as it was when it was hashed
	opened[headSize] = enc[0]
	stream.XORKeyStream(opened[headSize+1:], sealed[headSize+1:])
	want := prf(&e.siv, opened)
	if subtle.ConstantTimeCompare(tag[:], want[:]) != 1 {
		return nil, fmt.Errorf("%w of epoch %d", errTag, e.epoch)
	}
	return k.coders.unpack(opened[headSize:])
}

// stream returns the key stream of the body that belongs to tag.
func (e *epochKeys) stream(tag *[tagSize]byte) cipher.Stream {
	key := prf(&e.enc, tag[:])
	c, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // only for a key of another size than 32
	}
	var iv [aes.BlockSize]byte
	return cipher.NewCTR(c, iv[:])
}
