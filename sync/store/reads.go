package store

import (
	"bytes"
	"slices"
	"sync"

	"github.com/roamfs/roamfs/sync/tree"
)

// reads keeps in memory what was read and written of the tree lately: the
// records of inodes and the inodes at names, also that there are none.
//
// Making one small file through the mount asks for the same few of them about
// twenty times, and each question costs Badger an iterator over all its tables:
// that was a fifth of the daemon's CPU time while files were made.
//
// It is exact. An entry is the committed state as long as it is here: a
// transaction takes out all that it touches before it commits, and nothing is
// put in that was read, or computed, while any other commit was under way.
type reads struct {
	mu       sync.Mutex
	limit    int // bytes of one generation
	gen      uint64
	changing int // transactions between leave and enter

	// Two generations: what is used moves to the young one; when that is full it
	// becomes the old one, and what was not used since the last time goes.
	young, old map[readKey]read
	bytes      int // of young
}

// readsLimit bounds one of the two generations, in bytes. It holds some 8,000
// inodes: those of files on the way from being made to being committed.
const readsLimit = 4 << 20

// readKey names the records of ino, or with named set the inodes at name in it.
type readKey struct {
	ino   tree.Ino
	name  string
	named bool
}

type read struct {
	records []tree.Record
	inos    []tree.Ino // sorted, each once
}

func (k readKey) size(r read) int {
	n := 160 + len(k.name) + len(r.inos)*len(tree.Ino{})
	for _, rec := range r.records {
		n += 64 + len(rec.Key) + len(rec.Value)
	}
	return n
}

func recordsOf(ino tree.Ino) readKey               { return readKey{ino: ino} }
func namedIn(parent tree.Ino, name string) readKey { return readKey{parent, name, true} }

func (c *reads) init(limit int) {
	c.limit, c.young, c.old = limit, map[readKey]read{}, map[readKey]read{}
}

// get returns what is known of k. If nothing is, ticket goes to put with what
// is then read.
func (c *reads) get(k readKey) (r read, ok bool, ticket uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok = c.getLocked(k)
	return r, ok, c.gen
}

func (c *reads) getLocked(k readKey) (read, bool) {
	if r, ok := c.young[k]; ok {
		return r, true
	}
	r, ok := c.old[k]
	if ok {
		delete(c.old, k)
		c.setLocked(k, r)
	}
	return r, ok
}

// put enters what was read from the database, unless something was committed
// since the ticket was given.
func (c *reads) put(k readKey, r read, ticket uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changing == 0 && c.gen == ticket {
		c.setLocked(k, r)
	}
}

func (c *reads) setLocked(k readKey, r read) {
	if k.ino[0] == 0xff {
		return // settings stand there, whose keys may be shorter than an inode
	}
	n := k.size(r)
	if n > c.limit/8 {
		c.dropLocked(k)
		return
	}
	if c.bytes+n > c.limit {
		c.old, c.young, c.bytes = c.young, map[readKey]read{}, 0
	}
	c.dropLocked(k)
	c.young[k] = r
	c.bytes += n
}

func (c *reads) dropLocked(k readKey) {
	if r, ok := c.young[k]; ok {
		c.bytes -= k.size(r)
		delete(c.young, k)
	}
	delete(c.old, k)
}

// delta is what one transaction changes, as far as reads must know.
type delta struct {
	c      *reads
	ticket uint64 // of the state that was and is below build on
	inos   map[tree.Ino]*inoDelta
	places map[readKey]bool // touched; true if an inode whose records are not known did
	after  map[readKey]read // what can be entered once it is committed
}

// inoDelta is one inode that a transaction touches. Was and is count only if known.
type inoDelta struct {
	known   bool
	was, is []tree.Record
	places  []readKey // that it comes to or leaves

	counted bool // rows are those that the transaction leaves so far
	rows    rows
}

func (c *reads) delta() *delta {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &delta{c: c, ticket: c.gen}
}

