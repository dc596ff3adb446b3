package pairing

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/peer/p2p"
)

const (
	// DefaultTTL is how long an invite is open.
	DefaultTTL = 10 * time.Minute
	// maxFailures wrong proofs end an invite.
	maxFailures = 3
	// talk bounds one run but for the time that Welcome takes.
	talk = 15 * time.Second
	// admission bounds how long a joiner waits for that.
	admission = time.Minute
	// maxRuns is how many runs go on at the same time.
	maxRuns = 8
)

// Errors by which an invite ends without a new device.
var (
	// ErrExpired means that the time is over.
	ErrExpired = errors.New("the invite has expired")
	// ErrFailures means that the code was tried wrongly three times.
	ErrFailures = errors.New("the invite was withdrawn after three wrong attempts")
	// ErrClosed means that the invite was closed.
	ErrClosed = errors.New("the invite is closed")
)

// OpenConfig says what an invite is. Key and Welcome are needed.
type OpenConfig struct {
	Key ed25519.PrivateKey // of this device

	// Welcome makes a device that has proven the code a member, and returns the
	// welcome that it is sent, at most [MaxWelcome] bytes. If it fails, the joiner
	// is told why and may try again, and Welcome is called again. It is not called
	// for a second device, nor again after it succeeded.
	Welcome func(dev device.ID, req Request) ([]byte, error)

	// Refused, if not nil, is told in words why an attempt was refused.
	Refused func(why string)

	Expires time.Time // zero: after [DefaultTTL]
	Listen  []string  // multiaddrs; none: TCP on all addresses and a free port
	// External are addresses that others reach Listen under.
	External []string
	Log      *slog.Logger // nil: nothing is logged
}

// Inviter is an open invite. It is safe for concurrent use.
type Inviter struct {
	cfg     OpenConfig
	invite  Invite
	guest   *p2p.Guest
	log     *slog.Logger
	timer   *time.Timer
	slots   chan struct{} // held by runs
	welcome chan struct{} // cap 1: held while Welcome runs
	done    chan struct{} // closed when err is final

	mu       sync.Mutex
	ended    bool
	err      error // nil: joined
	failures int
	joiner   device.ID // who has proven the code; zero: nobody yet
	admitted bool
	payload  []byte // the welcome
}

// Open opens an invite. It must be closed.
func Open(cfg OpenConfig) (*Inviter, error) {
	if cfg.Welcome == nil || len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("pairing: no Welcome or no key in the configuration")
	}
	if cfg.Expires.IsZero() {
		cfg.Expires = time.Now().Add(DefaultTTL)
	}
	if len(cfg.Listen) == 0 {
		cfg.Listen = []string{"/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"}
	}
	v := &Inviter{
		cfg: cfg, log: cfg.Log,
		slots: make(chan struct{}, maxRuns), welcome: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	g, err := p2p.NewGuest(p2p.GuestConfig{Key: cfg.Key, Listen: cfg.Listen})
	if err != nil {
		return nil, fmt.Errorf("open invite: %w", err)
	}
	v.guest = g
	v.invite = Invite{
		Device:  device.ID(cfg.Key.Public().(ed25519.PublicKey)),
		Addrs:   choose(append(append([]string(nil), cfg.External...), g.Addrs()...)),
		Expires: cfg.Expires.Add(time.Minute - 1).Truncate(time.Minute),
	}
	_, _ = rand.Read(v.invite.Secret[:]) // never fails
	v.timer = time.AfterFunc(time.Until(cfg.Expires), func() { v.end(ErrExpired) })
	g.Handle(Protocol, v.serve)
	return v, nil
}

// choose returns the addresses that a code has room for.
func choose(addrs []string) []string { return addrs[:min(len(addrs), maxCodeAddrs)] }

// Code returns the code that invites.
func (v *Inviter) Code() string { return v.invite.String() }

// Invite returns what the code says.
func (v *Inviter) Invite() Invite { return v.invite }

// Wait waits until a device has joined. If one was admitted, but whether it got
// the welcome is not known when the invite or ctx ends, that is no error, for it is
// a member.
func (v *Inviter) Wait(ctx context.Context) error {
	err := error(nil)
	select {
	case <-v.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.admitted:
		return nil
	case err != nil:
		return err
	default:
		return v.err
	}
}

// Close ends the invite and waits for what goes on.
func (v *Inviter) Close() error {
	v.end(ErrClosed)
	v.timer.Stop()
	return v.guest.Close()
}

func (v *Inviter) end(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.ended {
		v.ended, v.err = true, err
		close(v.done)
	}
}

// errNoReceipt means that a device was admitted and did not say that it got the
// welcome.
var errNoReceipt = errors.New("no receipt")

