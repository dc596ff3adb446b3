package pairing

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
)

// farewell bounds how long a joiner waits until its receipt was read.
const farewell = 5 * time.Second

// Errors of Join.
var (
	// ErrUnreachable means that the inviter was not reached at any address, or lost.
	ErrUnreachable = errors.New("the inviting device cannot be reached")
	// ErrRefused means that the code is wrong, has been used, or is over.
	ErrRefused = errors.New("the code was refused: it is wrong, used or expired")
	// ErrDenied means that the code is right, and that the inviter did not admit
	// this device for another reason, which the error gives.
	ErrDenied = errors.New("not admitted")
)

// JoinConfig says who joins. All but Addresses is needed.
type JoinConfig struct {
	Key       ed25519.PrivateKey // of this device, in the hive too
	Invite    Invite
	Addresses []string // more multiaddrs of the inviter, tried beside those of the code
	Request   Request
}

// Join joins the hive of the inviter and returns the welcome. It can be called
// again with the same key and code after [ErrUnreachable] or [ErrDenied], even if
// this device was already admitted.
func Join(ctx context.Context, cfg JoinConfig) (welcome []byte, err error) {
	if err := cfg.Request.check(); err != nil {
		return nil, err
	}
	if len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("pairing: no key in the configuration")
	}
	g, err := p2p.NewGuest(p2p.GuestConfig{Key: cfg.Key})
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	s, err := g.Open(ctx, cfg.Invite.Device, append(append([]string(nil), cfg.Addresses...), cfg.Invite.Addrs...), Protocol)
	if err != nil {
		return nil, lost(ctx, err)
	}
	defer func() { _ = s.Close() }()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	self := device.ID(cfg.Key.Public().(ed25519.PublicKey))
	welcome, err = join(s, cfg.Invite, self, cfg.Request)
	if err != nil && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrDenied) && !errors.Is(err, ErrProtocol) {
		err = lost(ctx, err)
	}
	return welcome, err
}

func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// join runs the protocol.
func join(s p2p.Stream, code Invite, self device.ID, req Request) ([]byte, error) {
	if err := s.SetDeadline(time.Now().Add(talk)); err != nil {
		return nil, err
	}
	var nb nonce
	_, _ = rand.Read(nb[:]) // never fails
	if err := writeHello(s, nb); err != nil {
		return nil, err
	}
	na, err := readHello(s)
	if err != nil {
		return nil, err
	}
	r, err := newRun(code.Secret, code.Device, self, nb, na)
	if err != nil {
		return nil, err
	}
	sealed, err := seal(r.joinerKey, req.encode())
	if err != nil {
		return nil, err
	}
	request := r.request(sealed)
	if err := writeSealed(s, nil, request, sealed); err != nil {
		return nil, err
	}
	if err := s.SetDeadline(time.Now().Add(admission + talk)); err != nil {
		return nil, err
	}
	var status [1]byte
	if _, err := io.ReadFull(s, status[:]); err != nil {
		return nil, err
	}
	p, sealed, err := readSealed(s, maxWelcome)
	if err != nil {
		return nil, err
	}
	if status[0] == statusRefused || !p.equal(r.welcome(status[0], request, sealed)) {
		return nil, ErrRefused // or someone in between, which comes to the same
	}
	plain, err := unseal(r.inviterKey, sealed)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: welcome: %w", ErrProtocol, err)
	case status[0] == statusDenied:
		return nil, fmt.Errorf("%w: %q", ErrDenied, plain)
	case status[0] != statusWelcome:
		return nil, fmt.Errorf("%w: status %d", ErrProtocol, status[0])
	}
	receipt := r.receipt(p)
	if _, err := s.Write(receipt[:]); err == nil && s.CloseWrite() == nil && s.SetReadDeadline(time.Now().Add(farewell)) == nil {
		// The connection is closed next: only what the inviter has read is not lost.
		_, _ = s.Read(make([]byte, 1))
	}
	return plain, nil // even if the receipt was lost: then the inviter waits until the invite is over
}
