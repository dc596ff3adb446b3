package tree

import "slices"

// act is something done to keep a content: it was written, or the file that
// showed it was moved or linked.
type act struct {
	id      int
	ino     Ino
	written bool
}

// missing reports whether a state that contains the acts known must show token,
// which s does not: nobody wrote over it, and something was done to keep it that
// no one knew of who removed it. To move or link a file keeps the file, but not
// this content of it if another one has been written there meanwhile.
func (h *history) missing(token string, known map[int]bool, s *snap) bool {
	if shared(token) || h.killed[token] {
		return false
	}
	return slices.ContainsFunc(h.acts[token], func(a act) bool {
		if !known[a.id] || h.removed[a.id] {
			return false
		}
		_, err := s.view.Node(a.ino)
		return a.written || err != nil
	})
}

// keeps notes that d did something to keep token.
func (h *history) keeps(d *device, token string, ino Ino, written bool) {
	h.act++
	h.acts[token] = append(h.acts[token], act{h.act, ino, written})
	d.knows[h.act] = true
}

// ended notes the files that d took away with ch. Whatever d knew of that was
// done to keep them has come to its end, though it was for another content than
// they showed at last, unless that is still shown elsewhere.
func (h *history) ended(d *device, ch Change) {
	gone := map[Ino]bool{}
	for _, k := range ch.Drop {
		ino := k.Key.Ino()
		if _, err := d.view.Node(ino); err != nil {
			gone[ino] = true
		}
	}
	if len(gone) == 0 {
		return
	}
	for token, acts := range h.acts {
		if d.shown.contents[token] {
			continue // as a conflict copy that is a file of its own now, say
		}
		for _, a := range acts {
			if gone[a.ino] && !a.written && d.knows[a.id] {
				h.removed[a.id] = true
			}
		}
	}
}

// checkKept: of the contents owed, those that were not replaced or removed
// anywhere are shown.
func (h *history) checkKept(owed map[string]bool, known map[int]bool, s *snap) {
	for token := range owed {
		if !s.contents[token] && h.missing(token, known, s) {
			violate("I5: content %q is lost", token)
		}
	}
}

// checkWritten: nothing is shown that nobody wrote.
func (h *history) checkWritten(s *snap) {
	for token := range s.contents {
		if !h.written[token] {
			violate("I6: content %q was never written", token)
		}
	}
}
