package store

import (
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
)

func heldKey(id block.ID, dev device.ID) []byte {
	return append(append([]byte{'w'}, id[:16]...), dev[:]...)
}

func cursorKey(dev device.ID) []byte { return append([]byte{'W'}, dev[:]...) }

// Hold records a device's own word: it now holds added and no longer holds
// gone, and cursor (opaque, stored with it) says how far its word was heard.
func (s *Store) Hold(dev device.ID, added, gone []block.ID, cursor []byte) error {
	wb := s.db.NewWriteBatch()
	defer wb.Cancel()
	for _, id := range added {
		if err := wb.Set(heldKey(id, dev), nil); err != nil {
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

// ForgetHoldings forgets everything that a device said it holds.
func (s *Store) ForgetHoldings(dev device.ID) error {
	var drop [][]byte
	err := s.view(func(txn *badger.Txn) error {
		return scan(txn, []byte{'w'}, func(item *badger.Item) error {
			k := item.Key()
			if len(k) == 1+16+32 && device.ID(k[17:]) == dev {
				drop = append(drop, item.KeyCopy(nil))
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	wb := s.db.NewWriteBatch()
	defer wb.Cancel()
	for _, k := range append(drop, cursorKey(dev)) {
		if err := wb.Delete(k); err != nil {
			return fmt.Errorf("forget holdings: %w", err)
		}
	}
	if err := wb.Flush(); err != nil {
		return fmt.Errorf("forget holdings: %w", err)
	}
	return nil
}

// Holders returns the devices that said they hold the block.
func (s *Store) Holders(id block.ID) (out []device.ID, err error) {
	err = s.view(func(txn *badger.Txn) error {
		prefix := append([]byte{'w'}, id[:16]...)
		return scan(txn, prefix, func(item *badger.Item) error {
			if k := item.Key(); len(k) == 1+16+32 {
				out = append(out, device.ID(k[17:]))
			}
			return nil
		})
	})
	return out, err
}

// Cursor returns how far a device's word was heard, nil if never.
func (s *Store) Cursor(dev device.ID) ([]byte, error) { return s.get(cursorKey(dev)) }
