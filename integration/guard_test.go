package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMassDamage has one device remove most of the tree through its mount. The
// other one holds that back, and brings the files back with their content, or lets them go.
func TestMassDamage(t *testing.T) {
	nas, laptop := pair(t)
	const files = 1200
	content := func(i int) []byte { return []byte(strings.Repeat(fmt.Sprint("photo ", i, " "), 50)) }
	name := func(i int) string { return filepath.Join("photos", fmt.Sprint(i%10), fmt.Sprintf("%04d.jpg", i)) }
	for i := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(nas.Mount, name(i))), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(nas.Mount, name(i)), content(i))
	}
	sameTree(nas, laptop)
	before, err := listing(nas.Mount)
	if err != nil {
		t.Fatal(err)
	}
	held := func() {
		t.Helper()
		eventually(t, time.Minute, "it is held back", func() error {
			out, err := nas.Run(t.Context(), "status", "--json")
			if err != nil || !strings.Contains(out, `"removes":1`) {
				return errors.Join(err, errors.New(out))
			}
			return nil
		})
		if _, err := os.Stat(filepath.Join(laptop.Mount, "photos")); !os.IsNotExist(err) {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "all of it is here", func() error {
			if out, err := nas.Run(t.Context(), "pending"); err != nil || !strings.Contains(out, "laptop removes 1211 files") {
				return errors.Join(err, errors.New(out))
			}
			return nil
		})
	}

	if err := os.RemoveAll(filepath.Join(laptop.Mount, "photos")); err != nil {
		t.Fatal(err)
	}
	held()
	if out, code := nas.try("reject", "laptop"); code != 0 {
		t.Fatalf("reject: code %d: %s", code, out)
	}
	sameTree(nas, laptop)
	if after, err := listing(laptop.Mount); err != nil || after != before {
		t.Fatalf("%v, after the reject\n%.2000s\nbefore\n%.2000s", err, after, before)
	}

	if err := os.RemoveAll(filepath.Join(laptop.Mount, "photos")); err != nil {
		t.Fatal(err)
	}
	held()
	if out, code := nas.try("accept", "all"); code != 0 {
		t.Fatalf("accept: code %d: %s", code, out)
	}
	sameTree(nas, laptop)
	if _, err := os.Stat(filepath.Join(nas.Mount, "photos")); !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if out, code := nas.try("accept", "laptop"); code != 3 {
		t.Fatalf("accept of nothing: code %d: %s", code, out)
	}
}
