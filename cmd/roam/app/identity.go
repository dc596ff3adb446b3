package app

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/replica"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// identity is what makes a state directory one device of one hive: the key,
// which has a file of its own, and the rest, which is in the database.
type identity struct {
	key     device.Key
	actor   tree.Actor // the incarnation: who its operations are by
	members *device.Log
	// secrets are those of the epochs that this device was given when it was made or
	// paired, the first epoch first; later ones are in members, sealed for its key.
	// Every block key comes from them.
	secrets []device.EpochSecret
}

// The values of the database that hold the identity, beside [replica.MembersKey].
const (
	identityKey  = "identity" // version(1) actor(8) secrets; in version 1: epoch(4) secret(32)
	addressesKey = "addresses"
)

const identityVersion = 2

// maxSecrets bounds the epochs that a device is given.
const maxSecrets = 4096

// appendSecrets writes the number of secrets as an unsigned varint, and of each
// epoch(4) secret(32).
func appendSecrets(b []byte, secrets []device.EpochSecret) []byte {
	b = binary.AppendUvarint(b, uint64(len(secrets)))
	for _, e := range secrets {
		b = binary.BigEndian.AppendUint32(b, e.Epoch)
		b = append(b, e.Secret[:]...)
	}
	return b
}

// readSecrets takes what appendSecrets writes, at least one secret, off b.
func readSecrets(b []byte) (out []device.EpochSecret, rest []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || w > 1 && b[w-1] == 0 || n == 0 || n > maxSecrets || n > uint64(len(b)-w)/36 {
		return nil, nil, errors.New("bad number of secrets")
	}
	b = b[w:]
	for range n {
		e := device.EpochSecret{Epoch: binary.BigEndian.Uint32(b)}
		copy(e.Secret[:], b[4:])
		out, b = append(out, e), b[36:]
	}
	return out, b, nil
}

