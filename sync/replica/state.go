package replica

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

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
	if err := p.send(ctx, encodeState(m.Encode(), heads)); err != nil {
		return err
	}
	part := []byte{msgPart}
	err = snap.Scan(nil, nil, func(rec tree.Record) error {
		part = tree.AppendRecord(part, rec)
		if len(part) < partSize {
			return nil
		}
		err := p.send(ctx, part)
		part = []byte{msgPart}
		return err
	})
	if err != nil {
		return err
	}
	if len(part) > 1 {
		if err := p.send(ctx, part); err != nil {
			return err
		}
	}
	return p.send(ctx, []byte{msgEnd})
}

// checkpoint closes the open batch and freezes and signs the state.
func (r *Replica) checkpoint() (m *manifest.Manifest, heads [][]byte, snap *store.Snapshot, err error) {
	r.syncing.Lock()
	defer r.syncing.Unlock()
	r.mu.Lock()
	next := r.commits.next
	err = func() error {
		if err := r.closeBatchLocked(); err != nil {
			return err
		}
		next = r.commits.next
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
	r.commits.durable.Store(next)
	return m, heads, snap, nil
}

// incoming is a state that is being received into a staging file. Nothing of
// it is visible before all of it is here and agrees with the signed root.
type incoming struct {
	m      *manifest.Manifest
	vector tree.Vector
	heads  map[tree.Actor][]byte
	file   *os.File
	w      *bufio.Writer
	last   tree.Record // of the records so far
	any    bool
}

func (in *incoming) abandon() {
	if in != nil && in.file != nil {
		_ = in.file.Close()           // it is removed
		_ = os.Remove(in.file.Name()) // a left-over is truncated by the next
	}
}

func (r *Replica) stateBegin(p *session, body []byte) error {
	s := &r.sessions
	s.mu.Lock()
	wanted := s.joining == p
	s.mu.Unlock()
	if !wanted {
		return errors.New("whole state that nobody asked for")
	}
	encoded, heads, err := decodeState(body)
	if err != nil {
		return err
	}
	m, err := manifest.Decode(encoded)
	if err != nil {
		return err
	}
	if err := r.check(m); err != nil {
		return err
	}
	if m.Device != p.dev || m.Flags&manifest.FlagCheckpoint == 0 {
		return errors.New("state without a checkpoint signed by its sender")
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
			return err
		}
		if err := r.check(h); err != nil {
			return err
		}
		w, ok := want[h.Actor]
		if !ok || h.Ctr != w.Ctr || h.Hash() != w.Hash {
			return fmt.Errorf("state names a head of %v that is not the one it shows", h.Device)
		}
		delete(want, h.Actor)
		if h.Actor != m.Actor {
			in.heads[h.Actor] = b
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("state claims commits of %d devices without their manifests", len(want))
	}
	if manifest.StateID(m.Root, in.vector) != m.StateID {
		return errors.New("state id does not belong to the root")
	}
	f, err := os.OpenFile(r.cfg.Staging, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("stage state: %w", err)
	}
	in.file, in.w = f, bufio.NewWriterSize(f, 256<<10)
	r.log.Info("receiving the tree", "from", r.name(p.dev))
	s.mu.Lock()
	defer s.mu.Unlock()
	p.incoming.abandon()
	p.incoming = in
	return nil
}

func (r *Replica) statePart(p *session, body []byte) error {
	in := p.incoming
	if in == nil {
		return errors.New("part of a state that was not begun")
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
	n := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	if _, err := in.w.Write(append(n, body...)); err != nil {
		return fmt.Errorf("stage state: %w", err)
	}
	return nil
}

func (r *Replica) stateEnd(p *session) error {
	s := &r.sessions
	in := p.incoming
	if in == nil {
		return errors.New("end of a state that was not begun")
	}
	aff, err := r.join(in)
	s.mu.Lock()
	in.abandon()
	p.incoming = nil
	s.joining = nil
	for _, q := range s.live {
		q.hello = true
		q.poke()
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("take over the tree: %w", err)
	}
	r.log.Info("received the tree", "from", r.name(p.dev))
	r.tell(aff)
	r.wake()
	return nil
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
	var size [4]byte
	for {
		if _, err := io.ReadFull(br, size[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		part := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(br, part); err != nil {
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

// join merges a received state into the local one, in one step for readers.
func (r *Replica) join(in *incoming) (aff tree.Affected, err error) {
	if err := in.w.Flush(); err != nil {
		return aff, fmt.Errorf("stage state: %w", err)
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
	if in.vector[r.cfg.Actor] > mine[r.cfg.Actor] {
		return aff, errors.New("the hive knows later commits of this device than it made: its state directory is an old copy")
	}
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
			return flush(nil)
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
		return nil
	})
	if err != nil {
		return aff, err
	}
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
