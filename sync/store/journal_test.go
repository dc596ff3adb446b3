package store

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/roamfs/roamfs/sync/tree"
)

// TestJournalMatchesModel: the journal is what the transactions that succeeded
// have made of it: no row of a longer entry stays, whatever is done to it in one
// transaction or several, also across a restart and after a failed one.
func TestJournalMatchesModel(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer func() { s.Close() }()
	want := map[tree.Ino][]byte{}
	rnd := rand.New(rand.NewPCG(1, 2))
	refused := errors.New("refused")
	for step := range 400 {
		next := map[tree.Ino][]byte{}
		fails := rnd.IntN(5) == 0
		err := s.Update(func(tx *Tx) error {
			for range 1 + rnd.IntN(2) {
				ino := inode(byte(1 + rnd.IntN(3)))
				if rnd.IntN(3) == 0 {
					next[ino] = nil
					if err := tx.DropDraft(ino); err != nil {
						return err
					}
					continue
				}
				next[ino] = bytes.Repeat([]byte{byte(step)}, 1+rnd.IntN(2)*pieceSize)
				if err := tx.PutDraft(tree.Draft{Ino: ino, Data: next[ino]}); err != nil {
					return err
				}
			}
			if fails {
				return refused
			}
			return nil
		})
		if fails != errors.Is(err, refused) || !fails && err != nil {
			t.Fatal(err)
		}
		for ino, data := range next {
			switch {
			case fails && rnd.IntN(2) == 0: // as if it had failed later, when nobody can tell what it did
				s.entries.end(map[tree.Ino]uint32{ino: 0}, false)
			case fails:
			case data == nil:
				delete(want, ino)
			default:
				want[ino] = data
			}
		}
		if rnd.IntN(40) == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir)
		}
		got, err := s.Drafts()
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("step %d: %d entries, want %d", step, len(got), len(want))
		}
		for _, d := range got {
			if !bytes.Equal(d.Data, want[d.Ino]) {
				t.Fatalf("step %d: entry %x has %d bytes, want %d", step, d.Ino[:2], len(d.Data), len(want[d.Ino]))
			}
		}
	}
}
