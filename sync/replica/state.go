package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// Room is room on the disk that is kept free for a state that is received, see
// [Config].Reserve. Its methods do not wait.
type Room interface {
	// Shrink gives n bytes back.
	Shrink(n int64)
	// Release gives everything back. The Room is not used afterwards.
	Release()
}

// endless is the Room where the disk is not bounded.
type endless struct{}

func (endless) Shrink(int64) {}
func (endless) Release()     {}

// allowance is how many bytes of messages are taken for a state of which size were
// offered: it may have grown since.
func allowance(size uint64) int64 { return int64(size + size/4 + 1<<20) }

// stateSize returns about the bytes of all records as they are sent. What was
// found out for the same commits is not found out again.
func (s *sessions) stateSize(known tree.Vector) (uint64, error) {
	s.sizing.Lock()
	defer s.sizing.Unlock()
	if s.sized != nil && s.sized.Equal(known) {
		return s.size, nil
	}
	snap := s.r.st.Snapshot()
	defer snap.Release()
	var size uint64
	var buf []byte
	if err := snap.Scan(nil, nil, func(rec tree.Record) error {
		buf = tree.AppendRecord(buf[:0], rec)
		size += uint64(len(buf))
		return nil
	}); err != nil {
		return 0, fmt.Errorf("size of the tree: %w", err)
	}
	s.sized, s.size = known, size
	return size, nil
}

// offered asks a peer for its state if it is needed and there is room for it:
// for the staging file, and for the records, which take about as much.
func (r *Replica) offered(ctx context.Context, p *session, size uint64) {
	s := &r.sessions
	r.mu.RLock()
	useless := r.broken || r.oldCopy || r.Revoked()
	r.mu.RUnlock()
	if useless || r.stateHeld(p) || !s.join(p) {
		return
	}
	limit, room := allowance(size), Room(endless{})
	if r.cfg.Reserve != nil {
		var err error
		if room, err = r.cfg.Reserve(ctx, 2*limit); err != nil {
			r.log.Error("no room for the tree of another device", "device", r.name(p.dev), "bytes", size, "err", err)
			s.refuse(p, nil)
			return
		}
	}
	s.ask(p, room, limit)
}

// state takes a message of the walk over the state of a peer. If it is of no use,
// nothing of the state stays, and the tree is as it was.
func (r *Replica) state(p *session, kind byte, body []byte) error {
	s := &r.sessions
	if s.apart(p) {
		return nil // the rest of one that was refused
	}
	w, err := s.goesOn(p, 1+len(body))
	switch {
	case err != nil:
	case kind == msgState:
		err = r.walkBegin(p, body)
	case w == nil: // of the walk before this one
	case len(body) == 0:
		r.log.Warn("a device did not keep its tree as it was for us", "device", r.name(p.dev))
		s.refuse(p, errStale)
	default:
		return w.take(body)
	}
	if err == nil || errors.Is(err, errStale) {
		return err
	}
	if w = s.refuse(p, errRefused); w != nil {
		<-w.done // and with it the staging file
	}
	return r.refused(p, err)
}

// refused says why a state was refused.
func (r *Replica) refused(p *session, err error) error {
	if errors.Is(err, errHeld) {
		return nil
	}
	if fork, ok := errors.AsType[*ForkedError](err); ok {
		r.part(p, fork)
		return nil
	}
	err = fmt.Errorf("take over the tree of %s: %w", r.name(p.dev), err)
	r.log.Error("the tree of another device is refused", "device", r.name(p.dev), "err", err)
	return err
}

// checkpoint closes the open batch and freezes and signs the state.
func (r *Replica) checkpoint() (m *manifest.Manifest, heads [][]byte, v *served, err error) {
	r.syncing.Lock()
	defer r.syncing.Unlock()
	r.mu.Lock()
	next, vector := r.commits.next, r.vector
	err = func() error {
		if err := r.closeBatchLocked(); err != nil {
			return err
		}
		if !r.open.empty() {
			return r.stoppedLocked() // what it holds has no name that others could know it by
		}
		next, vector = r.commits.next, r.vector
		if err := r.st.Heads(func(_ tree.Actor, b []byte) error { heads = append(heads, b); return nil }); err != nil {
			return err
		}
		var err error
		if m, err = r.signLocked(r.vector, r.vector[r.cfg.Actor], nil); err != nil {
			return err
		}
		stated := head{seq: m.Seq, ctr: m.Ctr, hash: m.Hash()}
		if err := r.st.Update(func(tx *store.Tx) error { tx.SetValue(statedKey, stated.encode()); return nil }); err != nil {
			return err
		}
		r.stated = stated
		v = &served{snap: r.st.Snapshot(), tree: r.spans.tree.Clone()} // brought up to date for the signature
		return nil
	}()
	r.mu.Unlock()
	if err == nil {
		err = r.st.Sync()
	}
	if err != nil {
		if v != nil {
			v.snap.Release()
		}
		return nil, nil, nil, fmt.Errorf("checkpoint: %w", err)
	}
	r.setSynced(next, vector)
	return m, heads, v, nil
}

