package tree

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strings"
)

// Record is one statement of one commit batch about one key. The bytes of Value
// are shared and read-only.
type Record struct {
	Key   Key
	Dot   Dot
	Value []byte
}

// KeyDot names a record without its value.
type KeyDot struct {
	Key Key
	Dot Dot
}

// ID returns the name of the record.
func (r Record) ID() KeyDot { return KeyDot{r.Key, r.Dot} }

// Compare orders names of records by key, actor and counter, the order in
// which a [State] returns them.
func (k KeyDot) Compare(o KeyDot) int {
	if c := cmp.Compare(k.Key, o.Key); c != 0 {
		return c
	}
	return k.Dot.Compare(o.Dot)
}

// MaxKey is the length of the longest legal key.
const MaxKey = inoLen + 1 + MaxName

// AppendKeyDot appends the canonical encoding of k: key after its length,
// actor, counter.
func AppendKeyDot(b []byte, k KeyDot) []byte {
	b = appendBytes(b, string(k.Key))
	b = append(b, k.Dot.Actor[:]...)
	return binary.AppendUvarint(b, k.Dot.Ctr)
}

func (r *reader) keyDot() (k KeyDot) {
	k.Key = Key(r.bytes(MaxKey))
	copy(k.Dot.Actor[:], r.take(len(Actor{})))
	k.Dot.Ctr = r.uvarint(math.MaxInt64)
	return k
}

// DecodeKeyDot takes one AppendKeyDot off the front of b and checks the key.
func DecodeKeyDot(b []byte) (k KeyDot, rest []byte, err error) {
	r := reader{b: b}
	k = r.keyDot()
	if r.err == nil {
		r.err = checkKeyDot(k)
	}
	if r.err != nil {
		return KeyDot{}, nil, r.err
	}
	return k, r.b, nil
}

// AppendRecord appends the canonical encoding of r: its KeyDot, then the value
// after its length.
func AppendRecord(b []byte, r Record) []byte {
	return appendBytes(AppendKeyDot(b, r.ID()), r.Value)
}

// DecodeRecord takes one AppendRecord off the front of b and checks it as
// [Check] does. The value aliases b.
func DecodeRecord(b []byte) (r Record, rest []byte, err error) {
	rd := reader{b: b}
	k := rd.keyDot()
	r = Record{Key: k.Key, Dot: k.Dot, Value: rd.bytes(MaxValue)}
	if rd.err == nil {
		rd.err = Check(r)
	}
	if rd.err != nil {
		return Record{}, nil, rd.err
	}
	return r, rd.b, nil
}

func checkKeyDot(k KeyDot) error {
	if k.Dot.Ctr == 0 || k.Dot.Ctr > math.MaxInt64 {
		return malformed("counter %d", k.Dot.Ctr)
	}
	ino, sub := k.Key.Ino(), k.Key.Sub()
	switch k.Key.Type() {
	case TypeSetting:
		if len(sub) < MinSetting || len(sub) > MaxName {
			return malformed("setting name of %d bytes", len(sub))
		}
		return nil
	case TypeLink:
		if len(k.Key) != linkKeyLen || ino == Root {
			return malformed("link key")
		}
	case TypeContent:
		if sub != "" || ino == Root {
			return malformed("content key")
		}
	case TypeAttr, TypeMTime:
		if sub != "" {
			return malformed("attribute key")
		}
	case TypeXattr:
		if !validXattr(sub) {
			return malformed("xattr name")
		}
	default:
		return malformed("key of type %q", k.Key.Type())
	}
	if ino[0] == 0xff {
		return malformed("reserved inode")
	}
	return nil
}

func validXattr(name string) bool {
	return len(name) > 0 && len(name) <= MaxName && strings.IndexByte(name, 0) < 0
}

// Check returns an error that wraps [ErrRecord] unless the key is well-formed,
// the value is the canonical encoding of its type, and every field is within
// its bounds. Every record that comes from elsewhere must pass it. (A State
// with others does no harm: the view does not see them.)
func Check(r Record) error {
	if err := checkKeyDot(r.ID()); err != nil {
		return err
	}
	if len(r.Value) > MaxValue {
		return malformed("value of %d bytes", len(r.Value))
	}
	var err error
	switch r.Key.Type() {
	case TypeLink:
		var l Link
		if l, err = DecodeLink(r.Value); err == nil && l.Dir && r.Key.Sub() != string(make([]byte, len(LinkID{}))) {
			err = malformed("directory with a second link")
		}
	case TypeContent:
		_, err = DecodeContent(r.Value)
	case TypeAttr:
		_, err = DecodeAttr(r.Value)
	case TypeMTime:
		_, err = DecodeMTime(r.Value)
	case TypeXattr:
		_, err = DecodeXattr(r.Value)
	case TypeSetting:
		_, err = DecodeSetting(r.Value)
	}
	return err
}

func compareRecords(a, b Record) int { return a.ID().Compare(b.ID()) }

// SortRecords puts rs into the order of [KeyDot.Compare].
func SortRecords(rs []Record) { slices.SortFunc(rs, compareRecords) }
