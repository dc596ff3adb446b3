package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// How long the daemon waits when it ends.
const (
	flushTime  = 20 * time.Second // for what is not published yet
	answerTime = 2 * time.Second  // for answers that are being written
)

// watchTime is how often a watched status is looked at.
const watchTime = 500 * time.Millisecond

// daemon runs the device of a state directory: it serves its mounts and its
// socket until it is told to end.
type daemon struct {
	state  *State
	device Device
	log    *slog.Logger
	forDir bool           // it was started for a mount, and ends with the last one
	brief  bool           // it ends when its work is done, and takes no mounts
	quit   chan struct{}  // closed when it is to end
	once   sync.Once      // closes quit
	halted chan struct{}  // closed when the mounts need not be watched any more
	tasks  sync.WaitGroup // watchers of mounts and answers to requests

	changing sync.Mutex // held while a mount is made or ended; taken before mu
	mu       sync.Mutex // guards the fields below
	mounts   []string   // directories, in the order in which they were mounted
	ending   bool       // no new mounts
	over     bool       // no new requests
}

// task is what a daemon is started for.
type task struct {
	mount string // directory to mount at first; empty for none

	// ready is called once the socket and the mount answer.
	ready func()

	// work is done after that, and the daemon ends with its result. Without it
	// the daemon runs until it is told to end.
	work func(context.Context, Device) error

	// ended is called when the last flush is done, with what exists only here.
	ended func(OnlyHere)
}

// runDaemon opens the device of s and runs it until ctx ends, a request says so,
// the last mount has ended (if it was started for one) or the work of t is done.
// It flushes before it ends.
func runDaemon(ctx context.Context, e Engine, s *State, log *slog.Logger, t task) (err error) {
	device, err := e.Open(ctx, s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	listener, err := listen(s)
	if err != nil {
		return err
	}
	d := &daemon{
		state: s, device: device, log: log, forDir: t.mount != "", brief: t.work != nil,
		quit: make(chan struct{}), halted: make(chan struct{}),
	}
	// The device runs on after ctx has ended, until the last flush. Requests end
	// a little earlier, and the work with ctx.
	running, halt := context.WithCancel(context.WithoutCancel(ctx))
	defer halt()
	serving, stopServing := context.WithCancel(running)
	defer stopServing()
	working, stopWork := context.WithCancel(ctx)
	defer stopWork()

	web := d.server(serving)
	results := make(chan error, 3) // one of each part
	var parts sync.WaitGroup
	part := func(fn func() error) {
		parts.Go(func() {
			if err := fn(); err != nil {
				results <- err
			}
		})
	}
	part(func() error { return device.Run(running) })
	part(func() error {
		if err := web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("socket: %w", err)
		}
		return nil
	})
	if r, ok := device.(Resizable); ok {
		part(func() error { d.followConfig(running, r); return nil })
	}
	if t.mount != "" {
		_, err = d.Mount(ctx, t.mount)
	}
	if err == nil {
		if t.ready != nil {
			t.ready()
		}
		if t.work != nil {
			part(func() error {
				defer d.end()
				return t.work(working, device)
			})
		}
		select {
		case <-ctx.Done():
		case <-d.quit:
		case err = <-results:
		}
	}
	stopWork()
	err = errors.Join(err, d.takeDownAll(ctx, t.ended))
	stopServing()
	err = errors.Join(err, closeServer(ctx, web))
	close(d.halted)
	d.mu.Lock()
	d.over = true
	d.mu.Unlock()
	d.tasks.Wait()
	halt()
	parts.Wait()
	close(results)
	for late := range results {
		err = errors.Join(err, late)
	}
	return err
}

// Resizable is a [Device] whose bound may be changed while it runs.
type Resizable interface {
	// Resize gives the state directory the bound that c asks for. While that is
	// not possible, since what only this device holds needs more, the bound stays
	// as it was and the error says why; it may be possible later.
	Resize(ctx context.Context, c Config) error
}

// How often config.toml is looked at, and how long it takes until a bound that
// was not possible is tried again.
const (
	configEvery = time.Second
	resizeAgain = time.Minute
)

// followConfig applies a new cache size in config.toml until ctx ends. To read the
// file is as cheap as to ask for its time, and misses no edit. Only what stands
// there at two looks in a row counts, so that no half written file does. What is
// wrong with it is logged once, and everything stays as it was.
func (d *daemon) followConfig(ctx context.Context, r Resizable) {
	type look struct {
		size    Size
		mistake string
	}
	var last, done look
	var again time.Time // when what was done is tried again; zero is never
	every := time.NewTicker(configEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		c, err := d.state.Config()
		now := look{size: c.CacheSize}
		if err != nil {
			now.mistake = err.Error()
		}
		steady := now == last
		last = now
		known := now == done
		if !steady || known && (again.IsZero() || time.Now().Before(again)) {
			continue
		}
		done, again = now, time.Time{}
		if err == nil {
			if err = r.Resize(ctx, c); err != nil {
				again = time.Now().Add(resizeAgain)
			}
		}
		if err != nil && !known && ctx.Err() == nil {
			d.log.Warn("the change of config.toml does not count yet", "err", err)
		}
	}
}

// server returns the web server of the daemon. Its requests end with ctx.
func (d *daemon) server(ctx context.Context) *http.Server {
	answer := (&server{device: d.device, daemon: d, watch: watchTime}).handler()
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			d.mu.Lock()
			over := d.over
			if !over {
				d.tasks.Add(1)
			}
			d.mu.Unlock()
			if !over {
				defer d.tasks.Done()
				answer.ServeHTTP(w, r)
			}
		}),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	}
}