// serve runs the protocol with one device.
func (v *Inviter) serve(ctx context.Context, dev device.ID, s p2p.Stream) {
	defer func() { _ = s.Close() }()
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	default:
		_ = s.Reset()
		return
	}
	if err := v.run(ctx, dev, s); err != nil {
		if errors.Is(err, errNoReceipt) { // a member already; it may just have gone on
			v.log.Info("device admitted, whether it got the welcome is not known", "device", dev.Short(), "err", err)
		} else {
			v.log.Info("device not paired", "device", dev.Short(), "err", err)
		}
		var refused refusal
		if !errors.As(err, &refused) {
			_ = s.Reset()
		}
	}
}

// refusal says why a device was refused.
type refusal string

func (r refusal) Error() string { return string(r) }

func (v *Inviter) run(ctx context.Context, dev device.ID, s p2p.Stream) error {
	if err := s.SetDeadline(time.Now().Add(talk)); err != nil {
		return err
	}
	nb, err := readHello(s)
	if err != nil {
		return err
	}
	var na nonce
	_, _ = rand.Read(na[:]) // never fails
	if err := writeHello(s, na); err != nil {
		return err
	}
	got, sealed, err := readSealed(s, maxRequest)
	if err != nil {
		return err
	}
	r, req, err := v.prove(dev, nb, na, got, sealed)
	var refusal refusal
	if errors.As(err, &refusal) {
		if v.cfg.Refused != nil {
			v.cfg.Refused(string(refusal))
		}
		var random proof
		_, _ = rand.Read(random[:])
		return errors.Join(err, writeSealed(s, []byte{statusRefused}, random, nil))
	}
	if err != nil {
		return err
	}
	if err := s.SetDeadline(time.Now().Add(admission + talk)); err != nil {
		return err
	}
	status, plain := v.admit(ctx, dev, req)
	if sealed, err = seal(r.inviterKey, plain); err != nil {
		return err
	}
	p := r.welcome(status, got, sealed)
	if err := writeSealed(s, []byte{status}, p, sealed); err != nil {
		return err
	}
	if status != statusWelcome {
		return nil
	}
	var receipt proof
	if _, err := io.ReadFull(s, receipt[:]); err != nil {
		return fmt.Errorf("%w: %w", errNoReceipt, err)
	}
	if !receipt.equal(r.receipt(p)) {
		return fmt.Errorf("%w: receipt", ErrProtocol)
	}
	v.end(nil)
	return nil
}

// prove checks the joiner's proof, and whether the code is good for this device;
// if not, the error is a refusal. It does the same work in all cases.
func (v *Inviter) prove(dev device.ID, nb, na nonce, got proof, sealed []byte) (*run, Request, error) {
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // never fails
	v.mu.Lock()
	defer v.mu.Unlock()
	why := v.unusableLocked(dev)
	if why == "" {
		secret = v.invite.Secret
	}
	r, err := newRun(secret, v.invite.Device, dev, nb, na)
	if err != nil {
		return nil, Request{}, err
	}
	ok := r.request(sealed).equal(got)
	plain, uerr := unseal(r.joinerKey, sealed)
	switch {
	case why != "":
		return nil, Request{}, why
	case !ok:
		if v.failures++; v.failures == maxFailures && !v.ended && !v.admitted {
			v.ended, v.err = true, ErrFailures
			close(v.done)
		}
		return nil, Request{}, refusal("the code was wrong")
	case uerr != nil:
		return nil, Request{}, fmt.Errorf("%w: request: %w", ErrProtocol, uerr)
	}
	req, err := decodeRequest(plain)
	if err == nil {
		v.joiner = dev
	}
	return r, req, err
}

// unusableLocked says why the code is no good for a device; "": it is.
func (v *Inviter) unusableLocked(dev device.ID) refusal {
	switch {
	case !v.joiner.IsZero() && v.joiner != dev:
		return "the code was used by another device"
	case v.failures >= maxFailures:
		return "the code was tried wrongly too often"
	case v.ended:
		return "the invite is over"
	}
	return ""
}

// admit admits the device if that was not done, and returns what it is sent.
func (v *Inviter) admit(ctx context.Context, dev device.ID, req Request) (status byte, plain []byte) {
	select {
	case v.welcome <- struct{}{}:
		defer func() { <-v.welcome }()
	case <-ctx.Done():
		return statusDenied, []byte(ctx.Err().Error())
	}
	v.mu.Lock()
	payload, done := v.payload, v.admitted
	v.mu.Unlock()
	if done {
		return statusWelcome, payload
	}
	payload, err := v.cfg.Welcome(dev, req)
	if err == nil && len(payload) > MaxWelcome {
		err = fmt.Errorf("welcome of %d bytes", len(payload))
	}
	if err != nil {
		v.log.Warn("device not admitted", "device", dev.Short(), "name", req.Label, "err", err)
		text := err.Error()
		return statusDenied, []byte(text[:min(len(text), 1000)])
	}
	v.mu.Lock()
	v.payload, v.admitted = payload, true
	v.mu.Unlock()
	return statusWelcome, payload
}
