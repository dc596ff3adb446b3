package app

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes that a person writes as "20GiB", "500 MB" or
// "1048576". KiB, MiB, GiB and TiB are powers of 1024, kB, MB, GB and TB powers
// of 1000; a single letter (K, M, G, T) counts as the power of 1024.
type Size int64

// units in the order of their size; the first that fits is used for printing.
var binaryUnits = [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}

// ParseSize reads a [Size]. It takes 0 to 2^63-1 bytes.
func ParseSize(s string) (Size, error) {
	text := strings.TrimSpace(s)
	end := len(text)
	for i, r := range text {
		if (r < '0' || r > '9') && r != '.' {
			end = i
			break
		}
	}
	number, unit := text[:end], strings.ToLower(strings.TrimSpace(text[end:]))
	factor, ok := sizeFactor(unit)
	if !ok || number == "" || len(number) > 20 {
		return 0, fmt.Errorf("%q is not a size; write it like 20GiB or 500MB", clip(s))
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n > math.MaxInt64/factor {
			return 0, fmt.Errorf("size %q is too large", clip(s))
		}
		return Size(n * factor), nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size; write it like 20GiB or 500MB", clip(s))
	}
	f *= float64(factor)
	if f >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q is too large", clip(s))
	}
	return Size(f), nil
}

func sizeFactor(unit string) (int64, bool) {
	switch unit {
	case "", "b":
		return 1, true
	case "k", "kib":
		return 1 << 10, true
	case "m", "mib":
		return 1 << 20, true
	case "g", "gib":
		return 1 << 30, true
	case "t", "tib":
		return 1 << 40, true
	case "kb":
		return 1e3, true
	case "mb":
		return 1e6, true
	case "gb":
		return 1e9, true
	case "tb":
		return 1e12, true
	}
	return 0, false
}

// String returns the size in the form that ParseSize reads, exactly.
func (s Size) String() string {
	n := int64(s)
	for i := len(binaryUnits) - 2; i > 0; i-- { // ParseSize ends at TiB
		if f := int64(1) << (10 * i); n >= f && n%f == 0 {
			return strconv.FormatInt(n/f, 10) + binaryUnits[i]
		}
	}
	return strconv.FormatInt(n, 10)
}

// UnmarshalText reads a size of the configuration; see [ParseSize].
func (s *Size) UnmarshalText(text []byte) error {
	n, err := ParseSize(string(text))
	if err == nil {
		*s = n
	}
	return err
}

// MarshalText is the inverse of UnmarshalText.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// humanSize returns n bytes for a person: "0 B", "812 B", "1.5 MiB", "20 GiB".
func humanSize(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f >= 1023.95 && unit < len(binaryUnits)-1 {
		f /= 1024
		unit++
	}
	text := strconv.FormatFloat(f, 'f', 1, 64)
	return strings.TrimSuffix(text, ".0") + " " + binaryUnits[unit]
}

// clip bounds input that an error message repeats.
func clip(s string) string {
	const limit = 80
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}
