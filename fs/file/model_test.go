package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// crash is what is left of a device at one instant.
type crash struct {
	at     string
	tree   *fakeTree
	blocks *fakeBlocks
	files  map[string][]byte // draft files; holes are zeros
}

// snapshot takes what a kill -9 now would leave.
func (r *rig) snapshot(at string) crash {
	c := crash{at: at, tree: r.tree.clone(), blocks: r.blocks.clone(), files: map[string][]byte{}}
	entries, _ := os.ReadDir(r.dir)
	for _, e := range entries {
		if b, err := os.ReadFile(filepath.Join(r.dir, e.Name())); err == nil {
			c.files[e.Name()] = b
		}
	}
	return c
}

// revive starts a device on what a crash has left.
func (c crash) revive(tb tester) *rig {
	tb.Helper()
	keys, err := block.NewKeys(1, map[uint32]block.Secret{1: {7}})
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "roam-crash-*")
	if err != nil {
		tb.Fatal(err)
	}
	r := &rig{tb: tb, dir: dir, tree: c.tree.clone(), blocks: c.blocks.clone(), keys: keys}
	for name, b := range c.files {
		if err := writeSparse(filepath.Join(dir, name), b); err != nil {
			tb.Fatal(err)
		}
	}
	r.start()
	return r
}

// writeSparse writes b with holes where it has pages of zeros, which the tests
// do not write.
func writeSparse(path string, b []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for off := 0; off < len(b); off += pageSize {
		if p := b[off:min(off+pageSize, len(b))]; !zeros(p) {
			if _, err := f.WriteAt(p, int64(off)); err != nil {
				return errors.Join(err, f.Close())
			}
		}
	}
	return errors.Join(f.Truncate(int64(len(b))), f.Close())
}

// past is what a file was since the last moment from which it must not be lost.
type past [][]byte

// allows reports why got cannot come of a crash: each byte has to be what it
// was at some time since, and the size too. After a power loss, bytes of a page
// that changed since may be zeros: the page may be in the draft file for the sake of
// others in it.
func (p past) allows(got []byte, power bool) error {
	if !slices.ContainsFunc(p, func(s []byte) bool { return len(s) == len(got) }) {
		return fmt.Errorf("%d bytes, which it never had; last %d", len(got), len(p[len(p)-1]))
	}
	for i, b := range got {
		ok := power && b == 0 && p.changed(i&^(pageSize-1))
		for _, s := range p {
			ok = ok || max(at(s, i), 0) == int(b)
		}
		if !ok {
			return fmt.Errorf("byte %d of %d is %#x, which it never was; last %#x", i, len(got), b, at(p[len(p)-1], i))
		}
	}
	return nil
}

// changed reports whether the page at off was not always the same.
func (p past) changed(off int) bool {
	page := func(s []byte) []byte { return s[min(off, len(s)):min(off+pageSize, len(s))] }
	return slices.ContainsFunc(p, func(s []byte) bool { return !bytes.Equal(page(s), page(p[0])) })
}

func at(b []byte, i int) int {
	if i < len(b) {
		return int(b[i])
	}
	return -1
}

// model is one file as it should be, and the device under test.
type model struct {
	*rig
	ino    tree.Ino
	now    []byte
	kill   past // since the last close or commit
	power  past // since the last fsync
	w      *Handle
	seed   uint64
	during []func() // to be done in the middle of the next commit
	crash  *crash   // taken in the middle of it
	cutAt  int      // at this step
	steps  int
	fail   string // the operation that fails
	lost   *losses
	whole  bool // pages are written as a whole
}

func newModel(tb tester) *model {
	dir, err := os.MkdirTemp("", "roam-model-*")
	if err != nil {
		tb.Fatal(err)
	}
	m := &model{rig: rigIn(tb, dir), ino: inoOf(0)}
	m.tree.create(m.ino)
	m.now = []byte{}
	m.kill, m.power = past{m.now}, past{m.now}
	m.watch()
	m.w = m.open(m.ino, true)
	return m
}

