package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// names of a history: few, so that they collide.
var letters = []string{"a", "b", "c"}

// op is one random operation.
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

// pick draws an operation, mostly one that can succeed on d.
func (h *history) pick(d *device) op {
	s, rng := d.shown, h.rng
	all := s.sorted
	dirs := []string{""}
	for _, p := range all {
		if s.paths[p].kind == Dir && strings.Count(p, "/") < 4 {
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
	any := func() string {
		if rng.IntN(3) == 0 {
			return old()
		}
		return fresh()
	}
	tok := func() string {
		if rng.IntN(5) == 0 {
			return "=" + strconv.Itoa(rng.IntN(2)) // the same content from several devices
		}
		h.tokens++
		return strconv.Itoa(h.tokens)
	}
	flag := rng.IntN(4) == 0
	n := rng.IntN(20)
	if h.moves && rng.IntN(5) > 0 && (!h.tidy || rng.IntN(2) == 0) {
		return op{kind: "rename", from: dirs[rng.IntN(len(dirs))], to: fresh()}
	}
	if h.writes && rng.IntN(3) > 0 {
		n = []int{4, 4, 18, 19, 19}[rng.IntN(5)]
	} else if h.tidy && rng.IntN(3) > 0 {
		n = []int{0, 0, 2, 2, 7, 7, 10, 10, 10, 11, 11, 11, 11, 17}[rng.IntN(14)]
	} else if h.dirs && rng.IntN(3) > 0 {
		n = []int{0, 2, 2, 10, 10, 11, 11, 11, 11, 15, 7}[rng.IntN(11)]
	}
	switch n {
	case 0, 1:
		return op{kind: "create", from: fresh(), token: tok(), flag: flag}
	case 2, 3:
		return op{kind: "mkdir", from: fresh(), flag: flag}
	case 4, 5, 6:
		return op{kind: "write", from: old(), token: tok()}
	case 7, 8, 9:
		return op{kind: "unlink", from: old()}
	case 10:
		return op{kind: "rmdir", from: old()}
	case 11, 12, 13, 14:
		return op{kind: "rename", from: old(), to: any(), flag: flag}
	case 15:
		return op{kind: "exchange", from: old(), to: old()}
	case 16:
		return op{kind: "link", from: old(), to: fresh()}
	case 17:
		return op{kind: []string{"chmod", "mtime", "xattr", "noxattr"}[rng.IntN(4)], from: old(), token: strconv.Itoa(rng.IntN(100))}
	case 18:
		return op{kind: "open", from: old()}
	default:
		return op{kind: "late write", handle: rng.IntN(4), token: tok()}
	}
}

// split finds the directory of a path, which may not exist.
func split(s *snap, path string) (Ino, string) {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return Root, path[i+1:]
	}
	if it, ok := s.paths[path[:i]]; ok {
		return it.ino, path[i+1:]
	}
	return Ino{1, 2, 3}, path[i+1:]
}

func fileContent(token string) Content {
	return Content{Kind: File, Size: int64(len(token)), Inline: []byte(token), Mode: 0o644}
}

// content is what a create makes: a file or a symlink.
func (o op) content() Content {
	c := fileContent(o.token)
	if o.flag {
		c.Kind, c.Mode = Symlink, 0o777
	}
	return c
}

// shared reports whether more than one device may have written token.
func shared(token string) bool { return len(token) > 1 && token[1] == '=' }

// do carries out o on d and checks what it did.
func (h *history) do(d *device, o op, now int64) {
	before := d.shown
	it, exists := before.paths[o.from]
	if o.kind == "open" {
		if exists && it.kind == File && len(d.handles) < 4 {
			n, err := d.view.Node(it.ino)
			must(err)
			d.handles = append(d.handles, handle{it.ino, n.Base, it.token})
		}
		return
	}
	e := d.view.Edit(Dot{d.actor, d.ctr}, d.index, now)
	if d.log[d.n] > 0 {
		e.Anchor()
	}
	err := h.edit(e, d, o, before)
	ch := e.Change()
	if err != nil {
		if !ch.Empty() {
			violate("refused operation (%v) changes something", err)
		}
		for _, ok := range []error{fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, ErrNotEmpty, ErrIsDir, ErrNotDir, ErrLoop, ErrNoXattr} {
			if errors.Is(err, ok) {
				if h.logs {
					h.logf("   %v", err)
				}
				return
			}
		}
		if errors.Is(err, ErrRecord) && it.kind == Symlink && o.kind == "write" {
			return // of another kind
		}
		violate("operation fails: %v", err)
	}
	for _, r := range ch.Put {
		if err := Check(r); err != nil || r.Dot != (Dot{d.actor, d.ctr}) {
			violate("record %v: %v", r, err)
		}
	}
	if h.check {
		must(e.flush())
	}
	p, perr := d.view.Prepare(ch)
	must(perr)
	d.mem.Apply(ch)
	d.mem.Advance(Dot{d.actor, d.ctr})
	d.did = true
	var scratch *View
	if h.check {
		scratch = h.newView(d.mem)
		sameMemory(e.v, scratch, "view of the Edit") // it stands on that of d as it is before Done
	}
	aff, perr := p.Done()
	must(perr)
	h.followed(d, scratch, aff)
	h.ended(d, ch)
	h.judge(d, o, before, d.shown)
}

// edit calls the operation.
func (h *history) edit(e *Edit, d *device, o op, s *snap) error {
	dir, name := split(s, o.from)
	it, exists := s.paths[o.from]
	ino := Ino{9}
	if exists {
		ino = it.ino
	}
	switch o.kind {
	case "create":
		_, err := e.Create(dir, name, o.content())
		return err
	case "mkdir":
		mode := uint32(DirMode)
		if o.flag {
			mode = 0o700
		}
		_, err := e.Mkdir(dir, name, mode)
		return err
	case "write":
		n, err := e.v.Node(ino)
		if err != nil {
			return err
		}
		got, err := e.Write(ino, n.Base, fileContent(o.token))
		if err == nil && got != ino {
			violate("write moves the inode")
		}
		return err
	case "late write":
		if o.handle >= len(d.handles) {
			return fs.ErrNotExist
		}
		_, err := e.Write(d.handles[o.handle].ino, d.handles[o.handle].base, fileContent(o.token))
		return err
	case "unlink":
		return e.Unlink(dir, name)
	case "rmdir":
		return e.Rmdir(dir, name)
	case "rename", "exchange":
		dir2, name2 := split(s, o.to)
		return e.Rename(dir, name, dir2, name2, o.kind == "rename" && o.flag, o.kind == "exchange")
	case "link":
		dir2, name2 := split(s, o.to)
		return e.Link(ino, dir2, name2)
	case "chmod":
		return e.Chmod(ino, 0o600)
	case "mtime":
		return e.SetMTime(ino, 12345)
	case "xattr":
		return e.SetXattr(ino, "user.x", []byte(o.token))
	case "noxattr":
		return e.RemoveXattr(ino, "user.x")
	}
	panic("operation " + o.kind)
}

// under reports whether path is top or lies below it.
func under(path, top string) bool { return path == top || strings.HasPrefix(path, top+"/") }

// judge checks I5 to I8 for a successful operation.
func (h *history) judge(d *device, o op, before, after *snap) {
	was, is := before.paths[o.from], after.paths[o.from]
	_, there := after.paths[o.from]
	dst, dstWas := before.paths[o.to]
	var named []string // paths that may change, with all below
	var inos []Ino     // inodes that may change under any path
	var gone []string  // contents that the user gave up
	switch o.kind {
	case "create":
		named = []string{o.from}
		want := o.content().Kind.String()[:1] + o.token
		h.keeps(d, want, is.ino, true)
		d.wrote[want] = is.ino
		h.written[want] = true
		if is.token != want {
			violate("I8: create: shows %q", is.token)
		}
	case "mkdir":
		named = []string{o.from}
		if is.kind != Dir {
			violate("I8: mkdir: no directory")
		}
		for p := range after.paths {
			if p != o.from && under(p, o.from) {
				violate("I8: mkdir: not empty: %q", p)
			}
		}
	case "write":
		inos, gone = []Ino{was.ino}, []string{was.token}
		d.wrote["f"+o.token] = was.ino
		h.keeps(d, "f"+o.token, was.ino, true)
		h.written["f"+o.token] = true
		if is.token != "f"+o.token || is.ino != was.ino || is.mode != was.mode {
			violate("I8: write: shows %v", is)
		}
	case "late write":
		hd := d.handles[o.handle]
		h.written["f"+o.token] = true
		n, err := d.view.Node(hd.ino)
		must(err)
		if token(&n) != "f"+o.token {
			violate("I8: late write: shows %q", token(&n))
		}
		d.handles[o.handle].base, d.handles[o.handle].token = n.Base, token(&n)
		h.keeps(d, "f"+o.token, hd.ino, true)
		h.lateWrite(d, hd, before, after)
		d.wrote["f"+o.token] = hd.ino
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
			break
		}
		named = []string{o.from, o.to}
		if o.kind == "rename" && dstWas {
			gone = []string{dst.token}
		}
		h.judgeMove(before, after, o.from, o.to)
		h.keeps(d, was.token, was.ino, false)
		if o.kind == "exchange" {
			h.judgeMove(before, after, o.to, o.from)
			h.keeps(d, dst.token, dst.ino, false)
		} else if there {
			violate("I8: rename: shows %q at the old name", is.token)
		}
	case "link":
		named = []string{o.to}
		h.keeps(d, was.token, was.ino, false)
		if got := after.paths[o.to]; got.ino != was.ino || got.token != was.token {
			violate("I8: link: shows %v", got)
		}
	case "chmod":
		inos = []Ino{was.ino}
		if is.mode != 0o600 {
			violate("I8: chmod: mode %o", is.mode)
		}
	case "mtime":
		inos = []Ino{was.ino}
		if is.kind != Dir && is.mtime != 12345 {
			violate("I8: mtime: %d", is.mtime)
		}
	case "xattr", "noxattr":
		inos = []Ino{was.ino}
		h.keeps(d, was.token, was.ino, false)
		if want := "=" + o.token; o.kind == "xattr" && is.xattr != want || o.kind == "noxattr" && is.xattr != "" {
			violate("I8: %s: %q", o.kind, is.xattr)
		}
	}
	for _, pair := range [][2]*snap{{before, after}, {after, before}} {
		for p, x := range pair[0].paths {
			if slices.ContainsFunc(named, func(n string) bool { return under(p, n) }) || slices.Contains(inos, x.ino) {
				continue
			}
			if y, ok := pair[1].paths[p]; !ok || x != y {
				violate("I7: %v changes %q:\nbefore:\n%vafter:\n%v", o, p, before, after)
			}
		}
	}
	h.kill(d, gone, strings.Contains(o.kind, "write"), before, after)
}