// ino returns the change of ino so far.
func (d *delta) ino(ino tree.Ino) *inoDelta {
	if x, ok := d.inos[ino]; ok {
		return x
	}
	x := &inoDelta{}
	c := d.c
	c.mu.Lock()
	if r, ok := c.getLocked(recordsOf(ino)); ok && c.changing == 0 && c.gen == d.ticket {
		x.known, x.was, x.is = true, r.records, r.records
	}
	c.mu.Unlock()
	if d.inos == nil {
		d.inos, d.places = map[tree.Ino]*inoDelta{}, map[readKey]bool{}
	}
	d.inos[ino] = x
	return x
}

// born says that the database has nothing of ino.
func (d *delta) born(ino tree.Ino) {
	if x := d.ino(ino); !x.known {
		x.known, x.was, x.is = true, nil, nil
	}
}

func (d *delta) put(r tree.Record) {
	x := d.ino(r.Key.Ino())
	if !x.known {
		return
	}
	r.Value = bytes.Clone(r.Value) // it may be part of something much larger
	i, found := slices.BinarySearchFunc(x.is, r.ID(), byID)
	if found {
		x.is = slices.Clone(x.is)
		x.is[i] = r
	} else {
		x.is = slices.Insert(slices.Clip(x.is), i, r)
	}
}

// find returns the record id as it is now, if its inode is known.
func (d *delta) find(id tree.KeyDot) (r tree.Record, found, known bool) {
	x := d.ino(id.Key.Ino())
	if !x.known {
		return r, false, false
	}
	i, found := slices.BinarySearchFunc(x.is, id, byID)
	if found {
		r = x.is[i]
	}
	return r, found, true
}

func (d *delta) drop(id tree.KeyDot) {
	x := d.ino(id.Key.Ino())
	if !x.known {
		return
	}
	if i, found := slices.BinarySearchFunc(x.is, id, byID); found {
		x.is = slices.Delete(slices.Clone(x.is), i, i+1)
	}
}

func byID(r tree.Record, id tree.KeyDot) int { return r.ID().Compare(id) }

// place says that a link record of ino comes to or leaves a place.
func (d *delta) place(ino tree.Ino, l tree.Link) {
	k, x := namedIn(l.Parent, l.Name), d.ino(ino)
	d.places[k] = d.places[k] || !x.known
	x.places = append(x.places, k)
}

// leave takes out what the transaction touches. It comes right before the commit.
func (d *delta) leave() {
	if len(d.inos) == 0 {
		return
	}
	c := d.c
	c.mu.Lock()
	defer c.mu.Unlock()
	exact := c.changing == 0 && c.gen == d.ticket
	d.after = map[readKey]read{}
	for k, blind := range d.places {
		if r, ok := c.getLocked(k); ok && exact && !blind {
			d.after[k] = r
		}
		c.dropLocked(k)
	}
	for ino, x := range d.inos {
		c.dropLocked(recordsOf(ino))
		if !exact || !x.known {
			continue
		}
		d.after[recordsOf(ino)] = read{records: x.is}
		for _, k := range x.places {
			if r, ok := d.after[k]; ok {
				d.after[k] = read{inos: x.member(k, ino, r.inos)}
			}
		}
	}
	c.changing++
	c.gen++
	d.ticket = c.gen
}

// member returns inos, those at the place k, with or without ino as its records
// now say.
func (x *inoDelta) member(k readKey, ino tree.Ino, inos []tree.Ino) []tree.Ino {
	at := slices.ContainsFunc(x.is, func(r tree.Record) bool {
		if r.Key.Type() != tree.TypeLink {
			return false
		}
		l, err := tree.DecodeLink(r.Value)
		return err == nil && l.Parent == k.ino && l.Name == k.name
	})
	i, found := slices.BinarySearchFunc(inos, ino, tree.Ino.Compare)
	switch {
	case at && !found:
		return slices.Insert(slices.Clip(inos), i, ino)
	case !at && found:
		return slices.Delete(slices.Clone(inos), i, i+1)
	}
	return inos
}

// enter follows the commit. What the transaction has made is entered if it
// succeeded and no other came between.
func (d *delta) enter(ok bool) {
	if len(d.inos) == 0 {
		return
	}
	c := d.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changing--
	if ok && c.changing == 0 && c.gen == d.ticket {
		for k, r := range d.after {
			c.setLocked(k, r)
		}
	}
	c.gen++
}