// statedKey is the value of the database with this device's newest checkpoint:
// seq (8), ctr (8), hash (32). The checkpoint itself is not needed any more.
const statedKey = "stated"

func (h head) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, h.seq)
	return append(binary.BigEndian.AppendUint64(b, h.ctr), h.hash[:]...)
}

func (r *Replica) loadStated() error {
	b, err := r.st.Value(statedKey)
	if err != nil || b == nil {
		return err
	}
	if len(b) != 16+len(r.stated.hash) {
		return fmt.Errorf("%w: newest checkpoint", store.ErrDamaged)
	}
	r.stated = head{seq: binary.BigEndian.Uint64(b), ctr: binary.BigEndian.Uint64(b[8:]), hash: manifest.Hash(b[16:])}
	return nil
}

// signed returns the newest manifest that this device has signed.
func (r *Replica) signed() head {
	if own := r.heads[r.cfg.Actor]; own.seq > r.stated.seq {
		return own
	}
	return r.stated
}

// incoming is a state that is being received. Nothing of it is visible before all
// of it is here and agrees with the signed root.
type incoming struct {
	begin  []byte // the message, without its kind
	m      *manifest.Manifest
	top    merkle.Ref
	vector tree.Vector
	heads  map[tree.Actor][]byte
	named  []manifest.Head // all commits that the manifests and hashes name
	before []manifest.Head // those of the hashes

	limit     int64 // bytes that are taken for it
	stage     *stage
	regions   []region     // ascending, apart from each other
	own       *merkle.Tree // over all records of the state, if the walk that got it is of this run
	plan      int64        // where the plan begins in the staging file
	keep      bool         // it is being joined: the file is needed until that is done
	overtaken bool         // see errOvertaken; guarded by Replica.mu
}

// announced checks the begin of a state that came from the device from, and returns
// it, without a file.
func (r *Replica) announced(body []byte, from device.ID) (*incoming, error) {
	encoded, heads, top, err := decodeState(body)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Decode(encoded)
	if err != nil {
		return nil, err
	}
	if err := r.check(m, from); err != nil {
		return nil, err
	}
	if m.Flags&manifest.FlagCheckpoint == 0 {
		return nil, errors.New("state without a checkpoint")
	}
	top.Hash = m.Root
	in := &incoming{begin: slices.Clone(body), m: m, top: top, vector: tree.Vector{}, heads: map[tree.Actor][]byte{}, named: m.Frontier}
	want := map[tree.Actor]manifest.Head{}
	for _, h := range m.Frontier {
		want[h.Actor] = h
		in.vector[h.Actor] = h.Ctr
	}
	for _, told := range heads {
		h, err := manifest.Decode(told.manifest)
		if err != nil {
			return nil, err
		}
		if err := r.check(h, from); err != nil {
			return nil, err
		}
		w, ok := want[h.Actor]
		if h.Flags&manifest.FlagCommit == 0 || !ok || h.Ctr != w.Ctr || h.Hash() != w.Hash {
			return nil, fmt.Errorf("state names a head of %v that is not the one it shows", h.Device)
		}
		delete(want, h.Actor)
		in.heads[h.Actor] = slices.Clone(told.manifest)
		before, err := headsBefore(h, told.hashes)
		if err != nil {
			return nil, err
		}
		in.before = append(in.before, before...)
		in.named = append(append(in.named, h.Frontier...), before...)
	}
	if len(want) > 0 {
		return nil, fmt.Errorf("state claims commits of %d devices without their manifests", len(want))
	}
	if manifest.StateID(m.Root, in.vector) != m.StateID {
		return nil, errors.New("state id does not belong to the root")
	}
	return in, nil
}

// errStale means that a peer took too long with its state, so that another one
// was asked.
var errStale = errors.New("whole state that nobody waits for")

