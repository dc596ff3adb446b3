package device

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/zeebo/blake3"
)

// ErrSheet reports text that is not a recovery sheet, or one that does not fit
// together.
var ErrSheet = errors.New("not a recovery sheet")

// A SheetLineError names a line of a recovery sheet that was mistyped or left out.
type SheetLineError struct {
	Line int // 1 to 7, as numbered on the sheet
}

// Error says which line to look at.
func (e *SheetLineError) Error() string {
	return fmt.Sprintf("recovery sheet: line %d is missing or mistyped", e.Line)
}

// A Sheet is what the owner of a hive keeps on paper: the owner key, which alone
// may revoke other devices and may begin the hive again, and one epoch's secret,
// which opens the blocks. Whoever holds it owns the hive. Hive is
// [HiveOf] the owner's public key.
//
// On paper it is seven numbered lines of six groups of four characters and a
// check of two. They spell, in Crockford's base32 (no I, L, O, U; read in either
// case, with I and L for 1 and O for 0), these 105 bytes, fifteen to a line:
//
//	version 1   0x01
//	hive   32
//	owner  32   ed25519 seed
//	epoch   4   big-endian
//	secret 32
//	check   4   of the bytes before it
//
// The check of the sheet is the beginning of the BLAKE3 key derivation with
// context "roamfs recovery sheet v1"; that of a line is the first ten bits of
// the one with "roamfs recovery sheet line v1" over the line number, one byte,
// and its fifteen bytes. What does not begin with a number and a colon is
// commentary.
type Sheet struct {
	Hive   HiveID
	Owner  [32]byte // seed of the owner key
	Epoch  uint32
	Secret [32]byte // of the epoch
}

const (
	sheetVersion   = 1
	sheetLines     = 7
	sheetLineBytes = 15
	sheetBytes     = sheetLines * sheetLineBytes
	// maxSheet bounds the text that ParseSheet looks at, in bytes.
	maxSheet = 64 << 10
)

var sheetText = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// Key returns the owner key.
func (s Sheet) Key() Key { return KeyFromSeed(s.Owner) }

// String returns the text to print. It holds secrets.
func (s Sheet) String() string {
	var b strings.Builder
	b.WriteString("roamfs recovery sheet 1\n\n")
	fmt.Fprintf(&b, "hive %v, epoch %d\n\n", s.Hive, s.Epoch)
	b.WriteString("Keep this on paper, away from your devices. Whoever has it owns the hive:\n")
	b.WriteString("it opens every file and can admit and shut out devices. With it, files\n")
	b.WriteString("can be had back from stored copies after the loss of every device.\n\n")
	raw := s.bytes()
	for i := range sheetLines {
		line := raw[i*sheetLineBytes : (i+1)*sheetLineBytes]
		fmt.Fprintf(&b, "%d:", i+1)
		text := sheetText.EncodeToString(line)
		for j := 0; j < len(text); j += 4 {
			b.WriteString(" " + text[j:j+4])
		}
		b.WriteString("  " + lineCheck(i+1, line) + "\n")
	}
	return b.String()
}

// GoString hides the secrets from logs that print values with their types.
func (s Sheet) GoString() string { return "device.Sheet{" + s.Hive.Short() + "}" }

func (s Sheet) bytes() []byte {
	b := make([]byte, 0, sheetBytes)
	b = append(b, sheetVersion)
	b = append(b, s.Hive[:]...)
	b = append(b, s.Owner[:]...)
	b = binary.BigEndian.AppendUint32(b, s.Epoch)
	b = append(b, s.Secret[:]...)
	return append(b, sheetCheck(b)...)
}

func sheetCheck(b []byte) []byte {
	var c [4]byte
	blake3.DeriveKey("roamfs recovery sheet v1", b, c[:])
	return c[:]
}

func lineCheck(n int, line []byte) string {
	var c [5]byte
	blake3.DeriveKey("roamfs recovery sheet line v1", append([]byte{byte(n)}, line...), c[:])
	return sheetText.EncodeToString(c[:])[:2]
}

// ParseSheet reads a sheet as typed in or scanned: in either case, with any
// spaces and dashes, the lines in any order, among any other lines. A line that
// does not fit its check gives a [*SheetLineError]; anything else that is wrong
// gives [ErrSheet].
func ParseSheet(text string) (Sheet, error) {
	if len(text) > maxSheet {
		return Sheet{}, fmt.Errorf("%w: %d bytes", ErrSheet, len(text))
	}
	var have [sheetLines]bool
	raw := make([]byte, sheetBytes)
	for line := range strings.Lines(text) {
		head, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || len(head) != 1 || head[0] < '1' || head[0] > '0'+sheetLines {
			continue
		}
		n := int(head[0] - '0')
		b, ok := parseSheetLine(n, rest)
		if !ok {
			return Sheet{}, &SheetLineError{Line: n}
		}
		dst := raw[(n-1)*sheetLineBytes : n*sheetLineBytes]
		if have[n-1] && !bytes.Equal(dst, b) {
			return Sheet{}, fmt.Errorf("%w: line %d stands there twice", ErrSheet, n)
		}
		copy(dst, b)
		have[n-1] = true
	}
	if have == ([sheetLines]bool{}) {
		return Sheet{}, ErrSheet
	}
	for i, ok := range have {
		if !ok {
			return Sheet{}, &SheetLineError{Line: i + 1}
		}
	}
	return sheetOf(raw)
}

func parseSheetLine(n int, text string) ([]byte, bool) {
	text = strings.NewReplacer(" ", "", "\t", "", "-", "").Replace(text)
	text = strings.NewReplacer("O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(text))
	const chars = sheetLineBytes * 8 / 5
	if len(text) != chars+2 {
		return nil, false
	}
	b, err := sheetText.DecodeString(text[:chars])
	if err != nil || len(b) != sheetLineBytes || text[chars:] != lineCheck(n, b) {
		return nil, false
	}
	return b, true
}

func sheetOf(raw []byte) (Sheet, error) {
	d := decoder{b: raw}
	if v := d.byte(); v != sheetVersion {
		return Sheet{}, fmt.Errorf("%w: version %d", ErrSheet, v)
	}
	var s Sheet
	d.into(s.Hive[:])
	d.into(s.Owner[:])
	s.Epoch = binary.BigEndian.Uint32(d.take(4))
	d.into(s.Secret[:])
	if !bytes.Equal(d.b, sheetCheck(raw[:sheetBytes-4])) {
		return Sheet{}, fmt.Errorf("%w: the lines belong to different sheets", ErrSheet)
	}
	if HiveOf(s.Key().ID()) != s.Hive {
		return Sheet{}, fmt.Errorf("%w: the key is not that of hive %s", ErrSheet, s.Hive.Short())
	}
	return s, nil
}
