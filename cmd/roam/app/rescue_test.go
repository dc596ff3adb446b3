package app

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/roamfs/roamfs/sync/tree"
)

func TestOtherName(t *testing.T) {
	long := strings.Repeat("n", tree.MaxName)
	for at, want := range map[string]string{
		"/a/b.txt": "/a/b.txt (other version 2)",
		"/" + long: "/" + long[:tree.MaxName-len(" (other version 2)")] + " (other version 2)",
	} {
		if got := otherName(at, 2); got != want {
			t.Errorf("%s: %s", at, got)
		}
	}
}

func TestEmptyFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	for range 2 {
		if err := emptyFolder(dir); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{dir, file, filepath.Join(dir, "missing", "deep")} {
		if err := emptyFolder(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// shortFile says that it has more than it has, or fails where it is not here.
type shortFile struct {
	data []byte
	size int64
	err  error
}

func (f shortFile) Size() int64 { return f.size }

func (f shortFile) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n := copy(p, f.data[min(off, int64(len(f.data))):])
	if n == 0 {
		return 0, f.err
	}
	return n, nil
}

func TestReadAll(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 300_000)
	gone := errors.New("elsewhere")
	for what, c := range map[string]struct {
		f          shortFile
		unreadable bool
	}{
		"all of it":    {shortFile{data, int64(len(data)), io.EOF}, false},
		"nothing":      {shortFile{nil, 0, io.EOF}, false},
		"cut short":    {shortFile{data, int64(len(data)) + 1, io.EOF}, true},
		"not all here": {shortFile{data, int64(len(data)) + 1, gone}, true},
	} {
		var b bytes.Buffer
		_, err := readAll(t.Context(), &b, c.f)
		if _, unreadable := errors.AsType[*unreadableError](err); unreadable != c.unreadable || !unreadable && (err != nil || !bytes.Equal(b.Bytes(), c.f.data)) {
			t.Errorf("%s: %d bytes, %v", what, b.Len(), err)
		}
	}
}
