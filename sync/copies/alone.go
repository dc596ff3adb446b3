package copies

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// alone is the account of what is on this device only: the inodes of which some
// block was not reported by any other device, or which no other device knows to
// exist. Where it cannot tell it says that something is here only.
type alone struct {
	mu sync.Mutex
	account
	heard   heard               // what was said since in was looked at
	wrote   time.Time           // when a file was last entered by push
	looked  time.Time           // when in was last looked at
	touched map[tree.Ino]uint64 // changed by other devices, to be looked at; with gen as of then
	gen     uint64              // grows with each change of in and touched from outside
	due     bool                // the whole tree is to be looked at
	many    int                 // see manyInside
	looking bool                // it is being looked at
	made    chan struct{}       // closed when the whole tree was looked at once
	turn    chan struct{}       // cap 1: held by who looks
	wake    chan struct{}

	// lost are blocks that are here, and that others gave up, as long as it is not known
	// which files they belong to.
	lost map[block.ID]struct{}
}

// heard is what others said that may take files out of the account.
type heard uint8

const (
	heardCommits  heard = 1 << iota // that they know more of the tree
	heardHoldings                   // that they hold more blocks
)

func (a *alone) init() {
	a.account = newAccount(0)
	a.touched, a.lost = map[tree.Ino]uint64{}, map[block.ID]struct{}{}
	a.wake, a.made, a.turn = make(chan struct{}, 1), make(chan struct{}), make(chan struct{}, 1)
	a.due, a.many = true, manyInside
	a.poke()
}

// push enters an inode that was written here.
func (a *alone) push(ino tree.Ino) {
	a.mu.Lock()
	a.gen++
	a.set(ino, a.gen, only{bytes: -1})
	a.wrote = time.Now()
	a.mu.Unlock()
	a.poke()
}

// hear has the inodes looked at that may not be here only any more.
func (a *alone) hear(what heard) {
	a.mu.Lock()
	a.heard |= what
	a.mu.Unlock()
	a.poke()
}

// retry has all inodes looked at when there is another reason to look.
func (a *alone) retry() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heard |= heardHoldings
}

// touch has inodes looked at that other devices changed.
func (a *alone) touch(inos ...tree.Ino) {
	a.mu.Lock()
	for _, ino := range inos {
		a.gen++
		a.touched[ino] = a.gen
	}
	a.due = a.due || len(a.lost) > 0
	a.mu.Unlock()
	a.poke()
}

// again has the whole tree looked at.
func (a *alone) again() {
	a.mu.Lock()
	a.due = true
	a.mu.Unlock()
	a.poke()
}

// lose has it found out which files blocks belong to that others gave up.
func (a *alone) lose(ids ...block.ID) {
	a.mu.Lock()
	for _, id := range ids {
		a.lost[id] = struct{}{}
	}
	a.due = true
	a.mu.Unlock()
	a.poke()
}

// learned says that the lists of a file have come to be known.
func (a *alone) learned() {
	a.mu.Lock()
	a.due = a.due || len(a.lost) > 0
	a.heard |= heardHoldings
	a.mu.Unlock()
	a.poke()
}

// settled reports whether everything that is known was looked at.
func (a *alone) settled() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.due && !a.looking && len(a.touched) == 0 && len(a.lost) == 0
}

// count returns the files in the account and their bytes, and those of them
// that were not looked at yet, which count for nothing here.
func (a *alone) count() (files, bytes int64, fresh map[tree.Ino]suspect) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fresh = map[tree.Ino]suspect{}
	for ino, s := range a.all {
		if s.bytes < 0 {
			fresh[ino] = s
			continue
		}
		files++
		bytes += s.bytes
	}
	return files, bytes, fresh
}

