package pairing

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer/device"
)

var update = flag.Bool("update", false, "rewrite golden files")

var golden = Invite{
	Device:  device.ID{1, 2, 3, 31: 32},
	Secret:  [16]byte{9, 8, 7, 15: 1},
	Expires: time.Unix(29_000_000*60, 0),
	Addrs: []string{
		"/ip4/192.168.1.10/tcp/40001", "/ip4/10.0.0.1/udp/1/quic-v1", "/ip6/fd00::1/tcp/65535",
		"/ip6/2001:db8::1/udp/9/quic-v1", "/dns4/nas.example/tcp/22000",
	},
}

func TestCodeGolden(t *testing.T) {
	const name = "testdata/code1.txt"
	if *update {
		if err := os.WriteFile(name, []byte(golden.String()+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := golden.String() + "\n"; got != string(want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got, err := Parse(string(want)) // with the line end
	if err != nil || !reflect.DeepEqual(got, golden) {
		t.Errorf("parsed %+v, %v", got, err)
	}
}

func TestCodeText(t *testing.T) {
	s := golden.String()
	if i := strings.IndexFunc(s[len("roamfs-pair:1."):], func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", r)
	}); i >= 0 || !strings.HasPrefix(s, "roamfs-pair:1.") {
		t.Errorf("%q has to be quoted in a shell", s)
	}
	if got, err := Parse("  " + strings.Replace(s, "1.", "1?", 1) + "\n"); err != nil || got.Device != golden.Device {
		t.Errorf("with '?': %v", err)
	}
	many := Invite{Addrs: []string{"", strings.Repeat("x", 256)}}
	for range 20 {
		many.Addrs = append(many.Addrs, "/ip4/1.2.3.4/tcp/5")
	}
	if got, err := Parse(many.String()); err != nil || len(got.Addrs) != maxCodeAddrs {
		t.Errorf("many addresses: %v, %v", got.Addrs, err)
	}
}

func TestCodeErrors(t *testing.T) {
	s := golden.String()
	raw, err := base64.RawURLEncoding.DecodeString(s[len("roamfs-pair:1."):])
	if err != nil {
		t.Fatal(err)
	}
	raw = raw[:len(raw)-codeSum]
	seal := func(b []byte) string {
		return codePrefix + "." + base64.RawURLEncoding.EncodeToString(append(bytes.Clone(b), checksum(b)...))
	}
	edit := func(i int, c byte) string {
		b := bytes.Clone(raw)
		b[i] = c
		return seal(b)
	}
	for name, text := range map[string]string{
		"empty":               "",
		"prefix only":         "roamfs-pair:1.",
		"other version":       strings.Replace(s, "1.", "2.", 1),
		"cut":                 s[:len(s)-1],
		"longer":              s + "A",
		"one character wrong": s[:40] + string(s[40]^1) + s[41:],
		"line end inside":     s[:40] + "\n" + s[40:],
		"padding":             s + "=",
		"very long":           s + strings.Repeat("A", 5000),
		"too many addresses":  edit(52, 9),
		"fewer addresses":     edit(52, 4),
		"more addresses":      edit(52, 6),
		"unknown kind":        edit(53, 9),
		"text for the short":  seal(append(append(bytes.Clone(raw[:52]), 1, 0, 18), "/ip4/1.2.3.4/tcp/5"...)),
		"too long text":       seal(append(append(bytes.Clone(raw[:52]), 1, 0, 19), "/ip4/1.2.3.4/tcp/5"...)),
	} {
		if got, err := Parse(text); !errors.Is(err, ErrCode) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := Parse(seal(raw)); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(golden.String())
	f.Add(Invite{}.String())
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse(s)
		if err != nil {
			return
		}
		if got := c.String(); strings.Replace(strings.TrimSpace(s), "?", ".", 1) != got {
			t.Errorf("%q is spelled %q", s, got)
		}
	})
}

// FuzzBody reads codes whose checksum is right.
func FuzzBody(f *testing.F) {
	raw, _ := base64.RawURLEncoding.DecodeString(golden.String()[len("roamfs-pair:1."):])
	f.Add(raw[:len(raw)-codeSum])
	f.Fuzz(func(t *testing.T, b []byte) {
		s := codePrefix + "." + base64.RawURLEncoding.EncodeToString(append(bytes.Clone(b), checksum(b)...))
		c, err := Parse(s)
		if err == nil && c.String() != s {
			t.Errorf("%q is spelled %q", s, c.String())
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add((&Request{Label: "laptop", Role: device.Cache, RoleGiven: true, Extra: []byte{1}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := decodeRequest(b)
		if err == nil && !bytes.Equal(q.encode(), b) {
			t.Errorf("%x is spelled %x", b, q.encode())
		}
	})
}

// The keys and proofs of one run are fixed: programs of different age must agree.
func TestRunGolden(t *testing.T) {
	const name = "testdata/run1.bin"
	r, err := newRun([16]byte{1}, device.ID{2}, device.ID{3}, nonce{4}, nonce{5})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := seal(r.joinerKey, []byte("request"))
	if err != nil {
		t.Fatal(err)
	}
	back, err := seal(r.inviterKey, []byte("welcome"))
	if err != nil {
		t.Fatal(err)
	}
	p3 := r.request(sealed)
	p4 := r.welcome(statusWelcome, p3, back)
	p5 := r.receipt(p4)
	got := bytes.Join([][]byte{sealed, back, p3[:], p4[:], p5[:]}, nil)
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %x, %v", got, err)
	}
}
