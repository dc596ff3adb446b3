package replica

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
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
			s.refuse(p)
			return
		}
	}
	s.ask(p, room, limit)
}

// state takes a message with a part of a state. If it is of no use, nothing of
// the state stays, and the tree is as it was.
func (r *Replica) state(p *session, kind byte, body []byte) error {
	s := &r.sessions
	if s.apart(p) {
		return nil // the rest of one that was refused
	}
	err := s.goesOn(p, 1+len(body))
	if err == nil {
		switch kind {
		case msgState:
			err = r.stateBegin(p, body)
		case msgPart:
			err = r.statePart(p, body)
		case msgEnd:
			err = r.stateEnd(p)
		}
	}
	if err == nil || errors.Is(err, errStale) {
		return err
	}
	s.refuse(p)
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

// sendState sends a peer the whole state: a checkpoint signed over it, the
// newest manifest of every actor, and all records in key order.
func (r *Replica) sendState(ctx context.Context, p *session) error {
	m, heads, snap, err := r.checkpoint()
	if err != nil {
		return err
	}
	defer snap.Release()
	begin, err := r.begin(m, heads)
	if err != nil {
		return err
	}
	if err := p.transmit(ctx, begin); err != nil {
		return err
	}
	part := []byte{msgPart}
	err = snap.Scan(nil, nil, func(rec tree.Record) error {
		part = tree.AppendRecord(part, rec)
		if len(part) < partSize {
			return nil
		}
		if r.sessions.apart(p) {
			return errApart
		}
		err := p.transmit(ctx, part)
		part = []byte{msgPart}
		return err
	})
	if errors.Is(err, errApart) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(part) > 1 {
		if err := p.transmit(ctx, part); err != nil {
			return err
		}
	}
	return p.transmit(ctx, []byte{msgEnd})
}

// begin returns the message that begins a state.
func (r *Replica) begin(m *manifest.Manifest, heads [][]byte) ([]byte, error) {
	told := make([]toldHead, 0, len(heads))
	for _, b := range heads {
		hashes, err := r.hashesBefore(b, maxHashes/len(heads))
		if err != nil {
			return nil, err
		}
		told = append(told, toldHead{b, hashes})
	}
	return encodeState(m.Encode(), told), nil
}

// checkpoint closes the open batch and freezes and signs the state.
func (r *Replica) checkpoint() (m *manifest.Manifest, heads [][]byte, snap *store.Snapshot, err error) {
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
		stated := head{m.Seq, m.Ctr, m.Hash()}
		if err := r.st.Update(func(tx *store.Tx) error { tx.SetValue(statedKey, stated.encode()); return nil }); err != nil {
			return err
		}
		r.stated = stated
		snap = r.st.Snapshot()
		return nil
	}()
	r.mu.Unlock()
	if err == nil {
		err = r.st.Sync()
	}
	if err != nil {
		if snap != nil {
			snap.Release()
		}
		return nil, nil, nil, fmt.Errorf("checkpoint: %w", err)
	}
	r.setSynced(next, vector)
	return m, heads, snap, nil
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
	r.stated = head{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), manifest.Hash(b[16:])}
	return nil
}

// signed returns the newest manifest that this device has signed.
func (r *Replica) signed() head {
	if own := r.heads[r.cfg.Actor]; own.seq > r.stated.seq {
		return own
	}
	return r.stated
}

// incoming is a state that is being received into a staging file. Nothing of
// it is visible before all of it is here and agrees with the signed root.
//
// The file holds pieces, each after its length (4): first the message that
// begins the state, then those with the records.
type incoming struct {
	m      *manifest.Manifest
	vector tree.Vector
	heads  map[tree.Actor][]byte
	named  []manifest.Head // all commits that the manifests and hashes name
	before []manifest.Head // those of the hashes
	file   *os.File
	w      *bufio.Writer
	last   tree.Record // of the records so far
	any    bool
	short  bool // the last part was shorter than the others
	keep   bool // it is being joined: the file is needed until that is done
}

// abandon closes the staging file, and removes it if own says that it still
// has its name and nothing needs it.
func (in *incoming) abandon(own bool) {
	if in == nil || in.file == nil {
		return
	}
	_ = in.file.Close() // what counts was synced
	if own && !in.keep {
		_ = os.Remove(in.file.Name()) // a left-over is removed by the next
	}
	in.file = nil
}

func (in *incoming) write(piece []byte) error {
	n := binary.BigEndian.AppendUint32(nil, uint32(len(piece)))
	if _, err := in.w.Write(append(n, piece...)); err != nil {
		return fmt.Errorf("stage state: %w", err)
	}
	return nil
}

