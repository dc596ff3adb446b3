package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
)

// What a device said that it holds is one row a block. While it tells all anew
// there is a row more:
//
//	w id16 dev  -> tag    device dev said that it holds the block; the tag is of the telling in
//	                      which it did, empty outside of one
//	W dev       -> cursor how far its word was heard
//	T dev       -> tag    dev tells all anew: what has another tag was said before
//
// Tags are drawn at random, so that what is left of a telling that broke off
// passes for old in the next one. There is no cursor meanwhile: after a crash
// the device is asked for all once more.

func heldKey(id block.ID, dev device.ID) []byte {
	return append(append([]byte{'w'}, id[:16]...), dev[:]...)
}

// heldBy returns the device of a row of 'w'.
func heldBy(key []byte) (dev device.ID, ok bool) {
	if len(key) != 1+16+32 {
		return dev, false
	}
	return device.ID(key[17:]), true
}

func cursorKey(dev device.ID) []byte { return append([]byte{'W'}, dev[:]...) }

func tellingKey(dev device.ID) []byte { return append([]byte{'T'}, dev[:]...) }

const tagSize = 8

// Hold records a device's own word: it now holds added and no longer holds
// gone, and cursor (opaque, stored with it) says how far its word was heard.
func (s *Store) Hold(dev device.ID, added, gone []block.ID, cursor []byte) error {
	tag, err := s.get(tellingKey(dev))
	if err != nil {
		return err
	}
	wb := s.db.NewWriteBatch()
	defer wb.Cancel()
	for _, id := range added {
		if err := wb.Set(heldKey(id, dev), tag); err != nil {
			return fmt.Errorf("record holdings: %w", err)
		}
	}
	for _, id := range gone {
		if err := wb.Delete(heldKey(id, dev)); err != nil {
			return fmt.Errorf("record holdings: %w", err)
		}
	}
	if cursor != nil { // last, so that a crash hears the same word again
		if err := wb.Set(cursorKey(dev), cursor); err != nil {
			return fmt.Errorf("record holdings: %w", err)
		}
	}
	if err := wb.Flush(); err != nil {
		return fmt.Errorf("record holdings: %w", err)
	}
	return nil
}

// Retell begins to hear anew all that a device holds: its cursor goes, what it
// said before stays until [Store.Retold].
func (s *Store) Retell(dev device.ID) error {
	tag := make([]byte, tagSize)
	_, _ = rand.Read(tag) // never fails
	return s.Update(func(tx *Tx) error {
		tx.delete(cursorKey(dev))
		tx.set(tellingKey(dev), tag)
		return nil
	})
}

// Retold ends what Retell began: what the device did not name since is
// forgotten, then the cursor is kept. Who asks meanwhile sees no less than the
// device named, and no more than that and what it said before.
func (s *Store) Retold(dev device.ID, cursor []byte) error {
	tag, err := s.get(tellingKey(dev))
	if err != nil {
		return err
	}
	if tag == nil {
		return errors.New("replace holdings: nothing was begun")
	}
	wb := s.db.NewWriteBatch()
	defer wb.Cancel()
	err = s.view(func(txn *badger.Txn) error {
		return scan(txn, []byte{'w'}, func(item *badger.Item) error {
			if by, ok := heldBy(item.Key()); !ok || by != dev {
				return nil
			}
			anew, err := hasTag(item, tag)
			if err != nil || anew {
				return err
			}
			return wb.Delete(item.KeyCopy(nil))
		})
	})
	if err == nil {
		err = wb.Flush()
	}
	if err != nil {
		return fmt.Errorf("replace holdings: %w", err)
	}
	return s.Update(func(tx *Tx) error {
		tx.set(cursorKey(dev), cursor)
		tx.delete(tellingKey(dev))
		return nil
	})
}

// hasTag reports whether a row of 'w' was written in the telling with this tag.
func hasTag(item *badger.Item, tag []byte) (is bool, err error) {
	err = item.Value(func(v []byte) error { is = bytes.Equal(v, tag); return nil })
	return is, err
}

// Holders returns the devices that said they hold the block.
func (s *Store) Holders(id block.ID) ([]device.ID, error) {
	return s.holders(id, func(*badger.Txn, *badger.Item, device.ID) (bool, error) { return true, nil })
}

// Affirmed is Holders without the devices that tell all anew and have not named
// the block since they began.
func (s *Store) Affirmed(id block.ID) ([]device.ID, error) {
	return s.holders(id, func(txn *badger.Txn, item *badger.Item, dev device.ID) (bool, error) {
		telling, err := txn.Get(tellingKey(dev))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		tag, err := telling.ValueCopy(nil)
		if err != nil {
			return false, err
		}
		return hasTag(item, tag)
	})
}

// holders returns the devices with a row for the block that counts.
func (s *Store) holders(id block.ID, counts func(*badger.Txn, *badger.Item, device.ID) (bool, error)) (out []device.ID, err error) {
	err = s.view(func(txn *badger.Txn) error {
		return scan(txn, append([]byte{'w'}, id[:16]...), func(item *badger.Item) error {
			dev, ok := heldBy(item.Key())
			if !ok {
				return nil
			}
			if ok, err := counts(txn, item, dev); err != nil || !ok {
				return err
			}
			out = append(out, dev)
			return nil
		})
	})
	return out, err
}

// Cursor returns how far a device's word was heard, nil if never.
func (s *Store) Cursor(dev device.ID) ([]byte, error) { return s.get(cursorKey(dev)) }