// suspects returns the inodes that have to be looked at: those that were not
// looked at yet, and those about which something may have been heard.
func (a *alone) suspects() map[tree.Ino]suspect {
	a.mu.Lock()
	defer a.mu.Unlock()
	heard := a.heard
	a.heard, a.looked = 0, time.Now()
	out := map[tree.Ino]suspect{}
	for ino, s := range a.all {
		if s.bytes < 0 || heard&heardHoldings != 0 || heard&heardCommits != 0 && !s.blocks {
			out[ino] = s
		}
	}
	return out
}

// rest returns how long it is until it is worth to look at what is in the
// account: until nothing was written for a while, but not for ever. Blocks that
// others have taken are what somebody may be waiting for.
func (a *alone) rest() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.heard&heardHoldings != 0 {
		return 0
	}
	return max(0, min(pauseFull-time.Since(a.wrote), mostRest-time.Since(a.looked)))
}

// found notes how much of an inode is here only, unless it was written since.
func (a *alone) found(ino tree.Ino, gen uint64, o only) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if was, _ := a.get(ino); was.gen != gen {
		return
	}
	if o.alone {
		a.set(ino, gen, o)
	} else {
		a.drop(ino)
	}
}

// seen ends what touch began, unless the inode was touched again. known says
// that o is the whole truth.
func (a *alone) seen(ino tree.Ino, gen uint64, o only, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.touched[ino] != gen {
		return
	}
	delete(a.touched, ino)
	switch was, ok := a.get(ino); {
	case ok && was.gen > gen:
	case o.alone:
		a.set(ino, gen, o)
	case known:
		a.drop(ino)
	}
}

// begin takes what is to be looked at: everything if full is set, with the lost
// blocks, else the touched inodes. inside says that those in the account are to be
// looked at too; where they are many, everything is, which takes less time.
func (a *alone) begin(inside bool) (full bool, gen uint64, touched map[tree.Ino]uint64, lost map[block.ID]struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	full, a.due = a.due || inside && a.heard != 0 && a.size() > a.many, false
	a.looking = full
	if full {
		lost, a.lost = a.lost, map[block.ID]struct{}{}
		a.heard = 0
	}
	return full, a.gen, maps.Clone(a.touched), lost
}

// end replaces the account by a new one, as of gen. What is in it and unknown, or was
// entered since, stays as it was, and so do blocks that are lost still.
func (a *alone) end(gen uint64, fresh account, unknown map[tree.Ino]struct{}, lost map[block.ID]struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.looking = false
	maps.Copy(a.lost, lost)
	select {
	case <-a.made:
	default:
		close(a.made)
	}
	for ino, was := range a.all {
		_, known := fresh.get(ino)
		if _, open := unknown[ino]; was.gen > gen || open && !known {
			fresh.set(ino, was.gen, only{bytes: was.bytes, lists: a.listed[ino], blocks: was.blocks})
		}
	}
	a.account = fresh
}

// fail ends a look at the whole tree that came to nothing: it is tried again.
func (a *alone) fail(lost map[block.ID]struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.looking, a.due = false, true
	maps.Copy(a.lost, lost)
}

func (a *alone) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// The account is looked at a few times a second at most, the whole tree every
// few seconds, and neither takes more than a tenth of the time.
const (
	pause     = 200 * time.Millisecond
	pauseFull = time.Second
	mostRest  = 10 * time.Second // while files are being written
	share     = 9
)

// manyInside is how many files of the account are looked at one by one, for 40 us each.
// A million files are gone through in 5 s.
const manyInside = 50_000

// follow looks at the account whenever something was written or heard.
func (k *Keeper) follow(ctx context.Context) {
	a := &k.alone
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		began := time.Now()
		full := k.look(ctx, a.rest() == 0)
		if wait := a.rest(); wait > 0 {
			time.AfterFunc(wait, a.poke)
		}
		rest := max(pause, share*time.Since(began))
		if full {
			rest = max(rest, pauseFull)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
	}
}

