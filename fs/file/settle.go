package file

import (
	"errors"
	"io/fs"
	"sync"
	"time"
)

// Between two groups there is a rest, in which the next one grows: of this many
// times what the last group took, and at most so long. A commit that comes
// alone does not wait.
const (
	settleRest = 5
	settleMost = 100 * time.Millisecond
)

// settling is the group of commits whose blocks are stored.
type settling struct {
	mu     sync.Mutex
	idle   sync.Cond
	active bool
	ready  []*commit
	next   time.Time // when the next group may be ended
	doomed []*layer  // committed, but the tree could not be synced after it
}

func (s *settling) init() { s.idle.L = &s.mu }

// settle ends a commit together with the others that are ready: whoever finds
// nobody at it does so for all, until there are none. One sync of the blocks comes before the
// tree names them, one sync of the tree before the draft files go.
func (t *Table) settle(c *commit) {
	s := &t.settling
	s.mu.Lock()
	s.ready = append(s.ready, c)
	if s.active {
		s.mu.Unlock()
		return
	}
	s.active = true
	for len(s.ready) > 0 {
		rest := time.Until(s.next)
		s.mu.Unlock()
		if rest > 0 {
			<-time.After(rest) // more become ready meanwhile
		}
		s.mu.Lock()
		batch := s.ready
		s.ready = nil
		s.mu.Unlock()
		begin := time.Now()
		t.settleAll(batch)
		took := time.Since(begin)
		s.mu.Lock()
		s.next = time.Now().Add(min(settleRest*took, settleMost))
	}
	s.active = false
	s.idle.Broadcast()
	s.mu.Unlock()
}

// settled waits until no group is being ended.
func (t *Table) settled() {
	s := &t.settling
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.active {
		s.idle.Wait()
	}
}

func (t *Table) settleAll(batch []*commit) {
	for _, c := range batch {
		if !c.blocks {
			continue
		}
		if err := t.o.Blocks.Sync(); err != nil {
			for _, c := range batch {
				t.end(c, err)
			}
			return
		}
		break
	}
	old := t.settling.doomed // only one goroutine is here at a time
	t.settling.doomed = nil
	files := len(old) > 0
	for _, c := range batch {
		spent, err := t.land(c)
		for _, l := range spent {
			files = files || l.file != nil
		}
		old = append(old, spent...)
		if err != nil && errors.Is(err, fs.ErrNotExist) {
			err = errors.Join(err, errGone)
		}
		c.err = err
	}
	if files {
		if err := t.o.Tree.Sync(); err != nil {
			t.log.Error("sync after commits: draft files are kept", "err", err)
			t.settling.doomed, old = old, nil
		}
	}
	for _, c := range batch {
		t.end(c, c.err)
	}
	t.removeDrafts(old)
}
