package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/tree"
)

// leafAsk is how many leaves are asked for at once, of which two questions are
// under way. A leaf has 4 KB or so.
const leafAsk = 256

// maxRegions bounds what a walk remembers of where two trees differ, about 100
// bytes each: enough for 30 million inodes.
const maxRegions = 1 << 20

// stageKeep is how long the leaves of a walk that broke off are kept for the next.
const stageKeep = 15 * time.Minute

// walk compares the own tree with the state of a peer, gets the leaves that it
// lacks, and joins the state when all are here. It has a goroutine of its own,
// which answers are handed to one by one: whoever brings one waits until it is used.
type walk struct {
	r  *Replica
	p  *session
	in *incoming

	cancel context.CancelCauseFunc
	feed   chan []byte
	eaten  chan struct{}
	done   chan struct{} // closed once err is final and the staging file is let go
	err    error

	pieces [][]byte // of the answer at hand that are still to be used
	owes   bool     // whoever brought it waits

	hash *merkle.LeafHasher
	own  *merkle.Tree // what is here is being made what is there, to see whether it has the root
	last tree.Record  // of the state so far
	any  bool
}

// errOvertaken means that since the two trees were compared a commit was adopted
// that the state knows as well: what it put may be gone again there.
var errOvertaken = errors.New("the tree was changed meanwhile")

// errUnsound means that a state is not what was signed.
var errUnsound = errors.New("the records do not add up to the root that was signed")

// errRefused ends a walk of which nothing may stay.
var errRefused = errors.New("state refused")

// walkBegin takes the message that begins a state.
func (r *Replica) walkBegin(p *session, body []byte) error {
	s := &r.sessions
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
	ctx, cancel := context.WithCancelCause(context.Background())
	w := &walk{r: r, p: p, in: in, cancel: cancel, feed: make(chan []byte), eaten: make(chan struct{}), done: make(chan struct{}), hash: merkle.NewLeafHasher()}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed || s.joining != p:
		cancel(nil)
		return errStale
	case p.walk != nil:
		cancel(nil)
		return errors.New("a state begins within another")
	}
	p.walk, in.limit = w, s.left
	s.done.Go(func() { w.run(ctx) })
	return nil
}

// take hands an answer to the walk and waits until it is used.
func (w *walk) take(body []byte) error {
	select {
	case w.feed <- body:
	case <-w.done:
		return w.err
	}
	select {
	case <-w.eaten:
		return nil
	case <-w.done:
		return w.err
	}
}

// run is the goroutine of a walk.
func (w *walk) run(ctx context.Context) {
	r := w.r
	defer close(w.done)
	defer w.cancel(nil)
	r.staging.Lock() // the walk before may still be at its end
	defer r.staging.Unlock()
	aff, err := w.toJoin(ctx)
	r.mu.Lock()
	r.coming = nil
	r.mu.Unlock()
	if err == nil {
		// Durable before anybody is told that it is here.
		_, err = r.publish()
	}
	r.tell(aff)
	r.tellRestored()
	r.tellSettings()
	stalled := errors.Is(err, errStale) || errors.Is(context.Cause(ctx), errStale)
	r.endStage(w.in.keep, stalled)
	w.err = err
	switch {
	case err == nil:
		r.sessions.joined(w.p, w)
		r.log.Info("received the tree", "from", r.name(w.p.dev))
		r.wake()
	case !stalled && !errors.Is(err, errRefused):
		r.sessions.refuse(w.p, errRefused)
		w.err = r.refused(w.p, err)
	}
}

// endStage ends the use of the staging file by a walk: leaves that may be needed
// by the next walk are kept for a while.
func (r *Replica) endStage(joining, broken bool) {
	st := r.stage
	switch {
	case st == nil:
	case joining || !broken:
		r.stage = nil
		st.close(joining)
	default:
		time.AfterFunc(stageKeep, func() {
			r.staging.Lock()
			defer r.staging.Unlock()
			if r.stage == st {
				r.dropStage()
			}
		})
	}
}

// dropStage forgets the leaves that are kept. It needs staging.
func (r *Replica) dropStage() {
	if r.stage != nil {
		r.stage.close(false)
		r.stage = nil
	}
}

// toJoin does all of it.
func (w *walk) toJoin(ctx context.Context) (aff tree.Affected, err error) {
	r := w.r
	if r.stage != nil && r.stage.size > w.in.limit {
		r.dropStage() // of trees that nobody has any more, mostly
	}
	if r.stage == nil {
		if r.stage, err = newStage(r.cfg.Staging); err != nil {
			return aff, err
		}
	}
	w.in.stage = r.stage
	r.log.Info("receiving the tree", "from", r.name(w.p.dev))
	for {
		err = w.differ(ctx)
		if errors.Is(err, errUnsound) {
			err = r.ownUnsound(err)
		}
		if err == nil {
			aff, err = r.join(w.in)
		}
		if !errors.Is(err, errOvertaken) {
			return aff, err
		}
		r.sessions.goOn(w.p, w)
	}
}

