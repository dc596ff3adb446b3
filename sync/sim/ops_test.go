package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing/synctest"

	"github.com/roamfs/roamfs/sync/tree"
)

// names of a history: few, so that they collide.
var letters = []string{"a", "b", "c"}

// op is one operation of a user.
type op struct {
	kind     string
	from, to string
	token    string
	flag     bool
	handle   int
}

func (o op) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %s", o.kind, o.from, o.to, o.token))
}

// pick draws an operation, mostly one that can succeed on m.
func (w *world) pick(m *machine) op {
	s, rng := m.seen, w.rng
	all := s.sorted
	dirs := []string{""}
	for _, p := range all {
		if s.paths[p].kind == tree.Dir && strings.Count(p, "/") < 3 {
			dirs = append(dirs, p)
		}
	}
	fresh := func() string { return dirs[rng.IntN(len(dirs))] + "/" + letters[rng.IntN(len(letters))] }
	old := func() string {
		if len(all) == 0 || rng.IntN(8) == 0 {
			return fresh()
		}
		return all[rng.IntN(len(all))]
	}
	either := func() string {
		if rng.IntN(3) == 0 {
			return old()
		}
		return fresh()
	}
	tok := func() string {
		if rng.IntN(12) == 0 {
			return "=" + strconv.Itoa(rng.IntN(2)) // the same content from several devices
		}
		w.tokens++
		return strconv.Itoa(w.tokens)
	}
	flag := rng.IntN(4) == 0
	if rng.IntN(40) == 0 {
		return op{kind: "remove all", from: dirs[rng.IntN(len(dirs))]}
	}
	if w.large && len(all) < 900 && rng.IntN(12) == 0 {
		return op{kind: "fill", from: fresh(), token: "=2"}
	}
	switch rng.IntN(22) {
	case 0, 1, 2, 3:
		return op{kind: "create", from: fresh(), token: tok(), flag: flag}
	case 4, 5:
		return op{kind: "mkdir", from: fresh(), flag: flag}
	case 6, 7, 8, 9:
		return op{kind: "write", from: old(), token: tok()}
	case 10, 11:
		return op{kind: "unlink", from: old()}
	case 12:
		return op{kind: "rmdir", from: old()}
	case 13, 14, 15:
		return op{kind: "rename", from: old(), to: either(), flag: flag}
	case 16:
		return op{kind: "exchange", from: old(), to: old()}
	case 17:
		return op{kind: "link", from: old(), to: fresh()}
	case 18:
		return op{kind: []string{"chmod", "mtime", "xattr", "noxattr"}[rng.IntN(4)], from: old(), token: strconv.Itoa(rng.IntN(100))}
	case 19:
		return op{kind: "open", from: old()}
	default:
		return op{kind: "late write", handle: rng.IntN(3), token: tok()}
	}
}

// split finds the directory of a path, which may not exist.
func (l *listing) split(path string) (tree.Ino, string) {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return tree.Root, path[i+1:]
	}
	if it, ok := l.paths[path[:i]]; ok {
		return it.ino, path[i+1:]
	}
	return tree.Ino{1, 2, 3}, path[i+1:]
}

// content is what a create makes: a file or a symlink.
func (o op) content() tree.Content {
	c := tree.Content{Kind: tree.File, Size: int64(len(o.token)), Inline: []byte(o.token), Mode: 0o644}
	if o.flag {
		c.Kind, c.Mode = tree.Symlink, 0o777
	}
	return c
}

// shared reports whether more than one device may have written token.
func shared(token string) bool { return len(token) > 1 && token[1] == '=' }

