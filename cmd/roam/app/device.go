package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/roamfs/roamfs/cache"
	"github.com/roamfs/roamfs/fs/file"
	"github.com/roamfs/roamfs/fs/mount"
	"github.com/roamfs/roamfs/peer"
	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/copies"
	"github.com/roamfs/roamfs/sync/replica"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// live is the running device: all parts, joined.
type live struct {
	state *State
	cfg   Config
	id    identity
	self  device.Member
	log   *slog.Logger

	keys     *block.Keys
	store    *store.Store
	replica  *replica.Replica
	cache    *cache.Cache
	host     *p2p.Host
	exchange *peer.Exchange
	files    *file.Table
	keeper   *copies.Keeper
	overhead *overhead
	past     past

	news     chan struct{} // cap 1: the membership log has grown
	learning sync.Mutex    // held while keys learns

	readers readers // whose blocks programs wait for

	mu     sync.Mutex
	mounts map[string]*mount.Mount
}

var _ Device = (*live)(nil)

// openDevice joins the parts of the device in s. This is the one place where
// they meet; each knows the others through small interfaces only (adapters.go).
func openDevice(s *State, log *slog.Logger) (d *live, err error) {
	cfg, err := s.Config()
	if err != nil {
		return nil, err
	}
	d = &live{state: s, cfg: cfg, log: log, mounts: map[string]*mount.Mount{}, news: make(chan struct{}, 1)}
	d.past.d, d.past.wake, d.past.again = d, make(chan struct{}, 1), make(chan struct{}, 1)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()

	if d.store, err = openStore(s, log); err != nil {
		return d, err
	}
	if d.id, err = loadIdentity(s, d.store); err != nil {
		return d, err
	}
	if err := confirmIncarnation(s, d.store, &d.id, log); err != nil {
		return d, fmt.Errorf("state directory: %w", err)
	}
	self, in := d.id.members.Member(d.id.key.ID())
	if !in { // but it was: loadIdentity has checked it
		self, _ = d.id.members.WasMember(d.id.key.ID())
	}
	d.self = self
	limit := cfg.Limit(d.self.Role.String())
	if d.keys, err = d.id.keys(); err != nil {
		return d, err
	}
	if d.replica, err = replica.Open(replica.Config{
		Store: d.store, Key: d.id.key, Actor: d.id.actor, Members: d.id.members,
		Spread: d.keys.Derive("merkle"), Staging: s.path(stagingName), Kept: s.path(keptName),
		Reserve: d.stagingRoom,
		Guard:   cfg.MassChange,
		Keep:    commitsKept(limit), Log: log,
	}); err != nil {
		return d, damaged(s, "the tree in the database", err)
	}
	d.overhead = newOverhead(s)
	archive := d.self.Role == device.Archive
	if d.cache, err = cache.Open(s.Blocks(), cache.Options{
		Limit: limit, Keep: archive,
		Fetcher: fetcher{d}, Prover: prover{d},
		Verified: true, // by peer.Exchange, which drops and names who sends something else
		Overhead: d.overhead.bytes,
		Changed:  d.changed,
		Log:      log,
	}); err != nil {
		return d, damaged(s, "the block store", err)
	}
	d.keeper = copies.New(copies.Config{
		Tree: d.replica, Blocks: copied{d.cache}, Holders: d.store,
		Keys: d.keys, Archive: archive, History: &d.past, Counts: d.isMember, Log: log,
	})
	if d.host, err = p2p.New(p2p.Config{
		Key: d.id.key.Private(), Listen: cfg.Listen, MDNS: cfg.MDNS && in, Hive: d.id.members.Hive(),
		Allowed: d.connects, Visitor: d.visits, TurnedAway: d.turnedAway,
		Learned: d.learned, Log: log,
	}); err != nil {
		return d, fmt.Errorf("network: %w", err)
	}
	d.exchange = peer.New(peer.Config{
		Host: d.host, Blocks: d.cache, Holdings: holdings{d.store, d}, Members: d.id.members.Members,
		Self: d.id.key.ID(), Sync: d.replica, ReadTimeout: cfg.Timeout(), Log: log,
		Heard: func(device.ID) { d.keeper.HeardHoldings(); d.past.recount(); d.cache.Reconsider() },
	})
	if d.files, err = file.New(file.Options{
		Dir: s.Drafts(), Tree: d.replica, Blocks: blocks{d}, Keys: d.keys,
		Hint:     d.reading,
		Draining: func() bool { return len(d.host.Connected()) > 0 },
		Log:      log,
	}); err != nil {
		return d, damaged(s, "the drafts", err)
	}
	d.host.Receive(farewellProtocol, d.farewell)
	d.host.Receive(recoverProtocol, d.readmit)
	if err := d.remember(); err != nil {
		return d, err
	}
	d.replica.Subscribe(func(a tree.Affected) {
		if a.All {
			d.keeper.AdoptedAll()
		}
		d.keeper.Adopted(a.Inodes)
	})
	d.replica.SubscribeMembers(d.membersChanged)
	d.replica.SubscribeWrites(d.keeper.Wrote)
	d.replica.SubscribeWords(d.keeper.HeardCommits)
	d.replica.SubscribeSettings(d.past.changed)
	d.host.OnChange(func(_ device.ID, up bool) {
		if up {
			d.keeper.Reconnected()
			d.cache.Reconsider()
		}
	})
	return d, nil
}

