package app

import (
	"testing"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1": 1, "20GiB": 20 << 30, "20 GiB": 20 << 30, "64mib": 64 << 20, "1.5GiB": 3 << 29,
		"500MB": 500e6, "2K": 2048, "3T": 3 << 40, "7b": 7, "1kB": 1000, "8388607TiB": 8388607 << 40,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1 2", "1.2.3GiB", "20 gibi", "9999999999TiB", "99999999999999999999999", ".", "1e3", "0x10", "∞"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"20GiB", "1.5 MB", "", "9223372036854775807", "9.9e9TiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("ParseSize(%q) = %d", s, n)
		}
		if again, err := ParseSize(n.String()); err != nil || again != n {
			t.Fatalf("%d is written as %q, which reads as %d, %v", n, n, again, err)
		}
	})
}

func TestHumanSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 812: "812 B", 1024: "1 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1 MiB", 20 << 30: "20 GiB", 5<<30 + 1<<29: "5.5 GiB", 1 << 62: "4096 PiB",
	} {
		if got := humanSize(n); got != want {
			t.Errorf("humanSize(%d) = %q, want %q", n, got, want)
		}
	}
}
