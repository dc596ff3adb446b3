package mount

import (
	"context"
	"maps"
	"runtime"
	"weak"

	"github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/sync/tree"
)

// Inode numbers with the top bit are those of the virtual files under .roam.
const virtualBit = 1 << 63

// number is the inode number that programs see: a 63-bit hash of the identity,
// the same on every device. A collision does no harm in here, where nodes are
// told apart by identity, but may confuse programs that look for hard links;
// among a million files the chance is 1 in 10^7.
func number(ino tree.Ino) uint64 {
	if ino == tree.Root {
		return 1
	}
	h := uint64(14695981039346656037) // FNV-1a
	for _, b := range ino {
		h = (h ^ uint64(b)) * 1099511628211
	}
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	h ^= h >> 32
	h &^= virtualBit
	if h <= 1 { // 0 is "none" and 1 the root
		h += 2
	}
	return h
}

// typeBits returns the S_IFMT bits of a kind, 0 for one that is unknown.
func typeBits(k tree.Kind) uint32 {
	switch k {
	case tree.File:
		return unix.S_IFREG
	case tree.Dir:
		return unix.S_IFDIR
	case tree.Symlink:
		return unix.S_IFLNK
	case tree.Fifo:
		return unix.S_IFIFO
	}
	return 0
}

// node returns the node of an inode, a new one if the kernel knows none. parent
// is any node of the mount. Nodes are held by go-fuse for as long as the kernel
// knows them and only weakly here: go-fuse does not say when a node that it had
// given up is taken into use again by a lookup that was already under way.
func (m *Mount) node(ctx context.Context, parent *node, t tree.Node) *node {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.nodes[t.Ino].Value(); n != nil && n.kind == t.Kind {
		return n
	}
	n := &node{m: m, ino: t.Ino, kind: t.Kind}
	m.generation++ // each node has its own, so that go-fuse never takes two for one
	parent.NewInode(ctx, n, fs.StableAttr{Mode: typeBits(t.Kind), Ino: number(t.Ino), Gen: m.generation})
	m.nodes[t.Ino] = weak.Make(n)
	m.most = max(m.most, len(m.nodes))
	runtime.AddCleanup(n, m.sweep, t.Ino)
	return n
}

// sweep forgets a node that is no more, unless another has taken its place.
func (m *Mount) sweep(ino tree.Ino) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, ok := m.nodes[ino]; ok && p.Value() == nil {
		delete(m.nodes, ino)
	}
	if m.most > 1<<12 && len(m.nodes) < m.most/8 { // a map does not shrink by itself
		fewer := make(map[tree.Ino]weak.Pointer[node], len(m.nodes))
		maps.Copy(fewer, m.nodes)
		m.nodes, m.most = fewer, len(fewer)
	}
}

// known returns the node of an inode if the kernel may know it, else nil.
func (m *Mount) known(ino tree.Ino) *node {
	if ino == tree.Root {
		return m.root
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes[ino].Value()
}

// part takes a node out of the registry: from now on it stands for what the
// inode was, and the next lookup of the inode makes a new one.
func (m *Mount) part(n *node, was tree.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if m.nodes[n.ino].Value() == n {
		delete(m.nodes, n.ino)
	}
	if n.was == nil {
		n.was = &was
	}
}
