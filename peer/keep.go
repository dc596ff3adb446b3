package peer

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

const (
	// proofFor is how long an answer to KEEP? may be relied on, from when it was
	// asked.
	proofFor = time.Minute
	// IntentFor is how long an intent lasts after what it was declared for was
	// found out: until a proof has lapsed, and as long again. So long a yes binds
	// whoever gave it, too.
	IntentFor = 2 * proofFor
	// keepTimeout bounds how long an answer to KEEP? is waited for.
	keepTimeout = 20 * time.Second
	// wordFor is how long the word of an archive that is not heard of counts.
	wordFor = 30 * 24 * time.Hour
	// readFor is how long a block counts as verified after it was read.
	readFor  = 24 * time.Hour
	maxReads = 1 << 16
	// keepBatch is how many blocks one KEEP? is about: the other device may have to
	// read them all before it answers.
	keepBatch = 128
)

// intents are the blocks that this device may be about to drop, and so does not
// vouch for, and those for which it has just vouched, and so does not take for
// garbage. They live in memory: what was not dropped by a device that crashed is kept.
type intents struct {
	// deny reports whether a block is denied to others because of an intent: the
	// rule on which all depends, replaced in the test that shows so.
	deny func(intended bool) bool

	mu      sync.Mutex
	until   map[block.ID]time.Time // intents that last on
	asking  map[block.ID]int       // Proves and Discards under way
	answers int                    // answers under way: no intent is forgotten meanwhile
	vouched map[block.ID]time.Time // when KEEP? was last answered with yes
	read    map[block.ID]time.Time // when blocks were last verified
}

func newIntents() *intents {
	return &intents{
		deny:    func(intended bool) bool { return intended },
		until:   make(map[block.ID]time.Time),
		asking:  make(map[block.ID]int),
		vouched: make(map[block.ID]time.Time),
		read:    make(map[block.ID]time.Time),
	}
}

// declare begins an intent for each of ids.
func (in *intents) declare(ids []block.ID) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sweepLocked()
	for _, id := range ids {
		in.asking[id]++
	}
}

// settle ends what declare began. The intents for the blocks in until last on.
func (in *intents) settle(ids []block.ID, until map[block.ID]time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, id := range ids {
		if t, ok := until[id]; ok && t.After(in.until[id]) {
			in.until[id] = t
		}
		if in.asking[id]--; in.asking[id] > 0 {
			continue
		}
		if in.answers > 0 {
			// An answer that is being worked out may have seen the block, and must
			// see the intent.
			if _, ok := in.until[id]; !ok {
				in.until[id] = time.Now()
			}
		}
		delete(in.asking, id)
	}
	in.sweepLocked()
}

// free returns those of ids for which this device has not vouched lately. The
// intents stand already: it does not vouch for them from now on.
func (in *intents) free(ids []block.ID) []block.ID {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sweepLocked()
	var out []block.ID
	for _, id := range ids {
		if _, bound := in.vouched[id]; !bound {
			out = append(out, id)
		}
	}
	return out
}

// sweepLocked forgets what is over, but no intent while answers are worked out.
func (in *intents) sweepLocked() {
	now := time.Now()
	for id, t := range in.vouched {
		if now.Sub(t) > IntentFor {
			delete(in.vouched, id)
		}
	}
	if in.answers > 0 {
		return
	}
	for id, t := range in.until {
		if now.After(t) {
			delete(in.until, id)
		}
	}
}

func (in *intents) hasLocked(id block.ID) bool {
	_, ok := in.until[id]
	return ok || in.asking[id] > 0
}