// differ finds the regions in which the two trees differ, has what the peer has
// in them in the staging file, and sees that the peer's records are those that it
// has signed.
func (w *walk) differ(ctx context.Context) error {
	r := w.r
	if err := w.in.stage.rewind(); err != nil {
		return err
	}
	w.in.regions, w.any = nil, false
	r.mu.Lock()
	_, err := r.rootLocked()
	if err != nil {
		r.mu.Unlock()
		return err
	}
	r.coming, w.in.overtaken = w.in, false
	w.own = r.spans.tree.Clone()
	snap := r.st.Snapshot()
	r.mu.Unlock()
	defer snap.Release()

	if err := w.own.Diff(w.in.top, func(refs []merkle.Ref) ([][]byte, error) { return w.nodes(ctx, refs) }, w.note); err != nil {
		return err
	}
	w.in.tidy()
	if err := w.in.local(snap, func(rec tree.Record) error {
		w.own.Touch(rec.Key.Ino())
		return nil
	}); err != nil {
		return err
	}
	if err := w.leaves(ctx); err != nil {
		return err
	}
	if !r.sessions.begin(w.p, w) {
		return errStale
	}
	// The same as if all of it had been received: the root over what is there and
	// what is alike here.
	root, err := w.own.Root(blend{w.in, snap})
	if err != nil {
		return err
	}
	if root != w.in.m.Root {
		return errUnsound
	}
	w.in.own = w.own
	return nil
}

// note takes a range in which the trees differ.
func (w *walk) note(g merkle.Range) error {
	from := merkle.Prefix(g.From)
	all := w.in.regions
	if n := len(all); n > 0 && all[n-1].leaf == g.Leaf && !all[n-1].open && all[n-1].to == from {
		all[n-1].to, all[n-1].open = merkle.Prefix(g.To), g.To == nil
		return nil
	}
	if len(all) == maxRegions {
		return fmt.Errorf("differs in more than %d places", maxRegions)
	}
	w.in.regions = append(all, region{from: from, to: merkle.Prefix(g.To), open: g.To == nil, leaf: g.Leaf})
	return nil
}

// nodes asks the peer for nodes above the leaves.
func (w *walk) nodes(ctx context.Context, refs []merkle.Ref) ([][]byte, error) {
	w.ask(refs)
	out := make([][]byte, len(refs))
	for i := range out {
		piece, err := w.next(ctx)
		if err != nil {
			return nil, err
		}
		out[i] = append([]byte(nil), piece...)
	}
	return out, nil
}

// leaves gets those leaves of the regions that are not in the staging file.
func (w *walk) leaves(ctx context.Context) error {
	st := w.in.stage
	var lack []merkle.Ref
	for i := range w.in.regions {
		g := &w.in.regions[i]
		if _, ok := st.leaves[g.leaf]; !ok && !g.leaf.IsZero() {
			lack = append(lack, merkle.Ref{First: g.from, Hash: g.leaf})
		}
	}
	more := func() {
		n := min(len(lack), leafAsk)
		if n > 0 {
			w.ask(lack[:n])
			lack = lack[n:]
		}
	}
	more()
	got := 0
	for i := range w.in.regions {
		g := &w.in.regions[i]
		var ok bool
		switch g.extent, ok = st.leaves[g.leaf]; {
		case g.leaf.IsZero():
		case ok:
			if err := st.read(g.extent, func(rec tree.Record) error { return w.record(g, rec) }); err != nil {
				return err
			}
		default:
			if got%leafAsk == 0 {
				more() // the next ones are on the way while these are used
			}
			got++
			if err := w.leaf(ctx, g); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaf receives a leaf.
func (w *walk) leaf(ctx context.Context, g *region) error {
	var n int64
	for more := true; more; {
		part, err := w.next(ctx)
		if err != nil {
			return err
		}
		more = len(part) >= partSize
		for rest := part; len(rest) > 0; {
			var rec tree.Record
			if rec, rest, err = tree.DecodeRecord(rest); err != nil {
				return err
			}
			if err := tree.Check(rec); err != nil {
				return err
			}
			if err := w.record(g, rec); err != nil {
				return err
			}
			w.hash.Add(entryOf(rec))
			w.last.Value = nil // it is part of the message
		}
		if err := w.in.stage.write(part); err != nil {
			return err
		}
		n += int64(len(part))
	}
	if w.hash.Sum() != g.leaf {
		return fmt.Errorf("%w: a leaf", merkle.ErrNode)
	}
	g.extent = w.in.stage.keep(g.leaf, n)
	return nil
}

// record checks the next record of a state.
func (w *walk) record(g *region, rec tree.Record) error {
	ino := rec.Key.Ino()
	switch {
	case w.any && w.last.ID().Compare(rec.ID()) >= 0:
		return errors.New("records of a state out of order")
	case string(ino[:]) < string(g.from[:]), !g.open && string(ino[:]) >= string(g.to[:]):
		return errors.New("record of a state in another leaf than its own")
	case rec.Dot.Ctr > w.in.vector[rec.Dot.Actor] || rec.Dot.Ctr == 0:
		return errors.New("record of a commit that the state does not claim")
	}
	if !w.any || w.last.Key.Ino() != ino {
		w.own.Touch(ino)
	}
	w.last, w.any = rec, true
	return nil
}

// ask sends the peer a question.
func (w *walk) ask(refs []merkle.Ref) {
	w.r.sessions.update(w.p, func() {
		if w.p.walk == w {
			w.p.asks = append(w.p.asks, ofWalk(w.p.number, encodeAsk(refs)))
		}
	})
}

// next returns the next piece that the peer sends, valid until the call after it.
func (w *walk) next(ctx context.Context) ([]byte, error) {
	for len(w.pieces) == 0 {
		if w.owes {
			w.owes = false
			select {
			case w.eaten <- struct{}{}:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		select {
		case body := <-w.feed:
			w.owes = true
			var err error
			if w.pieces, err = decodePieces(body); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	piece := w.pieces[0]
	w.pieces = w.pieces[1:]
	return piece, nil
}
