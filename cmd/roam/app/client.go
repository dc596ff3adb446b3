package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// client asks the daemon of a state directory. It is safe for concurrent use.
type client struct {
	dir  string
	http *http.Client
}

// newClient returns a client for the device in dir without connecting.
func newClient(dir string) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		name, done, err := shortSocket(dir)
		if err != nil {
			return nil, err
		}
		defer done()
		var d net.Dialer
		return d.DialContext(ctx, "unix", name)
	}
	return &client{dir: dir, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true}}}
}

// close ends idle connections.
func (c *client) close() { c.http.CloseIdleConnections() }

// notRunning is the error of a question to a device that is not running.
func (c *client) notRunning() error {
	if p, err := look(c.dir); err == nil && p == absent {
		return failure(CodeNotRunning, "begin with `roam init`, or with `roam join CODE` if you have a hive already",
			"the device is not running: there is none in %s", c.dir)
	}
	return failure(CodeNotRunning, "start it with `roam mount DIR`, or with `roam serve`", "the device in %s is not running", c.dir)
}

// do sends a request and returns its answer, whose body the caller closes. An
// answer that is an error is returned as one.
func (c *client) do(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://device"+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF): // it ended while it was asked
		return nil, c.notRunning()
	case errors.Is(err, fs.ErrPermission):
		return nil, failure(CodeFailed, "run it as the user who owns the device", "the device in %s belongs to another user", c.dir)
	case err != nil:
		return nil, fmt.Errorf("ask the device in %s: %w", c.dir, err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer discard(res.Body)
	var e apiError
	if err := json.NewDecoder(io.LimitReader(res.Body, maxLine)).Decode(&e); err != nil || e.Text == "" {
		return nil, fmt.Errorf("ask the device in %s: %s", c.dir, res.Status)
	}
	return nil, e.err()
}

// one sends a request whose answer is one object.
func one[T any](ctx context.Context, c *client, method, path string, body any) (T, error) {
	var v T
	r, err := c.do(ctx, method, path, body)
	if err != nil {
		return v, err
	}
	defer discard(r)
	if err := json.NewDecoder(io.LimitReader(r, maxLine)).Decode(&v); err != nil {
		return v, fmt.Errorf("answer of the device: %w", err)
	}
	unpack(&v)
	return v, nil
}

// many sends a request whose answer is many objects.
func many[T any](ctx context.Context, c *client, method, path string, body any, fn func(T) error) error {
	r, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer discard(r)
	err = readStream(r, fn)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (c *client) status(ctx context.Context) (Status, error) {
	return one[Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

func (c *client) watchStatus(ctx context.Context, fn func(Status) error) error {
	return many(ctx, c, http.MethodGet, "/v1/status/watch", nil, fn)
}

func (c *client) devices(ctx context.Context, fn func(Member) error) error {
	return many(ctx, c, http.MethodGet, "/v1/devices", nil, fn)
}

func (c *client) rename(ctx context.Context, old, name string) (Member, error) {
	return one[Member](ctx, c, http.MethodPost, "/v1/devices/rename", renameRequest{Device: old, Name: name})
}

func (c *client) setRole(ctx context.Context, name, role string) (Member, error) {
	return one[Member](ctx, c, http.MethodPost, "/v1/devices/role", roleRequest{Device: name, Role: role})
}

func (c *client) revoke(ctx context.Context, o RevokeOptions) (Revoked, error) {
	return one[Revoked](ctx, c, http.MethodPost, "/v1/devices/revoke", revokeRequest{Device: o.Name, Sheet: o.Sheet, Reason: o.Reason, Force: o.Force})
}

func (c *client) list(ctx context.Context, path string, fn func(Entry) error) error {
	return many(ctx, c, http.MethodPost, "/v1/ls", lsRequest{Path: []byte(path)}, fn)
}

func (c *client) whereis(ctx context.Context, paths []string, verify bool, fn func(Whereis) error) error {
	q := whereisRequest{Verify: verify}
	for _, p := range paths {
		q.Paths = append(q.Paths, []byte(p))
	}
	return many(ctx, c, http.MethodPost, "/v1/whereis", q, fn)
}

func (c *client) conflicts(ctx context.Context, fn func(Conflict) error) error {
	return many(ctx, c, http.MethodGet, "/v1/conflicts", nil, fn)
}

func (c *client) resolve(ctx context.Context, path string, keep Keep) (Resolved, error) {
	return one[Resolved](ctx, c, http.MethodPost, "/v1/resolve", resolveRequest{Path: []byte(path), Keep: keep})
}

func (c *client) pending(ctx context.Context, fn func(Pending) error) error {
	return many(ctx, c, http.MethodGet, "/v1/pending", nil, fn)
}

func (c *client) decide(ctx context.Context, name string, accept bool) (Decided, error) {
	return one[Decided](ctx, c, http.MethodPost, "/v1/pending", decideRequest{Device: name, Accept: accept})
}

func (c *client) rescue(ctx context.Context, dir string) (Rescued, error) {
	return one[Rescued](ctx, c, http.MethodPost, "/v1/rescue", dirRequest{Dir: []byte(dir)})
}

func (c *client) invite(ctx context.Context, o InviteOptions, fn func(InviteEvent)) error {
	q := inviteRequest{Role: o.Role, TTL: o.TTL.Seconds()}
	return many(ctx, c, http.MethodPost, "/v1/invite", q, func(e InviteEvent) error { fn(e); return nil })
}

func (c *client) mount(ctx context.Context, dir string) (Mounted, error) {
	return one[Mounted](ctx, c, http.MethodPost, "/v1/mount", dirRequest{Dir: []byte(dir)})
}

func (c *client) unmount(ctx context.Context, dir string) (Ended, error) {
	return one[Ended](ctx, c, http.MethodPost, "/v1/unmount", dirRequest{Dir: []byte(dir)})
}

func (c *client) stop(ctx context.Context) (Ended, error) {
	return one[Ended](ctx, c, http.MethodPost, "/v1/stop", struct{}{})
}

// waitReleased waits until the process pid does not hold the lock of the state
// directory any more, so that the next command finds it free.
func (c *client) waitReleased(ctx context.Context, pid int) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for lockHolder(c.dir) == pid {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the device to end: %w", ctx.Err())
		}
	}
	return nil
}
