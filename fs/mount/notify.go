package mount

import (
	"errors"
	iofs "io/fs"
	"slices"
	"sync"
	"syscall"

	"github.com/roamfs/roamfs/sync/tree"
)

// Bounds of the queue. A directory with more names in it, and every directory
// once there are so many names in all, is looked through as a whole instead; so
// is everything that the kernel knows once there are so many inodes.
const (
	mostNames    = 1 << 16
	mostNamesDir = 1 << 12
	mostInodes   = 1 << 16
)

// pageSenders is how many inodes' pages are dropped at once. Each can wait for a
// page that is being fetched.
const pageSenders = 8

// nowhere is a name that no entry can have.
const nowhere = "/"

// queue holds what the kernel has still to be told. Adding to it never waits:
// it may be called from a request. What does not fit is coarsened, so it is
// bounded by the constants above and the number of directories that the kernel
// knows.
type queue struct {
	m *Mount

	mu     sync.Mutex
	wake   sync.Cond // L is &mu: something was entered, taken or is done
	dirs   map[tree.Ino]*dirNames
	inodes map[tree.Ino]bool
	all    bool           // all inodes
	drop   map[*node]bool // pages
	total  int            // names in dirs
	busy   int            // batches that are being sent
	closed bool
	wg     sync.WaitGroup
}

// dirNames are the names in one directory that may lead elsewhere now.
type dirNames struct {
	names map[string]bool
	all   bool // too many: all of them
}

func (q *queue) start(m *Mount) {
	q.m = m
	q.wake.L = &q.mu
	q.reset()
	q.drop = map[*node]bool{}
	q.wg.Go(q.sendNames)
	for range pageSenders {
		q.wg.Go(q.sendPages)
	}
}

func (q *queue) reset() {
	q.dirs, q.inodes, q.all, q.total = map[tree.Ino]*dirNames{}, map[tree.Ino]bool{}, false, 0
}

// close ends the queue; what is in it is not sent. The mount must be gone: a
// notification that waits in the kernel ends with it.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.wake.Broadcast()
	q.mu.Unlock()
	q.wg.Wait()
}

// affected is the subscriber of the tree.
func (q *queue) affected(a tree.Affected) {
	q.m.changes.Add(1)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if a.All {
		q.inodes, q.all = map[tree.Ino]bool{}, true
		for _, ino := range q.m.directories() {
			q.dirs[ino] = &dirNames{all: true}
		}
		q.total = 0
	}
	for _, p := range a.Entries {
		q.m.times.touch(p.Parent)
		q.nameLocked(p)
	}
	for _, ino := range a.Inodes {
		q.inodeLocked(ino)
	}
	q.wake.Broadcast()
}

func (q *queue) nameLocked(p tree.Place) {
	d := q.dirs[p.Parent]
	if d == nil {
		if q.m.known(p.Parent) == nil {
			return // no request can be under way in it
		}
		d = &dirNames{names: map[string]bool{}}
		q.dirs[p.Parent] = d
	}
	if d.all || d.names[p.Name] {
		return
	}
	if len(d.names) >= mostNamesDir || q.total >= mostNames {
		q.total -= len(d.names)
		d.names, d.all = nil, true
		return
	}
	d.names[p.Name] = true
	q.total++
}

// inodeLocked enters an inode, also one that the kernel does not know: the
// answer to a lookup may be on its way.
func (q *queue) inodeLocked(ino tree.Ino) {
	if len(q.inodes) >= mostInodes {
		q.inodes, q.all = map[tree.Ino]bool{}, true
	}
	if !q.all {
		q.inodes[ino] = true
	}
}

// inode enters an inode whose attributes or content are not what the kernel was told.
func (q *queue) inode(ino tree.Ino) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.inodeLocked(ino)
		q.wake.Broadcast()
	}
}

// pages enters a node whose pages are not what is to be read.
func (q *queue) pages(n *node) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.drop[n] = true
		q.wake.Broadcast()
	}
}

// idle waits until everything entered so far is sent.
func (q *queue) idle() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && (len(q.dirs)+len(q.inodes)+len(q.drop) > 0 || q.all || q.busy > 0) {
		q.wake.Wait()
	}
}

// take waits until ready and runs get, both with mu held; false if the queue is closed.
func (q *queue) take(ready func() bool, get func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !ready() && !q.closed {
		q.wake.Wait()
	}
	if q.closed {
		return false
	}
	get()
	q.busy++
	return true
}

func (q *queue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
	q.wake.Broadcast()
}

func (q *queue) sendNames() {
	for {
		var dirs map[tree.Ino]*dirNames
		var inodes map[tree.Ino]bool
		var all bool
		if !q.take(func() bool { return len(q.dirs)+len(q.inodes) > 0 || q.all }, func() {
			dirs, inodes, all = q.dirs, q.inodes, q.all
			q.reset()
		}) {
			return
		}
		for ino, d := range dirs {
			q.m.tellDir(ino, d)
		}
		if all {
			inodes = q.m.everything()
		}
		q.m.tellInodes(inodes)
		q.done()
	}
}

func (q *queue) sendPages() {
	for {
		var n *node
		if !q.take(func() bool { return len(q.drop) > 0 }, func() {
			for n = range q.drop {
				break
			}
			delete(q.drop, n)
		}) {
			return
		}
		n.m.told("pages", n.NotifyContent(0, 0))
		q.done()
	}
}

// settle returns when the lookups and listings that the kernel has under way in
// a directory are done with: a notification about a name takes the same lock.
func (n *node) settle() { n.m.told("settle", n.NotifyEntry(nowhere)) }

