package app

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// names returns the names of devices for a sentence: "laptop", "laptop, nas".
func names(devices []DeviceRef) string {
	list := make([]string, len(devices))
	for i, d := range devices {
		list[i] = d.Name
	}
	return strings.Join(list, ", ")
}

// plural returns "1 file" or "3 files".
func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.FormatInt(n, 10) + " " + many
}

// amountText returns "3 files, 1.2 MiB".
func amountText(a Amount) string {
	return plural(a.Files, "file", "files") + ", " + humanSize(a.Bytes)
}

// existsText begins a sentence: "1 file (3 KiB) exists", "2 files (1 MiB) exist".
func existsText(a Amount) string {
	verb := "exist"
	if a.Files == 1 {
		verb = "exists"
	}
	return fmt.Sprintf("%s (%s) %s", plural(a.Files, "file", "files"), humanSize(a.Bytes), verb)
}

// agoText says how long before now t was, in the unit that fits.
func agoText(t, now time.Time) string {
	switch d := now.Sub(t); {
	case d < 2*time.Second:
		return "just now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
}

// copiesText says how many devices hold something.
func copiesText(n int) string { return plural(int64(n), "copy", "copies") }

// quotePath returns path as a person can read it in one line: as it is, or quoted
// if it has bytes that a terminal would act on or cannot show.
func quotePath(path string) string {
	if utf8.ValidString(path) && strings.IndexFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return path
	}
	return strconv.Quote(path)
}
