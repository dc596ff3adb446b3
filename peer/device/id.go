package device

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/zeebo/blake3"
)

// ErrID reports text that is not the name of a device or hive.
var ErrID = errors.New("not a device or hive id")

// An ID names a device: its ed25519 public key. The zero ID names none.
type ID [32]byte

// A HiveID names a hive. It is derived from the owner's key by [HiveOf].
type HiveID [32]byte

// idText writes ids: RFC 4648 base32 in lower case without padding, so that an
// id is one word of 52 letters and digits that a double click selects.
var idText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// idTextLen is the length of an id in text.
const idTextLen = 52

// String returns the id as 52 characters of lower-case base32.
func (id ID) String() string { return idText.EncodeToString(id[:]) }

// Short returns the first 8 characters of String, for people and logs. It does
// not identify a device to a program.
func (id ID) Short() string { return id.String()[:8] }

// IsZero reports whether id names no device.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders ids by their bytes.
func (id ID) Compare(o ID) int { return bytes.Compare(id[:], o[:]) }

// Verify reports whether sig is the signature of the device over msg.
func (id ID) Verify(msg, sig []byte) bool {
	return ed25519.Verify(ed25519.PublicKey(id[:]), msg, sig)
}

// MarshalText is String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is [ParseID].
func (id *ID) UnmarshalText(b []byte) error {
	got, err := ParseID(string(b))
	if err != nil {
		return err
	}
	*id = got
	return nil
}

// ParseID reads what [ID.String] writes, in either case. Any other text gives
// [ErrID].
func ParseID(s string) (ID, error) {
	b, err := parse32(s)
	return ID(b), err
}

// HiveOf returns the name of the hive that owner, a public key, owns.
func HiveOf(owner ID) HiveID {
	var h HiveID
	blake3.DeriveKey("roamfs hive id v1", owner[:], h[:])
	return h
}

// String returns the id as 52 characters of lower-case base32.
func (h HiveID) String() string { return idText.EncodeToString(h[:]) }

// Short returns the first 8 characters of String, for people and logs.
func (h HiveID) Short() string { return h.String()[:8] }

// IsZero reports whether h names no hive.
func (h HiveID) IsZero() bool { return h == HiveID{} }

// MarshalText is String.
func (h HiveID) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText is [ParseHiveID].
func (h *HiveID) UnmarshalText(b []byte) error {
	got, err := ParseHiveID(string(b))
	if err != nil {
		return err
	}
	*h = got
	return nil
}

// ParseHiveID reads what [HiveID.String] writes, in either case. Any other text
// gives [ErrID].
func ParseHiveID(s string) (HiveID, error) {
	b, err := parse32(s)
	return HiveID(b), err
}

func parse32(s string) (id [32]byte, err error) {
	if len(s) != idTextLen {
		return id, fmt.Errorf("%w: %d characters, not %d", ErrID, len(s), idTextLen)
	}
	s = strings.ToLower(s)
	b, err := idText.DecodeString(s)
	// The last character has four bits to spare, and the decoder skips line
	// ends: only text that comes out the same is a name.
	if err != nil || len(b) != len(id) || idText.EncodeToString(b) != s {
		return id, ErrID
	}
	return [32]byte(b), nil
}

// NewActor returns the actor of one incarnation of a device: the first 8 bytes
// of BLAKE3("actor" || dev || nonce). The nonce is random and used once; a device
// takes a new one whenever its state may have been rolled back or copied.
func NewActor(dev ID, nonce [16]byte) [8]byte {
	b := make([]byte, 0, len("actor")+len(dev)+len(nonce))
	b = append(b, "actor"...)
	b = append(b, dev[:]...)
	b = append(b, nonce[:]...)
	sum := blake3.Sum256(b)
	return [8]byte(sum[:8])
}

// A Hash names a record of the membership log: BLAKE3-256 of its bytes.
type Hash [32]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Compare orders hashes by their bytes.
func (h Hash) Compare(o Hash) int { return bytes.Compare(h[:], o[:]) }
