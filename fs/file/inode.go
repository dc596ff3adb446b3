package file

import (
	"container/heap"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

const (
	// A file is committed when it was quiet for so long, at the latest so
	// long after its first change, and not again before it.
	quiet  = time.Second
	atMost = 5 * time.Second
	apart  = time.Second

	// A draft of so many bytes is committed while it is still written.
	large = 1 << 30

	// lingering is how long a closed file is remembered after a commit: long
	// enough for whoever read its node before that to come and open it.
	lingering   = 5 * time.Second
	lingerMost  = 16 << 10 // files
	firstRetry  = 250 * time.Millisecond
	retriesMost = time.Minute
)

// inode is the shared state of the handles on one file.
//
// Its content is top over frozen over base; each layer may be absent. Writes go
// to top. A commit turns top into frozen, which nobody changes, and base into what was
// frozen when it is done; see the package comment for what a crash leaves.
//
// There may be several inode objects for one number: each is a version that
// some handle opened before another device replaced it. Table.files has the one that new
// handles join, and only that one ever has layers.
type inode struct {
	t *Table

	// op is the turn of whoever changes the content, journals it or begins or
	// ends a commit.
	op        sync.Mutex
	journaled bool     // the journal has a record of this inode
	unsaved   bool     // the layers are no longer what the record says
	topSaved  bool     // the record includes top
	saves     uint64   // records written and dropped so far
	changes   uint64   // of the layers so far
	spent     []*layer // committed, but the journal record still names their files
	next      *version // what base is about to become, for the record

	// mu is held for changes together with op.
	mu      sync.RWMutex
	base    *version
	top     *layer
	frozen  *layer
	making  map[block.ID]struct{} // blocks of the commit under way
	removed bool                  // the last link is gone; changes with Table.mu too

	// ino changes with op, Table.mu and mu, and is read with any of them.
	ino  tree.Ino
	was  tree.Ino // its number as a conflict copy, before it was first written to
	mode uint32   // permission bits when it was opened

	wrote atomic.Int64 // time of the last write, ns

	// Guarded by Table.mu.
	handles   int
	writers   int
	drafted   bool      // it had a draft, so handles that write belong here
	due       time.Time // in the queue
	index     int       // in the queue plus 1; 0 if it is not there
	commit    *commit   // under way, or nil
	committed time.Time // end of the last commit
	retry     time.Time // after a failed commit: not before
	failures  int       // commits that failed since the last that did not
	lingers   bool
}

// upper returns the uppermost layer, or nil. The caller holds op or mu.
func (f *inode) upper() *layer {
	if f.top != nil {
		return f.top
	}
	return f.frozen
}

// layers returns the layers, the uppermost first.
func (f *inode) layers() []*layer {
	var buf [2]*layer
	ls := buf[:0]
	if f.top != nil {
		ls = append(ls, f.top)
	}
	if f.frozen != nil {
		ls = append(ls, f.frozen)
	}
	return ls
}

// size returns the present size in bytes. The caller holds op or mu.
func (f *inode) size() int64 {
	if l := f.upper(); l != nil {
		return l.size
	}
	return f.base.size
}

func (t *Table) newInode(n tree.Node) *inode {
	f := &inode{t: t, ino: n.Ino, was: n.Ino, mode: n.Mode, base: newVersion(n)}
	t.all[f] = struct{}{}
	return f
}

// detach takes f out of what an Open may join. The caller holds t.mu.
func (t *Table) detach(f *inode) {
	for _, ino := range [...]tree.Ino{f.ino, f.was} {
		if t.files[ino] == f {
			delete(t.files, ino)
		}
	}
}

// join returns the inode object that a handle on n belongs to, with the handle
// counted.
func (t *Table) join(n tree.Node, write bool) (*inode, error) {
	for again := false; ; again = true {
		t.mu.Lock()
		f := t.files[n.Ino]
		if f != nil {
			f.mu.RLock()
			fits := f.removed || f.upper() != nil || f.base.shows(n)
			f.mu.RUnlock()
			if !fits && !again {
				// Either n is from before a commit of this table, or another
				// device has replaced the content: ask which.
				t.mu.Unlock()
				fresh, err := t.o.Tree.Node(n.Ino)
				if err != nil {
					return nil, err
				}
				n = fresh
				continue
			}
			if !fits {
				f = nil
			}
		}
		if f == nil {
			f = t.newInode(n)
			if old := t.files[n.Ino]; old != nil && old.handles == 0 {
				t.drop(old)
			}
			t.files[n.Ino] = f
		}
		f.handles++
		if write {
			f.writers++
		}
		t.mu.Unlock()
		return f, nil
	}
}

// leave ends a handle.
func (t *Table) leave(f *inode, write bool) {
	t.mu.Lock()
	f.handles--
	if write {
		f.writers--
	}
	gone := false
	if f.handles == 0 {
		switch {
		case f.removed && f.commit == nil:
			gone = true
		case f.removed:
		case t.clean(f):
			t.letGo(f)
		}
	}
	if write && f.writers == 0 {
		t.schedule(f)
	}
	t.mu.Unlock()
	if gone {
		f.op.Lock()
		t.discard(f)
		f.op.Unlock()
	}
}

// clean reports whether f has no draft and no commit under way. The caller holds t.mu.
func (t *Table) clean(f *inode) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.upper() == nil && f.commit == nil
}

