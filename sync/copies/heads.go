package copies

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/tree"
)

// heads are the newest commits, one an actor, that contents of the tree came
// with. A device knows the commits of an actor from the first one on, so whoever
// knows the heads knows every content that this device knows.
//
// They only grow: that a content was deleted since asks for more than is needed.
type heads struct {
	reading sync.Mutex              // held while the tree is read; guards of
	of      map[tree.Actor]tree.Dot // the newest of each

	mu    sync.Mutex
	fresh map[tree.Ino]struct{} // changed and not yet looked at
	due   bool                  // the whole tree is to be looked at
}

// mostFresh is how many inodes are remembered; beyond that the whole tree is
// looked at, which takes no longer.
const mostFresh = 1 << 14

func (h *heads) init() {
	h.of, h.fresh, h.due = map[tree.Actor]tree.Dot{}, map[tree.Ino]struct{}{}, true
}

// note has inodes looked at before the heads are used again.
func (h *heads) note(inos ...tree.Ino) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.fresh)+len(inos) > mostFresh {
		h.fresh, h.due = map[tree.Ino]struct{}{}, true
	}
	if h.due {
		return
	}
	for _, ino := range inos {
		h.fresh[ino] = struct{}{}
	}
}

// take returns what is to be looked at.
func (h *heads) take() (all bool, inos map[tree.Ino]struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all, inos = h.due, h.fresh
	h.due, h.fresh = false, map[tree.Ino]struct{}{}
	return all, inos
}

// again has the whole tree looked at.
func (h *heads) again() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.due = true
}

// Informed returns the other devices that said they know every content of which
// this device knew when Informed was called: those that can take no block that
// one of them needs for garbage.
func (k *Keeper) Informed() ([]device.ID, error) {
	h := &k.heads
	h.reading.Lock()
	defer h.reading.Unlock()
	see := func(d tree.Dot) {
		if d.Ctr > h.of[d.Actor].Ctr {
			h.of[d.Actor] = d
		}
	}
	all, inos := h.take()
	var err error
	if all {
		err = k.cfg.Tree.Contents(func(_ tree.Ino, _ tree.Content, d tree.Dot, _ func() bool) error { see(d); return nil })
	}
	for ino := range inos {
		if err == nil {
			err = k.cfg.Tree.ContentsOf(ino, func(_ tree.Content, d tree.Dot) error { see(d); return nil })
		}
	}
	if err == nil && k.cfg.History != nil {
		var roots []Root
		if roots, err = k.cfg.History.Roots(); errors.Is(err, ErrUnknown) {
			return nil, nil // nobody is known to know it
		}
		for _, r := range roots {
			see(r.Dot)
		}
	}
	if err != nil {
		h.again()
		return nil, err
	}
	return k.cfg.Tree.Knowing(slices.Collect(maps.Values(h.of))...), nil
}