// clearStaging removes a staging file that nothing needs.
func (r *Replica) clearStaging() error {
	if err := os.Remove(r.cfg.Staging); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stage state: %w", err)
	}
	return nil
}

// resumeJoin does again what an earlier run began to do with the staging file.
func (r *Replica) resumeJoin(plan int64) error {
	f, err := os.Open(r.cfg.Staging)
	if err != nil {
		return fmt.Errorf("%w: the tree was being taken over from another device, and the file with it cannot be read: %w", store.ErrDamaged, err)
	}
	st := &stage{file: f}
	in, err := r.planned(st, plan)
	if err == nil {
		_, err = r.join(in)
	}
	st.close(err != nil)
	if err != nil {
		return fmt.Errorf("resume taking over the tree: %w", err)
	}
	return nil
}

// planned returns the state of which the plan is in the staging file.
func (r *Replica) planned(st *stage, plan int64) (*incoming, error) {
	info, err := st.file.Stat()
	if err != nil {
		return nil, err
	}
	if plan < 0 || plan > info.Size() {
		return nil, fmt.Errorf("%w: plan in the staging file", store.ErrDamaged)
	}
	b := make([]byte, info.Size()-plan)
	if _, err := st.file.ReadAt(b, plan); err != nil {
		return nil, fmt.Errorf("staging file: %w", err)
	}
	begin, regions, err := readPlan(b)
	if err != nil {
		return nil, err
	}
	in, err := r.announced(begin, r.cfg.Key.ID())
	if err != nil {
		return nil, err
	}
	in.stage, in.regions, in.plan, in.keep = st, regions, plan, true
	hash := merkle.NewLeafHasher()
	for i := range regions {
		g := &regions[i]
		if g.leaf.IsZero() {
			continue
		}
		if g.off > plan || g.n > plan-g.off {
			return nil, fmt.Errorf("%w: plan in the staging file", store.ErrDamaged)
		}
		if err := st.read(g.extent, func(rec tree.Record) error { hash.Add(entryOf(rec)); return nil }); err != nil {
			return nil, err
		}
		if hash.Sum() != g.leaf {
			return nil, fmt.Errorf("%w: leaf in the staging file", store.ErrDamaged)
		}
	}
	return in, nil
}

