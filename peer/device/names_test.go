package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseID(t *testing.T) {
	id := testKey(1).ID()
	s := id.String()
	if len(s) != 52 || strings.ToLower(s) != s {
		t.Fatalf("%q is not 52 small characters", s)
	}
	for _, text := range []string{s, strings.ToUpper(s)} {
		if got, err := ParseID(text); err != nil || got != id {
			t.Errorf("ParseID(%q) = %v, %v", text, got, err)
		}
	}
	last := s[:51] + string("abcdefghijklmnopqrstuvwxyz234567"[31]) // spare bits set
	for _, text := range []string{"", s[:51], s + "a", s[:51] + "1", s[:51] + "\n", last, strings.Repeat("=", 52)} {
		if _, err := ParseID(text); !errors.Is(err, ErrID) {
			t.Errorf("ParseID(%q): %v, want ErrID", text, err)
		}
	}
	b, err := json.Marshal(map[ID]HiveID{id: HiveOf(id)})
	if err != nil {
		t.Fatal(err)
	}
	var back map[ID]HiveID
	if err := json.Unmarshal(b, &back); err != nil || back[id] != HiveOf(id) {
		t.Errorf("through JSON: %v, %v", back, err)
	}
}

func TestRole(t *testing.T) {
	for _, r := range []Role{Cache, Archive} {
		if got, err := ParseRole(r.String()); err != nil || got != r {
			t.Errorf("ParseRole(%q) = %v, %v", r, got, err)
		}
	}
	for _, s := range []string{"", "vault", "Cache", "role(9)"} {
		if _, err := ParseRole(s); !errors.Is(err, ErrRole) {
			t.Errorf("ParseRole(%q): %v, want ErrRole", s, err)
		}
	}
}

func TestCleanLabel(t *testing.T) {
	for in, want := range map[string]string{
		"laptop": "laptop", "Ann's MacBook Pro.local": "ann-s-macbook-pro", "nas.home.example": "nas",
		"--x--": "x", "": "device", "日本": "device", "größe": "gr-e", ".hidden": "device",
		strings.Repeat("ab ", 30): "ab-ab-ab-ab-ab-ab-ab-ab-ab-ab-ab",
		strings.Repeat("x", 99):   strings.Repeat("x", 32),
	} {
		got := CleanLabel(in)
		if got != want {
			t.Errorf("CleanLabel(%q) = %q, want %q", in, got, want)
		}
		if err := CheckLabel(got); err != nil {
			t.Errorf("CleanLabel(%q): %v", in, err)
		}
	}
}

