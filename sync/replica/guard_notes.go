package replica

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/guard"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// noteLossesLocked writes what an effect adds to an account and takes off it.
func (r *Replica) noteLossesLocked(a tree.Actor, e guard.Effect, old []tree.Ino) error {
	for part := range slices.Chunk(old, partRecords) {
		if err := r.st.Update(func(tx *store.Tx) error {
			for _, ino := range part {
				tx.SetValue(lossName(a, ino), nil)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	type row struct {
		name string
		v    []byte
	}
	var rows []row
	bytes := 0
	flush := func() error {
		defer func() { rows, bytes = rows[:0], 0 }()
		return r.st.Update(func(tx *store.Tx) error {
			for _, x := range rows {
				tx.SetValue(x.name, x.v)
			}
			return nil
		})
	}
	for ino, l := range e.Lost {
		v, err := encodeLoss(l)
		if err != nil {
			return err
		}
		rows, bytes = append(rows, row{lossName(a, ino), v}), bytes+len(v)
		if len(rows) == partRecords || bytes > partBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func lossName(a tree.Actor, ino tree.Ino) string { return lossKey + string(a[:]) + string(ino[:]) }

// mostLoss bounds the records of one loss, in bytes: attributes are left out of more.
const mostLoss = 96 << 10

func encodeLoss(l guard.Loss) ([]byte, error) {
	recs := slices.Clone(l.Before)
	tree.SortRecords(recs)
	size := 0
	recs = slices.DeleteFunc(recs, func(rec tree.Record) bool {
		size += len(rec.Key) + len(rec.Value) + 32
		return size > mostLoss && rec.Key.Type() == tree.TypeXattr
	})
	d, err := manifest.Delta{Put: recs}.Encode()
	if err != nil {
		return nil, fmt.Errorf("note a loss: %w", err)
	}
	b := append(binary.BigEndian.AppendUint64(nil, uint64(l.At)), byte(l.Kind))
	return append(append(b, l.By[:]...), d...), nil
}

func decodeLoss(b []byte) (l guard.Loss, err error) {
	const fixed = 8 + 1 + len(l.By)
	if len(b) < fixed || b[8] > byte(guard.Replaced) {
		return l, fmt.Errorf("%w: note of a loss", store.ErrDamaged)
	}
	d, err := manifest.DecodeDelta(b[fixed:])
	if err != nil {
		return l, fmt.Errorf("%w: note of a loss: %w", store.ErrDamaged, err)
	}
	if len(d.Drop) > 0 {
		return l, fmt.Errorf("%w: note of a loss", store.ErrDamaged)
	}
	return guard.Loss{At: int64(binary.BigEndian.Uint64(b)), Kind: guard.Kind(b[8]), By: tree.Ino(b[9:fixed]), Before: d.Put}, nil
}

// loadGuard reads what earlier runs noted.
func (r *Replica) loadGuard() error {
	g := &r.guard
	g.accounts, g.passed, g.holds = map[tree.Actor]*guard.Account{}, map[tree.Actor]uint64{}, map[tree.Actor]*hold{}
	g.at, g.full, g.after = map[tree.Dot]bool{}, map[tree.Actor]bool{}, guard.NewOverlay(r.st)
	g.states, g.freed = map[device.ID]*stateHold{}, map[tree.Actor]*hold{}
	g.next = heldSeq
	damaged := func(what string) error { return fmt.Errorf("%w: %s", store.ErrDamaged, what) }
	if err := r.st.Values(lossKey, func(rest string, v []byte) error {
		if len(rest) != 8+24 {
			return damaged("note of a loss")
		}
		l, err := decodeLoss(v)
		if err != nil {
			return err
		}
		a := tree.Actor([]byte(rest[:8]))
		if g.accounts[a] == nil {
			g.accounts[a] = &guard.Account{}
		}
		g.accounts[a].Set(tree.Ino([]byte(rest[8:])), l)
		return nil
	}); err != nil {
		return err
	}
	if err := r.st.Values(passedKey, func(rest string, v []byte) error {
		if len(rest) != 8 || len(v) != 8 {
			return damaged("what was accepted")
		}
		g.passed[tree.Actor([]byte(rest))] = binary.BigEndian.Uint64(v)
		return nil
	}); err != nil {
		return err
	}
	if err := r.st.Values(holdKey, func(rest string, v []byte) error {
		if len(rest) != 8 || len(v) != 16 {
			return damaged("what is held back")
		}
		a := tree.Actor([]byte(rest))
		h := &hold{first: binary.BigEndian.Uint64(v), since: int64(binary.BigEndian.Uint64(v[8:])), account: &guard.Account{}}
		if acc := g.accounts[a]; acc != nil {
			h.account = acc.Clone()
		}
		g.holds[a] = h
		return nil
	}); err != nil {
		return err
	}
	var held []heldCommit
	if err := r.st.Values(heldKey, func(rest string, v []byte) error {
		if len(rest) != 8 || len(v) != 24 {
			return damaged("commit that is held back")
		}
		held = append(held, heldCommit{
			dot:  tree.Dot{Actor: tree.Actor(v[:8]), Ctr: binary.BigEndian.Uint64(v[8:])},
			seq:  binary.BigEndian.Uint64([]byte(rest)),
			size: int64(binary.BigEndian.Uint64(v[16:])),
		})
		return nil
	}); err != nil {
		return err
	}
	for _, x := range held {
		if g.at[x.dot] || x.dot.Ctr <= r.vector[x.dot.Actor] { // a release was cut off
			if err := r.st.Update(func(tx *store.Tx) error {
				tx.SetValue(x.row(), nil)
				return tx.DropStaged(x.seq)
			}); err != nil {
				return err
			}
			continue
		}
		c, err := r.st.Commit(x.seq)
		if err != nil {
			return err
		}
		d, err := manifest.DecodeDelta(c.Delta)
		if err != nil {
			return fmt.Errorf("%w: commit that is held back: %w", store.ErrDamaged, err)
		}
		if err := r.addHeldLocked(x, c, d); err != nil {
			return err
		}
	}
	return r.loadStateHolds()
}

// finishGuard completes a release or a reject that was cut off, and lets
// everything through if nothing is to be held any more.
func (r *Replica) finishGuard() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := &r.guard
	if err := r.finishRejectLocked(); err != nil {
		return err
	}
	if r.cfg.Guard == 0 {
		if _, err := r.releaseAllLocked(); err != nil {
			return err
		}
	}
	if len(g.holds) == 0 && len(g.held) > 0 {
		_, err := r.replayLocked()
		return err
	}
	return nil
}
