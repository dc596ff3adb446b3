package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/roamfs/roamfs/sync/tree"
)

// Tx is a set of writes that happen together. It is valid inside the function
// given to [Store.Update] only.
type Tx struct {
	txn   *badger.Txn
	delta *delta // what it changes of the tree
	err   error  // the first error; later writes do nothing

	entries *entries
	drafts  map[tree.Ino]uint32 // rows of the journal entries that it has written, 0 for a dropped one
}

// Update runs fn and then makes its writes visible and safe from kill -9, all
// or none. It reports [ErrTooBig] if there are too many for one transaction.
func (s *Store) Update(fn func(*Tx) error) error {
	d := s.reads.delta()
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	tx := &Tx{txn: txn, delta: d, entries: &s.entries}
	err := fn(tx)
	if tx.err != nil { // what fn returned may only be a consequence
		err = fmt.Errorf("write to database: %w", tx.err)
	}
	if errors.Is(err, badger.ErrTxnTooBig) {
		return ErrTooBig
	}
	if err != nil {
		return err
	}
	d.leave()
	err = txn.Commit()
	d.enter(err == nil)
	s.entries.end(tx.drafts, err == nil)
	if err != nil {
		return fmt.Errorf("write to database: %w", err)
	}
	s.watched(false)
	return nil
}

// ErrTooBig means that the writes of one [Store.Update] do not fit a transaction.
var ErrTooBig = errors.New("too many writes in one transaction")

func (t *Tx) set(k, v []byte) {
	if t.err == nil {
		t.err = t.txn.Set(k, v)
	}
}

func (t *Tx) delete(k []byte) {
	if t.err == nil {
		t.err = t.txn.Delete(k)
	}
}

// Apply changes the records and their indexes. Putting a record that is there
// replaces it; dropping one that is not does nothing.
func (t *Tx) Apply(ch tree.Change) error {
	for _, ino := range ch.Born {
		t.delta.born(ino)
	}
	recount := map[tree.Ino]struct{}{} // inodes whose rows without a value may change
	for _, kd := range ch.Drop {
		key := recordKey(kd.Key, kd.Dot)
		if kd.Key.Type() == 'L' {
			if err := t.dropPlace(key, kd.Key, kd.Dot); err != nil {
				return err
			}
		}
		recount[kd.Key.Ino()] = struct{}{}
		t.delete(key)
		t.delta.drop(kd)
	}
	for _, r := range ch.Put {
		key := recordKey(r.Key, r.Dot)
		recount[r.Key.Ino()] = struct{}{}
		if r.Key.Type() == 'L' {
			l, err := tree.DecodeLink(r.Value)
			if err != nil {
				return fmt.Errorf("put link record: %w", err)
			}
			if err := t.dropPlace(key, r.Key, r.Dot); err != nil {
				return err
			}
			var flags byte
			if l.Dir {
				flags = 1
			}
			t.set(placeKey(r.Key, r.Dot, l), []byte{flags})
			t.delta.place(r.Key.Ino(), l)
		}
		t.set(key, r.Value)
		t.delta.put(r)
	}
	for ino := range recount {
		if ino[0] == 0xff {
			continue // settings
		}
		if err := t.recount(ino); err != nil {
			return err
		}
	}
	return nil
}

// dropPlace removes the index row of the link record that stands at key, if any.
func (t *Tx) dropPlace(key []byte, k tree.Key, d tree.Dot) error {
	drop := func(v []byte) error {
		l, err := tree.DecodeLink(v)
		if err != nil {
			return fmt.Errorf("%w: link record: %w", ErrDamaged, err)
		}
		t.delete(placeKey(k, d, l))
		t.delta.place(k.Ino(), l)
		return nil
	}
	if r, found, known := t.delta.find(tree.KeyDot{Key: k, Dot: d}); known {
		if !found {
			return nil
		}
		return drop(r.Value)
	}
	item, err := t.txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read link record: %w", err)
	}
	return item.Value(drop)
}

// recount brings the rows that say "directory", "conflicted" and "dead" of
// ino up to date with its records as this transaction sees them.
func (t *Tx) recount(ino tree.Ino) error {
	if t.err != nil {
		return t.err
	}
	x := t.delta.ino(ino)
	recs := x.is
	if !x.known {
		var err error
		if recs, err = records(t.txn, append([]byte{'r'}, ino[:]...)); err != nil {
			return err
		}
	}
	is, err := rowsOf(ino, recs)
	if err != nil {
		return err
	}
	was := x.rows
	switch {
	case !x.known:
		was, err = t.rows(ino)
	case !x.counted:
		was, err = rowsOf(ino, x.was)
	}
	if err != nil {
		return err
	}
	x.rows, x.counted = is, true
	t.row('c', ino, was.conflict, is.conflict)
	t.row('d', ino, was.dir, is.dir)
	t.row('g', ino, was.dead, is.dead)
	return nil
}

