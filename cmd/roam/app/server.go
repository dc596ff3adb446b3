package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxRequest bounds the body of a request to the daemon, in bytes.
const maxRequest = 1 << 20

// maxTTL bounds how long an invite stays open.
const maxTTL = 24 * time.Hour

// control is what the server needs of the daemon besides its device.
type control interface {
	Status(ctx context.Context) (Status, error)
	Mount(ctx context.Context, dir string) (Mounted, error)
	Unmount(ctx context.Context, dir string) (Ended, error)
	Stop(ctx context.Context) (Ended, error)
}

// The bodies of requests.
type (
	lsRequest struct {
		Path []byte `json:"path"`
	}
	whereisRequest struct {
		Paths  [][]byte `json:"paths"`
		Verify bool     `json:"verify"`
	}
	renameRequest struct {
		Device string `json:"device"`
		Name   string `json:"name"`
	}
	roleRequest struct {
		Device string `json:"device"`
		Role   string `json:"role"`
	}
	revokeRequest struct {
		Device string `json:"device"`
		Sheet  string `json:"sheet"`
		Reason string `json:"reason"`
		Force  bool   `json:"force"`
	}
	resolveRequest struct {
		Path []byte `json:"path"`
		Keep Keep   `json:"keep"`
	}
	inviteRequest struct {
		Role string  `json:"role"`
		TTL  float64 `json:"ttl_seconds"`
	}
	decideRequest struct {
		Device string `json:"device"`
		Accept bool   `json:"accept"`
	}
	dirRequest struct {
		Dir []byte `json:"dir"`
	}
)

// server answers on the socket of the state directory. watch is how often a
// watched status is looked at.
type server struct {
	device Device
	daemon control
	watch  time.Duration
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/status/watch", s.watchStatus)
	mux.HandleFunc("GET /v1/devices", s.devices)
	mux.HandleFunc("POST /v1/devices/rename", s.rename)
	mux.HandleFunc("POST /v1/devices/role", s.role)
	mux.HandleFunc("POST /v1/devices/revoke", s.revoke)
	mux.HandleFunc("POST /v1/ls", s.ls)
	mux.HandleFunc("POST /v1/whereis", s.whereis)
	mux.HandleFunc("GET /v1/conflicts", s.conflicts)
	mux.HandleFunc("POST /v1/resolve", s.resolve)
	mux.HandleFunc("GET /v1/pending", s.pending)
	mux.HandleFunc("POST /v1/pending", s.decide)
	mux.HandleFunc("POST /v1/rescue", s.rescue)
	s.history(mux)
	mux.HandleFunc("POST /v1/invite", s.invite)
	mux.HandleFunc("POST /v1/mount", s.mount)
	mux.HandleFunc("POST /v1/unmount", s.unmount)
	mux.HandleFunc("POST /v1/stop", s.stop)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, failure(CodeUsage, "the running device may be older or newer than this program; restart it",
			"the device does not know the request %s %s", r.Method, clip(r.URL.Path)))
	})
	return mux
}

func (s *server) status(w http.ResponseWriter, r *http.Request) {
	st, err := s.daemon.Status(r.Context())
	answer(w, &st, err)
}

func (s *server) watchStatus(w http.ResponseWriter, r *http.Request) {
	out := newStream(w, true)
	tick := time.NewTicker(s.watch)
	defer tick.Stop()
	var last Status
	for first := true; ; first = false {
		st, err := s.daemon.Status(r.Context())
		if err == nil && (first || !reflect.DeepEqual(st, last)) {
			last = st
			err = out.send(&st)
		}
		if err != nil {
			out.end(err)
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			out.end(failure(CodeNotRunning, "", "the device has ended"))
			return
		}
	}
}