// watch puts the model's hooks into the fakes.
func (m *model) watch() {
	hook := func(op string) error {
		if op == m.fail {
			return errCut
		}
		m.steps++
		if m.steps == m.cutAt {
			c := m.snapshot(op)
			if m.lost != nil {
				x := m.seed
				c = m.lost.cut(func(n int) int {
					x = x*6364136223846793005 + 1442695040888963407
					return int(x>>33) % n
				})
			}
			m.crash = &c
		}
		if m.lost != nil {
			m.lost.step(op)
		}
		if (op == "put block" || op == "sync blocks") && len(m.during) > 0 {
			do := m.during
			m.during = nil
			for _, f := range do {
				f()
			}
		}
		return nil
	}
	m.tree.hook, m.blocks.hook = hook, hook
	m.t.sealing = make(chan struct{}, 1) // so that there is one hook at a time
	if m.lost != nil {
		m.lost.watch(m.t)
	}
}

// is makes b the content.
func (m *model) is(b []byte) {
	m.now = b
	m.kill = append(m.kill, b)
	m.power = append(m.power, b)
}

func (m *model) resized(n int) []byte {
	b := make([]byte, n)
	copy(b, m.now)
	return b
}

func (m *model) writeAt(off, n int) {
	m.seed++
	p := noise(m.seed, n)
	b := m.resized(max(len(m.now), off+n))
	copy(b[off:], p)
	m.is(b) // before: a crash may find it half done
	m.write(m.w, p, int64(off))
}

func (m *model) zeroAt(off, n int, punch bool) {
	b := bytes.Clone(m.now)
	if off < len(b) {
		clear(b[off:min(off+n, len(b))])
	}
	if !punch && off+n > len(b) {
		b = append(b, make([]byte, off+n-len(b))...)
	}
	m.is(b)
	m.must(m.w.Allocate(context.Background(), int64(off), int64(n), punch, punch, !punch))
}

func (m *model) truncate(n int) {
	m.is(m.resized(n))
	m.must(m.w.Truncate(context.Background(), int64(n)))
}

func (m *model) flush() {
	m.must(m.w.Flush(context.Background()))
	m.kill = past{m.now}
}

func (m *model) sync() {
	m.must(m.w.Sync(context.Background()))
	m.kill, m.power = past{m.now}, past{m.now}
}

func (m *model) commit() {
	m.must(m.t.Commit(context.Background(), m.ino))
	if f := m.t.lookup(m.ino); f == nil || f.upper() == nil {
		m.kill = past{m.now}
	}
}

func (m *model) check() {
	m.tb.Helper()
	same(m.tb, "content", content(m.tb, m.w), m.now)
	if n := m.t.Stat(m.node(m.ino)); n.Size != int64(len(m.now)) {
		m.tb.Fatalf("stat: %d bytes, want %d", n.Size, len(m.now))
	}
}

// revived checks what a crash has left: the content, and that it commits to
// just that and leaves nothing behind.
func (m *model) revived(c crash, p past) *rig {
	m.tb.Helper()
	r := c.revive(m.tb)
	h := r.open(m.ino, false)
	got := content(m.tb, h)
	h.Release()
	if err := p.allows(got, m.lost != nil && !m.whole); err != nil {
		m.tb.Fatalf("after a crash before %s: %v", c.at, err)
	}
	r.must(r.t.Flush(context.Background()))
	same(m.tb, "committed after a crash", r.committed(r.node(m.ino)), got)
	if e, _ := os.ReadDir(r.dir); len(e) > 0 || len(r.tree.draft) > 0 {
		m.tb.Fatalf("after a crash before %s: %d draft files and %d records left", c.at, len(e), len(r.tree.draft))
	}
	if n := len(r.tree.files[m.ino]); n != 1 {
		m.tb.Fatalf("after a crash before %s: in conflict with itself: %d versions", c.at, n)
	}
	return r
}

func (m *model) forget(r *rig) { _ = os.RemoveAll(r.dir) }

func off(t *rapid.T, size int) int {
	return rapid.OneOf(
		rapid.IntRange(0, size),
		rapid.IntRange(0, size+smallDraft),
		rapid.Map(rapid.IntRange(0, size/4096), func(n int) int { return n * 4096 }),
		rapid.Just(size),
	).Draw(t, "off")
}