// announced checks the begin of a state that came from the device from, and returns
// it, without a file.
func (r *Replica) announced(body []byte, from device.ID) (*incoming, error) {
	encoded, heads, err := decodeState(body)
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
	in := &incoming{m: m, vector: tree.Vector{}, heads: map[tree.Actor][]byte{}, named: m.Frontier}
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
		in.heads[h.Actor] = told.manifest
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

func (r *Replica) stateBegin(p *session, body []byte) error {
	s := &r.sessions
	if p.incoming != nil {
		return errors.New("a state begins within another")
	}
	in, err := r.announced(body, p.dev)
	if err != nil {
		return err
	}
	if in.m.Device != p.dev {
		return errors.New("state that is not signed by its sender")
	}
	r.mu.Lock()
	err = r.joinableLocked(in)
	r.mu.Unlock()
	if err != nil {
		return err // before anything is written
	}
	// A new file: a peer that was given up may still write to the one before.
	if err := os.Remove(r.cfg.Staging); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stage state: %w", err)
	}
	f, err := os.OpenFile(r.cfg.Staging, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("stage state: %w", err)
	}
	in.file, in.w = f, bufio.NewWriterSize(f, 256<<10)
	r.log.Info("receiving the tree", "from", r.name(p.dev))
	s.mu.Lock()
	p.incoming = in
	s.mu.Unlock()
	return in.write(body)
}

func (r *Replica) statePart(p *session, body []byte) error {
	in := p.incoming
	if in == nil {
		return errors.New("part of a state that was not begun")
	}
	// So a state comes in as many messages as it needs, and not one by one for ever.
	if in.short || len(body) > maxPart {
		return errors.New("parts of a state that are too short or too long")
	}
	in.short = len(body) < partSize
	for rest := body; len(rest) > 0; {
		rec, tail, err := tree.DecodeRecord(rest)
		if err != nil {
			return err
		}
		rest = tail
		if err := tree.Check(rec); err != nil {
			return err
		}
		if in.any && in.last.ID().Compare(rec.ID()) >= 0 {
			return errors.New("records of a state out of order")
		}
		if rec.Dot.Ctr > in.vector[rec.Dot.Actor] || rec.Dot.Ctr == 0 {
			return errors.New("record of a commit that the state does not claim")
		}
		in.last, in.any = rec, true
	}
	return in.write(body)
}

func (r *Replica) stateEnd(p *session) error {
	s := &r.sessions
	in := p.incoming
	if in == nil {
		return errors.New("end of a state that was not begun")
	}
	if !s.begin(p) {
		return errStale
	}
	aff, err := r.join(in)
	if err == nil {
		// Durable before anybody is told that it is here.
		_, err = r.publish()
	}
	r.tell(aff)
	r.tellRestored()
	r.tellSettings()
	if err != nil {
		return err
	}
	s.mu.Lock()
	in.abandon(true)
	p.incoming, p.merging = nil, false
	if s.joining == p {
		s.giveUpLocked() // and look whether others know still more
	}
	s.mu.Unlock()
	r.log.Info("received the tree", "from", r.name(p.dev))
	r.wake()
	return nil
}

// resumeJoin does again what an earlier run began to do with the staging file.
func (r *Replica) resumeJoin() error {
	f, err := os.Open(r.cfg.Staging)
	if err != nil {
		return fmt.Errorf("%w: the tree was being taken over from another device, and the file with it cannot be read: %w", store.ErrDamaged, err)
	}
	in, err := func() (*incoming, error) {
		head, err := readPiece(f)
		if err != nil {
			return nil, err
		}
		return r.announced(head, r.cfg.Key.ID())
	}()
	if err != nil {
		_ = f.Close() // the error before counts
		return fmt.Errorf("resume taking over the tree: %w", err)
	}
	in.file, in.keep = f, true
	defer in.abandon(true)
	if _, err := r.join(in); err != nil {
		return fmt.Errorf("resume taking over the tree: %w", err)
	}
	return nil
}

