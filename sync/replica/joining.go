package replica

import (
	"errors"
	"time"
)

// quitLocked ends the walk over the state of p.
func (p *session) quitLocked(why error) (w *walk) {
	if w = p.walk; w != nil {
		w.cancel(why)
		p.asks = [][]byte{ofWalk(p.number, encodeAsk(nil))} // it need not be kept for us
		p.poke()
	}
	p.walk, p.merging, p.ask = nil, false, false
	return w
}

// giveUpLocked waits no longer for the state that is being received: whoever
// still has more than we do will offer it again.
func (s *sessions) giveUpLocked() {
	s.joinedLocked()
	for _, q := range s.live {
		q.hello = true
		q.poke()
	}
}

// joinedLocked ends the wait for a state, and gives back the room for it.
func (s *sessions) joinedLocked() {
	s.joining, s.left = nil, 0
	s.watch.Stop()
	if s.room != nil {
		s.room.Release()
		s.room = nil
	}
}

// join begins to wait for the whole state of p, unless that of another peer is
// on its way, or p is not to be asked now.
func (s *sessions) join(p *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joining != nil || p.apart || s.live[p.dev] != p || time.Now().Before(s.resting[p.dev]) {
		return false
	}
	s.joining, s.at = p, time.Now()
	s.watch = time.AfterFunc(s.stall, func() { s.look(p) })
	return true
}

// ask asks p for its state, for which there is room and of which up to limit
// bytes are taken.
func (s *sessions) ask(p *session, room Room, limit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joining != p {
		room.Release()
		return
	}
	s.at, s.room, s.left, p.ask, p.asks = time.Now(), room, limit, true, nil
	p.number++
	p.poke()
}

// refuse ends the walk over the state of p, which is of no use, or for which there
// is no room. Others are asked, and p not before a while has passed.
func (s *sessions) refuse(p *session, why error) (w *walk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w = p.quitLocked(why)
	if s.joining == p {
		s.giveUpLocked()
	}
	s.resting[p.dev] = time.Now().Add(s.rest)
	time.AfterFunc(s.rest, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if q, ok := s.live[p.dev]; ok {
			q.hello = true // so that it offers its state again
			q.poke()
		}
	})
	return w
}

// look gives up the state of p if it has stalled.
func (s *sessions) look(p *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joining != p || s.closed {
		return
	}
	if left := s.stall - time.Since(s.at); left > 0 || p.merging {
		s.watch = time.AfterFunc(max(left, s.stall/4), func() { s.look(p) })
		return
	}
	s.r.log.Warn("a device does not go on sending its tree", "device", s.r.name(p.dev))
	p.quitLocked(errStale)
	s.giveUpLocked()
}

// goesOn notes that n bytes more of the state of p came, and returns the walk over
// it, if that has begun.
func (s *sessions) goesOn(p *session, n int) (*walk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.joining != p:
		return nil, errStale
	case int64(n) > s.left:
		return nil, errors.New("more of a whole state than was offered and asked for")
	}
	// Whoever sends little at a time does not hold up others for long.
	s.at = s.at.Add(time.Duration(n) * time.Second / slowest)
	if now := time.Now(); s.at.After(now) {
		s.at = now
	}
	s.left -= int64(n)
	s.room.Shrink(int64(n)) // it is going to be on the disk
	return p.walk, nil
}

// begin notes that all of the state of p is here.
func (s *sessions) begin(p *session, w *walk) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joining != p || p.walk != w {
		return false
	}
	p.merging = true
	return true
}

// goOn notes that not all of the state of p is here after all.
func (s *sessions) goOn(p *session, w *walk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joining == p && p.walk == w {
		p.merging, s.at = false, time.Now()
	}
}

// joined notes that the state of p is joined.
func (s *sessions) joined(p *session, w *walk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.walk != w {
		return // it was given up at the last moment
	}
	p.quitLocked(nil)
	if s.joining == p {
		s.giveUpLocked() // and look whether others know still more
	}
}
