package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
)

// recoverProtocol brings a new device into a hive on the word of the owner, whose
// key is proven in the handshake of the connection: whoever has it owns the hive.
//
//	1  the owner sends nothing, so that the stream is opened
//	2  the member sends the membership log
//	3  the owner sends it back with an add record for the new device
//	4  the member sends a welcome, with the secrets of all epochs and no actor
//
// each after its length (4, big-endian).
const recoverProtocol = "/roamfs/recover/1"

// recoverTime bounds the exchange, lookTime how long members are looked for on
// the local network.
const (
	recoverTime = 30 * time.Second
	lookTime    = 10 * time.Second
)

// readmit answers the owner.
func (d *live) readmit(_ context.Context, owner device.ID, s p2p.Stream) {
	err := func() error {
		if err := s.SetDeadline(time.Now().Add(recoverTime)); err != nil {
			return err
		}
		if _, err := readSized(s, 0); err != nil {
			return err
		}
		if err := writeSized(s, d.id.members.Encode()); err != nil {
			return err
		}
		grown, err := readSized(s, device.MaxLog)
		if err != nil {
			return err
		}
		if err := d.replica.MergeMembers(owner, grown); err != nil {
			return err
		}
		d.log.Warn("the owner has brought in a device with the recovery sheet")
		w := welcome{secrets: d.id.all(), members: d.id.members, addresses: d.host.Addrs()}
		return errors.Join(writeSized(s, w.encode()), s.Close())
	}()
	if err != nil {
		_ = s.Reset()
		d.log.Warn("the owner, with the recovery sheet", "err", err)
	}
}

// place is a device that may be a member, and where it is.
type place struct {
	dev   device.ID
	addrs []string
}

// Recover makes this device a member with the recovery sheet; see [Engine].
func (e engine) Recover(ctx context.Context, s *State, o RecoverOptions, progress func(Progress)) (made Created, err error) {
	sheet, err := device.ParseSheet(o.Sheet)
	if err != nil {
		return Created{}, usage("%w", err)
	}
	role, err := device.ParseRole(o.Role)
	if err != nil {
		return Created{}, usage("%w", err)
	}
	key, err := newKey(s)
	if err != nil {
		return Created{}, err
	}
	actor, err := newActor(key.ID())
	if err != nil {
		return Created{}, err
	}
	progress(Progress{Stage: "looking for a device of the hive"})
	guest, err := p2p.NewGuest(p2p.GuestConfig{Key: sheet.Key().Private()})
	if err != nil {
		return Created{}, err
	}
	defer func() { err = errors.Join(err, guest.Close()) }()
	places, tried := identified(ctx, guest, o.Addresses)
	if len(o.Addresses) == 0 {
		if places, err = onNetwork(ctx, sheet); err != nil {
			return Created{}, err
		}
	}
	var w welcome
	var from place
	for _, p := range places {
		if w, err = ask(ctx, guest, p, sheet, func(l *device.Log) error {
			_, err := l.Add(sheet.Key(), key.ID(), o.Name, role, actor, time.Now())
			return err
		}); err == nil {
			from = p
			break
		}
		tried = errors.Join(tried, err)
	}
	if from.dev.IsZero() {
		return Created{}, unrecovered(ctx, sheet, o.Addresses, tried)
	}
	self, ok := w.members.Member(key.ID())
	if !ok {
		return Created{}, errors.New("recover: the other device did not take this one in")
	}
	id := identity{key: key, actor: actor, members: w.members, secrets: w.secrets}
	if err := id.save(s); err != nil {
		return Created{}, err
	}
	if err := saveAddresses(s, from.dev, append(from.addrs, w.addresses...)); err != nil {
		return Created{}, err
	}
	if err := e.readTree(ctx, s, from.dev, progress); err != nil {
		return Created{}, err
	}
	made = id.created()
	made.Device = DeviceInfo{ID: self.ID.String(), Name: self.Label, Role: self.Role.String()}
	return made, nil
}

func unrecovered(ctx context.Context, sheet device.Sheet, addrs []string, tried error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(addrs) == 0 {
		return failure(CodeUnreachable, "start the device that is left with `roam serve`, or name its address, which `roam status --json` shows there, with --address",
			"no device of hive %s answers on this network", sheet.Hive.Short())
	}
	return failure(CodeUnreachable, "start the device that is left with `roam serve`; is it of the hive on the sheet, "+sheet.Hive.String()+"?",
		"no device of hive %s answers at %s: %w", sheet.Hive.Short(), strings.Join(addrs, " "), tried)
}

// identified finds out whose the addresses are.
func identified(ctx context.Context, g *p2p.Guest, addrs []string) (places []place, tried error) {
	for _, a := range addrs {
		dev, err := g.Identify(ctx, a)
		if err != nil {
			tried = errors.Join(tried, err)
			continue
		}
		places = append(places, place{dev, []string{a}})
	}
	return places, tried
}

// onNetwork looks for devices of the hive on the local network, until one is found.
func onNetwork(ctx context.Context, sheet device.Sheet) (places []place, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	found := make(chan place, 1)
	h, err := p2p.New(p2p.Config{
		Key: sheet.Key().Private(), MDNS: true, Hive: sheet.Hive, Log: slog.New(slog.DiscardHandler),
		Allowed: func(device.ID) bool { return true }, // to be dialed; it serves nothing
		Learned: func(dev device.ID, addrs []string) {
			select {
			case found <- place{dev, addrs}:
			default:
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("look for devices: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	select {
	case p := <-found:
		places = append(places, p)
	case <-ctx.Done():
	}
	cancel()
	return places, errors.Join(ended(ctx, <-done), h.Close())
}

// ask has a member take in what add says, and returns its welcome. It is one, as
// the log that it shows says.
func ask(ctx context.Context, g *p2p.Guest, at place, sheet device.Sheet, add func(*device.Log) error) (w welcome, err error) {
	s, err := g.Open(ctx, at.dev, at.addrs, recoverProtocol)
	if err != nil {
		return w, err
	}
	defer func() { _ = s.Reset() }()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	if err := s.SetDeadline(time.Now().Add(recoverTime)); err != nil {
		return w, err
	}
	// The name of the protocol goes out with the first bytes written.
	if err := writeSized(s, nil); err != nil {
		return w, err
	}
	b, err := readSized(s, device.MaxLog)
	if err != nil {
		return w, fmt.Errorf("%s does not answer the owner: %w", at.dev.Short(), err)
	}
	log, err := device.Decode(b)
	if err != nil {
		return w, err
	}
	if log.Hive() != sheet.Hive {
		return w, fmt.Errorf("%s belongs to hive %s", at.dev.Short(), log.Hive().Short())
	}
	if _, ok := log.Member(at.dev); !ok {
		return w, fmt.Errorf("%s: %w", at.dev.Short(), device.ErrNotMember)
	}
	if err := add(log); err != nil {
		return w, err
	}
	if err := errors.Join(writeSized(s, log.Encode()), s.CloseWrite()); err != nil {
		return w, err
	}
	b, err = readSized(s, 2*device.MaxLog)
	if err != nil {
		return w, fmt.Errorf("%s does not take this device in: %w", at.dev.Short(), err)
	}
	if w, err = decodeWelcome(b); err == nil && w.members.Hive() != sheet.Hive {
		err = device.ErrHive
	}
	return w, err
}
