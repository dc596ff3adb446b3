package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/replica"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// A machine is a computer with one disk, on which one device runs: a replica
// over its database. A cloned disk runs on a machine of its own, as the same device.
type machine struct {
	w     *world
	n     int // index in world.machines
	name  string
	key   device.Key
	actor tree.Actor
	keep  int64
	birth []byte // the membership log that it is set up with; nil: it is not
	dir   string
	clock atomic.Int64 // how far its clock is off, in ns

	log  *device.Log
	st   *store.Store
	rep  *replica.Replica
	open bool // the database
	up   bool // and the replica
	stop func() error
	said said

	dead  atomic.Bool // the power is off: what still runs reaches neither network nor disk
	fuse  int         // > 0: the power goes off with so many more writes or syncs to the disk
	blown *image      // the disk as it was then

	// Guarded by world.mu, since the database reports from any goroutine.
	durable  *image // what a power cut leaves
	writes   int    // since then
	limbo    []sending
	ops      int             // operations that have returned
	shownNow map[string]bool // contents that it must show: it did, and nobody gave them up

	handles  []handle
	wrote    map[string]tree.Ino // contents written since the start
	seen     *listing            // what it shows
	stale    bool                // it may show something else by now
	affected tree.Affected       // what its subscriber was told since
	past     []*image            // for a restore or a clone
	forked   bool                // it was restored or cloned
	revoked  bool                // it does not belong to the hive any more, whoever knows that
	sponsor  bool                // it has added another one
	reborn   bool                // at its next start it finds that out
	exact    string              // while it is off: what it has to show then, if that is known
	least    tree.Vector         // while it is off: what it has to know then
}

// handle is a file that was opened and may be written much later.
type handle struct {
	ino   tree.Ino
	base  []tree.Dot
	token string
}

// said keeps what a device logs, for its errors.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// now is what the clock of the machine shows.
func (m *machine) now() time.Time { return time.Now().Add(time.Duration(m.clock.Load())) }

// start turns the machine on.
func (m *machine) start() {
	m.dead.Store(false)
	m.fuse, m.blown = 0, nil
	var err error
	m.st, err = store.Open(filepath.Join(m.dir, "db"), nil)
	check(err)
	m.open = true
	m.st.Watch(m.disk)
	b, err := m.st.Value(replica.MembersKey)
	check(err)
	if b == nil {
		b = m.birth
		check(m.st.Update(func(tx *store.Tx) error { tx.SetValue(replica.MembersKey, b); return nil }))
		check(m.st.Sync())
	}
	m.log, err = device.Decode(b)
	check(err)
	if m.reborn && expectConverge && !m.w.off.renew {
		m.renew()
	}
	m.rep, err = replica.Open(replica.Config{
		Store: m.st, Key: m.key, Actor: m.actor, Members: m.log, Spread: [32]byte{1},
		Staging: filepath.Join(m.dir, "staging"), Kept: filepath.Join(m.dir, "kept"), Keep: m.keep, Now: m.now,
		Log: slog.New(slog.NewTextHandler(&m.said, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		violate("%s does not start: %v", m.name, err)
	}
	m.rep.Subscribe(m.tell)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	rep := m.rep
	go func() { done <- rep.Run(ctx) }()
	m.stop = func() error {
		cancel()
		return <-done
	}
	m.up = true
	m.handles, m.wrote = nil, map[string]tree.Ino{}
	m.affected = tree.Affected{}
	synctest.Wait()
	m.w.broken()
	m.seen = list(m.rep, m.w.mayLose())
	m.stale = false
}

// renew gives the device another actor, which its membership record names, as the
// program does at a start at which it finds that its state directory is a copy.
func (m *machine) renew() {
	m.reborn = false
	m.w.born++
	m.actor = device.NewActor(m.key.ID(), [16]byte{byte(m.w.born), byte(m.w.born >> 8), 1})
	_, err := m.log.Add(m.key, m.key.ID(), "again", device.Cache, m.actor, m.now())
	check(err)
	check(m.st.Update(func(tx *store.Tx) error { tx.SetValue(replica.MembersKey, m.log.Encode()); return nil }))
	check(m.st.Sync())
}

// tell is the machine's subscriber.
func (m *machine) tell(a tree.Affected) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.stale = true
	m.affected.All = m.affected.All || a.All
	m.affected.Entries = append(m.affected.Entries, a.Entries...)
	m.affected.Inodes = append(m.affected.Inodes, a.Inodes...)
}

// disk hears of each write to the database and each sync of it.
func (m *machine) disk(synced bool) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if m.dead.Load() {
		return
	}
	m.w.guard(func() {
		m.writes++
		if synced && (m.durable == nil || !m.w.off.sync) {
			m.durable.remove()
			m.durable, m.writes = m.capture("last sync"), 0
		}
		if m.fuse > 0 {
			if m.fuse--; m.fuse == 0 {
				m.blown = m.capture("power cut")
				m.dead.Store(true)
			}
		}
	})
}

// shut turns the machine off in order.
func (m *machine) shut() {
	m.w.unplug(m)
	err := m.stop()
	synctest.Wait()
	m.up, m.open = false, false
	if err := errors.Join(err, m.rep.Close(), m.st.Close()); err != nil {
		violate("%s does not stop: %v", m.name, err)
	}
}

// kill ends the machine at once, and puts img in the place of its disk.
func (m *machine) kill(img *image) {
	m.dead.Store(true)
	m.w.unplug(m)
	m.abandon()
	m.put(img)
}

// abandon ends what still runs on a machine that is off. It writes to a disk that
// is thrown away.
func (m *machine) abandon() {
	if m.up {
		_ = m.stop() // nobody waits for it any more
		synctest.Wait()
		_ = m.rep.Close()
	}
	_ = m.st.Close()
	m.up, m.open = false, false
}

// put makes img the disk of the machine, which is off.
func (m *machine) put(img *image) {
	check(os.RemoveAll(m.dir))
	m.w.images++
	m.dir = filepath.Join(m.w.dir, fmt.Sprintf("disk%d", m.w.images))
	check(copyTree(m.dir, img.dir))
}

// state returns the root and the state id.
func (m *machine) state() (root, id [32]byte) {
	root, id, err := m.rep.State()
	check(err)
	return root, id
}

// complaints returns what the device has logged as an error.
func (m *machine) complaints() string {
	var out []string
	for line := range strings.Lines(m.said.String()) {
		if strings.Contains(line, "level=ERROR") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}