// closeServer ends the socket and lets answers that are being written be
// finished, if that takes no longer than answerTime.
func closeServer(ctx context.Context, web *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	err := web.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = web.Close()
	}
	return err
}

// end tells the daemon to end.
func (d *daemon) end() { d.once.Do(func() { close(d.quit) }) }

// takeDownAll ends all mounts, in use or not, flushes, and reports what exists
// only here.
func (d *daemon) takeDownAll(ctx context.Context, ended func(OnlyHere)) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
	defer cancel()
	notify("STOPPING=1")
	d.changing.Lock()
	defer d.changing.Unlock()
	d.mu.Lock()
	d.ending = true
	d.mu.Unlock()
	var err error
	for _, dir := range d.dirs() {
		_, e := d.takeDown(ctx, dir, true)
		err = errors.Join(err, e)
	}
	only, e := d.device.Flush(ctx)
	if e != nil {
		return errors.Join(err, fmt.Errorf("flush: %w", e))
	}
	if ended != nil {
		ended(only)
	}
	return err
}

// takeDown ends the mount at dir. One that programs use is taken out of the name
// space all the same if detach is set; it reports whether it had to.
func (d *daemon) takeDown(ctx context.Context, dir string, detach bool) (detached bool, err error) {
	err = d.device.Unmount(ctx, dir, false)
	if errors.Is(err, ErrBusy) && detach {
		d.log.Warn("mount was in use", "mount", dir)
		detached = true
		err = d.device.Unmount(ctx, dir, true)
	}
	if err != nil && slices.Contains(d.dirs(), dir) {
		return false, fmt.Errorf("unmount %s: %w", dir, err)
	}
	d.forget(dir)
	return detached, nil
}

// forget removes a mount that has ended from the list. With the last one a
// daemon ends that was started for a mount.
func (d *daemon) forget(dir string) {
	d.mu.Lock()
	d.mounts = slices.DeleteFunc(d.mounts, func(m string) bool { return m == dir })
	last := len(d.mounts) == 0
	d.mu.Unlock()
	if last && d.forDir {
		d.end()
	}
}

func (d *daemon) dirs() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.mounts)
}

// Status returns the status of the device with what only the daemon knows.
func (d *daemon) Status(ctx context.Context) (Status, error) {
	s, err := d.device.Status(ctx)
	if err != nil {
		return Status{}, err
	}
	s.PID, s.Mounts = os.Getpid(), d.dirs()
	s.stamp()
	return s, nil
}

// Mount shows the tree at dir.
func (d *daemon) Mount(ctx context.Context, dir string) (Mounted, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	d.mu.Lock()
	ending := d.ending
	d.mu.Unlock()
	if ending {
		return Mounted{}, failure(CodeNotRunning, "try again", "the device is about to end")
	}
	if d.brief {
		return Mounted{}, failure(CodeFailed, "wait until it is done, or end it",
			"the device is in use by process %d, which waits for a new device to join", os.Getpid())
	}
	if err := prepareMountPoint(d.state.dir, dir); err != nil {
		return Mounted{}, err
	}
	ended, err := d.device.Mount(ctx, dir)
	if err != nil {
		return Mounted{}, fmt.Errorf("mount %s: %w", dir, err)
	}
	d.mu.Lock()
	d.mounts = append(d.mounts, dir)
	d.mu.Unlock()
	d.tasks.Go(func() {
		select {
		case <-ended:
			d.forget(dir)
		case <-d.halted: // a mount that was detached may outlast the daemon
		}
	})
	return Mounted{Schema: Schema, Dir: dir, PID: os.Getpid()}, nil
}

// Unmount ends the mount at dir after a flush, and with the last one a daemon
// that was started for a mount.
func (d *daemon) Unmount(ctx context.Context, dir string) (Ended, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if !slices.Contains(d.dirs(), dir) {
		return Ended{}, failure(CodeNotFound, "`roam status` lists the mounts of the device", "the device has no mount at %s", dir)
	}
	e, err := d.flush(ctx)
	if err != nil {
		return Ended{}, err
	}
	if _, err := d.takeDown(ctx, dir, false); errors.Is(err, ErrBusy) {
		return Ended{}, failure(CodeFailed, "close what is open in it and leave its directories, then try again", "%w", err)
	} else if err != nil {
		return Ended{}, err
	}
	e.Mount = dir
	e.Stopping = d.forDir && len(d.dirs()) == 0
	return e, nil
}

// Stop flushes and ends the mounts, and tells the daemon to end.
func (d *daemon) Stop(ctx context.Context) (Ended, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	e, err := d.flush(ctx)
	if err != nil {
		return Ended{}, err
	}
	for _, dir := range d.dirs() {
		detached, err := d.takeDown(ctx, dir, true)
		if err != nil {
			return Ended{}, err
		}
		if detached {
			e.Detached = append(e.Detached, dir)
		}
	}
	e.Stopping = true
	d.end()
	return e, nil
}

// flush makes everything durable and tells what exists only here.
func (d *daemon) flush(ctx context.Context) (Ended, error) {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	only, err := d.device.Flush(ctx)
	if err != nil {
		return Ended{}, fmt.Errorf("flush: %w", err)
	}
	e := Ended{Schema: Schema, OnlyHere: only.Amount, PID: os.Getpid()}
	for _, p := range only.Paths {
		e.Paths = append(e.Paths, Path{Path: p})
	}
	return e, nil
}
