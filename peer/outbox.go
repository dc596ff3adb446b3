package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/roamfs/roamfs/peer/wire"
)

const (
	// maxQueued bounds the bytes of messages that wait in the queue of a session.
	maxQueued = 16 << 20
	// maxControl bounds the bytes of all else. Answers are at most as many as the
	// questions that are worked on, announcements wait for room: more means that
	// the peer does not read.
	maxControl = 4 << 20
)

var errSlow = errors.New("peer does not keep up")

// outbox is what a session is about to send: messages of the layer above, in
// their order and only as far as there is credit, and before them all else.
type outbox struct {
	mu      sync.Mutex
	err     error // the session has ended
	control [][]byte
	size    int // bytes of control
	msgs    [][]byte
	queued  int // cost of msgs
	credit  int
	more    chan struct{} // cap 1: something may be sent
	room    chan struct{} // closed when a queue has shrunk or the session ended, then replaced
}

func newOutbox() *outbox {
	return &outbox{credit: wire.SyncWindow, more: make(chan struct{}, 1), room: make(chan struct{})}
}

func (o *outbox) wakeLocked() {
	select {
	case o.more <- struct{}{}:
	default:
	}
}

func (o *outbox) roomLocked() {
	close(o.room)
	o.room = make(chan struct{})
}

// put queues a control frame.
func (o *outbox) put(m wire.Message) error {
	frame := wire.Append(nil, m)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if o.size+len(frame) > maxControl {
		return errSlow
	}
	o.control = append(o.control, frame)
	o.size += len(frame)
	o.wakeLocked()
	return nil
}

// idle waits until no control frame is queued.
func (o *outbox) idle(ctx context.Context) error {
	return o.await(ctx, func() bool { return o.size == 0 })
}

// await waits until cond, which is called with o.mu held.
func (o *outbox) await(ctx context.Context, cond func() bool) error {
	for {
		o.mu.Lock()
		err, ok, room := o.err, cond(), o.room
		o.mu.Unlock()
		if err != nil || ok {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// offer queues a message if there is room.
func (o *outbox) offer(msg []byte) error {
	if len(msg) == 0 || len(msg) > wire.MaxSync {
		return fmt.Errorf("%w: %d bytes", ErrMessageSize, len(msg))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	cost := wire.SyncCost(len(msg))
	if o.queued+cost > maxQueued {
		return errSlow
	}
	o.msgs = append(o.msgs, msg)
	o.queued += cost
	o.wakeLocked()
	return nil
}

// send queues a message as soon as there is room.
func (o *outbox) send(ctx context.Context, msg []byte) error {
	for {
		o.mu.Lock()
		room := o.room
		o.mu.Unlock()
		if err := o.offer(msg); !errors.Is(err, errSlow) {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// grant takes credit that was given back.
func (o *outbox) grant(cost int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.credit += cost; o.credit > wire.SyncWindow {
		return fmt.Errorf("%w: more credit than there is", wire.ErrMessage)
	}
	o.wakeLocked()
	return nil
}

// next returns the next frame to write; nil: none for now.
func (o *outbox) next() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.control) > 0 {
		frame := o.control[0]
		o.control = o.control[1:]
		if o.size -= len(frame); o.size == 0 {
			o.control = nil
			o.roomLocked()
		}
		return frame
	}
	if len(o.msgs) == 0 {
		return nil
	}
	msg := o.msgs[0]
	cost := wire.SyncCost(len(msg))
	if cost > o.credit {
		return nil
	}
	o.credit -= cost
	o.msgs = o.msgs[1:]
	o.queued -= cost
	o.roomLocked()
	return wire.Append(make([]byte, 0, len(msg)+8), wire.Sync{Bytes: msg})
}

// end fails all that waits and all that comes.
func (o *outbox) end(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
		o.control, o.msgs = nil, nil
		o.roomLocked()
	}
}
