package file

import (
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// losses is what a power loss would leave: the tree as it was at some moment
// since its last sync, blocks since theirs, and of the draft files the pages that were synced.
type losses struct {
	m     *model
	trees []*fakeTree // since the last sync, the synced one first
	block *fakeBlocks // at the last sync
	files map[string][]byte
	names map[string]bool
}

func (l *losses) watch(t *Table) {
	t.datasync = func(f *os.File) error {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			return err
		}
		l.files[base(f.Name())] = b
		return nil
	}
	t.syncDir = func(dir string) error {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			l.names[e.Name()] = true
		}
		return err
	}
}

func base(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[i+1:]
		}
	}
	return path
}

// step is called before each change of the fakes.
func (l *losses) step(op string) {
	l.trees = append(l.trees, l.m.tree.clone())
	switch op {
	case "sync tree":
		l.trees = []*fakeTree{l.m.tree.clone()}
	case "sync blocks":
		l.block = l.m.blocks.clone()
	}
}

func (l *losses) reset() {
	l.trees = []*fakeTree{l.m.tree.clone()}
	l.block = l.m.blocks.clone()
	l.files = map[string][]byte{}
	l.names = map[string]bool{}
}

// cut is a power loss. Choose returns a number below n.
func (l *losses) cut(choose func(n int) int) crash {
	trees := append(slices.Clone(l.trees), l.m.tree.clone())
	c := crash{at: "power loss", tree: trees[choose(len(trees))], blocks: l.block.clone(), files: map[string][]byte{}}
	entries, _ := os.ReadDir(l.m.dir)
	for _, e := range entries {
		if !l.names[e.Name()] && choose(2) == 0 {
			continue
		}
		c.files[e.Name()] = l.files[e.Name()] // nothing if it was never synced
	}
	return c
}

// TestModelPower is TestModel with power losses: what was synced is there, and
// the tree names no block that is not.
func TestModelPower(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt)
		m.lost = &losses{m: m}
		m.lost.reset()
		m.watch()
		defer func() { m.forget(m.rig) }()
		acts := m.actions()
		delete(acts, "kill")
		acts["power loss"] = func(t *rapid.T) {
			c := m.lost.cut(func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "of what is lost") })
			r := m.revived(c, m.power)
			m.w.Release()
			m.adopt(r)
			m.lost.reset()
		}
		acts[""] = func(*rapid.T) { m.check() }
		rt.Repeat(acts)
	})
}
