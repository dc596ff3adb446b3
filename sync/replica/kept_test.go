package replica

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/roamfs/roamfs/sync/tree"
)

// TestKept: a clean close keeps the Merkle spans and the view, and the next start
// uses them, once. What does not fit the records is not used.
func TestKept(t *testing.T) {
	d := hive(t, 1)[0]
	d.crowd(8000)
	root, _, err := d.State()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(d.dir, "kept")
	// again restarts the device after change was done to what the close left.
	again := func(what string, change func([]byte) []byte, anew int) {
		t.Helper()
		d.close()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatalf("%s: nothing was kept: %v", what, err)
		}
		if b := change(b); b == nil {
			err = os.Remove(name)
		} else {
			err = os.WriteFile(name, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		before := d.said.count("of no use")
		d.open()
		if _, err := os.Stat(name); !os.IsNotExist(err) {
			t.Errorf("%s: the file is still there: %v", what, err)
		}
		if v, err := d.st.Value(keptKey); err != nil || v != nil {
			t.Errorf("%s: the database still says so: %v", what, err)
		}
		if n := d.said.count("of no use") - before; n != anew {
			t.Errorf("%s: not used %d times, want %d", what, n, anew)
		}
		if now, _, err := d.State(); err != nil || now != root {
			t.Errorf("%s: root %x, %x before; %v", what, now, root, err)
		}
	}
	var first []byte
	again("as it was", func(b []byte) []byte { first = bytes.Clone(b); return b }, 0)
	again("gone", func([]byte) []byte { return nil }, 1)
	again("cut", func(b []byte) []byte { return b[:len(b)-1] }, 1)
	again("a bit flipped", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, 1)
	again("an older one", func([]byte) []byte { return first }, 1)
}

// TestKeptIsOfOneClose: a file that a killed run did not get to remove is not used by
// the next one, since the records have changed.
func TestKeptIsOfOneClose(t *testing.T) {
	d := hive(t, 1)[0]
	d.mkdir("/before")
	d.close()
	name := filepath.Join(d.dir, "kept")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	d.open()
	d.mkdir("/after")
	d.stop() // killed: no close of the replica
	if err := d.st.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	d.open()
	for _, p := range []string{"/before", "/after"} {
		if _, err := d.Resolve(p); err != nil {
			t.Error(err)
		}
	}
}

// TestNothingChangesAfterClose: what is kept would not be true any more.
func TestNothingChangesAfterClose(t *testing.T) {
	d := hive(t, 1)[0]
	d.stop()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Mkdir(tree.Root, "late", 0o755); err == nil {
		t.Error("a directory was made after the close")
	}
	if err := d.st.Close(); err != nil {
		t.Fatal(err)
	}
	d.open()
}

func FuzzKept(f *testing.F) {
	number := [16]byte{1, 2}
	f.Add(encodeKept(number, kept{[]byte("spans"), []byte("image")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := decodeKept(b, number[:]); err == nil && !bytes.Equal(encodeKept(number, k), b) {
			t.Fatalf("%x decodes to %v", b, k)
		}
	})
}
