package tree

import "strings"

// Types of records, the byte after the inode in a key.
const (
	TypeLink    = 'L' // a name of the inode; sub is the [LinkID]
	TypeContent = 'C' // what a file, symlink or fifo holds; no sub
	TypeAttr    = 'A' // permission bits; no sub
	TypeMTime   = 'M' // modification time set after the last write; no sub
	TypeXattr   = 'X' // one extended attribute; sub is its name
	TypeSetting = 'G' // a setting of the hive, not of an inode
)

const (
	inoLen        = len(Ino{})
	linkKeyLen    = inoLen + 1 + len(LinkID{})
	settingPrefix = "\xffG"
)

// Key says what a record is about: inode ‖ type ‖ sub, or "\xffG" ‖ name for a
// setting. Keys are compared and sorted as bytes.
type Key string

// LinkKey is the key of link l of ino.
func LinkKey(ino Ino, l LinkID) Key { return Key(ino[:]) + "L" + Key(l[:]) }

// ContentKey is the key of the content of ino.
func ContentKey(ino Ino) Key { return Key(ino[:]) + "C" }

// AttrKey is the key of the permission bits of ino.
func AttrKey(ino Ino) Key { return Key(ino[:]) + "A" }

// MTimeKey is the key of the modification time of ino.
func MTimeKey(ino Ino) Key { return Key(ino[:]) + "M" }

// XattrKey is the key of the extended attribute name of ino.
func XattrKey(ino Ino, name string) Key { return Key(ino[:]) + "X" + Key(name) }

// SettingKey is the key of the hive setting k.
func SettingKey(k string) Key { return settingPrefix + Key(k) }

// IsSetting reports whether k is the key of a setting.
func (k Key) IsSetting() bool { return strings.HasPrefix(string(k), settingPrefix) }

// Ino returns the first 24 bytes of the key, with zeros after a shorter one.
// For a setting that is no inode, but still begins with "\xffG".
func (k Key) Ino() (ino Ino) {
	copy(ino[:], k)
	return ino
}

// Type returns the type byte, or 0 for a key that is too short.
func (k Key) Type() byte {
	switch {
	case k.IsSetting():
		return TypeSetting
	case len(k) <= inoLen:
		return 0
	}
	return k[inoLen]
}

// Sub returns what follows the type byte.
func (k Key) Sub() string {
	switch {
	case k.IsSetting():
		return string(k[len(settingPrefix):])
	case len(k) <= inoLen:
		return ""
	}
	return string(k[inoLen+1:])
}

// link returns the LinkID of a link key.
func (k Key) link() (l LinkID, ok bool) {
	if k.Type() != TypeLink || len(k) != linkKeyLen {
		return l, false
	}
	copy(l[:], k[inoLen+1:])
	return l, true
}
