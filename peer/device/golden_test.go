package device

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n got %s\nwant %s", name, got, want)
	}
}

// read returns testdata/name.
func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var epoch = time.Date(2027, 1, 2, 3, 4, 5, 678e6, time.UTC)

// testKey returns the nth of a fixed row of keys; 0 is the owner's.
func testKey(n byte) Key { return KeyFromSeed([32]byte{0: n, 31: 7}) }

func testActor(n byte) [8]byte { return NewActor(testKey(n).ID(), [16]byte{n}) }

// newLog returns the log of the test owner's hive with device 1, "laptop".
func newLog(tb testing.TB) *Log {
	tb.Helper()
	l, err := NewHive(testKey(0).Private(), testKey(1).ID(), "laptop", Cache, testActor(1), epoch)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// say makes, signs and joins a record that no method makes yet, or a wrong one.
func say(l *Log, by Key, r Record) error {
	if r.Parents == nil && r.Kind != KindGenesis {
		r.Parents = l.current().heads(by.ID())
	}
	if r.Hive.IsZero() {
		r.Hive = l.Hive()
	}
	r.Wall = epoch.UnixMilli()
	r.sign(by)
	decoded, err := DecodeRecord(r.Encode())
	if err != nil {
		return err
	}
	_, err = l.join([]Record{decoded})
	return err
}

// allKinds returns a log with a record of each kind.
func allKinds(tb testing.TB) *Log {
	tb.Helper()
	l := newLog(tb)
	if _, err := l.Add(testKey(1), testKey(2).ID(), "NAS", Archive, testActor(2), epoch.Add(time.Hour)); err != nil {
		tb.Fatal(err)
	}
	for _, err := range []error{
		say(l, testKey(2), Record{Kind: KindRename, Device: testKey(1).ID(), Label: "old-laptop"}),
		say(l, testKey(2), Record{Kind: KindRole, Device: testKey(1).ID(), Role: Archive}),
		say(l, testKey(0), Record{
			Kind: KindRevoke, Device: testKey(1).ID(), Class: ClassLost,
			Cutoffs: []Cutoff{{Actor: testActor(1), Ctr: 77, Hash: [32]byte{1, 2, 3}}},
		}),
	} {
		if err != nil {
			tb.Fatal(err)
		}
	}
	return l
}

func TestGolden(t *testing.T) {
	l := allKinds(t)
	var b strings.Builder
	for _, r := range l.Records() {
		h := r.Hash()
		b.WriteString(r.Kind.String() + " " + h.String() + "\n" + hex.EncodeToString(r.Encode()) + "\n")
	}
	h := l.Hash()
	b.WriteString("log " + hex.EncodeToString(h[:]) + "\n" + hex.EncodeToString(l.Encode()) + "\n")
	golden(t, "log.v1", b.String())
	golden(t, "names.v1", strings.Join([]string{
		testKey(1).ID().String(), l.Hive().String(), hex.EncodeToString(testActorBytes(1)),
	}, "\n")+"\n")
	golden(t, "key.v1", string(keyFile(testKey(1))))
	golden(t, "sheet.v1", testSheet().String())
}

func testActorBytes(n byte) []byte { a := testActor(n); return a[:] }

func TestGoldenStillReadable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "log.v1"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(text))
	raw, err := hex.DecodeString(lines[len(lines)-1])
	if err != nil {
		t.Fatal(err)
	}
	l, err := Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(l.Encode(), raw) {
		t.Error("the log of testdata is encoded in another way now")
	}
	m := l.Members()
	if len(m) != 1 || m[0].ID != testKey(2).ID() || m[0].Label != "nas" || m[0].Role != Archive {
		t.Errorf("members of the log of testdata: %+v", m)
	}
}
