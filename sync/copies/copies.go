// Package copies knows which blocks the files of the tree consist of and on
// which devices they are. It brings everything here on an archive, tells which
// files exist on this device only, answers where a file is, and finds the blocks
// that no file needs.
//
// All of that follows from the lists that say which blocks a file consists of,
// and a list may have been evicted. One does not go while something of its file is here
// only ([Keeper.Tied]), so after a restart that is known; lists that are needed to tell what
// others gave up, or what is garbage, are fetched again.
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
	// conflict copies too, inode by inode, and the commit that it came with. shown
	// tells whether the inode is shown, until fn returns.
	Contents(fn func(ino tree.Ino, c tree.Content, d tree.Dot, shown func() bool) error) error
	// ContentsOf is Contents for one inode.
	ContentsOf(ino tree.Ino, fn func(c tree.Content, d tree.Dot) error) error
	// Spare calls fn with every content that the tree has lost and that may be
	// brought back.
	Spare(fn func(c tree.Content) error) error
	// Node returns an inode as it is shown, or fs.ErrNotExist.
	Node(ino tree.Ino) (tree.Node, error)
	// Shared reports whether another device said that it knows the commit d.
	Shared(d tree.Dot) bool
	// Knowing returns the other devices that said they know all of dots.
	Knowing(dots ...tree.Dot) []device.ID
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

// Config is what a [Keeper] needs. All fields but History, Counts and Log are required.
type Config struct {
	Tree    Tree
	Blocks  Blocks
	Holders Holders
	Keys    *block.Keys
	Archive bool    // copy everything here
	History History // nil: nothing of the past is kept
	// Counts tells whether what a device holds counts as a copy: not that of a
	// device which does not belong any more. nil: all count.
	Counts func(dev device.ID) bool
	Log    *slog.Logger
}

// Keeper is safe for concurrent use. Each of its parts has its own lock, which
// is not held over I/O, except for one in heads that only heads uses.
type Keeper struct {
	cfg   Config
	fetch queue // archive: inodes whose content may be missing here
	learn queue // inodes whose lists are missing here and wanted
	lists lists // those for which there is no room in the cache
	alone alone // inodes whose content may be on this device only
	heads heads // what others must know before they count as holders
	watch watch // inodes that change while garbage is looked for
	past  complete
}

// New returns a keeper that has looked at nothing yet; see [Keeper.Run].
func New(cfg Config) *Keeper {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{cfg: cfg}
	k.fetch.init()
	k.learn.init()
	k.alone.init()
	k.heads.init()
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
		parts = []part{{id: r.ID}}
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
	list  bool
}

// parts returns the distinct blocks of a content with the bytes of content that
// each stands for, or nil if a list is not here.
func (k *Keeper) parts(r Ref) ([]part, error) {
	if r.Depth == 0 {
		return []part{{id: r.ID, bytes: r.Size}}, nil
	}
	open := k.open(nil)
	var out []part
	at := map[block.ID]int{}
	add := func(id block.ID, n int64, list bool) {
		i, ok := at[id]
		if !ok {
			i = len(out)
			at[id] = i
			out = append(out, part{id: id, list: list})
		}
		out[i].bytes += n
	}
	if err := chunk.Blocks(r.Depth, r.ID, r.Size, open, func(id block.ID, t block.Type) error {
		if t == block.List {
			add(id, 0, true)
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
			add(e.ID, e.Len, false)
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
