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
	epoch   uint32
	secret  [32]byte // of the epoch; every block key comes from it
}

// The values of the database that hold the identity, beside [replica.MembersKey].
const (
	identityKey  = "identity" // version(1) actor(8) epoch(4) secret(32)
	addressesKey = "addresses"
)

const identityVersion = 1

// save writes the identity into the new database of s.
func (id *identity) save(s *State) (err error) {
	st, err := openStore(s, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	b := append([]byte{identityVersion}, id.actor[:]...)
	b = binary.BigEndian.AppendUint32(b, id.epoch)
	b = append(b, id.secret[:]...)
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
	if len(b) != 1+8+4+32 || b[0] != identityVersion {
		return id, damaged(s, "the identity in the database", fmt.Errorf("%d bytes", len(b)))
	}
	copy(id.actor[:], b[1:])
	id.epoch = binary.BigEndian.Uint32(b[9:])
	copy(id.secret[:], b[13:])
	b, err = st.Value(replica.MembersKey)
	if err != nil {
		return id, err
	}
	if id.members, err = device.Decode(b); err != nil {
		return id, damaged(s, "the list of members in the database", err)
	}
	if _, ok := id.members.Member(id.key.ID()); !ok {
		return id, damaged(s, "the list of members in the database", errors.New("this device is not in it; does the key belong to this directory?"))
	}
	return id, nil
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
//	version(1) actor(8) epoch(4) secret(32) len members n (len address)*
type welcome struct {
	actor     [8]byte
	epoch     uint32
	secret    [32]byte
	members   *device.Log
	addresses []string // of the device that invited
}

const (
	welcomeVersion = 1
	maxAddresses   = 64
	maxAddress     = 512 // bytes
)

func (w *welcome) encode() []byte {
	b := append([]byte{welcomeVersion}, w.actor[:]...)
	b = binary.BigEndian.AppendUint32(b, w.epoch)
	b = append(b, w.secret[:]...)
	m := w.members.Encode()
	b = append(binary.AppendUvarint(b, uint64(len(m))), m...)
	return appendAddresses(b, w.addresses)
}

func decodeWelcome(b []byte) (w welcome, err error) {
	if len(b) < 1+8+4+32 || b[0] != welcomeVersion {
		return w, fmt.Errorf("welcome of %d bytes cannot be read; are both programs up to date?", len(b))
	}
	copy(w.actor[:], b[1:])
	w.epoch = binary.BigEndian.Uint32(b[9:])
	copy(w.secret[:], b[13:])
	m, b, err := cutBytes(b[45:], 1<<20)
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
