package mount

import (
	"sync"
	"time"

	"github.com/roamfs/roamfs/sync/tree"
)

// mostTimes bounds how many directories' times are kept.
const mostTimes = 1 << 16

// dirTimes remembers when children of directories were last added or removed.
// The tree does not replicate that: it would be a record for each change.
type dirTimes struct {
	mu sync.Mutex
	at map[tree.Ino]int64 // ns
}

// touch notes a change in a directory. A later call never yields an equal or
// earlier time, so that programs which compare times see each change.
func (d *dirTimes) touch(dir tree.Ino) {
	now := time.Now().UnixNano()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at == nil {
		d.at = map[tree.Ino]int64{}
	}
	if len(d.at) >= mostTimes {
		for k := range d.at { // any half will do
			if delete(d.at, k); len(d.at) <= mostTimes/2 {
				break
			}
		}
	}
	d.at[dir] = max(now, d.at[dir]+1)
}

// get returns the last change in a directory, if one is known.
func (d *dirTimes) get(dir tree.Ino) (ns int64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ns, ok = d.at[dir]
	return ns, ok
}

// forget lets the directory's own time show again.
func (d *dirTimes) forget(dir tree.Ino) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.at, dir)
}
