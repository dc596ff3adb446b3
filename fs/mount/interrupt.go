package mount

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// recheck is how often an interrupted request looks at the signals of its thread.
const recheck = 50 * time.Millisecond

// harmless are signals that no program means as "stop waiting". The Go runtime
// sends SIGURG to its threads all the time; giving up for it would make a page
// fault in a mapped file end in SIGBUS.
const harmless = 1<<(syscall.SIGURG-1) | 1<<(syscall.SIGPROF-1) | 1<<(syscall.SIGWINCH-1) |
	1<<(syscall.SIGCHLD-1) | 1<<(syscall.SIGCONT-1)

// waiting is the context of a request that may have to wait for another device.
// It is cancelled when the thread that made the request has a signal to attend
// to. The kernel tells only that there was one, once, so from then on the
// thread's pending signals are looked at. A watcher starts with the first call
// of Done, which a request that need not wait never makes.
type waiting struct {
	context.Context
	pid uint32

	start sync.Once
	done  chan struct{} // closed when interrupted
	quit  chan struct{} // closed when the request ends
	wg    sync.WaitGroup
}

// wait returns the context for a request and what to call when it ends.
func wait(ctx context.Context) (context.Context, func()) {
	w := &waiting{Context: ctx, done: make(chan struct{}), quit: make(chan struct{})}
	if caller, ok := fuse.FromContext(ctx); ok {
		w.pid = caller.Pid
	}
	return w, w.end
}

// Done implements [context.Context].
func (w *waiting) Done() <-chan struct{} {
	w.start.Do(func() { w.wg.Go(w.watch) })
	return w.done
}

// Err implements [context.Context].
func (w *waiting) Err() error {
	select {
	case <-w.done:
		return context.Canceled
	default:
		return nil
	}
}

// end stops the watcher: the request's own context is used again by go-fuse.
func (w *waiting) end() {
	w.start.Do(func() {}) // from now on Done starts nothing
	close(w.quit)
	w.wg.Wait()
}

func (w *waiting) watch() {
	select {
	case <-w.quit:
		return
	case <-w.Context.Done():
	}
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for !signalled(w.pid) {
		select {
		case <-w.quit:
			return
		case <-tick.C:
		}
	}
	close(w.done)
}

// signalled tells whether a thread has a pending signal that is neither blocked
// nor harmless; also if nothing can be learnt about the thread.
func signalled(pid uint32) bool {
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil {
		return true
	}
	pending, blocked, ok := signals(status)
	return !ok || pending&^blocked&^harmless != 0
}

// signals reads the masks of pending and blocked signals from the text of
// /proc/PID/status, see proc_pid_status(5). Signal n is bit n-1.
func signals(status []byte) (pending, blocked uint64, ok bool) {
	found := 0
	for line := range bytes.Lines(status) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		var into *uint64
		switch string(name) {
		case "SigPnd", "ShdPnd":
			into = &pending
		case "SigBlk":
			into = &blocked
		default:
			continue
		}
		v, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		if err != nil {
			return 0, 0, false
		}
		*into |= v
		found++
	}
	return pending, blocked, found == 3
}
