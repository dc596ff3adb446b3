// Package copies knows which blocks the files of the tree consist of and on
// which devices they are. It brings everything here on an archive, tells which
// files exist on this device only, and answers where a file is.
//
// What another device holds is known from that device's own word only (it says
// so when it takes or gives up a block); that a file was written by a device
// is not taken as proof that the device still has it.
package copies

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
	"github.com/roamfs/roamfs/sync/tree"
)

// Tree is the replicated tree, as far as it is needed here.
type Tree interface {
	// Contents calls fn with every content that current versions refer to,
	// conflict copies too, inode by inode, and the commit that it came with.
	Contents(fn func(ino tree.Ino, c tree.Content, d tree.Dot) error) error
	// ContentsOf is Contents for one inode.
	ContentsOf(ino tree.Ino, fn func(c tree.Content, d tree.Dot) error) error
	// Node returns an inode as it is shown, or fs.ErrNotExist.
	Node(ino tree.Ino) (tree.Node, error)
	// Shared reports whether another device said that it knows the commit d.
	Shared(d tree.Dot) bool
}

// Blocks is the cache of this device.
type Blocks interface {
	Has(id block.ID) bool
	// Read returns the sealed bytes of a resident block.
	Read(id block.ID) ([]byte, error)
	// Fill makes a block resident, in the background of everything else.
	Fill(ctx context.Context, id block.ID) ([]byte, error)
}

// Holders is what other devices said that they hold.
type Holders interface {
	Holders(id block.ID) ([]device.ID, error)
}

// Config is what a [Keeper] needs. All fields but Counts and Log are required.
type Config struct {
	Tree    Tree
	Blocks  Blocks
	Holders Holders
	Keys    *block.Keys
	Archive bool // copy everything here
	// Counts tells whether what a device holds counts as a copy: not that of a
	// device which does not belong any more. nil: all count.
	Counts func(dev device.ID) bool
	Log    *slog.Logger
}

// Keeper is safe for concurrent use. Its fields after New: alone and fetch have
// their own locks and are never held over I/O.
type Keeper struct {
	cfg   Config
	fetch queue // archive: inodes whose content may be missing here
	alone alone // inodes whose content may be on this device only
	watch watch // inodes that change while garbage is looked for
}

// New returns a keeper that has looked at nothing yet; see [Keeper.Run].
func New(cfg Config) *Keeper {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{cfg: cfg}
	k.fetch.init()
	k.alone.init()
	k.watch.of = map[*watching]struct{}{}
	return k
}

// Ref is what a content consists of.
type Ref struct {
	tree.Ref
	Size int64
}

// RefOf returns the ref of a node's content.
func RefOf(n tree.Node) Ref { return Ref{n.Ref, n.Size} }

// blocks calls fn with every block of a content, list blocks too; get obtains
// the sealed bytes of list blocks.
func (k *Keeper) blocks(r Ref, get func(block.ID) ([]byte, error), fn func(block.ID) error) error {
	if r.ID.IsZero() {
		return nil
	}
	if r.Depth == 0 {
		return fn(r.ID)
	}
	open := func(id block.ID) ([]byte, error) {
		sealed, err := get(id)
		if err != nil {
			return nil, err
		}
		return k.cfg.Keys.Open(id, block.List, sealed)
	}
	return chunk.Blocks(r.Depth, r.ID, r.Size, open, func(id block.ID, _ block.Type) error { return fn(id) })
}

// Live calls fn with every block that the tree refers to. It fails with
// [ErrUnknown] if the list of some file is not resident, so that what the file
// refers to cannot be told.
func (k *Keeper) Live(fn func(block.ID)) error {
	return k.cfg.Tree.Contents(func(_ tree.Ino, c tree.Content, _ tree.Dot) error { return k.live(c, fn) })
}

// live is Live for one content.
func (k *Keeper) live(c tree.Content, fn func(block.ID)) error {
	err := k.blocks(Ref{c.Ref, c.Size}, k.cfg.Blocks.Read, func(id block.ID) error { fn(id); return nil })
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return nil
}

// Learn brings the lists of a content here, so that [Keeper.Where] can tell
// which blocks it consists of.
func (k *Keeper) Learn(ctx context.Context, r Ref) error {
	return k.blocks(r, func(id block.ID) ([]byte, error) {
		if sealed, err := k.cfg.Blocks.Read(id); err == nil {
			return sealed, nil
		}
		return k.cfg.Blocks.Fill(ctx, id)
	}, func(block.ID) error { return nil })
}

// holders returns the devices whose copy of a block counts.
func (k *Keeper) holders(id block.ID) ([]device.ID, error) {
	devs, err := k.cfg.Holders.Holders(id)
	if err != nil || k.cfg.Counts == nil {
		return devs, err
	}
	return slices.DeleteFunc(devs, func(dev device.ID) bool { return !k.cfg.Counts(dev) }), nil
}

