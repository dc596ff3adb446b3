package tree

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// An image is what a view keeps in memory, so that the view of the same records can
// be made again without reading all directories: a view of 100,000 of them in 0.2 s
// where NewView takes 3 s. It says nothing of conflicts but where they are; those
// are read, and named, as NewView does.
//
//	image   1 uvarint(n) n × (ino dir), uvarint(n) n × (ino place),
//	        uvarint(n) n × (ino uvarint(files)), uvarint(n) n × place
//	dir     parent(24) string(name) flags(1) wall(8) actor(8) uvarint(ctr)
//	        uvarint(live) uvarint(kids) [flags&4: prev place]
//	place   parent(24) string(name)
//
// The lists are: all directories, by inode; those that are not shown where their
// link says; the unknown parents; the places of conflicts. Flags are 1 deleted,
// 2 copy, 4 has a prev.
const imageVersion = 1

const (
	imageDeleted = 1 << iota
	imageCopy
	imagePrev
)

// The shortest encodings, by which a number of entries is checked before room is
// made for them.
const (
	minImageDir   = inoLen + inoLen + 1 + 1 + 8 + 8 + 1 + 1 + 1
	minImagePlace = inoLen + 1
)

// Image returns what [LoadView] makes the same view of, as long as the State does
// not change: some 90 bytes for each directory.
func (v *View) Image() []byte {
	b := append(make([]byte, 0, 96*v.dirs.len()+64), imageVersion)
	b = appendSorted(b, v.dirs, appendDir)
	b = appendSorted(b, v.displaced, appendPlace)
	b = appendSorted(b, v.lost, func(b []byte, files int32) []byte {
		return binary.AppendUvarint(b, uint64(files))
	})
	var places []Place
	v.noted.each(func(dir Ino, d *noted) {
		for name := range d.places {
			places = append(places, Place{dir, name})
		}
	})
	slices.SortFunc(places, Place.compare)
	b = binary.AppendUvarint(b, uint64(len(places)))
	for _, p := range places {
		b = appendPlace(b, p)
	}
	return b
}

func appendSorted[V any](b []byte, l *layer[Ino, V], add func([]byte, V) []byte) []byte {
	all := make(map[Ino]V, l.len())
	l.each(func(i Ino, v V) { all[i] = v })
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, i := range slices.SortedFunc(maps.Keys(all), Ino.Compare) {
		b = add(append(b, i[:]...), all[i])
	}
	return b
}

func appendPlace(b []byte, p Place) []byte {
	return appendBytes(append(b, p.Parent[:]...), p.Name)
}

func appendDir(b []byte, n dirNode) []byte {
	var flags byte
	if n.deleted {
		flags |= imageDeleted
	}
	if n.copy {
		flags |= imageCopy
	}
	if n.prev != nil {
		flags |= imagePrev
	}
	b = append(appendPlace(b, Place{n.parent, n.name}), flags)
	b = append(appendInt64(b, n.wall), n.dot.Actor[:]...)
	for _, x := range []uint64{n.dot.Ctr, uint64(n.live), uint64(n.kids)} {
		b = binary.AppendUvarint(b, x)
	}
	if n.prev != nil {
		b = appendPlace(b, *n.prev)
	}
	return b
}

// LoadView returns the view of s of which image is an image, made when s had the
// same records. The error is an [ErrRecord] if it is no image; NewView works then.
func LoadView(s State, image []byte, opts ...Option) (*View, error) {
	v := emptyView(s, opts)
	d := newDelta(v)
	if err := d.loadImage(image); err != nil {
		return nil, fmt.Errorf("load view: %w", err)
	}
	if err := d.loadRest(); err != nil {
		return nil, fmt.Errorf("load view: %w", err)
	}
	return v, nil
}

func (d *delta) loadImage(b []byte) error {
	v := d.v
	r := &reader{b: b}
	if version := r.byte(); r.err == nil && version != imageVersion {
		r.fail("format %d", version)
	}
	for range r.count(minImageDir) {
		ino := r.ino()
		v.dirs.set(ino, r.dirNode())
	}
	for range r.count(inoLen + minImagePlace) {
		ino := r.ino()
		v.displaced.set(ino, r.place())
	}
	for range r.count(inoLen + 1) {
		ino := r.ino()
		v.lost.set(ino, int32(r.uvarint(math.MaxInt32)))
	}
	for range r.count(minImagePlace) {
		d.places[r.place()] = true
	}
	if r.err == nil && (!v.dirs.has(Root) || !v.dirs.has(Recovered)) {
		r.fail("no root")
	}
	return r.end()
}

// count reads how many entries of at least size bytes follow; there is room for them.
func (r *reader) count(size int) int { return int(r.uvarint(uint64(len(r.b) / size))) }

func (r *reader) place() Place {
	parent := r.ino()
	return Place{parent, string(r.bytes(MaxName))}
}

func (r *reader) dirNode() dirNode {
	p, flags := r.place(), r.byte()
	if flags > imageDeleted|imageCopy|imagePrev {
		r.fail("flags %x", flags)
	}
	n := dirNode{parent: p.Parent, name: p.Name, deleted: flags&imageDeleted != 0, copy: flags&imageCopy != 0, wall: r.int64()}
	copy(n.dot.Actor[:], r.take(len(n.dot.Actor)))
	n.dot.Ctr = r.uvarint(math.MaxUint64)
	n.live, n.kids = int32(r.uvarint(math.MaxInt32)), int32(r.uvarint(math.MaxInt32))
	if flags&imagePrev != 0 {
		prev := r.place()
		n.prev = &prev
	}
	return n
}
