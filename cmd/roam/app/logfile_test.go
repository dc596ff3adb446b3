package app

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "log"), filepath.Join(dir, "log.old")
	const limit = 100
	line := []byte("a line of thirty bytes length\n")
	for range 3 { // each round as after a restart
		l, err := openLog(path, old, limit, false)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if n, err := l.Write(line); n != len(line) || err != nil {
				t.Fatalf("Write = %d, %v", n, err)
			}
			for _, name := range []string{path, old} {
				if info, err := os.Stat(name); err == nil && (info.Size() > limit || info.Mode().Perm() != 0o600) {
					t.Fatalf("%s has %d bytes and mode %v", name, info.Size(), info.Mode())
				}
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Write(line); err == nil {
			t.Error("a closed log took a line")
		}
	}
	for _, name := range []string{path, old} {
		data, err := os.ReadFile(name)
		if err != nil || len(data) == 0 || !bytes.Equal(data, bytes.Repeat(line, len(data)/len(line))) {
			t.Errorf("%s is %q, %v: no whole lines", name, data, err)
		}
	}
	l, err := openLog(path, old, limit, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write(make([]byte, 10*limit)); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != limit {
		t.Errorf("an endless line left %v, %v", info, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
