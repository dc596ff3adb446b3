package store

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/dgraph-io/badger/v4"

	"github.com/roamfs/roamfs/sync/tree"
)

func draftPrefix(ino tree.Ino) []byte { return append([]byte{'j'}, ino[:]...) }

// entries is how many rows the journal entry of each draft has. A small file
// is journaled and dropped a moment later, and to ask the database how many rows
// there are to delete took more time than the rest of both.
type entries struct {
	mu   sync.Mutex
	rows map[tree.Ino]uint32 // none: no entry
}

// unsure is the number of rows after a transaction that failed: count them.
const unsure = ^uint32(0)

func (e *entries) load(db *badger.DB) error {
	e.rows = map[tree.Ino]uint32{}
	return db.View(func(txn *badger.Txn) error {
		return scan(txn, []byte{'j'}, func(item *badger.Item) error {
			k := item.Key()
			if len(k) != 1+24+4 {
				return fmt.Errorf("%w: draft row of %d bytes", ErrDamaged, len(k))
			}
			ino := tree.Ino(k[1:25])
			e.rows[ino] = max(e.rows[ino], binary.BigEndian.Uint32(k[25:])+1)
			return nil
		})
	})
}

func (e *entries) of(ino tree.Ino) uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rows[ino]
}

// end takes over what a transaction has made of some entries.
func (e *entries) end(made map[tree.Ino]uint32, ok bool) {
	if len(made) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for ino, n := range made {
		switch {
		case !ok:
			e.rows[ino] = unsure
		case n == 0:
			delete(e.rows, ino)
		default:
			e.rows[ino] = n
		}
	}
}

// PutDraft writes the journal entry of a draft, replacing the one before.
func (t *Tx) PutDraft(d tree.Draft) error {
	b := make([]byte, 0, binary.MaxVarintLen64+len(d.Base)*dotLen+len(d.Data))
	b = binary.AppendUvarint(b, uint64(len(d.Base)))
	for _, dot := range d.Base {
		b = appendDot(b, dot)
	}
	prefix := draftPrefix(d.Ino)
	return t.entry(d.Ino, t.setRows(prefix, append(b, d.Data...)))
}

// DropDraft removes the journal entry of a draft, if there is one.
func (t *Tx) DropDraft(ino tree.Ino) error { return t.entry(ino, 0) }

// entry leaves the first n rows of a journal entry.
func (t *Tx) entry(ino tree.Ino, n uint32) error {
	was, ok := t.drafts[ino]
	if !ok {
		was = t.entries.of(ino)
	}
	prefix := draftPrefix(ino)
	if was == unsure {
		if err := t.dropPieces(prefix, n); err != nil {
			return err
		}
	} else {
		for i := n; i < was; i++ {
			t.delete(pieceKey(prefix, i))
		}
	}
	if t.drafts == nil {
		t.drafts = map[tree.Ino]uint32{}
	}
	t.drafts[ino] = n
	return t.err
}

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