// rows are the rows of an inode that have no value.
type rows struct{ dir, conflict, dead bool }

// rowsOf returns the rows that go with records.
func rowsOf(ino tree.Ino, recs []tree.Record) (x rows, err error) {
	for _, r := range recs {
		if r.Key.Type() == 'L' {
			l, err := tree.DecodeLink(r.Value)
			if err != nil {
				return x, fmt.Errorf("%w: link record: %w", ErrDamaged, err)
			}
			x.dir = x.dir || l.Dir
		}
	}
	x.conflict, x.dead = tree.Conflicted(recs), tree.Dead(ino, recs)
	return x, nil
}

// rows returns the rows that ino has.
func (t *Tx) rows(ino tree.Ino) (x rows, err error) {
	for table, is := range map[byte]*bool{'c': &x.conflict, 'd': &x.dir, 'g': &x.dead} {
		_, err := t.txn.Get(append([]byte{table}, ino[:]...))
		if err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
			return x, fmt.Errorf("read inode row: %w", err)
		}
		*is = err == nil
	}
	return x, nil
}

func (t *Tx) row(table byte, ino tree.Ino, was, is bool) {
	switch k := append([]byte{table}, ino[:]...); {
	case was && !is:
		t.delete(k)
	case is && !was:
		t.set(k, nil)
	}
}

// SetValue stores a single value under name; nil removes it.
func (t *Tx) SetValue(name string, v []byte) {
	k := append([]byte{'m'}, name...)
	if v == nil {
		t.delete(k)
		return
	}
	t.set(k, v)
}

// Value returns the single value stored under name, nil if there is none.
func (s *Store) Value(name string) ([]byte, error) { return s.get(append([]byte{'m'}, name...)) }

// Values calls fn with the single values whose names begin with prefix, in the
// order of the rest of their names. fn owns what it gets.
func (s *Store) Values(prefix string, fn func(rest string, v []byte) error) error {
	return s.view(func(txn *badger.Txn) error {
		p := append([]byte{'m'}, prefix...)
		return scan(txn, p, func(item *badger.Item) error {
			v, err := item.ValueCopy(nil)
			if err != nil {
				return fmt.Errorf("read database: %w", err)
			}
			return fn(string(item.Key()[len(p):]), v)
		})
	})
}

func (s *Store) get(k []byte) (v []byte, err error) {
	err = s.view(func(txn *badger.Txn) error {
		item, err := txn.Get(k)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		v, err = item.ValueCopy(nil)
		if v == nil && err == nil {
			v = []byte{}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read database: %w", err)
	}
	return v, nil
}

// pieceKey is the row of piece n of the value under prefix.
func pieceKey(prefix []byte, n uint32) []byte {
	return binary.BigEndian.AppendUint32(prefix[:len(prefix):len(prefix)], n)
}

// setPieces stores v under prefix, cut into rows of at most pieceSize, and
// removes what an earlier, longer value left.
func (t *Tx) setPieces(prefix, v []byte) error { return t.dropPieces(prefix, t.setRows(prefix, v)) }

// setRows writes the rows of v, at least one, and returns how many there are.
func (t *Tx) setRows(prefix, v []byte) (n uint32) {
	for first := true; first || len(v) > 0; first = false {
		piece := v[:min(len(v), pieceSize)]
		v = v[len(piece):]
		t.set(pieceKey(prefix, n), piece)
		n++
	}
	return n
}

// dropPieces removes the rows of prefix from piece number from on.
func (t *Tx) dropPieces(prefix []byte, from uint32) error {
	for ; ; from++ {
		k := pieceKey(prefix, from)
		_, err := t.txn.Get(k)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read database: %w", err)
		}
		if t.delete(k); t.err != nil {
			return t.err
		}
	}
}

// pieces returns the value stored under prefix, nil if there is none.
func pieces(txn *badger.Txn, prefix []byte) ([]byte, error) {
	var out []byte
	for n := uint32(0); ; n++ {
		item, err := txn.Get(pieceKey(prefix, n))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read database: %w", err)
		}
		if err := item.Value(func(v []byte) error {
			if out == nil {
				out = make([]byte, 0, len(v))
			}
			out = append(out, v...)
			return nil
		}); err != nil {
			return nil, fmt.Errorf("read database: %w", err)
		}
	}
}
