package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeControl stands for the daemon behind a server.
type fakeControl struct{ status func() (Status, error) }

func (c *fakeControl) Status(context.Context) (Status, error) { return c.status() }

func (*fakeControl) Mount(_ context.Context, dir string) (Mounted, error) {
	return Mounted{Dir: dir, PID: 1}, nil
}

func (*fakeControl) Unmount(_ context.Context, dir string) (Ended, error) {
	return Ended{Mount: dir, OnlyHere: Amount{1, 2}, Paths: []Path{{Path: "/a\xff"}}}, nil
}

func (*fakeControl) Stop(context.Context) (Ended, error) { return Ended{Stopping: true}, nil }

// newFakeServer serves a fake device on the socket of a new directory.
func newFakeServer(t *testing.T, dir string, c *fakeControl) *client {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := listen(&State{dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{
		Handler:           (&server{device: &fakeDevice{log: slog.New(slog.DiscardHandler)}, daemon: c, watch: time.Millisecond}).handler(),
		ReadHeaderTimeout: time.Minute,
	}
	done := make(chan error, 1)
	go func() { done <- web.Serve(l) }()
	client := newClient(dir)
	t.Cleanup(func() {
		client.close()
		if err := web.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(dir, socketName)); err == nil {
			t.Error("the socket is still there")
		}
	})
	return client
}

func TestClientAndServer(t *testing.T) {
	// A directory whose socket has a name too long for a socket address.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	full := fullStatus()
	c := newFakeServer(t, dir, &fakeControl{status: func() (Status, error) { return full, nil }})
	ctx := t.Context()
	if info, err := os.Stat(filepath.Join(dir, socketName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	s, err := c.status(ctx)
	if err != nil || s.Unavailable[0].Path != "/films/\xff.mkv" || s.Schema != 1 || s.PID != 4242 {
		t.Errorf("status: %+v, %v", s, err)
	}
	m, err := c.mount(ctx, "/mnt/../mnt")
	if err != nil || m.Dir != "/mnt" {
		t.Errorf("mount: %+v, %v", m, err)
	}
	e, err := c.unmount(ctx, "/mnt")
	if err != nil || e.Mount != "/mnt" || e.Paths[0].Path != "/a\xff" || e.OnlyHere != (Amount{1, 2}) {
		t.Errorf("unmount: %+v, %v", e, err)
	}
	var names []string
	err = c.list(ctx, "/", func(e Entry) error { names = append(names, e.Path); return nil })
	if err != nil || fmt.Sprintf("%q", names) != `["/notes.txt" "/odd\xff\n" "/photos"]` {
		t.Errorf("ls: %q, %v", names, err)
	}
	names = nil
	err = c.list(ctx, "/odd\xff\n", func(e Entry) error { names = append(names, e.Path); return nil })
	if err != nil || len(names) != 1 {
		t.Errorf("ls of odd bytes: %q, %v", names, err)
	}
	if err := c.list(ctx, "/none", nil); ExitCode(err) != CodeNotFound {
		t.Errorf("ls of nothing: %v", err)
	}
	if err := c.list(ctx, "relative", nil); ExitCode(err) != CodeUsage {
		t.Errorf("ls of a relative path: %v", err)
	}
	stop := errors.New("enough")
	if err := c.list(ctx, "/", func(Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("ls that is broken off: %v", err)
	}
	if _, err := c.mount(ctx, "relative"); ExitCode(err) != CodeUsage {
		t.Errorf("mount of a relative path: %v", err)
	}
	if err := c.invite(ctx, InviteOptions{TTL: time.Hour * 1000}, func(InviteEvent) {}); ExitCode(err) != CodeUsage {
		t.Errorf("invite for weeks: %v", err)
	}
	if _, err := one[Status](ctx, c, http.MethodGet, "/v1/future", nil); ExitCode(err) != CodeUsage || hint(err) == "" {
		t.Errorf("a request of another version: %v", err)
	}
}

func TestWatchStatus(t *testing.T) {
	states := make(chan Status, 3)
	for i := range 3 {
		states <- Status{Conflicts: i / 2} // 0, 0, 1
	}
	close(states)
	c := newFakeServer(t, t.TempDir(), &fakeControl{status: func() (Status, error) {
		s, ok := <-states
		if !ok {
			return s, failure(CodeDamaged, "", "the disk is gone")
		}
		return s, nil
	}})
	var seen []int
	err := c.watchStatus(t.Context(), func(s Status) error { seen = append(seen, s.Conflicts); return nil })
	if ExitCode(err) != CodeDamaged || fmt.Sprint(seen) != "[0 1]" {
		t.Errorf("saw %v, %v, want each change once and then the error", seen, err)
	}
}

// TestDeadSocket checks that a socket without a daemon is "not running", and
// that a new daemon replaces it.
func TestDeadSocket(t *testing.T) {
	dir := t.TempDir()
	c := newClient(dir)
	if _, err := c.status(t.Context()); ExitCode(err) != CodeNotRunning {
		t.Errorf("no socket: %v", err)
	}
	l, err := listen(&State{dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	discard(l.(*ownerListener).UnixListener) // as kill -9 leaves it
	if _, err := c.status(t.Context()); ExitCode(err) != CodeNotRunning {
		t.Errorf("dead socket: %v", err)
	}
	newFakeServer(t, dir, &fakeControl{status: func() (Status, error) { return Status{}, nil }})
	if _, err := c.status(t.Context()); err != nil {
		t.Errorf("new socket: %v", err)
	}
}

// TestBrokenAnswer checks that an answer that is cut short or is no answer is
// never taken for a whole one.
func TestBrokenAnswer(t *testing.T) {
	whole := `{"item":{"path":"/a"}}` + "\n" + `{"item":{"path":"/b"}}` + "\n" + `{"end":true}` + "\n"
	for n := range len(whole) - 1 {
		if err := readStream(strings.NewReader(whole[:n]), func(Entry) error { return nil }); err == nil {
			t.Errorf("%q passed for a whole answer", whole[:n])
		}
	}
	if err := readStream(strings.NewReader(whole), func(Entry) error { return nil }); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"{}\n", "null\n", `{"item":[]}` + "\n", `{"item":{"size":"x"}}` + "\n"} {
		if err := readStream(strings.NewReader(s), func(Entry) error { return nil }); err == nil {
			t.Errorf("%q passed for an answer", s)
		}
	}
}

// FuzzServer sends any body to any request: the server answers with an object,
// does not crash and does not pass on what it should have refused.
func FuzzServer(f *testing.F) {
	paths := []string{"/v1/ls", "/v1/whereis", "/v1/invite", "/v1/mount", "/v1/unmount"}
	for i := range paths {
		f.Add(i, []byte(`{"path":"L2E=","paths":["L2E="],"role":"archive","ttl_seconds":0.01,"dir":"L2E="}`))
	}
	f.Add(0, []byte(`{"path":"L2EA"}`))
	h := (&server{device: &fakeDevice{}, daemon: &fakeControl{}, watch: time.Second}).handler()
	f.Fuzz(func(t *testing.T, n int, body []byte) {
		var q inviteRequest
		if json.Unmarshal(body, &q) == nil && q.TTL > 0.01 {
			return // it would wait
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, paths[uint(n)%uint(len(paths))], bytes.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var any json.RawMessage
		if err := json.NewDecoder(io.LimitReader(w.Body, maxLine)).Decode(&any); err != nil {
			t.Fatalf("%d: %v", w.Code, err)
		}
	})
}