// letGo forgets a clean inode without handles, later if it was committed just
// now. The caller holds t.mu.
func (t *Table) letGo(f *inode) {
	t.sweep()
	if f.lingers {
		return
	}
	if f.committed.IsZero() || time.Since(f.committed) >= lingering {
		t.drop(f)
		return
	}
	f.lingers = true
	if t.linger = append(t.linger, f); len(t.linger) == 1 {
		t.poke()
	}
}

// sweep forgets the inodes that have lingered long enough. The caller holds t.mu.
func (t *Table) sweep() {
	n := 0
	for n < len(t.linger) {
		f := t.linger[n]
		if time.Since(f.committed) < lingering && len(t.linger)-n <= lingerMost && f.handles == 0 {
			break
		}
		n++
		f.lingers = false
		if f.handles == 0 && t.clean(f) {
			t.drop(f)
		}
	}
	t.linger = slices.Delete(t.linger, 0, n)
}

// drop forgets f. The caller holds t.mu.
func (t *Table) drop(f *inode) {
	delete(t.all, f)
	t.detach(f)
}

// dueQueue is a heap of inodes by the time at which they are to be committed.
type dueQueue []*inode

func (q dueQueue) Len() int           { return len(q) }
func (q dueQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q dueQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i+1, j+1
}

// Push implements heap.Interface.
func (q *dueQueue) Push(x any) {
	f := x.(*inode)
	*q = append(*q, f)
	f.index = len(*q)
}

// Pop implements heap.Interface.
func (q *dueQueue) Pop() any {
	old := *q
	f := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	f.index = 0
	return f
}

// schedule puts a dirty inode into the queue, at the time at which it is to be
// committed as things stand. The caller holds t.mu.
func (t *Table) schedule(f *inode) {
	if f.commit != nil {
		return // its end comes here again
	}
	f.mu.RLock()
	l := f.upper()
	if l == nil || f.removed {
		f.mu.RUnlock()
		t.unqueue(f)
		return
	}
	begun, bytes := time.Unix(0, l.begun), l.set.bytes
	f.mu.RUnlock()
	due := time.Now()
	if f.writers > 0 && bytes < large {
		due = time.Unix(0, f.wrote.Load()).Add(quiet)
		if last := begun.Add(atMost); due.After(last) {
			due = last
		}
	}
	for _, earliest := range [...]time.Time{f.committed.Add(apart), f.retry} {
		if due.Before(earliest) {
			due = earliest
		}
	}
	t.enqueue(f, due)
}

// enqueue sets the time at which f is committed. The caller holds t.mu.
func (t *Table) enqueue(f *inode, due time.Time) {
	f.due = due
	if f.index > 0 {
		heap.Fix(&t.queue, f.index-1)
	} else {
		heap.Push(&t.queue, f)
	}
	if f.index == 1 {
		t.poke()
	}
}

// poke makes Run look at the queue again.
func (t *Table) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// unqueue takes f out of the queue. The caller holds t.mu.
func (t *Table) unqueue(f *inode) {
	if f.index > 0 {
		heap.Remove(&t.queue, f.index-1)
	}
}