// keep answers KEEP?: yes for each block that is here durably, was verified, and
// for which there is no intent. A block that was dropped meanwhile still has its
// intent when that is looked for, so the order of the two looks matters.
func (e *Exchange) keep(ctx context.Context, ids []block.ID) []bool {
	in := e.intents
	in.mu.Lock()
	in.sweepLocked()
	in.answers++
	in.mu.Unlock()
	bits := make([]bool, len(ids))
	for i, id := range ids {
		bits[i] = ctx.Err() == nil && e.verified(id)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.answers--
	now := time.Now()
	for i, id := range ids {
		if bits[i] = bits[i] && !in.deny(in.hasLocked(id)); bits[i] {
			in.vouched[id] = now
		}
	}
	return bits
}

// verified reports whether a block is here, durably, and good.
func (e *Exchange) verified(id block.ID) bool {
	in := e.intents
	if !e.cfg.Blocks.Durable(id) {
		return false
	}
	in.mu.Lock()
	at, ok := in.read[id]
	intended := in.deny(in.hasLocked(id))
	in.mu.Unlock()
	if intended || ok && time.Since(at) < readFor {
		return !intended
	}
	data, err := e.cfg.Blocks.Read(id)
	if err != nil || block.Verify(id, data) != nil {
		return false
	}
	in.mu.Lock()
	if len(in.read) >= maxReads {
		clear(in.read)
	}
	in.read[id] = time.Now()
	in.mu.Unlock()
	return e.cfg.Blocks.Durable(id)
}

// Prove finds out for which of ids other devices will hold the block if this one
// drops it, and returns those, in the order of ids. An id without [Config.Copies]
// archives that said they hold it is asked about, of the connected devices that
// said so too; from then on, and if that succeeds until after [Kept.Until], this
// device does not vouch for its own copy. Only devices that informed returns are
// asked, which is called then; nil stands for all. What is returned counts beside
// an error too; [ErrNotConnected] says that no device is connected that could be
// asked for the rest. Before Run only the word of archives counts.
func (e *Exchange) Prove(ctx context.Context, ids []block.ID, informed func() ([]device.ID, error)) ([]Kept, error) {
	running := true
	select {
	case <-e.started:
		c, done, ok := e.begin(ctx)
		if !ok {
			return nil, cmp.Or(ctx.Err(), ErrStopped)
		}
		defer done()
		ctx = c
	default: // who needs room before the network is there does not wait for it
		running = false
	}
	kept := make(map[block.ID]*Kept, len(ids))
	ask := make(map[device.ID][]block.ID)
	var open []block.ID // asked about
	words := e.words()
	for _, id := range ids {
		if kept[id] != nil {
			continue
		}
		k := &Kept{ID: id}
		kept[id] = k
		if err := e.byWord(k, words); err != nil {
			return nil, err
		}
		if len(k.Devices) >= e.cfg.Copies || !running {
			continue
		}
		devs, err := e.cfg.Holdings.Holders(id)
		if err != nil {
			return nil, fmt.Errorf("holders of %v: %w", id, err)
		}
		open = append(open, id)
		for _, dev := range devs {
			if dev != e.cfg.Self && !slices.Contains(k.Devices, dev) && e.peer(dev).session() != nil {
				ask[dev] = append(ask[dev], id)
			}
		}
	}
	err := e.askKeep(ctx, open, ask, kept, informed)
	var out []Kept
	for _, id := range ids {
		if k := kept[id]; k != nil && len(k.Devices) > 0 {
			out = append(out, *k)
			delete(kept, id)
		}
	}
	if err = cmp.Or(ctx.Err(), err); err != nil || len(out) == len(ids) || running && len(e.cfg.Host.Connected()) > 0 {
		return out, err
	}
	return out, ErrNotConnected
}

// byWord adds the archives by whose word a block is held.
func (e *Exchange) byWord(k *Kept, words map[device.ID]time.Time) error {
	if len(words) == 0 {
		return nil
	}
	devs, err := e.cfg.Holdings.Affirmed(k.ID)
	if err != nil {
		return fmt.Errorf("holders of %v: %w", k.ID, err)
	}
	for _, dev := range devs {
		if asOf, ok := words[dev]; ok {
			k.add(dev, asOf)
		}
	}
	return nil
}

// Discard lets pick find out which of ids nothing needs, and returns those. From
// before pick is called this device does not vouch for any of ids, and for what
// is returned it does not for [IntentFor]: in that time the block has to go. Pick
// is not asked about blocks for which this device has vouched as lately as that.
func (e *Exchange) Discard(ids []block.ID, pick func(ids []block.ID) ([]block.ID, error)) ([]block.ID, error) {
	in := e.intents
	in.declare(ids)
	until := make(map[block.ID]time.Time)
	defer func() { in.settle(ids, until) }()
	free := in.free(ids)
	if len(free) == 0 {
		return nil, nil
	}
	picked, err := pick(free)
	if err != nil {
		return nil, err
	}
	t := time.Now().Add(IntentFor)
	for _, id := range picked {
		until[id] = t
	}
	return picked, nil
}

// Intends reports whether this device may be about to drop a block. Whoever
// stores it again all the same has to keep it from going for [IntentFor].
func (e *Exchange) Intends(id block.ID) bool {
	in := e.intents
	in.mu.Lock()
	defer in.mu.Unlock()
	t, ok := in.until[id]
	return in.asking[id] > 0 || ok && !time.Now().After(t)
}

func (k *Kept) add(dev device.ID, asOf time.Time) {
	k.Devices = append(k.Devices, dev)
	if k.AsOf.IsZero() || asOf.Before(k.AsOf) {
		k.AsOf = asOf
	}
}

// words returns the archives whose word counts, and of when it is. That of one
// that tells all anew is of when it began, and covers what it has told since.
func (e *Exchange) words() map[device.ID]time.Time {
	words := make(map[device.ID]time.Time)
	for _, m := range e.cfg.Members() {
		if m.Role != device.Archive || m.ID == e.cfg.Self || m.Revoked {
			continue
		}
		c, asOf, err := e.known(m.ID)
		if age := time.Since(asOf); err == nil && c.Epoch != 0 && age < wordFor && age > -wordFor {
			words[m.ID] = asOf
		} else if began := e.peer(m.ID).tellingSince(); !began.IsZero() {
			words[m.ID] = began
		}
	}
	return words
}

// askKeep asks KEEP? under an intent, and adds what is answered to kept.
func (e *Exchange) askKeep(ctx context.Context, open []block.ID, ask map[device.ID][]block.ID, kept map[block.ID]*Kept,
	informed func() ([]device.ID, error),
) error {
	if len(ask) == 0 {
		return nil
	}
	e.intents.declare(open)
	began := time.Now() // after the intents stand
	until := make(map[block.ID]time.Time)
	defer func() { e.intents.settle(open, until) }()
	if informed != nil {
		devs, err := informed()
		if err != nil {
			return err
		}
		for dev := range ask {
			if !slices.Contains(devs, dev) {
				delete(ask, dev)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for dev, ids := range ask {
		wg.Go(func() {
			for part := range slices.Chunk(ids, keepBatch) {
				bits, err := e.keepQuery(ctx, dev, part)
				if err != nil {
					e.log.Debug("no answer whether blocks are kept", "device", dev.Short(), "err", err)
					return
				}
				mu.Lock()
				for i, id := range part {
					if bits[i] {
						kept[id].add(dev, began)
						kept[id].Until = began.Add(proofFor)
						until[id] = began.Add(IntentFor)
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return nil
}

func (e *Exchange) keepQuery(ctx context.Context, dev device.ID, ids []block.ID) ([]bool, error) {
	ss := e.peer(dev).session()
	if ss == nil {
		return nil, ErrNotConnected
	}
	var nonce wire.Nonce
	_, _ = rand.Read(nonce[:]) // never fails
	return ask(ctx, ss, ss.keeps, nonce, wire.KeepQuery{Nonce: nonce, IDs: ids}, len(ids))
}
