package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// MaxDepth bounds how deep directories may lie in each other. What a device reads
// that another has made it must not follow further.
const MaxDepth = 4096

// Source is the tree that is rendered.
type Source interface {
	// Node returns an inode as it is shown, or fs.ErrNotExist.
	Node(ino tree.Ino) (tree.Node, error)
	// ListNodes returns the entries of a directory, sorted by name, and the inode of
	// each, unless they are more than most. changes tells whether they are still that.
	ListNodes(dir tree.Ino, most int) (entries []tree.Entry, nodes []tree.Node, changes uint64, err error)
}

// mostNodes is how many inodes are asked for at once, some 250 bytes each.
const mostNodes = 1 << 16

// Render stores the tree below the root as directory objects, through put (see
// [Put]), and returns that of the root. What changes meanwhile may be shown as it
// was before or as it is after that, and what is moved from one directory to
// another in both or in neither: the caller looks whether the tree is the same
// afterwards. The same tree renders the same on every device.
func Render(ctx context.Context, src Source, keys *block.Keys, put func(id block.ID, sealed []byte) error) (Object, error) {
	r := renderer{src: src, keys: keys, put: put}
	return r.directory(ctx, tree.Root, 0)
}

type renderer struct {
	src  Source
	keys *block.Keys
	put  func(id block.ID, sealed []byte) error
}

func (r *renderer) directory(ctx context.Context, dir tree.Ino, depth int) (Object, error) {
	if depth > MaxDepth {
		return Object{}, fmt.Errorf("directories %d deep", depth)
	}
	if err := ctx.Err(); err != nil {
		return Object{}, err
	}
	list, nodes, _, err := r.src.ListNodes(dir, mostNodes)
	if err != nil {
		return Object{}, err
	}
	entries := make([]Entry, 0, len(list))
	for i, l := range list {
		var n tree.Node
		if nodes != nil {
			n = nodes[i]
		} else if n, err = r.src.Node(l.Ino); errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		} else if err != nil {
			return Object{}, err
		}
		e := Entry{
			Name: l.Name, Kind: n.Kind, Mode: n.Mode, MTime: n.MTime, Size: n.Size,
			Ref: n.Ref, Inline: n.Inline, Author: n.Author, Ino: n.Ino, Xattrs: n.Xattrs,
		}
		if n.Kind == tree.Dir {
			o, err := r.directory(ctx, n.Ino, depth+1)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return Object{}, err
			}
			e.Ref, e.Size, e.Inline, e.Author = o.Ref, o.Size, nil, tree.Actor{}
		}
		entries = append(entries, e)
	}
	data, err := Encode(entries)
	if err != nil {
		return Object{}, err
	}
	return Put(data, r.keys, r.put)
}
