package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/pairing"
	"github.com/roamfs/roamfs/sync/store"
)

// engine makes and opens the real device.
type engine struct{}

var (
	_ Engine    = engine{}
	_ Resizable = (*live)(nil)
)

// Create makes the first device of a hive; see [Engine].
func (engine) Create(_ context.Context, s *State, o CreateOptions) (Created, error) {
	role, err := device.ParseRole(o.Role)
	if err != nil {
		return Created{}, usage("%w", err)
	}
	key, err := newKey(s)
	if err != nil {
		return Created{}, err
	}
	owner, err := device.Generate()
	if err != nil {
		return Created{}, fmt.Errorf("owner key: %w", err)
	}
	actor, err := newActor(key.ID())
	if err != nil {
		return Created{}, err
	}
	members, err := device.NewHive(owner.Private(), key.ID(), o.Name, role, actor, time.Now())
	if err != nil {
		return Created{}, fmt.Errorf("new hive: %w", err)
	}
	first := device.EpochSecret{Epoch: device.FirstEpoch}
	if _, err := rand.Read(first.Secret[:]); err != nil {
		return Created{}, fmt.Errorf("new hive: %w", err)
	}
	id := identity{key: key, actor: actor, members: members, secrets: []device.EpochSecret{first}}
	if err := id.save(s); err != nil {
		return Created{}, err
	}
	sheet := device.Sheet{Hive: members.Hive(), Owner: owner.Seed(), Epoch: first.Epoch, Secret: first.Secret}
	made := id.created()
	made.RecoverySheet = sheet.String()
	return made, nil
}

// joinWait bounds how long a new device waits for the tree after pairing while
// nothing arrives. It is longer than the minute for which a replica does not ask
// again after the sending of a tree has broken off.
const joinWait = 90 * time.Second

// Join makes this device a member of a hive; see [Engine].
func (e engine) Join(ctx context.Context, s *State, o JoinOptions, progress func(Progress)) (Created, error) {
	invite, err := pairing.Parse(o.Code)
	if err != nil {
		return Created{}, failure(CodeUsage, "copy the whole code, from roamfs-pair: to its end", "%w", err)
	}
	role := device.Cache
	if o.Role != "" {
		if role, err = device.ParseRole(o.Role); err != nil {
			return Created{}, usage("%w", err)
		}
	}
	key, err := newKey(s)
	if err != nil {
		return Created{}, err
	}
	progress(Progress{Stage: "pairing"})
	answer, err := pairing.Join(ctx, pairing.JoinConfig{
		Key: key.Private(), Invite: invite, Addresses: o.Addresses,
		Request: pairing.Request{Label: o.Name, Role: role, RoleGiven: o.Role != ""},
	})
	switch {
	case errors.Is(err, pairing.ErrRefused):
		return Created{}, failure(CodeFailed, "ask for a new one with `roam invite` on the other device; each can be used once", "the invite was refused: it is wrong, used or expired")
	case errors.Is(err, pairing.ErrUnreachable):
		return Created{}, failure(CodeUnreachable, "both devices must be on and on the same network; --address names an address of the other one", "%w", err)
	case errors.Is(err, pairing.ErrDenied):
		return Created{}, failure(CodeFailed, "see what the other device says", "the other device did not take this one in: %w", err)
	case err != nil:
		return Created{}, fmt.Errorf("pair: %w", err)
	}
	w, err := decodeWelcome(answer)
	if err != nil {
		return Created{}, fmt.Errorf("pair: %w", err)
	}
	self, ok := w.members.Member(key.ID())
	if !ok {
		return Created{}, errors.New("pair: the other device did not enrol this one")
	}
	id := identity{key: key, actor: w.actor, members: w.members, secrets: w.secrets}
	if err := id.save(s); err != nil {
		return Created{}, err
	}
	if err := saveAddresses(s, invite.Device, w.addresses); err != nil {
		return Created{}, err
	}
	if err := e.readTree(ctx, s, invite.Device, progress); err != nil {
		return Created{}, err
	}
	made := id.created()
	made.Device = DeviceInfo{ID: self.ID.String(), Name: self.Label, Role: self.Role.String()}
	return made, nil
}

// readTree runs the new device until it has the metadata of the tree from the
// device that invited it.
func (e engine) readTree(ctx context.Context, s *State, from device.ID, progress func(Progress)) error {
	progress(Progress{Stage: "reading the tree"})
	d, err := openDevice(s, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(running) }()
	err = d.await(ctx, joinWait, func() bool { here, _ := d.replica.Caught(from); return here })
	stop()
	err = errors.Join(err, <-ended, d.Close())
	if errors.Is(err, errNoProgress) {
		return failure(CodeUnreachable, "keep the other device running and try again with a new invite", "the device was paired, but the tree did not arrive")
	}
	return err
}

// Open opens the device of s; see [Engine].
func (engine) Open(_ context.Context, s *State, log *slog.Logger) (Device, error) {
	return openDevice(s, log)
}

// Resize bounds the state directory by the cache size of c; see [Resizable].
func (d *live) Resize(ctx context.Context, c Config) error {
	limit := c.Limit(d.self.Role.String())
	if limit == d.cache.Usage().Limit {
		return nil
	}
	return d.cache.SetLimit(ctx, limit)
}

// newKey makes this device's key and keeps it in s.
func newKey(s *State) (device.Key, error) {
	key, err := device.Generate()
	if err != nil {
		return key, fmt.Errorf("device key: %w", err)
	}
	if err := key.Save(s.KeyFile()); err != nil {
		return key, fmt.Errorf("device key: %w", err)
	}
	return key, nil
}

func newActor(dev device.ID) ([8]byte, error) {
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return [8]byte{}, fmt.Errorf("new device: %w", err)
	}
	return device.NewActor(dev, nonce), nil
}

// openStore opens the database of s.
func openStore(s *State, log *slog.Logger) (*store.Store, error) {
	st, err := store.Open(s.Database(), log)
	if err != nil {
		return nil, damaged(s, "the database", err)
	}
	return st, nil
}

// damaged says that a part of the state directory cannot be read and what to do.
func damaged(s *State, part string, err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%s: %w", part, err)
	}
	return failure(CodeDamaged, fmt.Sprintf("keep %s (blocks in it may exist only there), put the directory back from a backup, or move it away and let this device join again", s.Dir()),
		"the state directory is damaged: %s cannot be read: %w", part, err)
}