// do has the user of m carry out o, and checks what it did.
func (w *world) do(m *machine, o op) {
	before := m.seen
	it, exists := before.paths[o.from]
	if o.kind == "open" {
		if exists && it.kind == tree.File && len(m.handles) < 3 {
			n, err := m.rep.Node(it.ino)
			check(err)
			m.handles = append(m.handles, handle{it.ino, n.Base, it.token})
		}
		return
	}
	ino, err := w.carryOut(m, o)
	synctest.Wait()
	w.broken()
	if m.dead.Load() { // nobody was told that it is done
		w.logf("   the power went off")
		w.maybe(m, o)
		return
	}
	w.mu.Lock()
	m.ops++
	w.mu.Unlock()
	if err != nil {
		for _, ok := range []error{
			fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, tree.ErrNotEmpty, tree.ErrIsDir, tree.ErrNotDir,
			tree.ErrLoop, tree.ErrNoXattr, tree.ErrRecord,
		} {
			if errors.Is(err, ok) {
				w.logf("   %v", err)
				if after := list(m.rep, w.mayLose()); after.text != before.text {
					violate("a refused operation changes something:\n%s%s", before.text, after.text)
				}
				return
			}
		}
		if m.rep.OldCopy() != nil {
			return
		}
		violate("operation fails: %v", err)
	}
	after := list(m.rep, w.mayLose())
	m.seen, m.stale, m.affected = after, false, tree.Affected{}
	w.judge(m, o, ino, before, after)
}

// manyFiles are so many that the commit with them needs several transactions.
const manyFiles = 300

// fill makes a directory with many files.
func (m *machine) fill(dir tree.Ino, name string, c tree.Content) error {
	d, err := m.rep.Mkdir(dir, name, 0o755)
	for i := 0; err == nil && i < manyFiles; i++ {
		synctest.Wait() // how the device sees the burst must not depend on chance
		_, err = m.rep.Create(d.Ino, fmt.Sprint("many", i), c)
	}
	return err
}

// removeAll is rm -r of what the machine shows at path, and of the root all that is in it.
func (m *machine) removeAll(path string) error {
	for _, p := range slices.Backward(m.seen.sorted) { // what is in a directory comes after it
		if !strings.HasPrefix(p, path+"/") && p != path {
			continue
		}
		dir, name := m.seen.split(p)
		remove := m.rep.Unlink
		if m.seen.paths[p].kind == tree.Dir {
			remove = m.rep.Rmdir
		}
		if err := remove(dir, name); err != nil {
			return err
		}
		synctest.Wait()
	}
	return nil
}

// carryOut calls the operation.
func (w *world) carryOut(m *machine, o op) (tree.Ino, error) {
	s, r := m.seen, m.rep
	dir, name := s.split(o.from)
	it, exists := s.paths[o.from]
	ino := tree.Ino{9}
	if exists {
		ino = it.ino
	}
	switch o.kind {
	case "create":
		n, err := r.Create(dir, name, o.content())
		return n.Ino, err
	case "mkdir":
		mode := uint32(tree.DirMode)
		if o.flag {
			mode = 0o700
		}
		n, err := r.Mkdir(dir, name, mode)
		return n.Ino, err
	case "write":
		n, err := r.Node(ino)
		if err != nil {
			return ino, err
		}
		n, err = r.Write(ino, n.Base, o.content(), false)
		return n.Ino, err
	case "late write":
		if o.handle >= len(m.handles) {
			return ino, fs.ErrNotExist
		}
		n, err := r.Write(m.handles[o.handle].ino, m.handles[o.handle].base, o.content(), false)
		return n.Ino, err
	case "unlink":
		return ino, r.Unlink(dir, name)
	case "rmdir":
		return ino, r.Rmdir(dir, name)
	case "rename", "exchange":
		dir2, name2 := s.split(o.to)
		return ino, r.Rename(dir, name, dir2, name2, o.kind == "rename" && o.flag, o.kind == "exchange")
	case "fill":
		return ino, m.fill(dir, name, o.content())
	case "remove all":
		return ino, m.removeAll(o.from)
	case "link":
		dir2, name2 := s.split(o.to)
		_, err := r.Link(ino, dir2, name2)
		return ino, err
	case "chmod":
		return ino, r.Chmod(ino, 0o600)
	case "mtime":
		return ino, r.SetMTime(ino, 12345)
	case "xattr":
		return ino, r.SetXattr(ino, "user.x", []byte(o.token))
	case "noxattr":
		return ino, r.RemoveXattr(ino, "user.x")
	}
	panic("operation " + o.kind)
}