// heldElsewhere reports whether another device that counts said it holds a block.
func (k *Keeper) heldElsewhere(id block.ID) (bool, error) {
	devs, err := k.holders(id)
	return len(devs) > 0, err
}

// ErrUnknown means that it cannot be told here which blocks the tree needs.
var ErrUnknown = errors.New("the blocks of some file are not known here")

// Where says which devices hold a content.
type Where struct {
	Blocks  int
	Missing int                // blocks that are not here
	Local   int64              // bytes of content that are here
	Holders map[device.ID]Held // other devices
	// Listed says that all blocks are known. Else Local and Held.Bytes are what
	// is known, Blocks counts the first list alone, and nobody is Complete.
	Listed bool
}

// Held is what one device holds of a content.
type Held struct {
	Bytes    int64
	Complete bool
}

// Where tells where the content r is, from what devices said. ask, if not nil,
// replaces the stored word of a device by its answer now.
func (k *Keeper) Where(r Ref, ask func(ids []block.ID) map[device.ID][]bool) (Where, error) {
	w := Where{Holders: map[device.ID]Held{}, Listed: true}
	if r.ID.IsZero() {
		w.Local = r.Size
		return w, nil
	}
	parts, err := k.parts(r)
	if err != nil {
		return w, err
	}
	if parts == nil { // the list is elsewhere: whoever has it has some of the content
		w.Listed = false
		parts = []part{{r.ID, 0}}
	}
	w.Blocks = len(parts)
	count := map[device.ID]int{}
	held := func(dev device.ID, p part) {
		h := w.Holders[dev]
		h.Bytes += p.bytes
		w.Holders[dev] = h
		count[dev]++
	}
	ids := make([]block.ID, len(parts))
	for i, p := range parts {
		ids[i] = p.id
		if k.cfg.Blocks.Has(p.id) {
			w.Local += p.bytes
		} else {
			w.Missing++
		}
	}
	var asked map[device.ID][]bool
	if ask != nil {
		asked = ask(ids)
	}
	for dev, has := range asked {
		for i, p := range parts {
			if i < len(has) && has[i] {
				held(dev, p)
			}
		}
	}
	for _, p := range parts {
		devs, err := k.holders(p.id)
		if err != nil {
			return w, err
		}
		for _, dev := range devs {
			if _, now := asked[dev]; !now {
				held(dev, p)
			}
		}
	}
	for dev, h := range w.Holders {
		h.Complete = w.Listed && count[dev] == len(parts)
		h.Bytes = min(h.Bytes, r.Size)
		w.Holders[dev] = h
	}
	w.Local = min(w.Local, r.Size)
	return w, nil
}

type part struct {
	id    block.ID
	bytes int64 // of content; 0 for a list block
}

// parts returns the distinct blocks of a content with the bytes of content that
// each stands for, or nil if the list is not resident.
func (k *Keeper) parts(r Ref) ([]part, error) { return k.partsFrom(r, nil) }

// partsFrom is parts, with get, if it is not nil, for lists that are not resident.
func (k *Keeper) partsFrom(r Ref, get func(block.ID) ([]byte, error)) ([]part, error) {
	if r.Depth == 0 {
		return []part{{r.ID, r.Size}}, nil
	}
	open := func(id block.ID) ([]byte, error) {
		sealed, err := k.cfg.Blocks.Read(id)
		if err != nil && get != nil {
			sealed, err = get(id)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		return k.cfg.Keys.Open(id, block.List, sealed)
	}
	var out []part
	at := map[block.ID]int{}
	add := func(id block.ID, n int64) {
		i, ok := at[id]
		if !ok {
			i = len(out)
			at[id] = i
			out = append(out, part{id: id})
		}
		out[i].bytes += n
	}
	if err := chunk.Blocks(r.Depth, r.ID, r.Size, open, func(id block.ID, t block.Type) error {
		if t == block.List {
			add(id, 0)
		}
		return nil
	}); err != nil {
		if errors.Is(err, ErrUnknown) {
			return nil, nil
		}
		return nil, fmt.Errorf("list of a file: %w", err)
	}
	err := chunk.Walk(r.Depth, r.ID, r.Size, 0, r.Size, open, func(_ int64, e chunk.Extent) error {
		if !e.Hole {
			add(e.ID, e.Len)
		} else if len(out) > 0 {
			out[0].bytes += e.Len // holes cost nothing: they come with the list
		}
		return nil
	})
	if errors.Is(err, ErrUnknown) {
		return nil, nil
	}
	return out, err
}