// look brings the account up to date, what is in it only if inside is set, and
// reports whether it went through the whole tree. Lists that it lacks are
// fetched, and then it looks again.
func (k *Keeper) look(ctx context.Context, inside bool) (full bool) {
	k.alone.turn <- struct{}{}
	defer func() { <-k.alone.turn }()
	return k.lookInTurn(ctx, inside)
}

// account makes the account if that was not done yet.
func (k *Keeper) account(ctx context.Context) error {
	select {
	case <-k.alone.made:
		return nil
	case k.alone.turn <- struct{}{}:
		defer func() { <-k.alone.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-k.alone.made:
		return nil
	default:
		k.lookInTurn(ctx, false)
	}
	select {
	case <-k.alone.made:
		return nil
	default:
		return ErrUnknown
	}
}

func (k *Keeper) lookInTurn(ctx context.Context, inside bool) (full bool) {
	full, gen, touched, lost := k.alone.begin(inside)
	if full {
		fresh, unknown, err := k.stock(ctx, gen, lost)
		switch {
		case ctx.Err() != nil:
			k.alone.fail(lost)
			return full
		case err != nil:
			k.cfg.Log.Warn("taking stock of the tree", "err", err)
			k.alone.fail(lost)
			time.AfterFunc(retryAfter, k.alone.poke)
		default:
			k.alone.end(gen, fresh, unknown, lost)
		}
	}
	if inside {
		for ino, was := range k.alone.suspects() {
			if ctx.Err() != nil {
				return full
			}
			_, _ = k.assess(ino, was) // an error is logged, and the file counted
		}
	}
	for ino, g := range touched {
		o, err := k.onlyHere(ino)
		known := err == nil
		if err != nil && !errors.Is(err, ErrUnknown) { // an unknown list is elsewhere: where the file was changed
			k.cfg.Log.Warn("copies of a file", "inode", ino, "err", err)
			o = only{alone: true}
		}
		k.alone.seen(ino, g, o, known)
	}
	return full
}

// assess looks at an inode of the account and enters what it finds. If that
// fails the file stays in it: better counted once too often than lost.
func (k *Keeper) assess(ino tree.Ino, was suspect) (only, error) {
	o, err := k.onlyHere(ino)
	switch {
	case errors.Is(err, ErrUnknown):
		k.learn.want(ino)
	case err != nil:
		k.cfg.Log.Warn("copies of a file", "inode", ino, "err", err)
		k.alone.retry()
	default:
		k.alone.found(ino, was.gen, o)
	}
	return o, err
}

// stock goes through the whole tree: what is here alone, of which files that
// cannot be told since their list is elsewhere, and, on an archive, what is
// missing. It leaves in lost the blocks that may belong to files whose list is
// elsewhere; that is fetched then.
func (k *Keeper) stock(ctx context.Context, gen uint64, lost map[block.ID]struct{}) (fresh account, unknown map[tree.Ino]struct{}, err error) {
	fresh, unknown = newAccount(gen), map[tree.Ino]struct{}{}
	var missing []tree.Ino
	var last tree.Ino // the inode that sum is about
	var sum only
	err = k.cfg.Tree.Contents(func(ino tree.Ino, c tree.Content, d tree.Dot, shown func() bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if k.cfg.Archive && !c.Ref.ID.IsZero() && (c.Ref.Depth > 0 || !k.cfg.Blocks.Has(c.Ref.ID)) {
			missing = append(missing, ino) // the copier finds out which blocks of it are
		}
		o, err := k.onlyContent(c, d)
		if errors.Is(err, ErrUnknown) {
			unknown[ino], err = struct{}{}, nil
		}
		if o.alone && shown() { // else it is deleted: nothing to lose
			if ino != last {
				last, sum = ino, only{}
			}
			sum = sum.plus(o)
			fresh.add(ino, sum)
		}
		if err == nil && len(lost) > 0 {
			_ = k.blocks(Ref{c.Ref, c.Size}, nil, func(id block.ID) error { delete(lost, id); return nil }) // as far as it is known
		}
		return err
	})
	if err != nil {
		return account{}, nil, err
	}
	for id := range lost {
		if held, err := k.heldElsewhere(id); len(unknown) == 0 || !k.cfg.Blocks.Has(id) || err == nil && held {
			delete(lost, id)
		}
	}
	if len(lost) > 0 {
		k.learn.want(slices.Collect(maps.Keys(unknown))...)
	}
	if k.cfg.Archive {
		k.fetch.push(missing...)
		k.Kept()
	}
	return fresh, unknown, nil
}

// only is what of a content is on this device alone.
type only struct {
	alone bool
	bytes int64      // of blocks; 0 if just its being there is not known elsewhere
	lists []block.ID // by which the rest is found, alone or not

	blocks bool // some block is
}

func (o only) plus(p only) only {
	return only{o.alone || p.alone, o.bytes + p.bytes, append(slices.Clip(o.lists), p.lists...), o.blocks || p.blocks}
}

// onlyHere tells what of a file, its conflict copies included, is on this
// device alone. The error is an [ErrUnknown] if a list is missing without which
// that cannot be told.
func (k *Keeper) onlyHere(ino tree.Ino) (o only, err error) {
	if _, err := k.cfg.Tree.Node(ino); errors.Is(err, fs.ErrNotExist) {
		return only{}, nil // deleted since: nothing to lose
	} else if err != nil {
		return only{}, err
	}
	var unknown error
	err = k.cfg.Tree.ContentsOf(ino, func(c tree.Content, d tree.Dot) error {
		p, err := k.onlyContent(c, d)
		o = o.plus(p)
		if errors.Is(err, ErrUnknown) {
			unknown, err = err, nil
		}
		return err
	})
	if err == nil && !o.alone {
		err = unknown
	}
	return o, err
}

// onlyContent tells what of one content, which came with the commit d, is on
// this device alone.
func (k *Keeper) onlyContent(c tree.Content, d tree.Dot) (o only, err error) {
	o.alone = !k.cfg.Tree.Shared(d)
	if c.Ref.ID.IsZero() {
		if o.alone {
			o.bytes = int64(len(c.Inline))
		}
		return o, nil // travels with the tree
	}
	parts, err := k.parts(Ref{c.Ref, c.Size})
	unknown := parts == nil && err == nil
	if err != nil || unknown { // what can be told without the list
		parts, err = []part{{c.Ref.ID, c.Size, c.Ref.Depth > 0}}, nil
	}
	for _, p := range parts {
		if p.list {
			o.lists = append(o.lists, p.id)
		}
		if !k.cfg.Blocks.Has(p.id) {
			continue
		}
		held, err := k.heldElsewhere(p.id)
		if err != nil {
			return o, err
		}
		if !held {
			o.alone, o.blocks = true, true
			o.bytes += max(p.bytes, 1)
		}
	}
	if unknown {
		err = ErrUnknown
	}
	return o, err
}

// Settled reports whether [Keeper.Waiting] tells all: false while the whole
// tree, or what other devices changed, has still to be looked at.
func (k *Keeper) Settled() bool { return k.alone.settled() }

// Waiting returns the files of which something is on this device only, and the
// bytes of that.
func (k *Keeper) Waiting() (files, bytes int64) {
	files, bytes, fresh := k.alone.count()
	for ino, was := range fresh {
		o, err := k.assess(ino, was)
		if err == nil && !o.alone {
			continue
		}
		files++
		bytes += o.bytes
	}
	return files, bytes
}

// OnlyHere returns at most limit inodes of which something is on this device only.
func (k *Keeper) OnlyHere(limit int) []tree.Ino {
	a := &k.alone
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]tree.Ino, 0, min(limit, a.size()))
	for ino := range a.all {
		if len(out) == limit {
			break
		}
		out = append(out, ino)
	}
	return out
}
