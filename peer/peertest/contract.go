package peertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/roamfs/roamfs/peer"
	"github.com/roamfs/roamfs/peer/device"
)

// End is one of two transports under test.
type End struct {
	peer.Transport
	ID device.ID
}

// Pair makes two transports that are not connected, and a function that begins
// to connect them and one that cuts them off from each other. What it makes is
// gone after the test.
type Pair func(t *testing.T) (a, b End, connect, cut func())

const patience = 20 * time.Second

// watcher follows the changes that one end sees of the other.
type watcher struct{ events chan bool }

func watch(e, other End) *watcher {
	w := &watcher{make(chan bool, 100)}
	e.OnChange(func(dev device.ID, up bool) {
		if dev == other.ID {
			w.events <- up
		}
	})
	return w
}

func (w *watcher) await(t *testing.T, up bool) {
	t.Helper()
	select {
	case got := <-w.events:
		if got != up {
			t.Fatalf("up is %v, want %v", got, up)
		}
	case <-time.After(patience):
		t.Fatal("no change was reported")
	}
}

// Run checks that transports keep to what [peer.Transport] and [peer.Stream]
// promise.
func Run(t *testing.T, pair Pair) {
	t.Helper()
	for name, f := range map[string]func(t *testing.T, a, b End, connect, cut func()){
		"changes": testChanges, "echo": testEcho, "half close": testHalfClose, "reset": testReset,
		"deadlines": testDeadlines, "cut": testCut, "no handler": testNoHandler, "many streams": testMany,
	} {
		t.Run(name, func(t *testing.T) {
			a, b, connect, cut := pair(t)
			f(t, a, b, connect, cut)
		})
	}
}

// meet connects two ends, of which b handles protocol "/p" with f.
func meet(t *testing.T, a, b End, connect func(), f func(dev device.ID, s peer.Stream)) {
	t.Helper()
	b.Handle("/p", func(_ context.Context, dev device.ID, s peer.Stream) { f(dev, s) })
	wa, wb := watch(a, b), watch(b, a)
	connect()
	wa.await(t, true)
	wb.await(t, true)
}

func open(t *testing.T, a, b End) peer.Stream {
	t.Helper()
	s, err := a.Open(t.Context(), b.ID, "/p")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testChanges(t *testing.T, a, b End, connect, cut func()) {
	wa, wb := watch(a, b), watch(b, a)
	if s, err := a.Open(t.Context(), b.ID, "/p"); err == nil {
		_ = s.Reset()
		t.Error("a stream to a device that is not connected")
	}
	if len(a.Connected()) != 0 {
		t.Errorf("connected with %v", a.Connected())
	}
	for range 3 {
		connect()
		wa.await(t, true)
		wb.await(t, true)
		if !slices.Equal(a.Connected(), []device.ID{b.ID}) || !slices.Equal(b.Connected(), []device.ID{a.ID}) {
			t.Errorf("connected with %v and %v", a.Connected(), b.Connected())
		}
		if a.Path(b.ID) == "" {
			t.Error("no path")
		}
		cut()
		wa.await(t, false)
		wb.await(t, false)
	}
}

func testEcho(t *testing.T, a, b End, connect, _ func()) {
	meet(t, a, b, connect, func(dev device.ID, s peer.Stream) {
		if dev != a.ID {
			t.Errorf("opened by %v", dev)
		}
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	msg := make([]byte, 5<<20)
	_, _ = rand.Read(msg)
	s := open(t, a, b)
	go func() {
		_, _ = s.Write(msg)
		_ = s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, msg) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(msg), err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func testHalfClose(t *testing.T, a, b End, connect, _ func()) {
	meet(t, a, b, connect, func(_ device.ID, s peer.Stream) {
		got, err := io.ReadAll(s) // to its end, then answers
		if err == nil {
			_, _ = s.Write(append(got, '!'))
		}
		_ = s.Close()
	})
	s := open(t, a, b)
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("written after CloseWrite")
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != "hello!" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = s.Close()
}

// begun opens a stream of which both ends have read something. ended tells with
// which error the reading of the far end ends.
func begun(t *testing.T, a, b End, connect func()) (s peer.Stream, ended <-chan error) {
	t.Helper()
	end := make(chan error, 1)
	meet(t, a, b, connect, func(_ device.ID, s peer.Stream) {
		_, _ = s.Write([]byte("begun"))
		_, err := io.Copy(io.Discard, s)
		end <- err
		_ = s.Reset()
	})
	s = open(t, a, b)
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, len("begun"))); err != nil {
		t.Fatal(err)
	}
	return s, end
}

func testReset(t *testing.T, a, b End, connect, _ func()) {
	s, ended := begun(t, a, b, connect)
	read := make(chan error, 1)
	go func() { _, err := s.Read(make([]byte, 1)); read <- err }()
	if err := s.Reset(); err != nil {
		t.Errorf("reset: %v", err)
	}
	if err := s.Reset(); err != nil {
		t.Errorf("reset again: %v", err)
	}
	if err := <-read; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("here: %v", err)
	}
	if err := <-ended; err == nil {
		t.Errorf("at the other end: %v", err)
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("written after Reset")
	}
}

func testDeadlines(t *testing.T, a, b End, connect, _ func()) {
	over := make(chan struct{})
	meet(t, a, b, connect, func(_ device.ID, s peer.Stream) {
		<-over // reads nothing
		_ = s.Reset()
	})
	defer close(over)
	s := open(t, a, b)
	defer func() { _ = s.Reset() }()
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	timeout := func(what string, err error) {
		t.Helper()
		var te interface{ Timeout() bool }
		if !errors.Is(err, os.ErrDeadlineExceeded) && (!errors.As(err, &te) || !te.Timeout()) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err := s.Read(make([]byte, 1))
	timeout("read", err)
	_ = s.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	for err = nil; err == nil; {
		_, err = s.Write(make([]byte, 1<<20)) // until nothing goes any more
	}
	timeout("write", err)
	// A deadline that is set meanwhile counts for who waits already.
	_ = s.SetDeadline(time.Time{})
	read := make(chan error, 1)
	go func() { _, err := s.Read(make([]byte, 1)); read <- err }()
	_ = s.SetReadDeadline(time.Unix(1, 0))
	timeout("read that waits", <-read)
}

func testCut(t *testing.T, a, b End, connect, cut func()) {
	s, ended := begun(t, a, b, connect)
	cut()
	if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("here: %v", err)
	}
	if err := <-ended; err == nil {
		t.Errorf("at the other end: %v", err)
	}
	_ = s.Close()
}

func testNoHandler(t *testing.T, a, b End, connect, _ func()) {
	meet(t, a, b, connect, func(_ device.ID, s peer.Stream) { _ = s.Reset() })
	s, err := a.Open(t.Context(), b.ID, "/unknown")
	if err != nil {
		return
	}
	defer func() { _ = s.Reset() }()
	_, _ = s.Write([]byte("x"))
	if n, err := s.Read(make([]byte, 1)); err == nil || n > 0 {
		t.Errorf("%d bytes for a protocol that nobody handles, %v", n, err)
	}
}

func testMany(t *testing.T, a, b End, connect, _ func()) {
	meet(t, a, b, connect, func(_ device.ID, s peer.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			s, err := a.Open(t.Context(), b.ID, "/p")
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = s.Reset() }()
			msg := bytes.Repeat([]byte{byte(i)}, 100_000)
			go func() {
				_, _ = s.Write(msg)
				_ = s.CloseWrite()
			}()
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, msg) {
				t.Errorf("stream %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
}
