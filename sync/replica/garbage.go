package replica

import (
	"fmt"

	"github.com/roamfs/roamfs/sync/tree"
)

// Garbage (package tree, garbage) goes with the commits that the user makes
// anyway: there is none for its sake alone, so that a hive at rest is silent, and
// a join drops nothing. When a batch ends that has something in it, what all
// members are known not to need goes with it, a bounded part each time. It costs
// an index row for each inode that shows nothing, a comparison of vectors for each
// batch, and one look at each inode that goes.
//
// # Who has to know
//
// The members of the membership log, by their last word: what they told this
// device (words.go), which is what was on their disk after a publish, and what
// they had seen when they made the last commit that is known here, which also
// reaches those who never meet. Either comes when their work so far is in commits,
// as the rule needs it. It counts if it was said under the very log that is known
// here now, for three reasons:
//
//   - A new device takes its state from some member, which may have less than it
//     says later. As it serves members only, it knew of the new one then, and so
//     does its log when it speaks. Here the new device is a member, too, who has
//     to speak for itself. By induction the same holds for what that one admits.
//   - A device that was put back to an old image, or is a copy of one, is a new
//     actor in the log. What its former actor said does not count once somebody
//     who is asked here has heard of the new one.
//   - Commits of a device that was shut out count up to the cutoff, and beyond it
//     if a member took them over that did not know. Nobody here does so after its
//     word, as all know; what was taken over before is in a word. What lies within
//     the cutoff has to be here.
//
// So each change of the log stops the removal of garbage until all members have
// said hello again, which they do at once, or when they come. A member that is
// away for long holds it up until it is shut out: see package tree for why nobody
// is set aside.
//
// What is held back here (guard.go) is not in the vector of this device, but in
// the word of whoever made it: then nothing goes. What a reject or a restore
// brings back are edits like others, which look for directories that are shown; to
// them a skeleton and nothing are the same. So it is for snapshots, which have no
// records.
//
// # New actors
//
// A device that has had another actor before, and so may have given its word for
// what it does not know any more, anchors what it does (tree.Edit.Anchor): the
// directories in which it works are written anew under its present actor, each
// once until somebody else writes it. That includes a batch that was begun before.

// garbageRecords is how many records go with one commit, at most: they fit one
// transaction, whatever their keys are.
const garbageRecords = 240

// collectLocked adds garbage to the batch, which is about to be closed.
func (r *Replica) collectLocked() error {
	next := r.vector.Clone()
	next.Add(r.dot())
	r.view.Words(r.vector, next, r.wordsLocked())
	inos, err := r.view.Garbage(garbageRecords)
	if err != nil || len(inos) == 0 {
		return err
	}
	e := r.newEdit()
	if err := e.Collect(inos); err != nil {
		return err
	}
	// Nobody is told: it shows nothing. A draft for such an inode stays.
	if _, err := r.stepLocked(e.Change(), nil); err != nil {
		return fmt.Errorf("drop garbage: %w", err)
	}
	return nil
}

// wordsLocked returns what the other members have said they know, nil for one
// that has said nothing which counts. There is a nil more if something is missing
// here of a device that was shut out.
func (r *Replica) wordsLocked() (words []tree.Vector) {
	members := r.cfg.Members
	log := members.Hash()
	w := &r.words
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range members.Members() {
		if m.ID == r.cfg.Key.ID() {
			continue
		}
		var knows tree.Vector
		last := r.heads[tree.Actor(m.Actors[len(m.Actors)-1])].word
		for _, said := range []word{w.of[m.ID], last} {
			switch {
			case said.knows == nil || said.log != log:
			case knows == nil:
				knows = said.knows
			default: // the later one says more; that is true of both together
				knows = knows.Clone()
				knows.Merge(said.knows)
			}
		}
		words = append(words, knows)
	}
	for _, m := range members.Former() {
		for _, a := range m.Actors {
			if members.Cutoff(a).Ctr > r.vector[tree.Actor(a)] {
				words = append(words, nil)
			}
		}
	}
	if members.Hash() != log { // it grew meanwhile
		words = append(words, nil)
	}
	return words
}

// reborn reports whether this device has had another actor before.
func (r *Replica) reborn() bool {
	self, ok := r.cfg.Members.Member(r.cfg.Key.ID())
	return ok && len(self.Actors) > 1
}

// newEdit begins an operation of the open batch.
func (r *Replica) newEdit() *tree.Edit {
	e := r.view.Edit(r.dot(), r.index, r.cfg.Now().UnixNano())
	r.index++
	if r.reborn() {
		e.Anchor()
	}
	return e
}

// anchorBatch anchors what is in the open batch, which may be of a former actor.
func (r *Replica) anchorBatch() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.reborn() || r.open.empty() || r.stoppedLocked() != nil {
		return nil
	}
	done := map[tree.Ino]bool{}
	var dirs []tree.Ino
	for k, v := range r.open.puts {
		if k.Type() != tree.TypeLink {
			continue
		}
		l, err := tree.DecodeLink(v)
		if err != nil {
			return fmt.Errorf("link in the open batch: %w", err)
		}
		if !done[l.Parent] {
			done[l.Parent], dirs = true, append(dirs, l.Parent)
		}
	}
	for _, dir := range dirs {
		if _, err := r.editLocked(func(e *tree.Edit) error { return e.Keep(dir) }, nil); err != nil {
			return fmt.Errorf("anchor the open batch: %w", err)
		}
	}
	return nil
}
