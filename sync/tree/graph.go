package tree

import "slices"

// dirNode is what the view remembers of a directory, skeletons included.
type dirNode struct {
	parent  Ino // where the winning link says it is
	name    string
	prev    *Place
	wall    int64 // of the last change of place, ns
	dot     Dot
	deleted bool
	copy    bool

	live int32 // files shown in it; counted only while deleted, and for Recovered
	kids int32 // directories shown in it
}

// visible: a deleted directory is shown as long as it has something to show.
func (n *dirNode) visible() bool { return !n.deleted || n.live > 0 || n.kids > 0 }

// sameLink reports whether both come from the same link.
func (n *dirNode) sameLink(o *dirNode) bool {
	samePrev := n.prev == o.prev || n.prev != nil && o.prev != nil && *n.prev == *o.prev
	return n.parent == o.parent && n.name == o.name && samePrev && n.wall == o.wall && n.dot == o.dot && n.deleted == o.deleted && n.copy == o.copy
}

func nodeOf(l *link) dirNode {
	return dirNode{parent: l.Parent, name: l.Name, prev: l.Prev, wall: l.LocTime, dot: l.dot, deleted: l.Deleted, copy: l.Copy}
}

// known reports whether links placed in dir are shown there, and not in
// Recovered.
func (v *View) known(dir Ino) bool { return dir != Recovered && v.dirs.has(dir) }

// shows reports whether dir is a directory that is shown.
func (v *View) shows(dir Ino) bool {
	n, ok := v.dirs.get(dir)
	return ok && n.visible()
}

// rendered is where a file's link is shown, but for the name if it is made up.
func (v *View) rendered(l *Link) Place {
	if v.known(l.Parent) {
		return Place{l.Parent, l.Name}
	}
	return Place{Recovered, l.Name}
}

// placeOf is where a directory is shown, but for the name if it is made up. The
// root and what is no directory have no place.
func (v *View) placeOf(dir Ino) (Place, bool) {
	if at, ok := v.displaced.get(dir); ok {
		return at, true
	}
	n, ok := v.dirs.get(dir)
	return Place{n.parent, n.name}, ok && dir != Root
}

// up calls fn for dir and its ancestors, the root last, until fn returns false.
func (v *View) up(dir Ino, fn func(Ino, dirNode) bool) {
	for {
		n, ok := v.dirs.get(dir)
		if !ok || !fn(dir, n) || dir == Root {
			return
		}
		at, _ := v.placeOf(dir)
		dir = at.Parent
	}
}

// within reports whether dir is top or lies below it.
func (v *View) within(dir, top Ino) (is bool) {
	v.up(dir, func(i Ino, _ dirNode) bool {
		is = i == top
		return !is
	})
	return is
}

// arrange works out where every directory is shown and how many directories
// each one shows: step 3 and half of step 5 of the package comment. It is linear
// but for directories in cycles.
func (v *View) arrange() {
	n := v.dirs.len()
	a := arranger{index: make(map[Ino]int32, n), inos: make([]Ino, 0, n), nodes: make([]dirNode, 0, n)}
	for _, i := range []Ino{Root, Recovered} {
		n, _ := v.dirs.get(i)
		a.add(i, n)
	}
	v.dirs.each(func(i Ino, n dirNode) {
		if i != Root && i != Recovered {
			a.add(i, n)
		}
	})
	a.connect()
	a.breakCycles()
	a.countKids()
	v.displaced.each(func(i Ino, _ Place) { a.stale = append(a.stale, i) })
	for _, i := range a.stale {
		v.displaced.del(i)
	}
	for i, ino := range a.inos {
		if at := a.at[i]; at != nil {
			v.displaced.set(ino, *at)
		}
		if a.nodes[i].kids != a.kids[i] {
			a.nodes[i].kids = a.kids[i]
			v.dirs.set(ino, a.nodes[i])
		}
	}
}

// arranger is the working state of arrange; directories are numbered, 0 is the
// root and 1 is Recovered.
type arranger struct {
	index  map[Ino]int32
	inos   []Ino
	nodes  []dirNode
	parent []int32
	at     []*Place // where it is shown, if not where its link says
	moved  []bool   // it was put back to prev already
	kids   []int32
	stale  []Ino
}

const (
	rootIndex      = 0
	recoveredIndex = 1
)

func (a *arranger) add(i Ino, n dirNode) {
	a.index[i] = int32(len(a.inos))
	a.inos, a.nodes = append(a.inos, i), append(a.nodes, n)
}

// find numbers the directory that things placed in p are shown in.
func (a *arranger) find(p Ino) int32 {
	if i, ok := a.index[p]; ok {
		return i
	}
	return recoveredIndex
}

func (a *arranger) connect() {
	n := len(a.inos)
	a.parent, a.at, a.moved, a.kids = make([]int32, n), make([]*Place, n), make([]bool, n), make([]int32, n)
	for i := recoveredIndex + 1; i < n; i++ {
		p := a.find(a.nodes[i].parent)
		a.parent[i] = p
		if p == recoveredIndex {
			a.at[i] = &Place{Recovered, a.nodes[i].name}
		}
	}
}

// breakCycles moves the youngest of each cycle until none is left. Cycles do
// not share directories and what is done to one leaves the others as they are,
// so the order in which they are found does not matter.
func (a *arranger) breakCycles() {
	const fresh, walking, done = 0, 1, 2
	state := make([]uint8, len(a.inos))
	step := make([]int, len(a.inos)) // index in path
	state[rootIndex], state[recoveredIndex] = done, done
	var path []int32
	for start := range a.inos {
		path = path[:0]
		for i := int32(start); state[i] != done; {
			if state[i] == fresh {
				state[i], step[i] = walking, len(path)
				path = append(path, i)
				i = a.parent[i]
				continue
			}
			young := slices.MaxFunc(path[step[i]:], a.younger)
			a.putBack(young)
			for _, j := range path[step[young]+1:] {
				state[j] = fresh
			}
			path = path[:step[young]+1]
			i = a.parent[young]
		}
		for _, i := range path {
			state[i] = done
		}
	}
}

// younger compares by the time of the last move, then dot, then inode.
func (a *arranger) younger(i, j int32) int {
	x, y := &a.nodes[i], &a.nodes[j]
	switch {
	case x.wall != y.wall:
		if x.wall < y.wall {
			return -1
		}
		return 1
	case x.dot != y.dot:
		return x.dot.Compare(y.dot)
	}
	return a.inos[i].Compare(a.inos[j])
}

// putBack attaches i where it was before its last move, the second time, or if
// that has gone, at the root, where no cycle can be.
func (a *arranger) putBack(i int32) {
	n, prev := &a.nodes[i], int32(recoveredIndex)
	if n.prev != nil && !a.moved[i] {
		prev = a.find(n.prev.Parent)
	}
	if prev != recoveredIndex {
		a.parent[i] = prev
		a.at[i] = &Place{a.inos[prev], n.prev.Name}
	} else {
		a.parent[i] = rootIndex
		a.at[i] = &Place{Root, n.name}
	}
	a.moved[i] = true
}

func (a *arranger) countKids() {
	seen := make([]bool, len(a.inos))
	for i := range a.nodes {
		if n := &a.nodes[i]; n.deleted && n.live == 0 {
			continue
		}
		for j := int32(i); j != rootIndex && !seen[j]; j = a.parent[j] {
			seen[j] = true
			a.kids[a.parent[j]]++
		}
	}
}