func TestKeyFile(t *testing.T) {
	k, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || got.ID() != k.ID() || got.Seed() != k.Seed() {
		t.Fatalf("loaded %v, %v; want %v", got, err, k)
	}
	if sig := got.Sign([]byte("m")); !k.ID().Verify([]byte("m"), sig) || k.ID().Verify([]byte("n"), sig) {
		t.Error("signatures do not verify as they should")
	}
	other := testKey(3)
	if err := other.Save(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("saving over a key: %v, want ErrExist", err)
	}
	if again, err := Load(path); err != nil || again.ID() != k.ID() {
		t.Errorf("the key was replaced: %v, %v", again, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
	if err := (Key{}).Save(filepath.Join(dir, "zero")); err == nil {
		t.Error("the zero key was saved")
	}
}

func TestLoadRefuses(t *testing.T) {
	good := keyFile(testKey(1))
	flipped := append([]byte(nil), good...)
	flipped[25] ^= 1
	for name, c := range map[string]struct {
		content []byte
		mode    fs.FileMode
		want    error
	}{
		"open to the group": {good, 0o640, ErrKeyMode},
		"open to all":       {good, 0o604, ErrKeyMode},
		"empty":             {nil, 0o600, ErrKeyFile},
		"damaged":           {flipped, 0o600, ErrKeyFile},
		"cut":               {good[:len(good)-2], 0o600, ErrKeyFile},
		"too long":          {append(good[:len(good):len(good)], '\n'), 0o600, ErrKeyFile},
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Load(t.TempDir()); !errors.Is(err, ErrKeyFile) {
		t.Errorf("a directory: %v", err)
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	k := testKey(1)
	seed := k.Seed()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if out := fmt.Sprintf(verb, k); strings.Contains(out, fmt.Sprintf("%x", seed[:4])) || strings.Contains(out, "0x") {
			t.Errorf("%s prints %q", verb, out)
		}
	}
}

func testSheet() Sheet {
	owner := testKey(0)
	s := Sheet{Hive: HiveOf(owner.ID()), Owner: owner.Seed(), Epoch: 3}
	for i := range s.Secret {
		s.Secret[i] = byte(i * 5)
	}
	return s
}

func TestSheet(t *testing.T) {
	s := testSheet()
	text := s.String()
	var lines []string
	for l := range strings.Lines(text) {
		if len(l) > 1 && l[1] == ':' {
			lines = append(lines, l)
		}
	}
	if len(lines) != 7 {
		t.Fatalf("%d lines", len(lines))
	}
	reversed := ""
	for _, l := range lines {
		reversed = l + reversed
	}
	sloppy := strings.ToLower(strings.ReplaceAll(strings.Join(lines, ""), " ", "-"))
	sloppy = strings.ReplaceAll(strings.ReplaceAll(sloppy, "0", "o"), "1", "l")
	sloppy = strings.ReplaceAll(sloppy, "l:", "1:")
	for name, in := range map[string]string{
		"as printed": text, "any order": reversed, "sloppy": sloppy, "CRLF": strings.ReplaceAll(text, "\n", "\r\n"),
		"a line twice": text + lines[2],
	} {
		if got, err := ParseSheet(in); err != nil || got != s {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := s.Key().ID(); HiveOf(got) != s.Hive {
		t.Error("the key on the sheet does not own the hive")
	}
}

// Every single mistyped character is found, and its line is named.
func TestSheetTypingErrors(t *testing.T) {
	text := testSheet().String()
	body := strings.Index(text, "\n1: ") + 1
	line, tried, found := 0, 0, 0
	for i := body; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\n' || c == ' ' || c == ':':
			continue
		case text[i+1] == ':':
			line = int(c - '0')
			continue
		}
		wrong := byte('7')
		if text[i] == wrong {
			wrong = '8'
		}
		tried++
		_, err := ParseSheet(text[:i] + string(wrong) + text[i+1:])
		if le, ok := errors.AsType[*SheetLineError](err); ok && le.Line == line {
			found++
		} else if err == nil {
			t.Errorf("a wrong character at %d went unnoticed", i)
		}
	}
	// A check of ten bits lets one in a thousand through to the check of the sheet.
	if tried != 7*26 || found < tried-2 {
		t.Errorf("%d of %d errors led to their line", found, tried)
	}
}

func TestSheetRefuses(t *testing.T) {
	s := testSheet()
	text := s.String()
	foreign := s
	foreign.Hive[0] ^= 1
	newer := s
	newer.Epoch++
	epochLine := func(s Sheet) string {
		text := s.String()
		at := strings.Index(text, "\n5:")
		return text[at+1 : at+1+strings.Index(text[at+1:], "\n")]
	}
	missing := strings.Replace(text, "\n4:", "\nx:", 1)
	if le, ok := errors.AsType[*SheetLineError](parseErr(missing)); !ok || le.Line != 4 {
		t.Errorf("line 4 missing: %v", parseErr(missing))
	}
	for name, in := range map[string]string{
		"nothing": "", "other text": "1. buy milk\n2: and eggs is long\n"[:12], "too long": strings.Repeat("x", maxSheet+1),
		"another hive's key":        foreign.String(),
		"a line of another sheet":   strings.Replace(text, epochLine(s), epochLine(newer), 1),
		"two lines with one number": text + epochLine(newer) + "\n",
	} {
		if err := parseErr(in); !errors.Is(err, ErrSheet) {
			t.Errorf("%s: %v, want ErrSheet", name, err)
		}
	}
	if out := fmt.Sprintf("%#v", s); strings.Contains(out, "0x") {
		t.Errorf("prints its secrets: %s", out)
	}
}

func parseErr(text string) error {
	_, err := ParseSheet(text)
	return err
}
