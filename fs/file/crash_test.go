package file

import (
	"context"
	"slices"
	"testing"
)

// TestCrashAnywhere cuts one history before each operation on the journal, the
// tree and the blocks, and after each step of the user.
func TestCrashAnywhere(t *testing.T) {
	ctx := context.Background()
	m := newModel(t)
	defer func() { m.forget(m.rig) }()
	type point struct {
		crash
		past past
	}
	var points []point
	acked := past{m.now} // survives from now on
	take := func(at string) {
		points = append(points, point{m.snapshot(at), append(slices.Clone(acked), m.kill...)})
	}
	busy := false // a step of the user inside of a commit is under way
	hook := func(op string) error {
		if !busy {
			take(op)
		}
		if (op == "put block" || op == "sync blocks") && len(m.during) > 0 {
			do := m.during
			m.during, busy = nil, true
			for _, f := range do {
				f()
			}
			busy = false
		}
		return nil
	}
	m.tree.hook, m.blocks.hook = hook, hook
	steps := []struct {
		name string
		do   func()
	}{
		{"small write", func() { m.writeAt(0, 10) }},
		{"close", m.flush},
		{"grow over inline", func() { m.writeAt(10, 3000) }},
		{"close", m.flush},
		{"commit", m.commit},
		{"large write", func() { m.writeAt(1000, 700<<10) }},
		{"close", m.flush},
		{"overwrite in place", func() { m.writeAt(5000, 5000) }},
		{"commit", m.commit},
		{"overwrite", func() { m.writeAt(300<<10, 100) }},
		{"fsync", m.sync},
		{"commit, written and closed in its middle", func() {
			m.during = append(m.during, func() { m.writeAt(100<<10, 50<<10); m.flush() })
			m.commit()
		}},
		{"punch", func() { m.zeroAt(130<<10, 200<<10, true) }},
		{"truncate", func() { m.truncate(200 << 10) }},
		{"close", m.flush},
		{"grow", func() { m.truncate(400 << 10) }},
		{"commit, written, closed and truncated in its middle", func() {
			m.during = append(m.during, func() { m.writeAt(390<<10, 50<<10); m.truncate(10 << 10); m.flush() })
			m.commit()
		}},
		{"commit", m.commit},
		{"shrink to inline", func() { m.truncate(20); m.flush() }},
		{"commit", m.commit},
	}
	for _, s := range steps {
		acked = append(past{}, m.kill...)
		s.do()
		m.check()
		acked = nil
		take("what follows " + s.name)
	}
	m.must(m.t.Flush(ctx))
	same(t, "committed", m.committed(m.node(m.ino)), m.now)
	t.Logf("%d crashes", len(points))
	for _, p := range points {
		m.forget(m.revived(p.crash, p.past))
	}
}
