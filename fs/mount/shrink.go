package mount

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"

	"github.com/roamfs/roamfs/sync/tree"
)

// pruneBatch is how many inodes the kernel is asked to forget at once.
const pruneBatch = 1000

// Shrink asks the kernel to forget the inodes that nothing uses, if it knows more than
// most: each costs this process some 700 bytes. Files go with their cached pages, and what is
// used again afterwards is asked for again. Kernels before 6.18 do not do it; they forget
// what they need the memory of.
func (m *Mount) Shrink(most int) {
	for _, dirs := range []bool{false, true} { // a directory is in use as long as what is in it is known
		nodes := m.idleNodes(most, dirs)
		for len(nodes) > 0 {
			n := min(len(nodes), pruneBatch)
			if errno := m.root.NotifyPrune(nodes[:n]); errno != 0 {
				if errno != syscall.ENOSYS {
					m.told("inodes to forget", errno)
				}
				return
			}
			nodes = nodes[n:]
		}
	}
}

// idleNodes returns the nodes of directories, or of everything else, that no program has
// open, if there are more than most nodes in all.
func (m *Mount) idleNodes(most int, dirs bool) []*fs.Inode {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.nodes) <= most {
		return nil
	}
	var nodes []*fs.Inode
	for _, p := range m.nodes {
		n := p.Value()
		if n == nil || (n.kind == tree.Dir) != dirs {
			continue
		}
		n.mu.Lock()
		if len(n.handles) == 0 {
			nodes = append(nodes, n.EmbeddedInode())
		}
		n.mu.Unlock()
	}
	return nodes
}
