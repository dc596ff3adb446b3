package copies

import (
	"maps"
	"sync"

	"github.com/roamfs/roamfs/sync/block"
)

// complete are the directories of snapshots of which, with all that is below
// them, every block is here, on an archive.
type complete struct {
	mu     sync.Mutex
	of     map[block.ID]struct{}
	losses int // how often blocks went
}

// begin returns what is complete, and a mark for end.
func (c *complete) begin() (of map[block.ID]struct{}, mark int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.of), c.losses
}

// end adds what was found complete, unless blocks went since begin.
func (c *complete) end(fresh []block.ID, mark int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.losses != mark {
		return
	}
	if c.of == nil {
		c.of = map[block.ID]struct{}{}
	}
	for _, id := range fresh {
		c.of[id] = struct{}{}
	}
}

// lose forgets everything: some block went.
func (c *complete) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of = nil
	c.losses++
}
