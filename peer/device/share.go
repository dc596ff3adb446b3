package device

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/zeebo/blake3"
)

// A SecretID names the secret of an epoch without telling it.
type SecretID [32]byte

// An EpochSecret is the secret of an epoch. It seals blocks (package sync/block).
type EpochSecret struct {
	Epoch  uint32
	Secret [32]byte
}

// ID returns the name of the secret: the BLAKE3 key derivation, context "roamfs
// epoch secret v1", of the epoch (4, big-endian) and the secret.
func (e EpochSecret) ID() (id SecretID) {
	b := append(binary.BigEndian.AppendUint32(nil, e.Epoch), e.Secret[:]...)
	blake3.DeriveKey("roamfs epoch secret v1", b, id[:])
	return id
}

// GoString hides the secret from logs that print values with their types.
func (e EpochSecret) GoString() string { return fmt.Sprintf("device.EpochSecret{%d}", e.Epoch) }

// A Share is the secret of an epoch sealed for one device: HPKE (RFC 9180, base
// mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305), info "roamfs
// epoch share v1\x00", hive, epoch (4, big-endian), no associated data. The
// device's X25519 key is its ed25519 key on the birationally equivalent curve (RFC
// 7748, section 4.1), whose use for both is sound: Thormarker, "On using the same key pair for
// Ed25519 and an X25519 based KEM" (2021). Who sealed it shows in the signature
// of the record around it.
type Share struct {
	Device ID
	Sealed [80]byte
}

const shareLen = 32 + 80

// errShare reports a share that the device cannot open.
var errShare = errors.New("the secret of the epoch was not sealed for this device")

func shareInfo(hive HiveID, epoch uint32) []byte {
	b := append([]byte("roamfs epoch share v1\x00"), hive[:]...)
	return binary.BigEndian.AppendUint32(b, epoch)
}

// sealShare seals a secret for dev.
func sealShare(hive HiveID, e EpochSecret, dev ID) (Share, error) {
	s := Share{Device: dev}
	pub, err := x25519Public(dev)
	if err != nil {
		return s, err
	}
	pk, err := hpke.NewDHKEMPublicKey(pub)
	if err != nil {
		return s, fmt.Errorf("seal for %s: %w", dev.Short(), err)
	}
	sealed, err := hpke.Seal(pk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), shareInfo(hive, e.Epoch), e.Secret[:])
	if err != nil {
		return s, fmt.Errorf("seal for %s: %w", dev.Short(), err)
	}
	if copy(s.Sealed[:], sealed) != len(sealed) {
		return s, fmt.Errorf("seal for %s: %d bytes", dev.Short(), len(sealed))
	}
	return s, nil
}

// open opens a share with the key of the device that it is for, and checks that
// the secret is the one that id names.
func (s *Share) open(k Key, hive HiveID, epoch uint32, id SecretID) (EpochSecret, error) {
	e := EpochSecret{Epoch: epoch}
	priv, err := x25519Private(k)
	if err != nil {
		return e, err
	}
	sk, err := hpke.NewDHKEMPrivateKey(priv)
	if err != nil {
		return e, fmt.Errorf("%w: %w", errShare, err)
	}
	plain, err := hpke.Open(sk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), shareInfo(hive, epoch), s.Sealed[:])
	if err != nil || copy(e.Secret[:], plain) != len(e.Secret) || e.ID() != id {
		return EpochSecret{Epoch: epoch}, errShare
	}
	return e, nil
}

// x25519Private returns the X25519 key of an ed25519 key: the scalar that signs.
func x25519Private(k Key) (*ecdh.PrivateKey, error) {
	seed := k.Seed()
	h := sha512.Sum512(seed[:])
	return ecdh.X25519().NewPrivateKey(h[:32])
}

// x25519Public returns the X25519 key of a device: u = (1+y)/(1-y) mod 2^255-19. All
// of it is public, so it need not take constant time.
func x25519Public(dev ID) (*ecdh.PublicKey, error) {
	le := bytes.Clone(dev[:])
	le[31] &= 0x7f // the sign of x
	slices.Reverse(le)
	one, y := big.NewInt(1), new(big.Int).SetBytes(le)
	p := new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	inv := new(big.Int).ModInverse(new(big.Int).Mod(new(big.Int).Sub(one, y), p), p)
	if inv == nil {
		return nil, fmt.Errorf("seal for %s: %w", dev.Short(), ErrID)
	}
	u := inv.Mul(inv, new(big.Int).Add(one, y))
	out := u.Mod(u, p).FillBytes(make([]byte, 32))
	slices.Reverse(out)
	return ecdh.X25519().NewPublicKey(out)
}

// appendEpoch appends the body of an epoch record.
func appendEpoch(b []byte, r *Record) []byte {
	b = binary.BigEndian.AppendUint32(b, r.Epoch)
	b = append(b, r.Secret[:]...)
	b = append(b, byte(len(r.Shares)))
	for i := range r.Shares {
		b = append(b, r.Shares[i].Device[:]...)
		b = append(b, r.Shares[i].Sealed[:]...)
	}
	return b
}

// epoch reads the body of an epoch record.
func (d *decoder) epoch(r *Record) error {
	if b := d.take(4); b != nil {
		r.Epoch = binary.BigEndian.Uint32(b)
	}
	d.into(r.Secret[:])
	n := int(d.byte())
	if n > maxShares || !d.has(shareLen*n) {
		return fmt.Errorf("%w: epoch with %d shares", ErrRecord, n)
	}
	r.Shares = make([]Share, n)
	for i := range r.Shares {
		d.into(r.Shares[i].Device[:])
		d.into(r.Shares[i].Sealed[:])
	}
	return nil
}

// checkEpoch is check for the body of an epoch record.
func (r *Record) checkEpoch() error {
	switch {
	case r.Epoch < 2:
		return fmt.Errorf("%w: epoch with number %d", ErrRecord, r.Epoch)
	case len(r.Shares) == 0 || len(r.Shares) > maxShares:
		return fmt.Errorf("%w: epoch with %d shares", ErrRecord, len(r.Shares))
	case r.Shares[0].Device.IsZero():
		return fmt.Errorf("%w: epoch with a share for nobody", ErrRecord)
	}
	for i := 1; i < len(r.Shares); i++ {
		if r.Shares[i-1].Device.Compare(r.Shares[i].Device) >= 0 {
			return fmt.Errorf("%w: epoch with shares out of order", ErrRecord)
		}
	}
	return nil
}
