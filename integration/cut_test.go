package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// onLAN makes a hive of an archive and a laptop that live in namespaces.
func onLAN(t *testing.T) (l *lan, nas, laptop *device) {
	t.Helper()
	needMount(t)
	l = newLAN(t)
	nas, laptop = newDevice(t, "nas"), newDevice(t, "laptop")
	l.host(nas)
	l.host(laptop)
	nas.init("--role", "archive")
	nas.up()
	laptop.join(nas)
	laptop.up()
	connected(nas, laptop)
	return l, nas, laptop
}

// disconnected waits until the device has noticed that nobody is there.
func (d *device) disconnected() {
	d.t.Helper()
	eventually(d.t, time.Minute, d.Name+" is alone", func() error {
		for _, p := range d.status().Peers {
			if p.Connected {
				return errors.New(p.Name + " is connected")
			}
		}
		return nil
	})
}

// TestCutEditHeal edits on both sides of a cut: afterwards both show one tree
// with everything that was written.
func TestCutEditHeal(t *testing.T) {
	l, nas, laptop := onLAN(t)
	both := []*device{nas, laptop}
	write(t, filepath.Join(nas.Mount, "shared.txt"), []byte("before"))
	write(t, filepath.Join(nas.Mount, "gone.txt"), []byte("to be deleted"))
	write(t, filepath.Join(nas.Mount, "old.txt"), []byte("to be renamed"))
	sameTree(both...)

	l.cut(laptop)
	for _, d := range both {
		d.disconnected()
		write(t, filepath.Join(d.Mount, "shared.txt"), []byte("edited on "+d.Name))
		write(t, filepath.Join(d.Mount, "only "+d.Name), []byte(d.Name))
		write(t, filepath.Join(d.Mount, "same name"), []byte("by "+d.Name))
		write(t, filepath.Join(d.Mount, "equal"), []byte("the same bytes"))
	}
	if err := errors.Join(
		os.Remove(filepath.Join(nas.Mount, "gone.txt")),
		os.Rename(filepath.Join(nas.Mount, "old.txt"), filepath.Join(nas.Mount, "new.txt")),
		os.WriteFile(filepath.Join(laptop.Mount, "old.txt"), []byte("edited meanwhile"), 0o644),
		os.Mkdir(filepath.Join(nas.Mount, "folder"), 0o755),
		os.WriteFile(filepath.Join(nas.Mount, "folder", "a"), []byte("a"), 0o644),
		os.Mkdir(filepath.Join(laptop.Mount, "folder"), 0o755),
		os.WriteFile(filepath.Join(laptop.Mount, "folder", "b"), []byte("b"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	l.heal(laptop)
	connected(both...)
	sameTree(both...)

	for _, d := range both {
		got := map[string]string{}
		list, err := os.ReadDir(d.Mount)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if !e.IsDir() {
				got[e.Name()] = string(read(t, filepath.Join(d.Mount, e.Name())))
			}
		}
		copies := map[string]int{}
		for name, text := range got {
			stem, _, _ := strings.Cut(name, " (conflict ")
			copies[strings.TrimSuffix(stem, ".txt")+": "+text]++
		}
		for _, want := range []string{
			"shared: edited on nas", "shared: edited on laptop", "only nas: nas", "only laptop: laptop",
			"same name: by nas", "same name: by laptop", "equal: the same bytes", "new: edited meanwhile",
		} {
			if copies[want] != 1 {
				t.Errorf("%s shows %q %d times; it has %q", d.Name, want, copies[want], got)
			}
		}
		for _, gone := range []string{"gone.txt", "old.txt"} {
			if _, ok := got[gone]; ok {
				t.Errorf("%s still shows %s", d.Name, gone)
			}
		}
		read(t, filepath.Join(d.Mount, "folder", "a"))
		read(t, filepath.Join(d.Mount, "folder", "b"))
	}
	if n := nas.status().Conflicts; n == 0 {
		t.Error("no conflict is reported")
	}
}

// TestUnreachable cuts the only holder off: names and attributes answer at
// once, what is resident is read, a read of missing bytes ends in time with EIO
// and the holder's name, and everything works again after the cut.
func TestUnreachable(t *testing.T) {
	l, nas, laptop := onLAN(t)
	away, here := noise(7, 200_000), noise(8, 200_000)
	write(t, filepath.Join(nas.Mount, "away"), away)
	write(t, filepath.Join(nas.Mount, "here"), here)
	laptop.reads("here", here)
	eventually(t, time.Minute, "the laptop knows the other file", func() error {
		info, err := os.Stat(filepath.Join(laptop.Mount, "away"))
		if err == nil && info.Size() != int64(len(away)) {
			return fmt.Errorf("%d bytes", info.Size())
		}
		return err
	})
	l.cut(laptop)
	laptop.down() // so that nothing is in the kernel's caches either
	laptop.up()

	if _, err := os.ReadDir(laptop.Mount); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(laptop.Mount, "away")); err != nil || info.Size() != int64(len(away)) {
		t.Fatalf("stat: %v, %v", info, err)
	}
	if got := read(t, filepath.Join(laptop.Mount, "here")); !bytes.Equal(got, here) {
		t.Fatal("what is resident is not read")
	}
	began := time.Now()
	_, err := os.ReadFile(filepath.Join(laptop.Mount, "away"))
	if !errors.Is(err, syscall.EIO) {
		t.Fatalf("read of missing bytes: %v", err)
	}
	if took := time.Since(began); took > 30*time.Second { // the deadline is 10 s; this only catches a hang
		t.Fatalf("the read took %v", took)
	}
	s := laptop.status()
	if len(s.Unavailable) != 1 || s.Unavailable[0].Path != "/away" || len(s.Unavailable[0].Holders) == 0 || s.Unavailable[0].Holders[0].Name != "nas" {
		t.Fatalf("status names %+v", s.Unavailable)
	}
	if logged := laptop.logged(); !strings.Contains(logged, "nas") {
		t.Fatalf("the log does not name nas: %q", logged)
	}
	l.heal(laptop)
	laptop.reads("away", away)
}

// TestStartWithoutNetwork starts a device whose link is down.
func TestStartWithoutNetwork(t *testing.T) {
	l, nas, laptop := onLAN(t)
	write(t, filepath.Join(nas.Mount, "f"), []byte("from the server"))
	laptop.reads("f", []byte("from the server"))
	laptop.down()
	l.cut(laptop)
	laptop.up()
	laptop.reads("f", []byte("from the server"))
	write(t, filepath.Join(laptop.Mount, "g"), []byte("written alone"))
	l.heal(laptop)
	nas.reads("g", []byte("written alone"))
	sameTree(nas, laptop)
}

// TestRoaming gives the laptop another address, restarts the server, and
// expects them to find each other by themselves.
func TestRoaming(t *testing.T) {
	l, nas, laptop := onLAN(t)
	l.readdress(laptop)
	write(t, filepath.Join(laptop.Mount, "f"), []byte("from a new address"))
	nas.reads("f", []byte("from a new address"))
	nas.down()
	nas.up()
	write(t, filepath.Join(laptop.Mount, "g"), []byte("after the restart"))
	nas.reads("g", []byte("after the restart"))
	sameTree(nas, laptop)
}

// TestThreeDevices joins a third device through the second, cuts it off from
// the first, and sees changes pass on.
func TestThreeDevices(t *testing.T) {
	l, nas, laptop := onLAN(t)
	desk := newDevice(t, "desk")
	l.host(desk)
	desk.join(laptop)
	desk.up()
	connected(nas, laptop, desk)
	write(t, filepath.Join(desk.Mount, "f"), noise(9, 2<<20))
	sameTree(nas, laptop, desk)
	l.cut(nas)
	nas.disconnected()
	write(t, filepath.Join(desk.Mount, "g"), []byte("while the server was away"))
	laptop.reads("g", []byte("while the server was away"))
	desk.down()
	l.heal(nas)
	connected(nas, laptop)
	nas.reads("g", []byte("while the server was away")) // the laptop has read it
	sameTree(nas, laptop)
}