// isMember tells whether a device belongs to the hive now.
func (d *live) isMember(dev device.ID) bool {
	_, ok := d.id.members.Member(dev)
	return ok
}

// connects tells whether this device and another one are members, and so exchange
// anything.
func (d *live) connects(dev device.ID) bool { return d.isMember(dev) && d.isMember(d.self.ID) }

// visits returns the protocol by which a device that is no member may speak.
func (d *live) visits(dev device.ID) string {
	switch {
	case !d.isMember(d.self.ID):
		return ""
	case device.HiveOf(dev) == d.id.members.Hive():
		return recoverProtocol
	case d.out(dev):
		return farewellProtocol
	}
	return ""
}

// changed passes on which blocks are durable here now and which are gone.
func (d *live) changed(added, gone []block.ID) {
	if d.exchange == nil {
		return // the device could not be opened and is being closed
	}
	d.exchange.Announce(added, gone)
	if len(gone) > 0 {
		d.keeper.Dropped()
	}
}

// commitsKept is how many bytes of commits are kept for peers.
func commitsKept(limit int64) int64 {
	const most = 8 << 20
	if limit > 0 {
		return min(most, limit/32)
	}
	return most
}

// remember tells the network where the other members were last.
func (d *live) remember() error {
	for _, m := range d.id.members.Members() {
		addrs, err := knownAddresses(d.store, m.ID)
		if err != nil {
			return err
		}
		if len(addrs) > 0 {
			d.host.Remember(m.ID, addrs)
		}
	}
	return nil
}

// learned keeps the addresses of another device.
func (d *live) learned(dev device.ID, addrs []string) {
	if err := rememberAddresses(d.store, dev, addrs); err != nil {
		d.log.Warn("addresses not kept", "device", d.name(dev), "err", err)
	}
}

// Run does the work of the device; see [Device].
func (d *live) Run(ctx context.Context) error {
	if err := d.files.Recover(ctx); err != nil {
		return damaged(d.state, "the drafts", err)
	}
	spareProcessors()
	// What writes ends before what it writes through: the commits of files
	// first, then the publishing of the tree, then everything else.
	outer, stopOuter := context.WithCancel(context.WithoutCancel(ctx))
	defer stopOuter()
	parts, partsCtx := errgroup.WithContext(outer)
	for _, run := range []func(context.Context) error{
		d.cache.Run, d.host.Run, d.exchange.Run, d.keeper.Run, d.replica.Run, d.mendEpochs, d.returnMemory, d.past.run, d.past.follow, d.past.count,
	} {
		parts.Go(func() error { return ended(partsCtx, run(partsCtx)) })
	}

	inner, stopInner := context.WithCancel(ctx)
	defer stopInner()
	stop := context.AfterFunc(partsCtx, stopInner) // a part failed
	defer stop()
	err := ended(inner, d.files.Run(inner))
	stopOuter()
	return errors.Join(err, parts.Wait())
}

