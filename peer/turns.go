package peer

import (
	"context"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/wire"
)

const (
	// share is how many steps of higher lanes pass for one of a lower lane that
	// waits.
	share = 19
	// standstill is how long higher lanes make no step before lower ones go on.
	standstill = time.Second
)

// turns lets work of higher lanes go before that of lower ones, step by step.
type turns struct {
	mu      sync.Mutex
	active  [wire.Lanes]int       // who is at work
	stepped [wire.Lanes]time.Time // when the last step was made, or work begun
	steps   [wire.Lanes]int       // made in all, wraps
	moved   chan struct{}         // closed when something above changes; nil: nobody waits
}

// enter says that work of lane l begins. leave must follow.
func (t *turns) enter(l wire.Lane) {
	t.mu.Lock()
	t.active[l]++
	t.stepped[l] = time.Now()
	t.mu.Unlock()
}

// leave says that work has ended.
func (t *turns) leave(l wire.Lane) {
	t.mu.Lock()
	t.active[l]--
	t.wakeLocked()
	t.mu.Unlock()
}

// step says that a step of lane l was made.
func (t *turns) step(l wire.Lane) {
	t.mu.Lock()
	t.steps[l]++
	t.stepped[l] = time.Now()
	t.wakeLocked()
	t.mu.Unlock()
}

func (t *turns) wakeLocked() {
	if t.moved != nil {
		close(t.moved)
		t.moved = nil
	}
}

// above returns how many steps lanes above l have made, and how long ago the last
// one was, among those that are at work; false: none is.
func (t *turns) aboveLocked(l wire.Lane) (steps int, idle time.Duration, busy bool) {
	for i := range l {
		steps += t.steps[i]
		if t.active[i] > 0 {
			d := time.Since(t.stepped[i])
			if !busy || d < idle {
				idle = d
			}
			busy = true
		}
	}
	return steps, idle, busy
}

// wait returns when it is the turn of lane l, or ctx ends.
func (t *turns) wait(ctx context.Context, l wire.Lane) error {
	if l == wire.Foreground {
		return ctx.Err()
	}
	first, began := 0, false
	for {
		t.mu.Lock()
		steps, idle, busy := t.aboveLocked(l)
		if !began {
			first, began = steps, true
		}
		if !busy || idle >= standstill || steps-first >= share {
			t.mu.Unlock()
			return ctx.Err()
		}
		if t.moved == nil {
			t.moved = make(chan struct{})
		}
		moved := t.moved
		t.mu.Unlock()
		timer := time.NewTimer(standstill - idle)
		select {
		case <-moved:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
