package tree

import (
	"encoding/hex"
	"strings"
	"time"
	"unicode/utf8"
)

// mark is in every name that is made for a conflict copy.
const mark = " (conflict "

const (
	maxLabel = 32 // bytes of a device's label in a name
	maxExt   = 32 // bytes of what counts as a suffix like ".txt"
)

// Notable reports whether name may have been made for a conflict copy. The view
// keeps such places in mind, see [Surveyor].
func Notable(name string) bool { return strings.Contains(name, mark) }

// origin is what a conflict name is made from besides the plain name. It is the
// same on every device.
type origin struct {
	label string
	wall  int64    // ns
	id    [32]byte // hash of what is named
	dir   bool
}

// conflictName returns name as "stem (conflict LABEL YYYY-MM-DD hex).ext", with
// the first hex digit string, from 6 digits on, for which free reports true. A
// conflict mark already there is replaced. The result is a legal name if name is.
func conflictName(name string, o origin, free func(string) (bool, error)) (string, error) {
	stem, ext := name, ""
	if i := strings.LastIndexByte(name, '.'); !o.dir && i > 0 && len(name)-i <= maxExt {
		stem, ext = name[:i], name[i:]
	}
	if i := strings.LastIndex(stem, mark); i >= 0 && strings.IndexByte(stem[i:], ')') == len(stem)-i-1 {
		stem = stem[:i]
	}
	date := time.Unix(0, o.wall).UTC().Format(time.DateOnly)
	digits := hex.EncodeToString(o.id[:])
	for n := 6; ; n += 2 {
		if n > len(digits) { // every prefix is taken, which takes intent
			o.id = hash("name", o.id[:])
			digits, n = hex.EncodeToString(o.id[:]), len(digits)
		}
		suffix := mark + o.label + " " + date + " " + digits[:n] + ")" + ext
		s := cut(stem, MaxName-len(suffix)) + suffix
		if ok, err := free(s); ok || err != nil {
			return s, err
		}
	}
}

// cut shortens s to at most n bytes, not inside a UTF-8 sequence.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := n; i > 0 && i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:n]
}

// actorLabel is the label of actor for names.
func (v *View) actorLabel(a Actor) string {
	if v.label != nil {
		if l := v.label(a); l != "" && len(l) <= maxLabel && !strings.ContainsAny(l, "/\x00().") {
			return l
		}
	}
	return a.String()[:8]
}