// ended returns err unless it only says that a part ended because it was told to.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Close releases everything; see [Device].
func (d *live) Close() error {
	var all []error
	closing := func(what string, err error) {
		if err != nil {
			all = append(all, fmt.Errorf("close %s: %w", what, err))
		}
	}
	if d.host != nil {
		closing("network", d.host.Close())
	}
	if d.replica != nil {
		closing("tree", d.replica.Close()) // it may need room
	}
	if d.cache != nil {
		closing("blocks", d.cache.Close())
	}
	if d.store != nil {
		closing("database", d.store.Close())
	}
	return errors.Join(all...)
}

// Mount shows the tree at dir; see [Device].
func (d *live) Mount(_ context.Context, dir string) (<-chan struct{}, error) {
	m, err := mount.New(mount.Options{Dir: dir, Tree: d.replica, Files: d.files, Status: shown{d}, History: &d.past, Self: d.id.actor, Log: d.log, Name: "roamfs"})
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.mounts[dir] = m
	d.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		m.Wait()
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.mounts[dir] == m {
			delete(d.mounts, dir)
		}
	}()
	return gone, nil
}

// Unmount ends the mount at dir; see [Device].
func (d *live) Unmount(_ context.Context, dir string, detach bool) error {
	d.mu.Lock()
	m := d.mounts[dir]
	d.mu.Unlock()
	if m == nil {
		return nil // it ended by itself
	}
	var err error
	if detach {
		err = m.Detach()
	} else {
		err = m.Unmount()
	}
	if errors.Is(err, mount.ErrBusy) {
		return ErrBusy
	}
	return err
}

// Flush commits and publishes everything; see [Device].
func (d *live) Flush(ctx context.Context) (OnlyHere, error) {
	if err := d.files.Flush(ctx); err != nil {
		return OnlyHere{}, err
	}
	if err := errors.Join(d.cache.Sync(), d.replica.Publish(), d.replica.Sync()); err != nil {
		return OnlyHere{}, err
	}
	// Whoever is connected takes what is new, as long as it goes on.
	d.drain(ctx)
	only := OnlyHere{}
	only.Files, only.Bytes = d.keeper.Waiting()
	for _, ino := range d.keeper.OnlyHere(10) {
		p, err := d.replica.Path(ino)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return only, err
		}
		only.Paths = append(only.Paths, p)
	}
	return only, nil
}

// drain waits until nothing is here only, nobody is connected, ctx ends, or
// two seconds have passed without progress.
func (d *live) drain(ctx context.Context) {
	last, since := int64(-1), time.Now()
	for {
		files, bytes := d.keeper.Waiting()
		if (files == 0 && !d.replica.Unshared()) || len(d.host.Connected()) == 0 || !d.anyArchive() {
			return
		}
		if now := files + bytes; now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > 2*time.Second {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// anyArchive tells whether an archive is connected, which takes what is new.
func (d *live) anyArchive() bool {
	for _, dev := range d.host.Connected() {
		if m, ok := d.id.members.Member(dev); ok && m.Role == device.Archive {
			return true
		}
	}
	return false
}

// errNoProgress means that what was waited for did not come.
var errNoProgress = errors.New("nothing arrived in time")

// await waits until ok, with ctx, and gives up after limit without progress of
// the records received.
func (d *live) await(ctx context.Context, limit time.Duration, ok func() bool) error {
	last, since := int64(-1), time.Now()
	for !ok() {
		if n := d.received(); n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) > limit {
			return errNoProgress
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// received grows while the tree is being received.
func (d *live) received() int64 {
	n := int64(d.replica.Commits())
	if info, err := os.Stat(d.state.path(stagingName)); err == nil {
		n += info.Size()
	}
	return n
}

// name returns what a device is called.
func (d *live) name(dev device.ID) string {
	if m, ok := d.id.members.Member(dev); ok {
		return m.Label
	}
	return dev.Short()
}

func (d *live) ref(dev device.ID) DeviceRef { return DeviceRef{ID: dev.String(), Name: d.name(dev)} }
