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
	"os"
	"path/filepath"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// sendState sends a peer the whole state: a checkpoint signed over it, the
// newest manifest of every actor, and all records in key order.
func (r *Replica) sendState(ctx context.Context, p *session) error {
	m, heads, snap, err := r.checkpoint()
	if err != nil {
		return err
	}
	defer snap.Release()
	if err := p.transmit(ctx, encodeState(m.Encode(), heads)); err != nil {
		return err
	}
	part := []byte{msgPart}
	err = snap.Scan(nil, nil, func(rec tree.Record) error {
		part = tree.AppendRecord(part, rec)
		if len(part) < partSize {
			return nil
		}
		err := p.transmit(ctx, part)
		part = []byte{msgPart}
		return err
	})
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
			return ErrOldCopy // what it holds has no name that others could know it by
		}
		next, vector = r.commits.next, r.vector
		// The heads name what the checkpoint builds on, so they are read before it becomes one.
		if err := r.st.Heads(func(_ tree.Actor, b []byte) error { heads = append(heads, b); return nil }); err != nil {
			return err
		}
		var err error
		if m, err = r.signLocked(r.vector, r.vector[r.cfg.Actor], nil); err != nil {
			return err
		}
		if err := r.st.Update(func(tx *store.Tx) error { tx.SetHead(m.Actor, m.Encode()); return nil }); err != nil {
			return err
		}
		r.heads[m.Actor] = head{m.Seq, m.Ctr, m.Hash()}
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

// incoming is a state that is being received into a staging file. Nothing of
// it is visible before all of it is here and agrees with the signed root.
//
// The file holds pieces, each after its length (4): first the message that
// begins the state, then those with the records.
type incoming struct {
	m      *manifest.Manifest
	vector tree.Vector
	heads  map[tree.Actor][]byte
	file   *os.File
	w      *bufio.Writer
	last   tree.Record // of the records so far
	any    bool
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

// announced checks the begin of a state and returns it, without a file.
func (r *Replica) announced(body []byte) (*incoming, error) {
	encoded, heads, err := decodeState(body)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Decode(encoded)
	if err != nil {
		return nil, err
	}
	if err := r.check(m); err != nil {
		return nil, err
	}
	if m.Flags&manifest.FlagCheckpoint == 0 {
		return nil, errors.New("state without a checkpoint")
	}
	in := &incoming{m: m, vector: tree.Vector{}, heads: map[tree.Actor][]byte{m.Actor: encoded}}
	want := map[tree.Actor]manifest.Head{}
	for _, h := range m.Frontier {
		want[h.Actor] = h
		in.vector[h.Actor] = h.Ctr
	}
	for _, b := range heads {
		h, err := manifest.Decode(b)
		if err != nil {
			return nil, err
		}
		if err := r.check(h); err != nil {
			return nil, err
		}
		w, ok := want[h.Actor]
		if !ok || h.Ctr != w.Ctr || h.Hash() != w.Hash {
			return nil, fmt.Errorf("state names a head of %v that is not the one it shows", h.Device)
		}
		delete(want, h.Actor)
		if h.Actor != m.Actor {
			in.heads[h.Actor] = b
		}
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
	if !s.heard(p) {
		return errStale
	}
	r.mu.RLock()
	broken := r.broken
	r.mu.RUnlock()
	if broken {
		return ErrBroken // the staging file may be needed
	}
	in, err := r.announced(body)
	if err != nil {
		return err
	}
	if in.m.Device != p.dev {
		return errors.New("state that is not signed by its sender")
	}
	p.incoming.abandon(true)
	p.incoming = nil
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
	if !r.sessions.heard(p) {
		return errStale
	}
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
	s.mu.Lock()
	in.abandon(true)
	p.incoming, p.merging = nil, false
	if s.joining == p {
		s.joining = nil
	}
	for _, q := range s.live {
		q.hello = true
		q.poke()
	}
	s.mu.Unlock()
	r.tell(aff)
	if err != nil {
		return fmt.Errorf("take over the tree: %w", err)
	}
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
		return r.announced(head)
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
	if r.broken {
		return aff, ErrBroken
	}
	mine := r.vector.Clone()
	if !r.open.empty() {
		mine[r.cfg.Actor]++
	}
	if in.vector[r.cfg.Actor] > r.vector[r.cfg.Actor] { // with a head that this device has signed
		r.fenceLocked()
		return aff, ErrOldCopy
	}
	if err := r.st.Update(func(tx *store.Tx) error { tx.SetValue(joiningKey, []byte{1}); return nil }); err != nil {
		return aff, err
	}
	in.keep = true
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
	if err := r.mergeLocked(in, mine, func(put []tree.Record, drop []tree.KeyDot) error {
		ch.Put, ch.Drop = append(ch.Put, put...), append(ch.Drop, drop...)
		if len(ch.Put)+len(ch.Drop) >= 1024 {
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
	vector := r.vector.Clone()
	vector.Merge(in.vector)
	err = flush(func(tx *store.Tx) error {
		for a, b := range in.heads {
			if in.vector[a] >= r.vector[a] && a != r.cfg.Actor {
				tx.SetHead(a, b)
			}
		}
		tx.SetValue("vector", vector.Append(nil))
		tx.SetValue(joiningKey, nil)
		return nil
	})
	if err != nil {
		return aff, err
	}
	in.keep = false
	for a, b := range in.heads {
		if in.vector[a] < r.vector[a] || a == r.cfg.Actor {
			continue
		}
		m, err := manifest.Decode(b)
		if err != nil {
			return aff, err
		}
		r.heads[a] = head{m.Seq, m.Ctr, m.Hash()}
	}
	r.vector = vector
	return aff, nil
}

// mergeLocked walks the local and the received records side by side, key by
// key, and gives emit what the join changes locally.
func (r *Replica) mergeLocked(in *incoming, mine tree.Vector, emit func([]tree.Record, []tree.KeyDot) error) error {
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

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
