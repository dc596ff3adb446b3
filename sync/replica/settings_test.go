package replica

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/roamfs/roamfs/sync/tree"
)

// settings lists those of d under prefix, as name=value.
func (d *node) settings(prefix string) string {
	d.t.Helper()
	all, err := d.Settings(prefix)
	if err != nil {
		d.t.Fatal(err)
	}
	out := ""
	for _, s := range all {
		out += fmt.Sprintf("%s=%s ", s.Name, s.Value)
	}
	return out
}

// TestSettings: a setting reaches the other devices, survives a restart, and is
// told of; of two that were written at once every device shows the same.
func TestSettings(t *testing.T) {
	h := hive(t, 2)
	a, b := h[0], h[1]
	var told atomic.Int32
	b.SubscribeSettings(func() { told.Add(1) })
	must(t, a.PutSetting("snap/2026-01-02T03:04:05Z/aaaaaaaa", []byte("1")))
	must(t, a.PutSetting("snap/2026-01-02T03:04:06Z/aaaaaaaa", []byte("2")))
	must(t, a.PutSetting("snaq/some other setting", []byte("x")))
	if err := a.PutSetting("short", nil); !errors.Is(err, tree.ErrName) {
		t.Errorf("a short name: %v", err)
	}
	must(t, a.PutSetting("snap/2026-01-02T03:04:06Z/aaaaaaaa", []byte("3")))
	const want = "snap/2026-01-02T03:04:05Z/aaaaaaaa=1 snap/2026-01-02T03:04:06Z/aaaaaaaa=3 "
	if got := a.settings("snap/"); got != want {
		t.Fatalf("got %q", got)
	}
	must(t, a.PutSetting("written by both at once", []byte("one")))
	must(t, b.PutSetting("written by both at once", []byte("other")))
	connect(a, b)
	agree(t, a, b)
	if got := b.settings("snap/"); got != want {
		t.Fatalf("on the other device %q", got)
	}
	if x, y := a.settings("written"), b.settings("written"); x != y {
		t.Errorf("%q and %q", x, y)
	}
	if told.Load() < 2 { // its own, and that of the other {
		t.Error("nobody was told")
	}
	b.restart()
	if got := b.settings("snap/"); got != want {
		t.Fatalf("after a restart %q", got)
	}
	must(t, a.RemoveSettings("snap/2026-01-02T03:04:05Z/aaaaaaaa", "no such"))
	if got := a.settings("snap/"); got != "snap/2026-01-02T03:04:06Z/aaaaaaaa=3 " {
		t.Errorf("after removal %q", got)
	}
}
