package app

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

// Status reports the state of the device; see [Device].
func (d *live) Status(context.Context) (Status, error) {
	_, state, err := d.replica.State()
	if err != nil {
		return Status{}, err
	}
	conflicts, err := d.replica.Conflicts()
	if err != nil {
		return Status{}, err
	}
	u := d.cache.Usage()
	s := Status{
		Device: DeviceInfo{ID: d.self.ID.String(), Name: d.name(d.self.ID), Role: d.self.Role.String()},
		Hive:   HiveInfo{ID: d.id.members.Hive().String()},
		Root:   hex.EncodeToString(state[:]),
		Cache: CacheStatus{
			LimitBytes: u.Limit, UsedBytes: u.Used + u.Reserved + d.overhead.used(),
			PinnedBytes: u.Pinned, Blocks: u.Blocks,
		},
		Conflicts:   len(conflicts),
		Epoch:       d.keys.Epoch(),
		Revoked:     d.replica.Revoked(),
		HeldBack:    d.heldBack(),
		Unavailable: d.unavailable(),
		Addresses:   d.host.Addrs(),
	}
	s.Pending = d.pending()
	if h := d.past.counted.Load(); h != nil {
		s.History = *h
	}
	for _, p := range d.exchange.Peers() {
		st := PeerStatus{
			DeviceInfo: DeviceInfo{ID: p.ID.String(), Name: p.Label, Role: p.Role.String()},
			Connected:  p.Connected, Path: p.Path,
		}
		if !p.LastSeen.IsZero() {
			st.LastSeen = new(p.LastSeen.UTC())
		}
		if p.RTT > 0 {
			st.RTT = new(float64(p.RTT.Microseconds()) / 1000)
		}
		if fork := d.replica.Fork(p.ID); fork != nil {
			st.Problem = fork.Error()
		} else if st.Problem, err = d.inUseTwice(p.ID); err != nil {
			return Status{}, err
		}
		s.Peers = append(s.Peers, st)
	}
	slices.SortFunc(s.Peers, func(a, b PeerStatus) int { return strings.Compare(a.Name, b.Name) })

	// In this order: a file goes from being written to waiting.
	drafts, draftBytes := d.files.Pending()
	files, bytes := d.keeper.Waiting()
	s.Cache.OnlyHereBytes = bytes
	s.WaitingToCopy = Amount{Files: files + int64(drafts), Bytes: bytes + draftBytes}
	s.SafeToStop, s.UnsafeBecause = d.safe(files, drafts)
	if twice, err := d.inUseTwice(d.self.ID); err != nil {
		return Status{}, err
	} else if twice != "" {
		s.SafeToStop, s.UnsafeBecause = false, append(s.UnsafeBecause, twice)
	}
	return s, nil
}

// safe tells whether nothing would be out of reach of the other devices if this
// one were switched off now, and why not.
func (d *live) safe(alone int64, drafts int) (bool, []string) {
	var why []string
	if drafts > 0 {
		why = append(why, fmt.Sprintf("%s being written", plural(int64(drafts), "file is", "files are")))
	}
	if alone > 0 {
		others := len(d.id.members.Members()) - 1
		switch {
		case others == 0:
			why = append(why, fmt.Sprintf("%s only on this device, and the hive has no other yet", plural(alone, "file is", "files are")))
		case !d.anyArchive():
			why = append(why, fmt.Sprintf("%s only on this device, and no archive is connected", plural(alone, "file is", "files are")))
		default:
			why = append(why, fmt.Sprintf("%s only on this device; copying goes on", plural(alone, "file is", "files are")))
		}
	}
	if alone == 0 && d.replica.Unshared() {
		why = append(why, "no other device has said yet that it knows the latest changes")
	}
	if !d.keeper.Settled() {
		why = append(why, "still counting what exists only on this device")
	}
	if err := d.replica.OldCopy(); err != nil {
		why = append(why, err.Error())
	}
	if d.replica.Revoked() {
		why = append(why, "this device was removed from the hive: what is only here stays only here")
	}
	if n := d.keeper.Missing(); n > 0 && d.self.Role == device.Archive {
		why = append(why, fmt.Sprintf("%s still to be copied here", plural(int64(n), "file is", "files are")))
	}
	return len(why) == 0, why
}

// Devices lists the members; see [Device].
func (d *live) Devices(context.Context) ([]Member, error) {
	seen := map[device.ID]Member{}
	for _, p := range d.exchange.Peers() {
		m := Member{Connected: p.Connected}
		if !p.LastSeen.IsZero() {
			m.LastSeen = new(p.LastSeen.UTC())
		}
		seen[p.ID] = m
	}
	var out []Member
	for _, m := range d.id.members.Members() {
		line := seen[m.ID]
		line.DeviceInfo = DeviceInfo{ID: m.ID.String(), Name: m.Label, Role: m.Role.String()}
		line.This = m.ID == d.self.ID
		line.Connected = line.Connected || line.This
		line.Added = m.Added.UTC()
		out = append(out, line)
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return append(out, d.formers()...), nil
}

// readers remembers whose file a block is that a program waits for, so that a
// failed read can be reported by the path of the file. It is bounded; the
// oldest go first.
type readers struct {
	mu    sync.Mutex
	file  map[block.ID]tree.Ino
	order []block.ID
}

const mostReaders = 1024

func (r *readers) add(id block.ID, ino tree.Ino) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		r.file = map[block.ID]tree.Ino{}
	}
	if _, ok := r.file[id]; !ok {
		r.order = append(r.order, id)
	}
	r.file[id] = ino
	if len(r.order) > mostReaders {
		delete(r.file, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *readers) of(id block.ID) (tree.Ino, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ino, ok := r.file[id]
	return ino, ok
}

// reading notes that a program is about to wait for a block of a file, and
// tells the network who wrote the file, for its error if nobody else is known
// to hold the block.
func (d *live) reading(ino tree.Ino, id block.ID) {
	d.readers.add(id, ino)
	n, err := d.replica.Node(ino)
	if err != nil {
		return // deleted since
	}
	if m, ok := d.replica.Author(n.Author); ok && m.ID != d.self.ID {
		d.exchange.Hint(id, m.ID)
	}
}

const mostUnavailable = 16

// unavailable lists the files that could not be read lately, and not since.
func (d *live) unavailable() []Unavailable {
	out := []Unavailable{}
	for _, u := range d.exchange.Unavailable() {
		ino, ok := d.readers.of(u.ID)
		if !ok {
			continue
		}
		p, err := d.replica.Path(ino)
		if err != nil {
			continue // deleted since
		}
		out = slices.DeleteFunc(out, func(o Unavailable) bool { return o.Path == p })
		x := Unavailable{Path: p, At: u.At.UTC(), Holders: []DeviceRef{}}
		for _, m := range d.id.members.Members() {
			if slices.Contains(u.Holders, m.Label) {
				x.Holders = append(x.Holders, d.ref(m.ID))
			}
		}
		out = append(out, x)
	}
	return out[max(0, len(out)-mostUnavailable):]
}
