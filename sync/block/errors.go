package block

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNoReplica means that no device within reach holds the block now. Where
	// it is known who holds it, the error is an [*UnavailableError].
	ErrNoReplica = errors.New("no replica within reach")

	// ErrNoRoom means that the room for a block cannot be had: nothing that is
	// stored may be evicted.
	ErrNoRoom = errors.New("no room for block")

	// ErrNoKey means that a block was sealed in an epoch whose secret is not
	// held.
	ErrNoKey = errors.New("no key for epoch")

	// ErrVersion means that a block has the format of a later version.
	ErrVersion = errors.New("unknown block version")

	// ErrDamaged means that sealed bytes are not the block that was asked for,
	// or not a block at all.
	ErrDamaged = errors.New("damaged block")

	// ErrTooLarge means content of more than [MaxPlain] bytes.
	ErrTooLarge = errors.New("content too large for one block")
)

// MismatchError reports sealed bytes that do not hash to the name they came
// under. It is an [ErrDamaged].
type MismatchError struct {
	Want ID // the name that was asked for
	Got  ID // the name of the bytes that came
}

// Error implements error.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("block %v: content hashes to %v", e.Want, e.Got)
}

// Unwrap returns [ErrDamaged].
func (e *MismatchError) Unwrap() error { return ErrDamaged }

// UnavailableError reports a block that cannot be had now and names the devices
// known or expected to hold it. It is an [ErrNoReplica].
type UnavailableError struct {
	ID      ID
	Holders []string // names of devices, in the order in which to try them; may be empty
	Err     error    // what happened on the last attempt, for a person; may be nil
}

// Error implements error.
func (e *UnavailableError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "block %v: %v", e.ID, ErrNoReplica)
	if len(e.Holders) > 0 {
		fmt.Fprintf(&b, "; held by %s", strings.Join(e.Holders, ", "))
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns [ErrNoReplica]. Err is deliberately not part of the chain:
// that the last attempt was cancelled or timed out does not mean that the
// caller was.
func (e *UnavailableError) Unwrap() error { return ErrNoReplica }
