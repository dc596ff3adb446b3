package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/roamfs/roamfs/sync/tree"
)

// ErrDelta reports a delta that is malformed or too long.
var ErrDelta = errors.New("malformed delta")

const (
	// MaxDelta is the length of the longest encoded delta, in bytes.
	MaxDelta = 16 << 20

	deltaVersion = 1
	// dropMin is the length of the shortest name of a record: the length of the
	// key, a key of a setting, actor and counter.
	dropMin = 1 + 3 + 8 + 1
)

// A Delta is what a commit does to the records: it adds Put and removes Drop. Both
// are strictly ascending by key, actor and counter, and have nothing in common.
type Delta struct {
	Put  []tree.Record
	Drop []tree.KeyDot
}

// Encode returns the bytes of the delta, which the caller owns. It gives [ErrDelta]
// if d is not in order or longer than [MaxDelta], and an error that wraps
// [tree.ErrRecord] for a record that nobody would accept.
func (d Delta) Encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, d.sizeHint()), deltaVersion)
	b = binary.AppendUvarint(b, uint64(len(d.Put)))
	for _, r := range d.Put {
		if err := tree.Check(r); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDelta, err)
		}
		b = tree.AppendRecord(b, r)
		if len(b) > MaxDelta {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrDelta, MaxDelta)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(d.Drop)))
	for _, k := range d.Drop {
		at := len(b)
		b = tree.AppendKeyDot(b, k)
		if _, _, err := tree.DecodeKeyDot(b[at:]); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDelta, err)
		}
		if len(b) > MaxDelta {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrDelta, MaxDelta)
		}
	}
	return b, nil
}

func (d Delta) sizeHint() int {
	n := 16 + 64*len(d.Drop)
	for i := range d.Put {
		n += 64 + len(d.Put[i].Value)
	}
	return min(n, MaxDelta)
}

// check returns [ErrDelta] unless both lists are in order and apart.
func (d Delta) check() error {
	for i := 1; i < len(d.Put); i++ {
		if d.Put[i-1].ID().Compare(d.Put[i].ID()) >= 0 {
			return fmt.Errorf("%w: new records out of order", ErrDelta)
		}
	}
	for i := 1; i < len(d.Drop); i++ {
		if d.Drop[i-1].Compare(d.Drop[i]) >= 0 {
			return fmt.Errorf("%w: removed records out of order", ErrDelta)
		}
	}
	put := d.Put
	for _, k := range d.Drop {
		for len(put) > 0 && put[0].ID().Compare(k) < 0 {
			put = put[1:]
		}
		if len(put) > 0 && put[0].ID() == k {
			return fmt.Errorf("%w: a record both new and removed", ErrDelta)
		}
	}
	return nil
}

// DecodeDelta reads one delta, which must fill b, and checks every record as
// [tree.Check] does. Errors wrap [ErrDelta]. The values alias b.
func DecodeDelta(b []byte) (Delta, error) {
	if len(b) > MaxDelta {
		return Delta{}, fmt.Errorf("%w: %d bytes", ErrDelta, len(b))
	}
	r := decoder{b: b}
	if v := r.byte(); v != deltaVersion {
		return Delta{}, fmt.Errorf("%w: version %d", ErrDelta, v)
	}
	var d Delta
	n, err := r.count()
	if err != nil {
		return Delta{}, err
	}
	for range n {
		rec, rest, err := tree.DecodeRecord(r.b)
		if err != nil {
			return Delta{}, fmt.Errorf("%w: %w", ErrDelta, err)
		}
		d.Put, r.b = append(d.Put, rec), rest
	}
	if n, err = r.count(); err != nil {
		return Delta{}, err
	}
	for range n {
		k, rest, err := tree.DecodeKeyDot(r.b)
		if err != nil {
			return Delta{}, fmt.Errorf("%w: %w", ErrDelta, err)
		}
		d.Drop, r.b = append(d.Drop, k), rest
	}
	if len(r.b) != 0 {
		return Delta{}, fmt.Errorf("%w: %d bytes after the end", ErrDelta, len(r.b))
	}
	if err := d.check(); err != nil {
		return Delta{}, err
	}
	return d, nil
}

func (d *decoder) count() (uint64, error) {
	n := d.uvarint(MaxDelta)
	if d.bad || n > uint64(len(d.b)/dropMin) {
		return 0, fmt.Errorf("%w: bad count", ErrDelta)
	}
	return n, nil
}
