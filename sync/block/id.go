package block

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"
)

// ID names a block: the BLAKE3-256 hash of its sealed bytes. The zero ID names
// no block. IDs compare with == and may key a map.
type ID [32]byte

// Sum returns the ID of sealed bytes.
func Sum(sealed []byte) ID { return blake3.Sum256(sealed) }

// Verify reports a [*MismatchError] unless the sealed bytes are block id. It
// needs no keys: it says that the bytes are the ones that were named, not that
// they can be opened.
func Verify(id ID, sealed []byte) error {
	if got := Sum(sealed); got != id {
		return &MismatchError{Want: id, Got: got}
	}
	return nil
}

// ParseID is the inverse of [ID.String]. It accepts exactly 64 lower-case
// hexadecimal digits, so that every ID has one spelling.
func ParseID(s string) (ID, error) {
	var id ID
	if err := id.UnmarshalText([]byte(s)); err != nil {
		return ID{}, err
	}
	return id, nil
}

// String returns the ID as 64 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether the ID names no block.
func (id ID) IsZero() bool { return id == ID{} }

// Less orders IDs as unsigned big-endian numbers, which is also the order of
// their text.
func (id ID) Less(other ID) bool { return id.Compare(other) < 0 }

// Compare returns -1, 0 or +1 in the order of [ID.Less], for slices.SortFunc.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText implements [encoding.TextMarshaler] with the text of [ID.String].
func (id ID) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, id[:]), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler] for what [ParseID]
// accepts. On error the ID is unchanged.
func (id *ID) UnmarshalText(text []byte) error {
	var parsed ID
	if len(text) != hex.EncodedLen(len(parsed)) {
		return fmt.Errorf("block ID of %d characters: want %d", len(text), hex.EncodedLen(len(parsed)))
	}
	if i := bytes.IndexFunc(text, notLowerHex); i >= 0 {
		return fmt.Errorf("block ID has %q at position %d: want 0-9 or a-f", text[i], i)
	}
	if _, err := hex.Decode(parsed[:], text); err != nil {
		return fmt.Errorf("block ID: %w", err)
	}
	*id = parsed
	return nil
}

func notLowerHex(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'f')
}