// told takes the result of a notification. That there is nothing to drop, or
// that a directory is in use, is no error, and neither is that the mount is gone.
func (m *Mount) told(what string, errno syscall.Errno) {
	switch errno {
	case 0, syscall.ENOENT, syscall.ENOTEMPTY, syscall.EBUSY, syscall.ENODEV, syscall.ENOTCONN, syscall.EBADF:
	default:
		m.log.Warn("the kernel refused a notification", "what", what, "err", errno)
	}
}

// tellDir makes the kernel ask again for names in a directory, and for its
// listing and attributes. The result of a notification says only whether there
// was something to drop.
func (m *Mount) tellDir(ino tree.Ino, d *dirNames) {
	dir := m.known(ino)
	if dir == nil {
		return
	}
	dir.settle()
	names := d.names
	if d.all {
		names = m.allNames(dir)
	}
	for name := range names {
		m.tellName(dir, name)
	}
	m.told("directory", dir.NotifyContent(0, 0))
}

// allNames returns every name of which the kernel may have a wrong idea: that
// it knows a child for, and that exists and may not have existed before.
func (m *Mount) allNames(dir *node) map[string]bool {
	names := map[string]bool{}
	for name := range dir.Children() {
		names[name] = true
	}
	entries, err := m.tree.List(dir.ino)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		m.log.Error("list a changed directory", "err", err)
	}
	for _, e := range entries {
		names[e.Name] = true
	}
	return names
}

// tellName drops a name unless it still leads where the kernel thinks.
func (m *Mount) tellName(dir *node, name string) {
	t, err := m.tree.Lookup(dir.ino, name)
	known := dir.child(name)
	if err == nil && known != nil && known == m.known(t.Ino) && known.kind == t.Kind {
		return
	}
	gone := false
	if known != nil && err != nil {
		_, err := m.tree.Node(known.ino)
		gone = errors.Is(err, iofs.ErrNotExist)
	}
	if dir.GetChild(name) != nil {
		dir.RmChild(name) // the children are what the kernel was last told
	}
	if gone {
		m.told("removal", dir.NotifyDelete(name, known.EmbeddedInode())) // tells inotify and whoever is inside, too
	} else {
		m.told("name", dir.NotifyEntry(name))
	}
}

// everything returns all inodes that the kernel knows.
func (m *Mount) everything() map[tree.Ino]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[tree.Ino]bool{}
	for ino := range m.nodes {
		all[ino] = true
	}
	return all
}

// directories returns all directories that the kernel knows.
func (m *Mount) directories() []tree.Ino {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []tree.Ino{tree.Root}
	for ino, p := range m.nodes {
		if n := p.Value(); n != nil && n.kind == tree.Dir {
			all = append(all, ino)
		}
	}
	return all
}

// tellInodes tells of inodes whose attributes or content may differ. An answer
// with the old attributes that is on its way to the kernel would come after the
// notification and stay, if it is the first that the kernel hears of an inode;
// so it is waited for.
func (m *Mount) tellInodes(inodes map[tree.Ino]bool) {
	settled := map[*node]bool{}
	for ino := range inodes {
		t, err := m.tree.Node(ino)
		if err != nil {
			continue
		}
		if dir := m.known(t.Parent); dir != nil && !settled[dir] {
			dir.settle()
			settled[dir] = true
		}
	}
	for ino := range inodes {
		m.tellInode(ino)
	}
}

// tellInode drops an inode's attributes, and its pages unless its open files
// keep the version that they opened.
func (m *Mount) tellInode(ino tree.Ino) {
	n := m.known(ino)
	if n == nil {
		return
	}
	if was, split := m.split(n); split {
		m.part(n, was)
		for name, dir := n.Parent(); dir != nil; name, dir = n.Parent() {
			if ok, _ := dir.RmChild(name); !ok {
				break
			}
			m.told("name", dir.NotifyEntry(name))
		}
		m.told("attributes", n.NotifyContent(-1, 0))
		return
	}
	m.told("attributes", n.NotifyContent(-1, 0)) // attributes only: never waits for a page that is being read
	m.notes.pages(n)
}

// split tells whether an inode has open files and another device has given it
// other content, or removed it. was is then what it was.
func (m *Mount) split(n *node) (was tree.Node, split bool) {
	n.mu.Lock()
	var open []tree.Node
	for h := range n.handles {
		open = append(open, h.t)
	}
	n.mu.Unlock()
	if len(open) == 0 {
		return was, false
	}
	t, err := m.tree.Node(n.ino)
	if errors.Is(err, iofs.ErrNotExist) {
		open[0].NLink = 0
		return open[0], true
	}
	if err != nil || m.ours(t) || t.Kind != tree.File {
		return was, false
	}
	if s := m.files.Stat(t); s.Size != t.Size || s.MTime != t.MTime {
		return was, false // with a draft, which is what shows until it is committed
	}
	for _, o := range open {
		if !m.ours(o) && slices.Equal(o.Base, t.Base) || sameContent(o, t) {
			return was, false
		}
	}
	open[0].NLink = t.NLink
	return open[0], true
}

func sameContent(a, b tree.Node) bool {
	return a.Size == b.Size && a.Ref.ID == b.Ref.ID && a.Ref.Depth == b.Ref.Depth && string(a.Inline) == string(b.Inline)
}

// ours tells whether the content that is shown was written on this device.
func (m *Mount) ours(t tree.Node) bool { return t.Author == m.self }
