package replica

import (
	"errors"
	"iter"

	"github.com/roamfs/roamfs/sync/tree"
)

// errEnough ends a scan whose reader wants no more.
var errEnough = errors.New("enough")

// groups turns a scan in key order into a sequence of the records of one key,
// so that two scans can be walked side by side.
type groups struct {
	next func() (tree.Record, bool)
	stop func()
	fail error
	peek tree.Record
	ok   bool
}

func newGroups(scan func(func(tree.Record) error) error) *groups {
	g := &groups{}
	seq := iter.Seq[tree.Record](func(yield func(tree.Record) bool) {
		err := scan(func(rec tree.Record) error {
			if !yield(rec) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			g.fail = err
		}
	})
	g.next, g.stop = iter.Pull(seq)
	g.peek, g.ok = g.next()
	return g
}

func (g *groups) more() bool    { return g.ok }
func (g *groups) key() tree.Key { return g.peek.Key }
func (g *groups) err() error    { return g.fail }

// take returns all records of the current key.
func (g *groups) take() []tree.Record {
	key := g.peek.Key
	var out []tree.Record
	for g.ok && g.peek.Key == key {
		out = append(out, g.peek)
		g.peek, g.ok = g.next()
	}
	return out
}