// judge checks that a successful operation did what it says (I8) and nothing
// else (I7), and notes which contents the user gave up.
func (w *world) judge(m *machine, o op, ino tree.Ino, before, after *listing) {
	was, is := before.paths[o.from], after.paths[o.from]
	_, there := after.paths[o.from]
	dst, dstWas := before.paths[o.to]
	var named []string // paths that may change, with all below
	var inos []tree.Ino
	var gone []string // contents that the user gave up
	token := "f" + o.token
	switch o.kind {
	case "create":
		named, token = []string{o.from}, o.content().Kind.String()[:1]+o.token
		w.write(m, token, ino)
		if is.token != token {
			violate("I8: create: shows %q", is.token)
		}
	case "mkdir":
		named = []string{o.from}
		if is.kind != tree.Dir {
			violate("I8: mkdir: no directory")
		}
	case "fill":
		named = []string{o.from}
		w.written[token] = true
		for i := range manyFiles {
			if p := fmt.Sprintf("%s/many%d", o.from, i); after.paths[p].token != token {
				violate("I8: fill: %q shows %q", p, after.paths[p].token)
			}
		}
	case "remove all":
		named = []string{o.from}
		for p, x := range before.paths {
			if under(p, o.from) {
				gone = append(gone, x.token)
			}
		}
		for p := range after.paths {
			if under(p, o.from) {
				violate("I8: remove all: shows %q", p)
			}
		}
	case "write":
		inos, gone = []tree.Ino{was.ino}, []string{was.token}
		w.write(m, token, ino)
		if is.token != token || is.ino != was.ino || is.mode != was.mode {
			violate("I8: write: shows %v", is)
		}
	case "late write":
		h := &m.handles[o.handle]
		gone = []string{h.token}
		for t, at := range m.wrote {
			if at == h.ino {
				gone = append(gone, t)
			}
		}
		slices.Sort(gone)
		n, err := m.rep.Node(ino)
		check(err)
		if string(n.Inline) != o.token {
			violate("I8: late write: shows %q", n.Inline)
		}
		w.write(m, token, ino)
		h.ino, h.base, h.token = ino, n.Base, token
		w.gaveUp(m, gone, after)
		return
	case "unlink":
		named, gone = []string{o.from}, []string{was.token}
		if there {
			violate("I8: unlink: shows %q", is.token)
		}
	case "rmdir":
		named = []string{o.from}
		if there {
			violate("I8: rmdir: still there")
		}
	case "rename", "exchange":
		if o.from == o.to || dstWas && dst.ino == was.ino {
			return
		}
		named = []string{o.from, o.to}
		if o.kind == "rename" && dstWas {
			gone = []string{dst.token}
		}
		if got := after.paths[o.to]; got.ino != was.ino && got.token != was.token {
			violate("I8: rename: shows %v at the new name, was %v", got, was)
		}
		if o.kind == "rename" && there {
			violate("I8: rename: shows %q at the old name", is.token)
		}
	case "link":
		named = []string{o.to}
		if got := after.paths[o.to]; got.ino != was.ino || got.token != was.token {
			violate("I8: link: shows %v", got)
		}
	case "chmod":
		inos = []tree.Ino{was.ino}
		if is.mode != 0o600 {
			violate("I8: chmod: mode %o", is.mode)
		}
	case "mtime":
		inos = []tree.Ino{was.ino}
		if is.kind != tree.Dir && is.mtime != 12345 {
			violate("I8: mtime: %d", is.mtime)
		}
	case "xattr", "noxattr":
		inos = []tree.Ino{was.ino}
		if want := "=" + o.token; o.kind == "xattr" && is.xattr != want || o.kind == "noxattr" && is.xattr != "" {
			violate("I8: %s: %q", o.kind, is.xattr)
		}
	}
	for _, pair := range [][2]*listing{{before, after}, {after, before}} {
		for p, x := range pair[0].paths {
			if slices.ContainsFunc(named, func(n string) bool { return under(p, n) }) || slices.Contains(inos, x.ino) {
				continue
			}
			y, ok := pair[1].paths[p]
			x.nlink = y.nlink // of another name of the same file, or of a directory with another subdirectory
			if x.kind == tree.Dir {
				x.mtime = y.mtime
			}
			if !ok || x != y {
				violate("I7: %v changes %q:\nbefore:\n%safter:\n%s", o, p, before.text, after.text)
			}
		}
	}
	w.gaveUp(m, gone, after)
}