// save writes the identity into the new database of s.
func (id *identity) save(s *State) (err error) {
	st, err := openStore(s, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	b := appendSecrets(append([]byte{identityVersion}, id.actor[:]...), id.secrets)
	if err := st.Update(func(tx *store.Tx) error {
		tx.SetValue(identityKey, b)
		tx.SetValue(replica.MembersKey, id.members.Encode())
		return nil
	}); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if err := confirmIncarnation(s, st, id, slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return st.Sync()
}

// loadIdentity reads the identity of a device.
func loadIdentity(s *State, st *store.Store) (id identity, err error) {
	if id.key, err = device.Load(s.KeyFile()); err != nil {
		return id, damaged(s, "the device key", err)
	}
	b, err := st.Value(identityKey)
	if err != nil {
		return id, err
	}
	if id.actor, id.secrets, err = decodeIdentity(b); err != nil {
		return id, damaged(s, "the identity in the database", err)
	}
	b, err = st.Value(replica.MembersKey)
	if err != nil {
		return id, err
	}
	if id.members, err = device.Decode(b); err != nil {
		return id, damaged(s, "the list of members in the database", err)
	}
	_, in := id.members.Member(id.key.ID())
	if _, out := id.members.WasMember(id.key.ID()); !in && !out {
		return id, damaged(s, "the list of members in the database", errors.New("this device is not in it; does the key belong to this directory?"))
	}
	return id, nil
}

func decodeIdentity(b []byte) (actor tree.Actor, secrets []device.EpochSecret, err error) {
	wrong := fmt.Errorf("%d bytes", len(b))
	if len(b) < 1+8 {
		return actor, nil, wrong
	}
	copy(actor[:], b[1:])
	rest := b[1+8:]
	switch b[0] {
	case 1:
		secrets, rest, err = readSecrets(append([]byte{1}, rest...))
	case identityVersion:
		secrets, rest, err = readSecrets(rest)
	default:
		return actor, nil, fmt.Errorf("version %d", b[0])
	}
	if err == nil && len(rest) > 0 {
		err = wrong
	}
	return actor, secrets, err
}

func (id *identity) created() Created {
	self, _ := id.members.Member(id.key.ID()) // checked by whoever made it
	return Created{
		Device: DeviceInfo{ID: self.ID.String(), Name: self.Label, Role: self.Role.String()},
		Hive:   HiveInfo{ID: id.members.Hive().String()},
	}
}

// welcome is what a new device is given when it is paired: everything that
// makes it a member. It travels sealed (package pairing).
//
//	version(1) actor(8) secrets len members n (len address)*
//
// The secrets are as in [appendSecrets].
type welcome struct {
	actor     [8]byte
	secrets   []device.EpochSecret
	members   *device.Log
	addresses []string // of the device that invited
}

const (
	welcomeVersion = 2
	maxAddresses   = 64
	maxAddress     = 512 // bytes
)

func (w *welcome) encode() []byte {
	b := appendSecrets(append([]byte{welcomeVersion}, w.actor[:]...), w.secrets)
	m := w.members.Encode()
	b = append(binary.AppendUvarint(b, uint64(len(m))), m...)
	return appendAddresses(b, w.addresses)
}

func decodeWelcome(b []byte) (w welcome, err error) {
	if len(b) < 1+8 || b[0] != welcomeVersion {
		return w, fmt.Errorf("welcome of %d bytes cannot be read; are both programs up to date?", len(b))
	}
	copy(w.actor[:], b[1:])
	if w.secrets, b, err = readSecrets(b[1+8:]); err != nil {
		return w, fmt.Errorf("welcome: %w", err)
	}
	m, b, err := cutBytes(b, 1<<20)
	if err != nil {
		return w, fmt.Errorf("welcome: %w", err)
	}
	if w.members, err = device.Decode(m); err != nil {
		return w, fmt.Errorf("welcome: %w", err)
	}
	if w.addresses, err = readAddresses(b); err != nil {
		return w, fmt.Errorf("welcome: %w", err)
	}
	return w, nil
}

func appendAddresses(b []byte, addrs []string) []byte {
	addrs = addrs[:min(len(addrs), maxAddresses)]
	b = binary.AppendUvarint(b, uint64(len(addrs)))
	for _, a := range addrs {
		b = append(binary.AppendUvarint(b, uint64(len(a))), a...)
	}
	return b
}

func readAddresses(b []byte) (out []string, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || w > 1 && b[w-1] == 0 || n > maxAddresses {
		return nil, errors.New("bad number of addresses")
	}
	b = b[w:]
	for range n {
		var a []byte
		if a, b, err = cutBytes(b, maxAddress); err != nil {
			return nil, err
		}
		out = append(out, string(a))
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%d bytes too many", len(b))
	}
	return out, nil
}

// cutBytes takes a length of at most limit, in its shortest spelling, and so
// many bytes off b.
func cutBytes(b []byte, limit uint64) (v, rest []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || w > 1 && b[w-1] == 0 || n > limit || n > uint64(len(b)-w) {
		return nil, nil, errors.New("bad length")
	}
	return b[w : w+int(n)], b[w+int(n):], nil
}

// saveAddresses keeps the first addresses of another device in a new database.
func saveAddresses(s *State, dev device.ID, addrs []string) (err error) {
	st, err := openStore(s, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return rememberAddresses(st, dev, addrs)
}

func rememberAddresses(st *store.Store, dev device.ID, addrs []string) error {
	return st.Update(func(tx *store.Tx) error {
		tx.SetValue(addressesKey+dev.String(), appendAddresses(nil, addrs))
		return nil
	})
}

// knownAddresses returns the addresses kept for a device.
func knownAddresses(st *store.Store, dev device.ID) ([]string, error) {
	b, err := st.Value(addressesKey + dev.String())
	if err != nil || b == nil {
		return nil, err
	}
	addrs, err := readAddresses(b)
	if err != nil {
		return nil, fmt.Errorf("%w: addresses of %s: %w", store.ErrDamaged, dev.Short(), err)
	}
	return addrs, nil
}
