package app

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/replica"
	"github.com/roamfs/roamfs/sync/store"
)

// A state directory that was put back from a backup, or copied to another disk or
// machine, must not go on under its old name: the changes that it is going to
// make may exist already, with other content (package replica, incarnation.go). The
// file incarnation and the database know each other, so that such a copy is
// noticed at its first start:
//
//   - the database has a random number, drawn anew at each start, that stands in
//     the file too, so a database that alone was put back does not fit the file;
//   - it has the inode and the time of birth of that file, which a copy does not
//     share, and neither does a backup that was written over the directory, since the
//     file differs at each start;
//   - it has a hash of /etc/machine-id, for disks that are copied as a whole.
//
// Not noticed are a virtual machine and a file system that were set back to a
// snapshot. Then the other devices notice (replica, forks.go).

// placeKey is the value of the database that says where it lies:
//
//	version(1) inode(8) birth(8) machine(16) number(16) next(16)
//
// birth is in ns since 1970, 0 if the file system does not keep it. The file has
// one of the two numbers: next if the start that drew it got that far.
const (
	placeKey     = "place"
	placeVersion = 1
	placeLen     = 1 + 8 + 8 + 16 + 16 + 16
)

// place is where a database lies.
type place struct {
	inode        uint64
	birth        int64
	machine      [16]byte
	number, next [16]byte
}

func (p place) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{placeVersion}, p.inode)
	b = binary.BigEndian.AppendUint64(b, uint64(p.birth))
	b = append(b, p.machine[:]...)
	b = append(b, p.number[:]...)
	return append(b, p.next[:]...)
}

// decodePlace reads what encode wrote; nil is a database that has not been
// opened yet.
func decodePlace(b []byte) (p place, err error) {
	if len(b) != placeLen || b[0] != placeVersion {
		return p, fmt.Errorf("%w: where the database lies", store.ErrDamaged)
	}
	p.inode, p.birth = binary.BigEndian.Uint64(b[1:]), int64(binary.BigEndian.Uint64(b[9:]))
	copy(p.machine[:], b[17:])
	copy(p.number[:], b[33:])
	copy(p.next[:], b[49:])
	return p, nil
}

// confirmIncarnation makes the device a new incarnation if its state directory
// may be a copy, and notes where it lies. Nothing has been written to the tree
// before it, and each of its steps can be done again.
func confirmIncarnation(s *State, st *store.Store, id *identity, log *slog.Logger) error {
	b, err := st.Value(placeKey)
	if err != nil {
		return err
	}
	here, err := s.place()
	if err != nil {
		return err
	}
	if b != nil {
		was, err := decodePlace(b)
		if err != nil {
			return err
		}
		if why := was.differs(here); why != "" {
			if err := id.renew(st); err != nil {
				return fmt.Errorf("the state directory is a copy (%s), and this device needs a new incarnation: %w", why, err)
			}
			log.Warn("the state directory was restored or copied: this device goes on as a new incarnation", "because", why)
		}
	}
	if here.inode == 0 {
		if err := writeFile(s.path(incarnationName), []byte(hex.EncodeToString(here.number[:])+"\n")); err != nil {
			return err
		}
		if here, err = s.place(); err != nil {
			return err
		}
	}
	if _, err := rand.Read(here.next[:]); err != nil {
		return err
	}
	if err := keepPlace(st, here); err != nil {
		return err
	}
	if err := overwrite(s.path(incarnationName), []byte(hex.EncodeToString(here.next[:])+"\n")); err != nil {
		return err
	}
	here.number = here.next
	return keepPlace(st, here)
}

func keepPlace(st *store.Store, p place) error {
	if err := st.Update(func(tx *store.Tx) error { tx.SetValue(placeKey, p.encode()); return nil }); err != nil {
		return err
	}
	return st.Sync()
}

// differs says what tells the place where the database is now from where it was,
// or nothing.
func (p place) differs(now place) string {
	switch {
	case now.inode == 0:
		return "the file " + incarnationName + " is missing"
	case now.number != p.number && now.number != p.next:
		return "the database is older or newer than the directory"
	case now.inode != p.inode || now.birth != p.birth:
		return "its files were made anew"
	case now.machine != p.machine:
		return "it is on another machine"
	}
	return ""
}

// place reads where the state directory lies; the inode is 0 if there is no file
// to tell by, or not a readable one.
func (s *State) place() (p place, err error) {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("machine id: %w", err)
	}
	if len(id) > 0 {
		blake3.DeriveKey("roamfs machine v1", id, p.machine[:])
	}
	name := s.path(incarnationName)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	n, err := hex.DecodeString(string(b[:min(len(b), 32)]))
	if err != nil || len(b) != 33 {
		if err := os.Remove(name); err != nil {
			return p, err
		}
		return p, nil
	}
	copy(p.number[:], n)
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, name, 0, unix.STATX_INO|unix.STATX_BTIME, &x); err != nil {
		return p, &fs.PathError{Op: "statx", Path: name, Err: err}
	}
	p.inode = x.Ino
	if x.Mask&unix.STATX_BTIME != 0 {
		p.birth = x.Btime.Sec*1e9 + int64(x.Btime.Nsec)
	}
	return p, nil
}

// overwrite replaces the content of a file by one of the same length, and leaves
// it the same file.
func overwrite(name string, content []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// renew gives the device another actor, which its membership record names.
func (id *identity) renew(st *store.Store) error {
	actor, err := newActor(id.key.ID())
	if err != nil {
		return err
	}
	self, _ := id.members.Member(id.key.ID()) // loadIdentity has checked it
	if _, err := id.members.Add(id.key, self.ID, self.Label, self.Role, actor, time.Now()); err != nil {
		return err
	}
	b, err := st.Value(identityKey)
	if err != nil {
		return err
	}
	b = slices.Clone(b) // loadIdentity has checked that too
	copy(b[1:], actor[:])
	if err := st.Update(func(tx *store.Tx) error {
		tx.SetValue(identityKey, b)
		tx.SetValue(replica.MembersKey, id.members.Encode())
		return nil
	}); err != nil {
		return err
	}
	id.actor = actor
	return st.Sync()
}

// inUseTwice is what is said of a member that is at work in two places, or nothing.
func (d *live) inUseTwice(dev device.ID) (string, error) {
	twice, err := d.replica.InUseTwice(dev)
	switch {
	case err != nil || !twice:
		return "", err
	case dev == d.id.key.ID():
		return "a copy of this device's state directory is in use as well: nothing is lost, but copies are counted wrongly; end one of the two and let it join anew", nil
	}
	return "two copies of its state directory are in use: nothing is lost, but copies are counted wrongly; end one of the two and let it join anew", nil
}
