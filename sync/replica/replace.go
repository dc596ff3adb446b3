package replica

import (
	"sync"
	"time"

	"github.com/roamfs/roamfs/sync/tree"
)

// A program saves by writing a new file and renaming it over the old one. The
// bytes of the new file are committed a moment after it was closed, mostly after
// the rename, so that the tree here names a file that is empty as yet. No other
// device may see that: the batch with the rename waits for the content.
//
// The new file stays an inode of its own, so what another device does to the old
// one meanwhile (a new name, a mode, an xattr) stays with that: a save and a
// concurrent rename leave both names, a save and a concurrent delete the saved
// file, a save and an edit a conflict copy. To commit the save as a write of the
// old inode instead ("tunnelling") would carry the new content to the new name,
// but is not sound here. When the rename is made, the content is not known yet;
// the drafts and open files of the new inode would have to become those of the
// old one, of which programs may hold other open files that POSIX wants to keep
// the old content, and that must not be written to the new one; and stat(2) of
// the open new file and of the name would give different numbers.

const (
	burst      = 500 * time.Millisecond // longest wait for the end of a burst of operations
	draftsWait = 5 * time.Second        // longest wait for the content of what replaced a file
)

// replacing are the files that replaced others and whose content is to come.
type replacing struct {
	mu   sync.Mutex // taken inside Replica.mu
	inos map[tree.Ino]struct{}
}

func (p *replacing) add(ino tree.Ino) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inos == nil {
		p.inos = map[tree.Ino]struct{}{}
	}
	p.inos[ino] = struct{}{}
}

func (p *replacing) remove(ino tree.Ino) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.inos, ino)
}

func (p *replacing) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.inos)
}

// owes reports whether the batch has to wait, and whether it does so for drafts
// that are in the journal. Others may have been made empty for good.
func (r *Replica) owes() (content, drafts bool) {
	p := &r.replacing
	p.mu.Lock()
	defer p.mu.Unlock()
	for ino := range p.inos {
		_, draft := r.gone.draft(ino)
		drafts = drafts || draft
	}
	return len(p.inos) > 0, drafts
}

// replacedLocked returns the files of which a rename puts one in the place of
// another before their content is in the tree.
func (r *Replica) replacedLocked(op tree.Ino, on string, np tree.Ino, nn string, exchange bool) (inos []tree.Ino) {
	from, err := r.lookupLocked(op, on)
	if err != nil {
		return nil // the rename will say so
	}
	to, err := r.lookupLocked(np, nn)
	if err != nil || from.Ino == to.Ino {
		return nil
	}
	both := []tree.Node{from, to}
	if !exchange {
		both = both[:1]
	}
	for _, n := range both {
		if _, draft := r.gone.draft(n.Ino); n.Kind == tree.File && (draft || n.Size == 0) {
			inos = append(inos, n.Ino)
		}
	}
	return inos
}
