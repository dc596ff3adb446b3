package mount

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// TestShrink: the kernel forgets what nothing uses, this process with it, and
// everything is as it was when it is used again.
func TestShrink(t *testing.T) {
	r := newRig(t)
	const files = 50
	for i := range files {
		if err := os.MkdirAll(r.path(fmt.Sprint("dir", i%5)), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, r.path(fmt.Sprint("dir", i%5), fmt.Sprint(i)), fmt.Sprint("text ", i))
	}
	r.settled(t)
	open, err := os.Open(r.path("dir0", "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	if errno := r.mount.root.NotifyPrune(nil); errno == syscall.ENOSYS {
		t.Skip("the kernel is older than 6.18")
	}
	known := func() int {
		runtime.GC() // nodes are swept once they are collected
		r.mount.mu.Lock()
		defer r.mount.mu.Unlock()
		return len(r.mount.nodes)
	}
	if n := known(); n < files+5 {
		t.Fatalf("%d nodes are known of %d", n, files+5)
	}
	r.mount.Shrink(1000)
	if n := known(); n < files+5 {
		t.Fatalf("only %d nodes are known, though there was no need to forget any", n)
	}
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
		r.mount.Shrink(2)
		if n := known(); n <= 3 { // the open file and its directory, and one that a look of ours may have brought back
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%d nodes are still known", n)
		}
	}
	b := make([]byte, 6)
	if _, err := open.ReadAt(b, 0); err != nil || string(b) != "text 0" {
		t.Errorf("the open file has %q, %v", b, err)
	}
	for i := range files {
		wantFile(t, r.path(fmt.Sprint("dir", i%5), fmt.Sprint(i)), fmt.Sprint("text ", i))
	}
}