// kill notes contents that the user gave up and that nothing shows any more.
func (h *history) kill(d *device, gone []string, over bool, before, after *snap) {
	for _, token := range gone {
		switch {
		case token == "":
		case after.contents[token] && over: // elsewhere, where a write changes nothing
		case after.contents[token]: // under another name
			for _, x := range before.paths {
				if x.token == token {
					h.keeps(d, token, x.ino, false)
				}
			}
		case over:
			h.killed[token] = true
		default:
			for _, a := range h.acts[token] {
				if d.knows[a.id] {
					h.removed[a.id] = true
				}
			}
		}
	}
	h.checkKept(before.contents, d.knows, after)
	h.checkWritten(after)
}

// lateWrite: a write on what was opened before gives up only that; contents that
// came since get names of their own.
func (h *history) lateWrite(d *device, hd handle, before, after *snap) {
	gone := []string{hd.token}
	for token, ino := range d.wrote {
		if ino == hd.ino {
			gone = append(gone, token) // the device itself wrote over it
		}
	}
	for p, x := range before.paths {
		if y := after.paths[p]; x.ino != hd.ino && x != y && !shared(x.token) && !slices.Contains(gone, x.token) {
			violate("I7: late write changes %q:\nbefore:\n%vafter:\n%v", p, before, after)
		}
	}
	h.kill(d, gone, true, before, after)
}

// judgeMove: all that was at from is at to.
func (h *history) judgeMove(before, after *snap, from, to string) {
	for p, x := range before.paths {
		if !under(p, from) {
			continue
		}
		q := to + strings.TrimPrefix(p, from)
		if p == from && x.kind == Dir {
			x.mtime = after.paths[q].mtime
		}
		y := after.paths[q]
		if p == from {
			x.conflict = y.conflict
		}
		if x != y {
			violate("I8: rename: %q was %v and %q is %v", p, x, q, y)
		}
	}
	if _, was := before.paths[from]; !was {
		return
	}
	for q := range after.paths {
		if _, ok := before.paths[from+strings.TrimPrefix(q, to)]; under(q, to) && !ok {
			violate("I8: rename: %q came from nowhere", q)
		}
	}
}
