package store

import (
	"encoding/binary"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/roamfs/roamfs/sync/tree"
)

func draftPrefix(ino tree.Ino) []byte { return append([]byte{'j'}, ino[:]...) }

// PutDraft writes the journal entry of a draft, replacing the one before.
func (t *Tx) PutDraft(d tree.Draft) error {
	b := binary.AppendUvarint(nil, uint64(len(d.Base)))
	for _, dot := range d.Base {
		b = appendDot(b, dot)
	}
	return t.setPieces(draftPrefix(d.Ino), append(b, d.Data...))
}

// DropDraft removes the journal entry of a draft, if there is one.
func (t *Tx) DropDraft(ino tree.Ino) error { return t.dropPieces(draftPrefix(ino), 0) }

// Drafts returns the whole journal.
func (s *Store) Drafts() ([]tree.Draft, error) {
	var out []tree.Draft
	err := s.view(func(txn *badger.Txn) error {
		var last tree.Ino
		return scan(txn, []byte{'j'}, func(item *badger.Item) error {
			k := item.Key()
			if len(k) != 1+24+4 {
				return fmt.Errorf("%w: draft row of %d bytes", ErrDamaged, len(k))
			}
			ino := tree.Ino(k[1:25])
			if len(out) > 0 && ino == last {
				return nil
			}
			last = ino
			b, err := pieces(txn, draftPrefix(ino))
			if err != nil {
				return err
			}
			d, err := decodeDraft(ino, b)
			if err != nil {
				return err
			}
			out = append(out, d)
			return nil
		})
	})
	return out, err
}

func decodeDraft(ino tree.Ino, b []byte) (tree.Draft, error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w)/dotLen {
		return tree.Draft{}, fmt.Errorf("%w: journal entry of %x", ErrDamaged, ino)
	}
	b = b[w:]
	d := tree.Draft{Ino: ino}
	for range n {
		d.Base = append(d.Base, readDot(b))
		b = b[dotLen:]
	}
	d.Data = b
	return d, nil
}

// SetLocal stores attributes of ino that never leave this device; nil removes them.
func (t *Tx) SetLocal(ino tree.Ino, v []byte) {
	k := append([]byte{'l'}, ino[:]...)
	if v == nil {
		t.delete(k)
		return
	}
	t.set(k, v)
}

// Locals calls fn with every inode that has local attributes.
func (s *Store) Locals(fn func(ino tree.Ino, v []byte) error) error {
	return s.view(func(txn *badger.Txn) error {
		return scan(txn, []byte{'l'}, func(item *badger.Item) error {
			k := item.Key()
			if len(k) != 25 {
				return fmt.Errorf("%w: local row of %d bytes", ErrDamaged, len(k))
			}
			v, err := item.ValueCopy(nil)
			if err != nil {
				return err
			}
			return fn(tree.Ino(k[1:]), v)
		})
	})
}

// Touch is what one operation did to the open batch: the keys under which it
// put a record with the batch's own dot, and the published records it dropped.
type Touch struct {
	Put  []tree.Key
	Drop []tree.KeyDot
}

// LogTouch appends to the log of the open batch.
func (t *Tx) LogTouch(seq uint64, c Touch) {
	b := binary.AppendUvarint(nil, uint64(len(c.Put)))
	for _, k := range c.Put {
		b = appendBytes(b, []byte(k))
	}
	for _, kd := range c.Drop {
		b = appendBytes(b, []byte(kd.Key))
		b = appendDot(b, kd.Dot)
	}
	t.set(binary.BigEndian.AppendUint64([]byte{'o'}, seq), b)
}

// ClearTouches removes the rows from..to-1 of the open batch's log.
func (t *Tx) ClearTouches(from, to uint64) {
	for ; from < to; from++ {
		t.delete(binary.BigEndian.AppendUint64([]byte{'o'}, from))
	}
}

// Touches replays the log of the open batch and returns the number of the row
// after the last.
func (s *Store) Touches(fn func(Touch)) (first, next uint64, err error) {
	n := 0
	err = s.view(func(txn *badger.Txn) error {
		return scan(txn, []byte{'o'}, func(item *badger.Item) error {
			k := item.Key()
			if len(k) != 9 {
				return fmt.Errorf("%w: batch row of %d bytes", ErrDamaged, len(k))
			}
			seq := binary.BigEndian.Uint64(k[1:])
			if n == 0 {
				first = seq
			}
			n++
			next = seq + 1
			return item.Value(func(v []byte) error {
				c, err := decodeTouch(v)
				if err == nil {
					fn(c)
				}
				return err
			})
		})
	})
	return first, next, err
}

func decodeTouch(b []byte) (c Touch, err error) {
	bad := fmt.Errorf("%w: row of the open batch", ErrDamaged)
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)) {
		return c, bad
	}
	b = b[w:]
	for range n {
		var k []byte
		if k, b, err = readBytes(b); err != nil {
			return c, bad
		}
		c.Put = append(c.Put, tree.Key(k))
	}
	for len(b) > 0 {
		var k []byte
		if k, b, err = readBytes(b); err != nil || len(b) < dotLen {
			return c, bad
		}
		c.Drop = append(c.Drop, tree.KeyDot{Key: tree.Key(k), Dot: readDot(b)})
		b = b[dotLen:]
	}
	return c, nil
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func readBytes(b []byte) (v, rest []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, ErrDamaged
	}
	return b[w : w+int(n)], b[w+int(n):], nil
}
