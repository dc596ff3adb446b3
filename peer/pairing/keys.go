package pairing

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"github.com/roamfs/roamfs/peer/device"
)

const domain = "roamfs pair 1"

type (
	nonce [32]byte
	proof [sha256.Size]byte
)

// run holds what one run of the protocol computes with.
type run struct {
	transcript [sha256.Size]byte // T
	joinerMAC  []byte
	inviterMAC []byte
	joinerKey  []byte
	inviterKey []byte
}

func newRun(secret [16]byte, inviter, joiner device.ID, nb, na nonce) (*run, error) {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(domain), inviter[:], joiner[:], nb[:], na[:]} {
		h.Write(part)
	}
	r := &run{transcript: [sha256.Size]byte(h.Sum(nil))}
	for use, key := range map[string]*[]byte{
		"joiner proves": &r.joinerMAC, "inviter proves": &r.inviterMAC,
		"joiner seals": &r.joinerKey, "inviter seals": &r.inviterKey,
	} {
		k, err := hkdf.Key(sha256.New, secret[:], []byte(domain), use+string(r.transcript[:]), 32)
		if err != nil {
			return nil, fmt.Errorf("derive keys: %w", err)
		}
		*key = k
	}
	return r, nil
}

func mac(key []byte, parts ...[]byte) (p proof) {
	h := hmac.New(sha256.New, key)
	for _, part := range parts {
		h.Write(part)
	}
	return proof(h.Sum(nil))
}

// request returns the proof that goes with a sealed request.
func (r *run) request(sealed []byte) proof {
	sum := sha256.Sum256(sealed)
	return mac(r.joinerMAC, r.transcript[:], sum[:])
}

// welcome returns the proof that goes with a sealed welcome.
func (r *run) welcome(status byte, request proof, sealed []byte) proof {
	sum := sha256.Sum256(sealed)
	return mac(r.inviterMAC, []byte{status}, r.transcript[:], request[:], sum[:])
}

// receipt returns the joiner's last word.
func (r *run) receipt(welcome proof) proof {
	return mac(r.joinerMAC, []byte("received"), r.transcript[:], welcome[:])
}

// equal compares in constant time.
func (p proof) equal(o proof) bool { return hmac.Equal(p[:], o[:]) }

// seal seals a message with a key that seals no other.
func seal(key, plain []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, make([]byte, aead.NonceSize()), plain, nil), nil
}

func unseal(key, sealed []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, make([]byte, aead.NonceSize()), sealed, nil)
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(c)
}
