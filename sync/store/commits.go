package store

import (
	"encoding/binary"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/roamfs/roamfs/sync/tree"
)

// Commit is one published batch as it travels: the signed manifest and its
// delta, both encoded.
type Commit struct {
	Actor    tree.Actor
	Ctr      uint64
	Manifest []byte
	Delta    []byte
}

func commitPrefix(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'h'}, seq) }

func commitIndex(a tree.Actor, ctr uint64) []byte {
	return appendDot([]byte{'i'}, tree.Dot{Actor: a, Ctr: ctr})
}

// bytes is the commit as it is stored.
func (c *Commit) bytes() []byte {
	b := make([]byte, 0, dotLen+10+c.Size())
	b = appendDot(b, tree.Dot{Actor: c.Actor, Ctr: c.Ctr})
	b = appendBytes(b, c.Manifest)
	return append(b, c.Delta...)
}

// Size returns the bytes of the manifest and the delta.
func (c *Commit) Size() int { return len(c.Manifest) + len(c.Delta) }

// StageCommit stores the bytes of a commit under the number seq in as many
// transactions as they need. The commit is not kept before [Tx.KeepCommit]: what was staged and
// never kept is replaced by the next that has the number.
func (s *Store) StageCommit(seq uint64, c Commit) error {
	v := c.bytes()
	prefix := commitPrefix(seq)
	n := uint32(0)
	for ; len(v) > 0; n++ {
		piece := v[:min(len(v), pieceSize)]
		v = v[len(piece):]
		if err := s.Update(func(tx *Tx) error {
			tx.set(pieceKey(prefix, n), piece)
			return nil
		}); err != nil {
			return err
		}
	}
	return s.Update(func(tx *Tx) error { return tx.dropPieces(prefix, n) })
}

// PutCommit keeps a commit for peers that fits the transaction. seq orders
// commits as this device came to know them, so that an ascending walk never
// meets a commit before one that it builds on.
func (t *Tx) PutCommit(seq uint64, c Commit) error {
	t.KeepCommit(seq, c)
	return t.setPieces(commitPrefix(seq), c.bytes())
}

// KeepCommit is PutCommit for a commit that was staged under seq.
func (t *Tx) KeepCommit(seq uint64, c Commit) {
	row := binary.BigEndian.AppendUint64(nil, seq)
	row = binary.AppendUvarint(row, uint64(c.Size()))
	t.set(commitIndex(c.Actor, c.Ctr), row)
	t.SetHead(c.Actor, c.Manifest)
}

// SetHead stores the newest manifest of an actor whose commits are not kept.
func (t *Tx) SetHead(a tree.Actor, manifest []byte) { t.set(append([]byte{'H'}, a[:]...), manifest) }

// DropCommit forgets the commit number seq.
func (t *Tx) DropCommit(seq uint64, a tree.Actor, ctr uint64) error {
	t.delete(commitIndex(a, ctr))
	return t.dropPieces(commitPrefix(seq), 0)
}

// DropStaged forgets a commit that was staged under seq and is not kept.
func (t *Tx) DropStaged(seq uint64) error { return t.dropPieces(commitPrefix(seq), 0) }

// Commit returns the commit number seq.
func (s *Store) Commit(seq uint64) (c Commit, err error) {
	err = s.view(func(txn *badger.Txn) error {
		b, err := pieces(txn, commitPrefix(seq))
		if err != nil {
			return err
		}
		if len(b) < dotLen {
			return fmt.Errorf("%w: commit %d", ErrDamaged, seq)
		}
		d := readDot(b)
		c.Actor, c.Ctr = d.Actor, d.Ctr
		if c.Manifest, c.Delta, err = readBytes(b[dotLen:]); err != nil {
			return fmt.Errorf("%w: commit %d", ErrDamaged, seq)
		}
		return nil
	})
	return c, err
}

// Kept describes a commit that is kept.
type Kept struct {
	Actor tree.Actor
	Ctr   uint64
	Seq   uint64
	Bytes int64
}

// Commits lists what is kept, in no particular order.
func (s *Store) Commits() (out []Kept, err error) {
	err = s.view(func(txn *badger.Txn) error {
		return scan(txn, []byte{'i'}, func(item *badger.Item) error {
			k := item.Key()
			if len(k) != 1+dotLen {
				return fmt.Errorf("%w: commit row of %d bytes", ErrDamaged, len(k))
			}
			d := readDot(k[1:])
			return item.Value(func(v []byte) error {
				if len(v) < 9 {
					return fmt.Errorf("%w: commit row", ErrDamaged)
				}
				n, w := binary.Uvarint(v[8:])
				if w <= 0 {
					return fmt.Errorf("%w: commit row", ErrDamaged)
				}
				out = append(out, Kept{d.Actor, d.Ctr, binary.BigEndian.Uint64(v), int64(n)})
				return nil
			})
		})
	})
	return out, err
}

// Head returns the newest manifest known of an actor, nil if none is.
func (s *Store) Head(a tree.Actor) ([]byte, error) { return s.get(append([]byte{'H'}, a[:]...)) }

// Heads calls fn with the newest manifest of every actor.
func (s *Store) Heads(fn func(tree.Actor, []byte) error) error {
	return s.view(func(txn *badger.Txn) error {
		return scan(txn, []byte{'H'}, func(item *badger.Item) error {
			k := item.Key()
			if len(k) != 9 {
				return fmt.Errorf("%w: head row of %d bytes", ErrDamaged, len(k))
			}
			v, err := item.ValueCopy(nil)
			if err != nil {
				return err
			}
			return fn(tree.Actor(k[1:]), v)
		})
	})
}
