package integration

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// member is what is looked at of "roam devices --json".
type member struct {
	Name     string
	Revoked  *time.Time
	HeldBack struct{ Commits uint64 } `json:"held_back"`
}

// members returns the devices by name, as d sees them.
func (d *device) members() map[string]member {
	d.t.Helper()
	out, err := d.Run(d.t.Context(), "devices", "--json")
	d.check(err)
	all := map[string]member{}
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var m member
		if err := dec.Decode(&m); err != nil {
			d.t.Fatal(err)
		}
		all[m.Name] = m
	}
	return all
}

// epochsOf returns how many blocks of each epoch are in the files of the block
// store of a device that is stopped. Large blocks are files of their own.
func epochsOf(t *testing.T, d *device) map[uint32]int {
	t.Helper()
	out := map[uint32]int{}
	err := filepath.WalkDir(filepath.Join(d.State, "blocks"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && len(b) > 64<<10 && b[0] == 1 && b[1] == 1 {
			out[binary.BigEndian.Uint32(b[2:])]++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRevoke removes a device while it is cut off and goes on working: the
// others keep one tree without that work and say so, and it learns nothing more. Then
// all but the archive are lost, and the recovery sheet brings the tree back.
func TestRevoke(t *testing.T) {
	l, nas, laptop := onLAN(t)
	sheet := filepath.Join(t.TempDir(), "sheet")
	if err := os.Rename(filepath.Join(nas.State, "recovery-sheet.txt"), sheet); err != nil {
		t.Fatal(err)
	}
	phone := newDevice(t, "phone")
	l.host(phone)
	phone.join(nas)
	phone.up()
	connected(nas, laptop, phone)
	early := []byte("early words")
	big := func(seed byte) []byte { // does not compress
		b := make([]byte, 300<<10)
		_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
		return b
	}
	write(t, filepath.Join(phone.Mount, "early.txt"), early)
	write(t, filepath.Join(laptop.Mount, "early.bin"), big(1))
	sameTree(nas, laptop, phone)
	for _, d := range []*device{laptop, phone} {
		d.copied()
	}

	l.cut(phone)
	phone.disconnected()
	write(t, filepath.Join(phone.Mount, "late.txt"), []byte("work that nobody sees"))
	write(t, filepath.Join(phone.Mount, "early.txt"), []byte("late words"))
	if err := os.Mkdir(filepath.Join(phone.Mount, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(phone.Mount, "dir", "late.bin"), big(9))
	if _, code := laptop.try("devices", "revoke", "phone"); code != 2 {
		t.Errorf("revoke without a sheet exits with %d", code)
	}
	if talk, code := laptop.try("devices", "revoke", "nas", "--sheet", sheet); code != 5 {
		t.Errorf("revoke of the last archive exits with %d: %s", code, talk)
	}
	if talk, code := laptop.try("devices", "revoke", "phone", "--sheet", sheet); code != 0 {
		t.Fatalf("revoke: %d\n%s", code, talk)
	}
	write(t, filepath.Join(laptop.Mount, "after.bin"), big(2))
	sameTree(nas, laptop)
	laptop.copied()

	l.heal(phone)
	eventually(t, time.Minute, "the removed device hears of it", func() error {
		out, err := phone.Run(t.Context(), "status", "--json")
		if err != nil {
			return err
		}
		if !strings.Contains(out, `"revoked":true`) {
			return errors.New(out)
		}
		return nil
	})
	eventually(t, time.Minute, "its work is held back and shown", func() error {
		seen := nas.members()["phone"].HeldBack.Commits + laptop.members()["phone"].HeldBack.Commits
		if seen == 0 {
			return errors.New("nothing is held back")
		}
		return nil
	})
	sameTree(nas, laptop)
	if got := read(t, filepath.Join(nas.Mount, "early.txt")); !bytes.Equal(got, early) {
		t.Errorf("early.txt is %q", got)
	}
	if _, err := os.Stat(filepath.Join(nas.Mount, "late.txt")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the late work is in the tree: %v", err)
	}

	// The removed device reads what it has, writes nothing, and gets nothing new.
	if got := read(t, filepath.Join(phone.Mount, "late.txt")); string(got) != "work that nobody sees" {
		t.Errorf("late.txt is %q", got)
	}
	for _, name := range []string{"more.txt", "late.txt"} {
		if f, err := os.OpenFile(filepath.Join(phone.Mount, name), os.O_WRONLY|os.O_CREATE, 0o644); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a removed device writes to %s: %v", name, err)
			if err == nil {
				_ = f.Close()
			}
		}
	}
	if _, err := os.Stat(filepath.Join(phone.Mount, "after.bin")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a removed device sees what is new: %v", err)
	}
	for _, d := range []*device{nas, laptop, phone} {
		for _, p := range d.status().Peers {
			if p.Connected && (d == phone || p.Name == "phone") {
				t.Errorf("%s is connected to %s", d.Name, p.Name)
			}
		}
	}
	out, err := nas.Run(t.Context(), "pending")
	nas.check(err)
	more, err := laptop.Run(t.Context(), "pending")
	laptop.check(err)
	if all := out + more; !strings.Contains(all, "phone made ") || !strings.Contains(all, "roam rescue") {
		t.Errorf("pending shows\n%s", all)
	}
	if talk, code := nas.try("accept", "phone"); code != 3 {
		t.Errorf("accept of what a removed device did: %d\n%s", code, talk)
	}
	for range 2 { // also after a restart
		dir := filepath.Join(t.TempDir(), "rescued")
		if talk, code := phone.try("rescue", dir); code != 0 {
			t.Fatalf("rescue: %d\n%s", code, talk)
		}
		got, err := listing(dir)
		if err != nil || strings.Count(got, "\n") != 4 {
			t.Errorf("rescued, %v:\n%s", err, got)
		}
		for name, want := range map[string]string{"early.txt": "late words", "late.txt": "work that nobody sees", "dir/late.bin": string(big(9))} {
			if got := read(t, filepath.Join(dir, name)); string(got) != want {
				t.Errorf("%s was rescued with %.60q", name, got)
			}
		}
		if talk, code := phone.try("rescue", dir); code != 1 {
			t.Errorf("rescue into a folder with files: %d\n%s", code, talk)
		}
		if talk, code := phone.try("rescue", filepath.Join(phone.Mount, "x")); code != 1 {
			t.Errorf("rescue into the mount: %d\n%s", code, talk)
		}
		phone.down()
		phone.up() // a device that was removed still starts
	}
	if got := read(t, filepath.Join(phone.Mount, "late.txt")); len(got) == 0 {
		t.Error("nothing to read after a restart")
	}

	phone.down()
	laptop.down()
	want, err := listing(nas.Mount)
	if err != nil {
		t.Fatal(err)
	}
	nas.down()
	if got := epochsOf(t, nas); got[1] == 0 || got[2] == 0 {
		t.Errorf("blocks by epoch: %v", got)
	}
	nas.up()

	// The archive and the sheet, which is older than the epoch, are all that is left.
	for i, args := range [][]string{{}, {"--address", nas.tcp()}} {
		fresh := newDevice(t, fmt.Sprint("fresh", i))
		l.host(fresh)
		if _, err := fresh.Run(t.Context(), append([]string{"recover", "--name", fresh.Name, "--sheet", sheet}, args...)...); err != nil {
			t.Fatal(err)
		}
		fresh.up()
		sameRoot(nas, fresh)
		if got, err := listing(fresh.Mount); err != nil || got != want {
			t.Errorf("%s shows, %v:\n%s\nwant\n%s", fresh.Name, err, got, want)
		}
		if talk, code := fresh.try("devices", "revoke", "laptop", "--sheet", sheet); i == 0 && code != 0 {
			t.Errorf("revoke a lost device: %d\n%s", code, talk)
		}
	}
	leaves(t, nas)
	other := newDevice(t, "other")
	l.host(other)
	other.init()
	stranger := newDevice(t, "stranger")
	l.host(stranger)
	if talk, code := stranger.try("recover", "--sheet", filepath.Join(other.State, "recovery-sheet.txt"), "--address", nas.tcp()); code != 4 {
		t.Errorf("recover with the sheet of another hive: %d\n%s", code, talk)
	}
}

// leaves has the last one of the new devices remove itself, and see to it that it
// does not learn what is written then.
func leaves(t *testing.T, nas *device) {
	t.Helper()
	fresh := newDevice(t, "leaves")
	fresh.Netns = nas.Netns
	fresh.join(nas)
	fresh.up()
	connected(nas, fresh)
	connected(fresh, nas)
	sameRoot(nas, fresh)
	if talk, code := fresh.try("devices", "revoke", "nas"); code != 2 {
		t.Errorf("revoke of another device without a sheet: %d\n%s", code, talk)
	}
	if talk, code := fresh.try("devices", "revoke", "leaves"); code != 0 {
		t.Errorf("leave: %d\n%s", code, talk)
	}
	eventually(t, time.Minute, "the others hear that a device left, and begin a new epoch", func() error {
		if nas.members()["leaves"].Revoked == nil {
			return errors.New("it is a member")
		}
		out, err := nas.Run(t.Context(), "status", "--json")
		if err == nil && !strings.Contains(out, `"epoch":4,`) { // two were revoked before
			err = errors.New(out)
		}
		return err
	})
	if err := os.WriteFile(filepath.Join(fresh.Mount, "more.txt"), []byte("x"), 0o644); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a device that left writes: %v", err)
	}
}

// tcp returns host:port of the device on the network of the test.
func (d *device) tcp() string {
	d.t.Helper()
	for _, a := range d.status().Addresses {
		if parts := strings.Split(a, "/"); len(parts) == 5 && parts[1] == "ip4" && parts[3] == "tcp" && strings.HasPrefix(parts[2], "10.77.") {
			return parts[2] + ":" + parts[4]
		}
	}
	d.t.Fatalf("%s has no address: %q", d.Name, d.status().Addresses)
	return ""
}
