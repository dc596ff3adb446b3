package replica

import (
	"encoding/binary"
	"path/filepath"
	"testing"

	"github.com/roamfs/roamfs/sync/store"
)

// TestSpansAreKept: a clean close keeps the Merkle spans of a large tree, in
// several pieces, and the next start uses them, once.
func TestSpansAreKept(t *testing.T) {
	d := hive(t, 1)[0]
	d.crowd(8000)
	root, _, err := d.State()
	if err != nil {
		t.Fatal(err)
	}
	d.close()
	st, err := store.Open(filepath.Join(d.dir, "db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := st.Value(spansKey)
	if err != nil || len(v) != 4 || binary.BigEndian.Uint32(v) < 2 {
		t.Fatalf("%x pieces were kept, %v", v, err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	d.open()
	if v, err := d.st.Value(spansKey); err != nil || v != nil {
		t.Errorf("the spans are still there, %v", err)
	}
	if again, _, err := d.State(); err != nil || again != root {
		t.Errorf("root %x, %x before; %v", again, root, err)
	}
	if n := d.said.count("building them anew"); n > 0 {
		t.Error("the spans were built anew")
	}
}
