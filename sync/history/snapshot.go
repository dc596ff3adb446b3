package history

import (
	"cmp"
	"encoding/binary"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/roamfs/roamfs/sync/tree"
)

// Prefix begins the keys of the settings that are snapshots.
const Prefix = "snap/"

// MaxName bounds the name of a snapshot, in bytes.
const MaxName = 100

// Reason says why a snapshot was made.
type Reason byte

// The reasons.
const (
	Automatic     Reason = 1
	Asked         Reason = 2 // by the user
	BeforeRestore Reason = 3
)

// Snapshot is one kept state of the tree.
type Snapshot struct {
	Key    string // of the setting
	Reason Reason
	Time   time.Time // by the clock of the device that made it
	Root   Object    // of the root directory
	Name   string    // as the user called it; "" if nobody did

	Dot tree.Dot // of the setting: the commit that it came with; not encoded
}

// Key returns the key of a snapshot that actor makes at t.
func Key(t time.Time, actor tree.Actor) string {
	return Prefix + t.UTC().Format(time.RFC3339) + "/" + actor.String()[:8]
}

// Title is what the snapshot is called in a list and under .roam/snapshots: its
// time in UTC, and its name if it has one.
func (s *Snapshot) Title() string {
	t := s.Time.UTC().Format("2006-01-02T150405Z")
	if s.Name != "" {
		t += "-" + s.Name
	}
	return t
}

// Encode returns the value of the setting.
func (s *Snapshot) Encode() []byte {
	b := appendInt64([]byte{formatVersion, byte(s.Reason)}, s.Time.UnixNano())
	b = binary.AppendUvarint(appendRef(b, s.Root.Ref), uint64(s.Root.Size))
	return appendBytes(b, s.Name)
}

// DecodeSnapshot is the inverse of Encode; key is that of the setting.
func DecodeSnapshot(key string, b []byte) (Snapshot, error) {
	r := reader{b: b}
	r.version()
	s := Snapshot{Key: key, Reason: Reason(r.byte()), Time: time.Unix(0, r.int64()).UTC()}
	s.Root.Ref = r.ref()
	s.Root.Size = int64(r.number(MaxObject))
	s.Name = string(r.bytes(MaxName))
	if r.err == nil && (s.Reason < Automatic || s.Reason > BeforeRestore || s.Root.Size < 1 || s.Name != "" && CheckName(s.Name) != nil) {
		r.fail("reason %d, %d bytes, name %q", s.Reason, s.Root.Size, s.Name)
	}
	if err := r.end(); err != nil {
		return Snapshot{}, err
	}
	return s, nil
}

// CheckName reports whether name can be the name of a snapshot: 1 to [MaxName]
// bytes of printable UTF-8 without '/', not beginning with a dot. One
// that [ParseTime] would understand, or that a restore would take for a time, is refused as well.
func CheckName(name string) error {
	bad := name == "" || len(name) > MaxName || !utf8.ValidString(name) || name[0] == '.' || strings.ContainsAny(name, "/@") ||
		strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
	if bad {
		return malformed("name %q: 1 to %d bytes of printable text without / and @, and no dot in front", name, MaxName)
	}
	if _, _, ok := ParseTime(name, time.Time{}); ok {
		return malformed("name %q is a time", name)
	}
	return nil
}

// Compare orders snapshots by time, then by key.
func (s Snapshot) Compare(o Snapshot) int {
	return cmp.Or(s.Time.Compare(o.Time), cmp.Compare(s.Key, o.Key))
}
