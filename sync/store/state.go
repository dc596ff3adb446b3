package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/roamfs/roamfs/sync/tree"
)

var (
	_ tree.State    = (*Store)(nil)
	_ tree.Surveyor = (*Store)(nil)
	_ tree.Gatherer = (*Store)(nil)
)

const dotLen = 16

func appendDot(b []byte, d tree.Dot) []byte {
	b = append(b, d.Actor[:]...)
	return binary.BigEndian.AppendUint64(b, d.Ctr)
}

func readDot(b []byte) (d tree.Dot) {
	copy(d.Actor[:], b)
	d.Ctr = binary.BigEndian.Uint64(b[8:])
	return d
}

func recordKey(k tree.Key, d tree.Dot) []byte {
	b := make([]byte, 0, 1+len(k)+dotLen)
	b = append(b, 'r')
	b = append(b, k...)
	return appendDot(b, d)
}

func placePrefix(parent tree.Ino, name string, whole bool) []byte {
	b := make([]byte, 0, 1+24+len(name)+1+24+8+dotLen)
	b = append(b, 'p')
	b = append(b, parent[:]...)
	b = append(b, name...)
	if whole {
		b = append(b, 0)
	}
	return b
}

// placeKey is the row of the index by place for one link record.
func placeKey(k tree.Key, d tree.Dot, l tree.Link) []byte {
	ino := k.Ino()
	b := placePrefix(l.Parent, l.Name, true)
	b = append(b, ino[:]...)
	b = append(b, k.Sub()...)
	return appendDot(b, d)
}

// placeIno reads the inode out of an index row; the tail after it is
// lid(8) dot(16).
func placeIno(key []byte) (ino tree.Ino, err error) {
	n := len(key) - 24 - 8 - dotLen
	if n < 1+24+1+1 {
		return ino, fmt.Errorf("%w: index row of %d bytes", ErrDamaged, len(key))
	}
	copy(ino[:], key[n:])
	return ino, nil
}

// Records implements [tree.State].
func (s *Store) Records(ino tree.Ino) ([]tree.Record, error) {
	k := recordsOf(ino)
	r, ok, ticket := s.reads.get(k)
	if ok {
		return r.records, nil
	}
	out, err := s.readRecords(ino)
	if err == nil {
		s.reads.put(k, read{records: out}, ticket)
	}
	return out, err
}

// readRecords is Records from the database.
func (s *Store) readRecords(ino tree.Ino) ([]tree.Record, error) {
	var out []tree.Record
	err := s.view(func(txn *badger.Txn) error {
		var err error
		out, err = records(txn, append([]byte{'r'}, ino[:]...))
		return err
	})
	return out, err
}

// Gather implements [tree.Gatherer]. What lies in one directory was mostly born there
// and so lies together: that a directory of ten files is read in one go instead of
// eleven takes a third of the time.
func (s *Store) Gather(inos []tree.Ino, fn func(tree.Ino, []tree.Record)) error {
	if len(inos) == 0 {
		return nil
	}
	inos = slices.Clone(inos)
	slices.SortFunc(inos, tree.Ino.Compare)
	first, last := inos[0], inos[len(inos)-1]
	common := 0
	for common < len(first) && first[common] == last[common] {
		common++
	}
	return s.view(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = append([]byte{'r'}, first[:common]...)
		o.PrefetchValues = false
		it := txn.NewIterator(o)
		defer it.Close()
		key := make([]byte, 1+len(first))
		key[0] = 'r'
		for i, ino := range inos {
			copy(key[1:], ino[:])
			if i == 0 || it.Valid() && bytes.Compare(it.Item().Key(), key) < 0 {
				it.Seek(key)
			}
			recs, err := recordsAt(it, key)
			if err != nil {
				return err
			}
			fn(ino, recs)
		}
		return nil
	})
}

