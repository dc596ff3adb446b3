package device

import (
	"errors"
	"fmt"
	"strings"
)

// A Role says what a device does with its disk.
type Role uint8

const (
	// Cache keeps a bounded part of the tree and evicts what others hold.
	Cache Role = 1
	// Archive keeps everything and never evicts.
	Archive Role = 2
	// Vault is reserved for devices that store ciphertext and have no keys. No
	// record may carry it yet.
	Vault Role = 3
)

// ErrRole reports a role that does not exist.
var ErrRole = errors.New("no such role")

// String returns "cache", "archive" or "vault", and "role(N)" for others.
func (r Role) String() string {
	switch r {
	case Cache:
		return "cache"
	case Archive:
		return "archive"
	case Vault:
		return "vault"
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// ParseRole reads "cache" or "archive". Any other text gives [ErrRole].
func ParseRole(s string) (Role, error) {
	switch s {
	case "cache":
		return Cache, nil
	case "archive":
		return Archive, nil
	}
	return 0, fmt.Errorf("%w: %q", ErrRole, s)
}

// valid reports whether a device may have the role now.
func (r Role) valid() bool { return r == Cache || r == Archive }

// MaxLabel is the length of the longest label, in bytes.
const MaxLabel = 32

// ErrLabel reports a label that breaks the rule of [CheckLabel].
var ErrLabel = errors.New("a device name is 1 to 32 of a-z, 0-9 and '-', and does not begin with '-'")

// CheckLabel returns [ErrLabel] unless s can name a device to people: 1 to 32
// bytes of a-z, 0-9 and '-', the first not '-'.
func CheckLabel(s string) error {
	if s == "" || len(s) > MaxLabel || s[0] == '-' {
		return fmt.Errorf("%w: %q", ErrLabel, s)
	}
	for i := range len(s) {
		if !labelByte(s[i]) {
			return fmt.Errorf("%w: %q", ErrLabel, s)
		}
	}
	return nil
}

func labelByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
}

// CleanLabel makes a label out of any text, a host name for instance: it takes
// the part before the first dot in lower case, puts '-' for each run of other
// characters, and cuts to [MaxLabel]. If nothing is left it returns "device".
// The result satisfies [CheckLabel].
func CleanLabel(s string) string {
	s, _, _ = strings.Cut(s, ".")
	var b strings.Builder
	gap := false
	for _, c := range strings.ToLower(s) {
		if c >= 0x80 || c == '-' || !labelByte(byte(c)) {
			gap = true
			continue
		}
		if gap && b.Len() > 0 {
			b.WriteByte('-')
		}
		gap = false
		b.WriteRune(c)
		if b.Len() >= MaxLabel {
			break
		}
	}
	out := b.String()
	if len(out) > MaxLabel {
		out = out[:MaxLabel]
	}
	if out = strings.TrimRight(out, "-"); out == "" {
		return "device"
	}
	return out
}

// freeLabel returns want, or the first of want-2, want-3 and so on that is not
// taken, with want cut so that the result fits [MaxLabel].
func freeLabel(want string, taken map[string]bool) string {
	label := want
	for n := 2; taken[label]; n++ {
		suffix := fmt.Sprintf("-%d", n)
		label = want[:min(len(want), MaxLabel-len(suffix))] + suffix
	}
	return label
}