// join merges a received state into the local one, in one step for readers. It
// takes several transactions; a crash between two is made good by the next
// Open, for which the staging file is kept.
func (r *Replica) join(in *incoming) (aff tree.Affected, err error) {
	if !in.keep { // else an earlier run has
		if err := in.stage.seal(in); err != nil {
			return aff, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.joinableLocked(in); err != nil {
		return aff, err
	}
	if in.overtaken {
		return aff, errOvertaken
	}
	if err := r.closeBatchLocked(); err != nil { // see batch.meets
		return aff, err
	}
	mine := r.vector.Clone()
	if !r.open.empty() {
		mine[r.cfg.Actor]++
	}
	if err := r.judgeStateLocked(in, mine); err != nil {
		return aff, err
	}
	if err := r.st.Update(func(tx *store.Tx) error {
		tx.SetValue(joiningKey, binary.BigEndian.AppendUint64(nil, uint64(in.plan)))
		return nil
	}); err != nil {
		return aff, err
	}
	in.keep = true
	if err := r.keepHashesLocked(in.before); err != nil {
		r.broken = true
		return aff, err
	}
	defer func() { // what is half done shows nowhere before the next Open completes it
		if err != nil {
			r.broken = true
		}
	}()
	empty, err := r.view.Untouched()
	if err != nil {
		return aff, err
	}
	if empty {
		err = r.fillLocked(in, mine)
		aff.All = true
	} else {
		aff, err = r.followStateLocked(in, mine)
	}
	if err != nil {
		return aff, err
	}
	in.keep = false
	back, err := r.joinedStateLocked(in.m.Device)
	aff.Entries, aff.Inodes = append(aff.Entries, back.Entries...), append(aff.Inodes, back.Inodes...)
	return aff, err
}

// followStateLocked makes the join part by part, and the view follows.
func (r *Replica) followStateLocked(in *incoming, mine tree.Vector) (aff tree.Affected, err error) {
	ch := tree.Change{}
	flush := func(also func(*store.Tx) error) error {
		a, err := r.changeLocked(ch, also)
		aff.Entries = append(aff.Entries, a.Entries...)
		aff.Inodes = append(aff.Inodes, a.Inodes...)
		ch = tree.Change{}
		return err
	}
	add := func(put []tree.Record, drop []tree.KeyDot) error {
		ch.Put, ch.Drop = append(ch.Put, put...), append(ch.Drop, drop...)
		if len(ch.Put)+len(ch.Drop) < joinStep {
			return nil
		}
		err := flush(nil)
		if r.between != nil {
			r.between()
		}
		return err
	}
	// Directories first, each after the one that it is in: records come in an order that
	// has nothing to do with the tree, and as long as the view does not know the directory
	// of something it looks for every name in each of those that it does not know.
	var dirs []joinedKey
	if err := r.mergeLocked(in, mine, func(dir bool) bool { return dir }, func(put []tree.Record, drop []tree.KeyDot) error {
		dirs = append(dirs, joinedKey{put, drop})
		return nil
	}); err != nil {
		return aff, err
	}
	for _, d := range downwards(dirs) {
		if err := add(d.put, d.drop); err != nil {
			return aff, err
		}
	}
	if err := r.mergeLocked(in, mine, func(dir bool) bool { return !dir }, add); err != nil {
		return aff, err
	}
	also, done, err := r.joinedLocked(in)
	if err != nil {
		return aff, err
	}
	if err := flush(also); err != nil {
		return aff, err
	}
	done()
	return aff, nil
}

// joinedLocked returns what the last transaction of a join writes, and what is to be
// done after it.
func (r *Replica) joinedLocked(in *incoming) (also func(*store.Tx) error, done func(), err error) {
	vector := r.vector.Clone()
	vector.Merge(in.vector)
	news := map[tree.Actor]head{}
	for a, b := range in.heads {
		if in.vector[a] > r.vector[a] {
			m, err := manifest.Decode(b)
			if err != nil {
				return nil, nil, err
			}
			news[a] = headOf(m)
		}
	}
	also = func(tx *store.Tx) error {
		for a, h := range news {
			tx.SetHead(a, in.heads[a])
			keepHash(tx, tree.Dot{Actor: a, Ctr: h.ctr}, h.hash)
		}
		tx.SetValue("vector", vector.Append(nil))
		tx.SetValue(joiningKey, nil)
		return nil
	}
	return also, func() {
		maps.Copy(r.heads, news)
		r.vector = vector
	}, nil
}

// joinableLocked returns an error if a received state must not be joined.
func (r *Replica) joinableLocked(in *incoming) error {
	if r.broken {
		return ErrBroken // the staging file may be needed
	}
	if in.vector[r.cfg.Actor] > r.vector[r.cfg.Actor] { // with a head that this device has signed
		r.fenceLocked()
		return ErrOldCopy
	}
	return r.agreeLocked(in.m.Device, in.named)
}

// joinStep is how many records the view follows at once while a state is joined:
// each time costs something for every directory.
const joinStep = 4096

// mergeLocked walks the local and the received records of all regions side by side,
// key by key, and gives emit what the join changes locally, as far as it is wanted: a
// key that says where a directory is, or another one.
func (r *Replica) mergeLocked(in *incoming, mine tree.Vector, wanted func(dir bool) bool, emit func([]tree.Record, []tree.KeyDot) error) error {
	snap := r.st.Snapshot()
	defer snap.Release()
	local := newGroups(func(fn func(tree.Record) error) error { return in.local(snap, fn) })
	defer local.stop()
	remote := newGroups(in.each)
	defer remote.stop()
	for local.more() || remote.more() {
		var l, m []tree.Record
		switch {
		case !remote.more() || (local.more() && local.key() < remote.key()):
			l = local.take()
		case !local.more() || remote.key() < local.key():
			m = remote.take()
		default:
			l, m = local.take(), remote.take()
		}
		if !wanted(slices.ContainsFunc(l, placesDir) || slices.ContainsFunc(m, placesDir)) {
			continue
		}
		put, drop, alarm := tree.JoinKey(l, m, mine, in.vector)
		if alarm {
			r.log.Error("one change exists in two versions", "from", r.name(in.m.Device))
		}
		if err := emit(put, drop); err != nil {
			return err
		}
	}
	return errors.Join(local.err(), remote.err())
}

// placesDir reports whether a record says where a directory is.
func placesDir(rec tree.Record) bool {
	if rec.Key.Type() != tree.TypeLink {
		return false
	}
	l, err := tree.DecodeLink(rec.Value)
	return err == nil && l.Dir
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
