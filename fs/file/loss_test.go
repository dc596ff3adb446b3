package file

import (
	"context"
	"os"
	"testing"

	"github.com/roamfs/roamfs/sync/tree"
)

// newPower is a model of a device that loses power.
func newPower(t *testing.T) *model {
	t.Helper()
	m := newModel(t)
	m.lost = &losses{m: m}
	m.lost.reset()
	m.watch()
	t.Cleanup(func() { m.forget(m.rig) })
	return m
}

// newest is the loss of what was not synced, while the database happened to
// get everything to the disk.
func newest(n int) int { return n - 1 }

// synced is the loss of everything that was not synced.
func synced(int) int { return 0 }

// TestPowerLoss are single histories that end with a power loss. What the last
// fsync made durable has to be there.
func TestPowerLoss(t *testing.T) {
	for name, history := range map[string]func(*model){
		"a small draft grows out of its record": func(m *model) {
			m.writeAt(0, 5000)
			m.commit()
			m.writeAt(0, 5000)
			m.sync()
			m.writeAt(40<<10, 5000)
			m.flush()
		},
		"closed, then synced, then grows out of its record": func(m *model) {
			m.writeAt(0, 5000)
			m.commit()
			m.writeAt(0, 5000)
			m.flush()
			m.sync()
			m.writeAt(40<<10, 5000)
			m.flush()
		},
		"what was truncated is not there again": func(m *model) {
			m.writeAt(0, 50<<10)
			m.sync()
			m.truncate(0)
			m.sync()
			m.writeAt(0, 8192)
			m.flush()
		},
		"what was punched is not there again": func(m *model) {
			m.writeAt(0, 50<<10)
			m.sync()
			m.zeroAt(4096, 8192, true)
			m.sync()
			m.writeAt(4096, 4096)
			m.flush()
		},
		"old content shows where a page is lost": func(m *model) {
			m.whole = true
			m.writeAt(0, 200<<10)
			m.commit()
			m.writeAt(100<<10, 8192)
			m.sync()
			m.writeAt(60<<10, 4096)
			m.flush()
		},
		"a synced draft is committed": func(m *model) {
			m.writeAt(0, 50<<10)
			m.sync()
			m.commit()
		},
		"the name of a draft file": func(m *model) {
			m.writeAt(0, 50<<10)
			m.sync()
		},
	} {
		for what, choose := range map[string]func(int) int{"all is lost": synced, "the database is not": newest} {
			t.Run(name+"/"+what, func(t *testing.T) {
				m := newPower(t)
				history(m)
				m.forget(m.revived(m.lost.cut(choose), m.power))
			})
		}
	}
}

// TestWriteDuringSync writes between the moment that an fsync looks at and its
// record; a close afterwards has to journal it.
func TestWriteDuringSync(t *testing.T) {
	m := newModel(t)
	defer func() { m.forget(m.rig) }()
	m.writeAt(0, 50<<10)
	do := m.t.datasync
	once := true
	m.t.datasync = func(f *os.File) error {
		if once {
			once = false
			m.writeAt(60<<10, 5000)
		}
		return do(f)
	}
	m.must(m.w.Sync(context.Background()))
	m.flush()
	m.forget(m.revived(m.snapshot("the end"), m.kill))
}

// TestReplacedAfterCommit lets another device replace the content after a
// commit during which the file was written to and closed, and then crashes.
func TestReplacedAfterCommit(t *testing.T) {
	m := newModel(t)
	defer func() { m.forget(m.rig) }()
	m.writeAt(0, 50<<10)
	m.during = append(m.during, func() { m.writeAt(10<<10, 40<<10); m.flush() })
	c, _ := m.t.begin(m.t.lookup(m.ino))
	m.t.run(context.Background(), c)
	m.must(c.err)
	m.tree.replace(m.ino, tree.Content{Kind: tree.File, Size: 3, Inline: []byte("two")})
	r := m.snapshot("the end").revive(t)
	defer m.forget(r)
	h := r.open(m.ino, false)
	same(t, "draft", content(t, h), m.now)
	r.must(r.t.Flush(context.Background()))
	if v := r.tree.files[m.ino]; len(v) != 2 || string(v[0].Inline) != "two" {
		t.Errorf("%d versions, want both", len(v))
	}
	same(t, "committed", r.committed(r.node(m.ino)), m.now)
}
