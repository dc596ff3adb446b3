package app

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/roamfs/roamfs/cache"
	"github.com/roamfs/roamfs/peer"
	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
	"github.com/roamfs/roamfs/sync/tree"
)

// openLive opens a new device. It does not run: nothing is fetched, and nobody asked.
func openLive(t *testing.T) *live {
	t.Helper()
	s := &State{dir: t.TempDir()}
	if err := os.WriteFile(s.ConfigFile(), []byte("listen = [\"/ip4/127.0.0.1/tcp/0\"]\nmdns = false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (engine{}).Create(t.Context(), s, CreateOptions{Name: "laptop", Role: RoleCache}); err != nil {
		t.Fatal(err)
	}
	d, err := openDevice(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// put seals a block and puts it, as a commit does.
func put(t *testing.T, d *live, typ block.Type, plain []byte) (id block.ID, sealed []byte) {
	t.Helper()
	id, sealed, err := d.keys.Seal(typ, plain)
	if err == nil {
		err = blocks{d}.Put(t.Context(), id, sealed)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id, sealed
}

// prove returns the proofs for ids by their block.
func prove(t *testing.T, d *live, ids ...block.ID) map[block.ID]cache.Proof {
	t.Helper()
	proofs, err := prover{d}.Prove(t.Context(), ids)
	if err != nil && !errors.Is(err, peer.ErrNotConnected) {
		t.Fatal(err)
	}
	out := map[block.ID]cache.Proof{}
	for _, p := range proofs {
		out[p.ID()] = p
	}
	return out
}

// A block that was found to be garbage is not lost to a commit that names it
// again, whether that puts it before or after it goes.
func TestGarbageThatIsPutAgain(t *testing.T) {
	d := openLive(t)
	for _, before := range []bool{true, false} {
		id, sealed := put(t, d, block.Data, fmt.Append(nil, "garbage ", before))
		proof, ok := prove(t, d, id)[id]
		if !ok || !d.exchange.Intends(id) {
			t.Fatalf("garbage %v, intended %v", ok, d.exchange.Intends(id))
		}
		again := func() error { return blocks{d}.Put(t.Context(), id, sealed) }
		evict := func() error { return d.cache.Forget(proof) }
		if before {
			if err := again(); err != nil {
				t.Fatal(err)
			}
			if err := evict(); !errors.Is(err, cache.ErrPinned) {
				t.Errorf("evicting what was put again: %v", err)
			}
		} else if err := errors.Join(evict(), again()); err != nil {
			t.Fatal(err)
		}
		if !d.cache.Has(id) {
			t.Errorf("put before it went %v: it is gone", before)
		}
	}
}

// By the word of an archive a list may not go while something of its file is here
// only; and the word counts no more once the archive tells all anew.
func TestProofsByWord(t *testing.T) {
	d := openLive(t)
	nas := device.ID{1}
	key, err := device.Generate()
	if err == nil {
		nas = key.ID()
		err = d.replica.Add(nas, "nas", device.Archive, [8]byte{9})
	}
	if err != nil {
		t.Fatal(err)
	}
	var ids []block.ID
	var list chunk.List
	for i := range 3 {
		id, _ := put(t, d, block.Data, []byte{byte(i)})
		ids = append(ids, id)
		list = append(list, chunk.Extent{Len: 1, ID: id})
	}
	depth, root, err := chunk.Build(list, func(plain []byte) (block.ID, error) {
		id, _ := put(t, d, block.List, plain)
		return id, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ids = append(ids, root)
	n, err := d.replica.Create(tree.Ino{}, "file", tree.Content{Kind: tree.File, Size: 3, Ref: tree.Ref{ID: root, Depth: depth}, Mode: 0o644})
	if err != nil {
		t.Fatal(err)
	}
	d.keeper.Wrote(n.Ino)
	h := holdings{d.store, d}
	cursor, _ := wire.Cursor{Epoch: 1}.MarshalBinary() // never fails
	cursor = binary.BigEndian.AppendUint64(cursor, uint64(time.Now().UnixMilli()))
	check := func(when string, want ...bool) {
		t.Helper()
		proofs := prove(t, d, ids...)
		for i, id := range ids {
			if _, ok := proofs[id]; ok != want[i] {
				t.Errorf("%s: block %d of %d may go: %v", when, i, len(ids), ok)
			}
		}
	}
	check("nobody has it", false, false, false, false)
	if err := h.Hold(nas, []block.ID{ids[0], ids[2], root}, nil, cursor); err != nil {
		t.Fatal(err)
	}
	check("one block is here only", true, false, true, false)
	if !d.keeper.Settled() {
		t.Error("the account is not made")
	}
	if err := h.Retell(nas); err != nil {
		t.Fatal(err)
	}
	check("the archive tells all anew", false, false, false, false)
	if devs, err := h.Holders(ids[0]); err != nil || len(devs) != 1 {
		t.Errorf("meanwhile it is held by %v, %v", devs, err)
	}
	if err := errors.Join(h.Hold(nas, ids[2:3], nil, nil), h.Retold(nas, cursor)); err != nil {
		t.Fatal(err)
	}
	check("it has told all", false, false, true, false)
	if d.keeper.Settled() {
		t.Error("the account is not made anew when a device has told all")
	}
}