// records returns the records under prefix (with its table byte) in (key, dot) order.
func records(txn *badger.Txn, prefix []byte) ([]tree.Record, error) {
	o := badger.DefaultIteratorOptions
	o.Prefix = prefix
	o.PrefetchValues = false // values are small and lie beside their keys
	it := txn.NewIterator(o)
	defer it.Close()
	it.Seek(prefix)
	return recordsAt(it, prefix)
}

// recordsAt is records from where the iterator is, which it leaves behind them.
func recordsAt(it *badger.Iterator, prefix []byte) ([]tree.Record, error) {
	var out []tree.Record
	sorted := true
	for ; it.ValidForPrefix(prefix); it.Next() {
		r, err := recordOf(it.Item())
		if err != nil {
			return out, err
		}
		if n := len(out); n > 0 && out[n-1].ID().Compare(r.ID()) > 0 {
			sorted = false // keys of different lengths: the dot of one runs into the name of the other
		}
		out = append(out, r)
	}
	if !sorted {
		tree.SortRecords(out)
	}
	return out, nil
}

func recordOf(item *badger.Item) (tree.Record, error) {
	k := item.Key()
	if len(k) < 1+3+dotLen { // the shortest is a setting's
		return tree.Record{}, fmt.Errorf("%w: record key of %d bytes", ErrDamaged, len(k))
	}
	n := len(k) - dotLen
	v, err := item.ValueCopy(nil)
	if err != nil {
		return tree.Record{}, fmt.Errorf("read record: %w", err)
	}
	return tree.Record{Key: tree.Key(k[1:n]), Dot: readDot(k[n:]), Value: v}, nil
}

// scan calls fn for each row under prefix, in order.
func scan(txn *badger.Txn, prefix []byte, fn func(*badger.Item) error) error {
	o := badger.DefaultIteratorOptions
	o.Prefix = prefix
	o.PrefetchValues = false // values are small and lie beside their keys
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Seek(prefix); it.ValidForPrefix(prefix); it.Next() {
		if err := fn(it.Item()); err != nil {
			return err
		}
	}
	return nil
}

// Named implements [tree.State].
func (s *Store) Named(parent tree.Ino, name string) ([]tree.Ino, error) {
	k := namedIn(parent, name)
	r, ok, ticket := s.reads.get(k)
	if ok {
		return r.inos, nil
	}
	out, err := s.readNamed(parent, name)
	if err == nil {
		s.reads.put(k, read{inos: out}, ticket)
	}
	return out, err
}

// readNamed is Named from the database.
func (s *Store) readNamed(parent tree.Ino, name string) ([]tree.Ino, error) {
	return s.places(placePrefix(parent, name, true))
}

// Children implements [tree.State].
func (s *Store) Children(parent tree.Ino) ([]tree.Ino, error) {
	return s.places(placePrefix(parent, "", false))
}

// places returns the distinct inodes of the index rows under prefix.
func (s *Store) places(prefix []byte) ([]tree.Ino, error) {
	var out []tree.Ino
	err := s.view(func(txn *badger.Txn) error {
		return scan(txn, prefix, func(item *badger.Item) error {
			ino, err := placeIno(item.Key())
			if err != nil {
				return err
			}
			out = append(out, ino)
			return nil
		})
	})
	if len(out) > 1 {
		slices.SortFunc(out, tree.Ino.Compare)
		out = slices.Compact(out)
	}
	return out, err
}