func readPiece(f io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(f, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxPiece {
		return nil, fmt.Errorf("%w: piece of %d bytes in the staging file", store.ErrDamaged, n)
	}
	piece := make([]byte, n)
	if _, err := io.ReadFull(f, piece); err != nil {
		return nil, fmt.Errorf("staging file: %w", err)
	}
	return piece, nil
}

// staged reads the records of a staging file.
type staged struct{ in *incoming }

// Scan implements [merkle.Source]; the file is read from its begin each time.
func (s staged) Scan(from, to []byte, fn func(merkle.Entry) error) error {
	return s.each(func(rec tree.Record) error {
		k := []byte(rec.Key)
		if bytes.Compare(k, from) < 0 || (to != nil && bytes.Compare(k, to) >= 0) {
			return nil
		}
		return fn(entryOf(rec))
	})
}

func (s staged) each(fn func(tree.Record) error) error {
	if _, err := s.in.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	br := bufio.NewReaderSize(s.in.file, 256<<10)
	if _, err := readPiece(br); err != nil { // the begin
		return err
	}
	for {
		part, err := readPiece(br)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for len(part) > 0 {
			rec, rest, err := tree.DecodeRecord(part)
			if err != nil {
				return err
			}
			part = rest
			if err := fn(rec); err != nil {
				return err
			}
		}
	}
}

// join merges a received state into the local one, in one step for readers. It
// takes several transactions; a crash between two is made good by the next
// Open, for which the staging file is kept.
func (r *Replica) join(in *incoming) (aff tree.Affected, err error) {
	if in.w != nil {
		if err := in.w.Flush(); err != nil {
			return aff, fmt.Errorf("stage state: %w", err)
		}
		if err := in.file.Sync(); err != nil {
			return aff, fmt.Errorf("stage state: %w", err)
		}
		if err := syncDir(filepath.Dir(r.cfg.Staging)); err != nil {
			return aff, fmt.Errorf("stage state: %w", err)
		}
	}
	built, err := merkle.Build(r.cfg.Spread, staged{in})
	if err != nil {
		return aff, err
	}
	if root, err := built.Root(staged{in}); err != nil {
		return aff, err
	} else if root != in.m.Root {
		return aff, errors.New("the records do not add up to the root that was signed")
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.joinableLocked(in); err != nil {
		return aff, err
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
	if err := r.st.Update(func(tx *store.Tx) error { tx.SetValue(joiningKey, []byte{1}); return nil }); err != nil {
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
	ch := tree.Change{}
	flush := func(also func(*store.Tx) error) error {
		a, err := r.changeLocked(ch, also)
		aff.Entries = append(aff.Entries, a.Entries...)
		aff.Inodes = append(aff.Inodes, a.Inodes...)
		ch = tree.Change{}
		return err
	}
	// Directories first: records come in an order that has nothing to do with the
	// tree, and as long as the view does not know the directory of a file it looks
	// for every name in each of those that it does not know.
	for _, dirs := range []bool{true, false} {
		if err := r.mergeLocked(in, mine, dirs, func(put []tree.Record, drop []tree.KeyDot) error {
			ch.Put, ch.Drop = append(ch.Put, put...), append(ch.Drop, drop...)
			if len(ch.Put)+len(ch.Drop) >= joinStep {
				if err := flush(nil); err != nil {
					return err
				}
				if r.between != nil {
					r.between()
				}
			}
			return nil
		}); err != nil {
			return aff, err
		}
	}
	vector := r.vector.Clone()
	vector.Merge(in.vector)
	news := map[tree.Actor]head{}
	for a, b := range in.heads {
		if in.vector[a] > r.vector[a] {
			m, err := manifest.Decode(b)
			if err != nil {
				return aff, err
			}
			news[a] = head{m.Seq, m.Ctr, m.Hash()}
		}
	}
	err = flush(func(tx *store.Tx) error {
		for a, h := range news {
			tx.SetHead(a, in.heads[a])
			keepHash(tx, tree.Dot{Actor: a, Ctr: h.ctr}, h.hash)
		}
		tx.SetValue("vector", vector.Append(nil))
		tx.SetValue(joiningKey, nil)
		return nil
	})
	if err != nil {
		return aff, err
	}
	in.keep = false
	maps.Copy(r.heads, news)
	r.vector = vector
	back, err := r.joinedStateLocked(in.m.Device)
	aff.Entries, aff.Inodes = append(aff.Entries, back.Entries...), append(aff.Inodes, back.Inodes...)
	return aff, err
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

// mergeLocked walks the local and the received records side by side, key by
// key, and gives emit what the join changes locally: where directories are if
// dirs is set, else all the rest.
func (r *Replica) mergeLocked(in *incoming, mine tree.Vector, dirs bool, emit func([]tree.Record, []tree.KeyDot) error) error {
	snap := r.st.Snapshot()
	defer snap.Release()
	local := newGroups(func(fn func(tree.Record) error) error { return snap.Scan(nil, nil, fn) })
	defer local.stop()
	remote := newGroups(staged{in}.each)
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
		if (slices.ContainsFunc(l, placesDir) || slices.ContainsFunc(m, placesDir)) != dirs {
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
