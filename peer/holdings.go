package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/wire"
	"github.com/roamfs/roamfs/sync/block"
)

const (
	// coalesce is how long changes are gathered before they are announced.
	coalesce = 50 * time.Millisecond
	// confirmEvery is how often a device stands by what it said.
	confirmEvery = time.Hour
	// addrsEvery is how often addresses are looked at for changes.
	addrsEvery = 5 * time.Second
	// addrsAgain is after how many looks addresses are told again even so: to whom
	// did not yet know that a device is a member, they were of no use before.
	addrsAgain = 12

	cursorSize = 48 + 8
)

// known returns how far a device's sequence is known, and when it last stood by
// that. The kept cursor is that of package wire and the time in ms since 1970.
func (e *Exchange) known(dev device.ID) (c wire.Cursor, asOf time.Time, err error) {
	b, err := e.cfg.Holdings.Cursor(dev)
	if err != nil {
		return c, asOf, fmt.Errorf("cursor of %s: %w", dev.Short(), err)
	}
	if len(b) != cursorSize { // none, or of another version: all is told again
		return c, asOf, nil
	}
	err = c.UnmarshalBinary(b[:48])
	return c, time.UnixMilli(int64(binary.BigEndian.Uint64(b[48:]))), err
}

// hear takes an announcement. One that begins anew does not end what was known
// before, which is right for the most part, until it is whole; but it is no proof
// any more, since the reason may be that the device has lost something.
func (ss *session) hear(m wire.Hold) error {
	if err := ss.note(m); err != nil {
		return fmt.Errorf("holdings of %s: %w", ss.p.dev.Short(), err)
	}
	if ss.e.cfg.Heard != nil {
		ss.e.cfg.Heard(ss.p.dev)
	}
	return nil
}

func (ss *session) note(m wire.Hold) error {
	held, p := ss.e.cfg.Holdings, ss.p
	switch {
	case m.Reset:
		if err := held.Retell(p.dev); err != nil {
			return err
		}
		p.setTelling(time.Now())
		ss.knows = true
	case !ss.knows: // what is left of an earlier announcement must not pass for all
		return fmt.Errorf("%w: HOLD that goes on where nothing was", wire.ErrMessage)
	}
	if !m.Final {
		return held.Hold(p.dev, m.Added, m.Gone, nil)
	}
	cursor, _ := m.Cursor.MarshalBinary() // never fails
	cursor = binary.BigEndian.AppendUint64(cursor, uint64(time.Now().UnixMilli()))
	if p.tellingSince().IsZero() {
		return held.Hold(p.dev, m.Added, m.Gone, cursor)
	}
	if err := held.Hold(p.dev, m.Added, m.Gone, nil); err != nil {
		return err
	}
	if err := held.Retold(p.dev, cursor); err != nil {
		return err
	}
	p.setTelling(time.Time{})
	return nil
}

// tellHoldings announces what is held here: first what the peer missed, then each
// change.
func (ss *session) tellHoldings(ctx context.Context) error {
	l := ss.e.ledger
	select {
	case <-l.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	seq, ok := l.begin(ss.hello.Known)
	confirm := time.NewTicker(confirmEvery)
	defer confirm.Stop()
	for final := false; ; {
		if !ok {
			if err := ss.tellAll(ctx); err != nil {
				return err
			}
			final = false
		}
		var m wire.Hold
		var more <-chan struct{}
		if m, more, ok = l.since(seq); !ok {
			seq, _ = l.begin(wire.Cursor{})
			continue
		}
		if !final || m.Cursor.Seq != seq {
			if err := ss.hold(ctx, m); err != nil {
				return err
			}
			seq, final = m.Cursor.Seq, m.Final
		}
		if !final {
			continue
		}
		select {
		case <-more:
			if !sleep(ctx, coalesce) {
				return ctx.Err()
			}
		case <-confirm.C:
			final = false
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tellAll announces all that is held. Changes from the number on that was read
// before must follow.
func (ss *session) tellAll(ctx context.Context) error {
	blocks := ss.e.cfg.Blocks
	var ids []block.ID
	blocks.Each(func(id block.ID, _ int64) {
		if blocks.Durable(id) {
			ids = append(ids, id)
		}
	})
	for first := true; first || len(ids) > 0; first = false {
		n := min(len(ids), wire.MaxHold)
		m := wire.Hold{Reset: first, Cursor: wire.Cursor{Epoch: ss.e.ledger.epoch}, Added: ids[:n]}
		if err := ss.hold(ctx, m); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// hold sends an announcement when the ones before it are out.
func (ss *session) hold(ctx context.Context, m wire.Hold) error {
	if err := ss.out.idle(ctx); err != nil {
		return err
	}
	return ss.out.put(m)
}

// learn takes addresses that a peer told. It knows its own best.
func (e *Exchange) learn(from device.ID, m wire.Addrs) {
	for _, d := range m.Devices {
		if d.Device == e.cfg.Self || d.Device != from && e.isConnected(d.Device) {
			continue
		}
		e.cfg.Host.Remember(d.Device, d.Addrs)
	}
}

// tellAddrs tells where this device and the others are, whenever that changes.
func (ss *session) tellAddrs(ctx context.Context) error {
	tick := time.NewTicker(addrsEvery)
	defer tick.Stop()
	var told string
	for n := 0; ; n++ {
		m := ss.e.addrs(ss.p.dev)
		if now := string(wire.Append(nil, m)); now != told || n%addrsAgain == 0 {
			told = now
			if err := ss.out.put(m); err != nil && !errors.Is(err, errSlow) {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// addrs returns the addresses of all devices but the one that is told.
func (e *Exchange) addrs(to device.ID) wire.Addrs {
	m := wire.Addrs{Devices: []wire.DeviceAddrs{{Device: e.cfg.Self, Addrs: bounded(e.cfg.Host.Addrs())}}}
	for _, member := range e.cfg.Members() {
		if member.ID == e.cfg.Self || member.ID == to || member.Revoked || len(m.Devices) == wire.MaxDevices {
			continue
		}
		if a := bounded(e.cfg.Host.KnownAddrs(member.ID)); len(a) > 0 {
			m.Devices = append(m.Devices, wire.DeviceAddrs{Device: member.ID, Addrs: a})
		}
	}
	return m
}

// bounded leaves out addresses that do not fit in ADDRS.
func bounded(addrs []string) []string {
	var out []string
	for _, a := range addrs {
		if len(a) > 0 && len(a) <= wire.MaxAddr && len(out) < wire.MaxAddrs {
			out = append(out, a)
		}
	}
	return out
}