func (s *server) devices(w http.ResponseWriter, r *http.Request) {
	members, err := s.device.Devices(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	out := newStream(w, false)
	for i := range members {
		if err := out.send(&members[i]); err != nil {
			return
		}
	}
	out.end(nil)
}

func (s *server) rename(w http.ResponseWriter, r *http.Request) {
	var q renameRequest
	if decode(w, r, &q) {
		s.member(w, r, q.Name, s.device.Rename(r.Context(), q.Device, q.Name))
	}
}

func (s *server) role(w http.ResponseWriter, r *http.Request) {
	var q roleRequest
	if decode(w, r, &q) {
		s.member(w, r, q.Device, s.device.SetRole(r.Context(), q.Device, q.Role))
	}
}

func (s *server) revoke(w http.ResponseWriter, r *http.Request) {
	var q revokeRequest
	if decode(w, r, &q) {
		done, err := s.device.Revoke(r.Context(), RevokeOptions{Name: q.Device, Sheet: q.Sheet, Reason: q.Reason, Force: q.Force})
		answer(w, &done, err)
	}
}

// member answers with the member called name, as it is now, unless err is set.
func (s *server) member(w http.ResponseWriter, r *http.Request, name string, err error) {
	var all []Member
	if err == nil {
		all, err = s.device.Devices(r.Context())
	}
	i := slices.IndexFunc(all, func(m Member) bool { return strings.EqualFold(m.Name, name) })
	if err == nil && i < 0 {
		err = failure(CodeNotFound, "`roam devices` lists them", "no device is called %s any more", clip(name))
	}
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, &all[i], nil)
}

func (s *server) ls(w http.ResponseWriter, r *http.Request) {
	var q lsRequest
	if !decode(w, r, &q) {
		return
	}
	p, err := treePath(q.Path)
	if err != nil {
		refuse(w, err)
		return
	}
	out := newStream(w, false)
	out.end(s.device.List(r.Context(), p, func(e Entry) error { return out.send(&e) }))
}

func (s *server) whereis(w http.ResponseWriter, r *http.Request) {
	var q whereisRequest
	if !decode(w, r, &q) {
		return
	}
	out := newStream(w, true)
	for _, raw := range q.Paths {
		p, err := treePath(raw)
		var found Whereis
		if err == nil {
			found, err = s.device.Whereis(r.Context(), p, q.Verify)
		}
		if err == nil {
			found.date(time.Now())
			err = out.send(&found)
		}
		if err != nil {
			out.end(err)
			return
		}
	}
	out.end(nil)
}

// date says that what this device holds is known as of now.
func (w *Whereis) date(now time.Time) {
	for i, h := range w.Holders {
		if h.This && h.AsOf == nil {
			now := now.UTC().Truncate(time.Second)
			w.Holders[i].AsOf = &now
		}
	}
}

// sendAll answers with many objects, or err.
func sendAll[T any](w http.ResponseWriter, all []T, err error) {
	if err != nil {
		refuse(w, err)
		return
	}
	out := newStream(w, false)
	for i := range all {
		if err := out.send(&all[i]); err != nil {
			return
		}
	}
	out.end(nil)
}

func (s *server) conflicts(w http.ResponseWriter, r *http.Request) {
	all, err := s.device.Conflicts(r.Context())
	sendAll(w, all, err)
}

func (s *server) resolve(w http.ResponseWriter, r *http.Request) {
	var q resolveRequest
	if !decode(w, r, &q) {
		return
	}
	p, err := treePath(q.Path)
	if err == nil && !slices.Contains([]Keep{KeepMine, KeepTheirs, KeepBoth}, q.Keep) {
		err = usage("what is kept is mine, theirs or both, not %q", clip(string(q.Keep)))
	}
	if err != nil {
		refuse(w, err)
		return
	}
	done, err := s.device.Resolve(r.Context(), p, q.Keep)
	answer(w, &done, err)
}

func (s *server) pending(w http.ResponseWriter, r *http.Request) {
	all, err := s.device.Pending(r.Context())
	sendAll(w, all, err)
}

func (s *server) decide(w http.ResponseWriter, r *http.Request) {
	var q decideRequest
	if !decode(w, r, &q) {
		return
	}
	done, err := s.device.Decide(r.Context(), q.Device, q.Accept)
	answer(w, &done, err)
}

func (s *server) rescue(w http.ResponseWriter, r *http.Request) {
	if dir, ok := dirOf(w, r); ok {
		done, err := s.device.Rescue(r.Context(), dir)
		answer(w, &done, err)
	}
}