func length(t *rapid.T) int {
	return rapid.OneOf(
		rapid.IntRange(1, 100), rapid.Just(4096), rapid.IntRange(1, smallDraft), rapid.IntRange(1, 300<<10),
	).Draw(t, "len")
}

const modelMax = 2 << 20

func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"write": func(t *rapid.T) {
			o, n := off(t, len(m.now)), length(t)
			if o+n <= modelMax {
				m.writeAt(o, n)
			}
		},
		"append": func(t *rapid.T) {
			n := length(t)
			if len(m.now)+n > modelMax {
				return
			}
			m.seed++
			p := noise(m.seed, n)
			m.is(append(bytes.Clone(m.now), p...))
			if _, err := m.w.Append(context.Background(), p); err != nil {
				t.Fatal(err)
			}
		},
		"truncate": func(t *rapid.T) { m.truncate(min(off(t, len(m.now)), modelMax)) },
		"punch":    func(t *rapid.T) { m.zeroAt(off(t, len(m.now)), length(t), true) },
		"zero": func(t *rapid.T) {
			o, n := off(t, len(m.now)), length(t)
			if o+n <= modelMax {
				m.zeroAt(o, n, false)
			}
		},
		"read": func(t *rapid.T) {
			o, n := off(t, len(m.now)), length(t)
			p := make([]byte, n)
			got, err := m.w.ReadAt(context.Background(), p, int64(o))
			if err != nil {
				t.Fatal(err)
			}
			want := m.now[min(o, len(m.now)):min(o+n, len(m.now))]
			same(m.tb, "read", p[:got], want)
		},
		"flush": func(*rapid.T) { m.flush() },
		"sync":  func(*rapid.T) { m.sync() },
		"reopen": func(*rapid.T) {
			m.w.Release()
			m.w = m.open(m.ino, true)
		},
		"commit": func(t *rapid.T) {
			m.crash, m.steps, m.cutAt = nil, 0, rapid.IntRange(0, 12).Draw(t, "cut at")
			before := m.kill
			if m.lost != nil {
				before = m.power
			}
			m.during = nil
			if rapid.Bool().Draw(t, "write during the commit") {
				o, n, fl := off(t, len(m.now)), length(t), rapid.Bool().Draw(t, "flush")
				if o+n <= modelMax {
					m.during = append(m.during, func() {
						m.writeAt(o, n)
						if fl {
							m.flush()
						}
					})
				}
			}
			m.commit()
			m.cutAt = 0
			m.during = nil
			if m.crash != nil {
				// Before the flush in its middle the earlier past holds.
				p := append(slices.Clone(before), m.kill...)
				if m.lost != nil {
					p = append(p, m.power...)
				}
				m.forget(m.revived(*m.crash, p))
			}
		},
		"failing commit": func(t *rapid.T) {
			step := rapid.SampledFrom([]string{"put block", "sync blocks", "write", "put draft"}).Draw(t, "what fails")
			m.fail = step
			if err := m.t.Commit(context.Background(), m.ino); err != nil && !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			m.fail = ""
		},
		"kill": func(t *rapid.T) {
			r := m.revived(m.snapshot("the next step"), m.kill)
			m.w.Release()
			m.adopt(r)
		},
	}
}

// adopt goes on with a revived device.
func (m *model) adopt(r *rig) {
	m.forget(m.rig)
	m.rig = r
	m.watch()
	m.w = m.open(m.ino, true)
	m.now = content(m.tb, m.w)
	m.kill, m.power = past{m.now}, past{m.now}
}

// TestModel drives a file and a slice of bytes with the same steps, with
// crashes at any of them.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt)
		defer func() { m.forget(m.rig) }()
		acts := m.actions()
		acts[""] = func(*rapid.T) { m.check() }
		rt.Repeat(acts)
		m.w.Release()
		m.must(m.t.Flush(context.Background()))
		same(rt, "committed", m.committed(m.node(m.ino)), m.now)
		if m.t.purse.used != 0 {
			rt.Fatalf("%d bytes of room still taken", m.t.purse.used)
		}
	})
}