// Names counts names of the tree, conflict copies and all, up to limit.
func (s *Store) Names(limit int) (n int, err error) {
	enough := errors.New("counted enough")
	err = s.view(func(txn *badger.Txn) error {
		return scan(txn, []byte{'p'}, func(*badger.Item) error {
			if n >= limit {
				return enough
			}
			n++
			return nil
		})
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return n, err
}

// Dirs implements [tree.State].
func (s *Store) Dirs(fn func(tree.Ino) error) error { return s.inos('d', fn) }

// Conflicted implements [tree.State].
func (s *Store) Conflicted(fn func(tree.Ino) error) error { return s.inos('c', fn) }

// Dead implements [tree.State].
func (s *Store) Dead(fn func(tree.Ino) error) error { return s.inos('g', fn) }

func (s *Store) inos(table byte, fn func(tree.Ino) error) error {
	var all []tree.Ino // fn may call back into the store, so no transaction is held meanwhile
	err := s.view(func(txn *badger.Txn) error {
		return scan(txn, []byte{table}, func(item *badger.Item) error {
			k := item.Key()
			if len(k) != 25 {
				return fmt.Errorf("%w: inode row of %d bytes", ErrDamaged, len(k))
			}
			all = append(all, tree.Ino(k[1:]))
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, ino := range all {
		if err := fn(ino); err != nil {
			return err
		}
	}
	return nil
}

// Survey implements [tree.Surveyor]: one pass over the index by place.
func (s *Store) Survey(fn func(parent tree.Ino, names []string) error) error {
	type place struct {
		parent tree.Ino
		names  []string
	}
	var all []place // fn may call back into the store, so no transaction is held meanwhile
	err := s.view(func(txn *badger.Txn) error {
		var parent, ino tree.Ino
		var name string
		first := true
		return scan(txn, []byte{'p'}, func(item *badger.Item) error {
			k := item.Key()
			i, err := placeIno(k)
			if err != nil {
				return err
			}
			p := tree.Ino(k[1:25])
			n := string(k[25 : len(k)-24-8-dotLen-1])
			if first || p != parent {
				all = append(all, place{parent: p})
			} else if n == name && i == ino {
				return nil
			}
			same := !first && p == parent && n == name // another inode at the place of the one before
			last := &all[len(all)-1]
			if (same || tree.Notable(n)) && (len(last.names) == 0 || last.names[len(last.names)-1] != n) {
				last.names = append(last.names, n)
			}
			parent, name, ino, first = p, n, i, false
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, p := range all {
		if err := fn(p.parent, p.names); err != nil {
			return err
		}
	}
	return nil
}

// Snapshot is a state of the records frozen in time.
type Snapshot struct{ txn *badger.Txn }

// Snapshot freezes the present state for reading. The caller must Release it.
func (s *Store) Snapshot() *Snapshot { return &Snapshot{s.db.NewTransaction(false)} }

// Release ends the snapshot.
func (n *Snapshot) Release() { n.txn.Discard() }

// Scan calls fn for every record whose key k has from <= k < to, inode by inode
// and in (key, dot) order within one; a nil bound is open.
func (n *Snapshot) Scan(from, to []byte, fn func(tree.Record) error) error {
	return n.inodes(from, to, func(_ tree.Ino, recs []tree.Record) error {
		for _, r := range recs {
			if err := fn(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// Inodes calls fn with all records of each inode, in (key, dot) order. They are its
// own only until it returns.
func (n *Snapshot) Inodes(fn func(tree.Ino, []tree.Record) error) error {
	return n.inodes(nil, nil, fn)
}

func (n *Snapshot) inodes(from, to []byte, fn func(tree.Ino, []tree.Record) error) error {
	var group []tree.Record
	var current tree.Ino
	flush := func() error {
		if len(group) == 0 {
			return nil
		}
		tree.SortRecords(group)
		err := fn(current, group)
		group = group[:0]
		return err
	}
	o := badger.DefaultIteratorOptions
	o.Prefix = []byte{'r'}
	o.PrefetchValues = false
	it := n.txn.NewIterator(o)
	defer it.Close()
	for it.Seek(append([]byte{'r'}, from...)); it.ValidForPrefix([]byte{'r'}); it.Next() {
		r, err := recordOf(it.Item())
		if err != nil {
			return err
		}
		if to != nil && bytes.Compare([]byte(r.Key), to) >= 0 {
			break
		}
		if ino := r.Key.Ino(); ino != current {
			if err := flush(); err != nil {
				return err
			}
			current = ino
		}
		group = append(group, r)
	}
	return flush()
}