func (s *server) invite(w http.ResponseWriter, r *http.Request) {
	var q inviteRequest
	if !decode(w, r, &q) {
		return
	}
	o := InviteOptions{Role: q.Role, TTL: time.Duration(q.TTL * float64(time.Second))}
	if o.TTL <= 0 || o.TTL > maxTTL {
		refuse(w, usage("an invite is open for at most %v", maxTTL))
		return
	}
	out := newStream(w, true)
	out.end(inviteError(s.device.Invite(r.Context(), o, func(e InviteEvent) {
		_ = out.send(&e) // a client that went away ends r.Context()
	})))
}

func (s *server) mount(w http.ResponseWriter, r *http.Request) {
	if dir, ok := dirOf(w, r); ok {
		// The mount outlives the request, and so must what makes it.
		m, err := s.daemon.Mount(context.WithoutCancel(r.Context()), dir)
		answer(w, &m, err)
	}
}

func (s *server) unmount(w http.ResponseWriter, r *http.Request) {
	if dir, ok := dirOf(w, r); ok {
		e, err := s.daemon.Unmount(r.Context(), dir)
		answer(w, &e, err)
	}
}

func (s *server) stop(w http.ResponseWriter, r *http.Request) {
	e, err := s.daemon.Stop(r.Context())
	answer(w, &e, err)
}

// dirOf reads a request that names a directory of this computer.
func dirOf(w http.ResponseWriter, r *http.Request) (string, bool) {
	var q dirRequest
	if !decode(w, r, &q) {
		return "", false
	}
	dir := string(q.Dir)
	if !filepath.IsAbs(dir) || strings.ContainsRune(dir, 0) {
		refuse(w, usage("%q is not an absolute path", clip(dir)))
		return "", false
	}
	return filepath.Clean(dir), true
}

// treePath checks a path in the tree and returns its one spelling.
func treePath(raw []byte) (string, error) {
	p := string(raw)
	if !strings.HasPrefix(p, "/") || strings.ContainsRune(p, 0) {
		return "", usage("%q is not a path in the tree; it begins with roam:/", clip(p))
	}
	return path.Clean(p), nil
}

// decode reads the body of a request into v, or answers what is wrong with it.
func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		refuse(w, usage("request to the device: %w", err))
		return false
	}
	return true
}

// answer sends one object, or err.
func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		refuse(w, err)
		return
	}
	pack(v)
	data, err := json.Marshal(v)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)+1))
	_, _ = w.Write(append(data, '\n')) // a client that went away needs no answer
}

// refuse sends an error.
func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	status := http.StatusInternalServerError
	switch ExitCode(err) {
	case CodeUsage:
		status = http.StatusBadRequest
	case CodeNotFound:
		status = http.StatusNotFound
	case CodeUnreachable:
		status = http.StatusServiceUnavailable
	case CodeRefused, CodeConflict:
		status = http.StatusConflict
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(newAPIError(err)) // as above
}

// listen opens the socket of a state directory, which this process has locked,
// so that a socket found there is a dead one.
func listen(s *State) (net.Listener, error) {
	if err := os.Remove(s.Socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	short, done, err := shortSocket(s.dir)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", s.Socket(), err)
	}
	l.SetUnlinkOnClose(false) // by its own name, below
	if err := os.Chmod(s.Socket(), 0o600); err != nil {
		discard(l)
		return nil, fmt.Errorf("socket: %w", err)
	}
	return &ownerListener{UnixListener: l, path: s.Socket()}, nil
}

// shortSocket returns a name of the socket in dir that fits into a socket
// address (108 bytes), valid until done is called.
func shortSocket(dir string) (name string, done func(), err error) {
	name = filepath.Join(dir, socketName)
	if len(name) < 100 {
		return name, func() {}, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, socketName), func() { _ = unix.Close(fd) }, nil
}

// ownerListener accepts connections of processes of the daemon's user and of
// root only. The modes of the socket and its directory say the same; this holds
// when somebody changes them.
type ownerListener struct {
	*net.UnixListener
	path string
}

// Accept waits for the next connection from the owner.
func (l *ownerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if ownerConn(c) {
			return c, nil
		}
		discard(c)
	}
}

// Close ends the listener and removes the socket.
func (l *ownerListener) Close() error {
	err := os.Remove(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.UnixListener.Close())
}

// ownerConn tells whether the other end of c is a process of our user or root.
func ownerConn(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	allowed := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		allowed = err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
	})
	return err == nil && allowed
}
