package app

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/roamfs/roamfs/sync/tree"
)

// born makes a state directory with a device in it.
func born(t *testing.T) *State {
	t.Helper()
	s := &State{dir: filepath.Join(t.TempDir(), "state")}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := (engine{}).Create(t.Context(), s, CreateOptions{Name: "laptop", Role: RoleCache}); err != nil {
		t.Fatal(err)
	}
	return s
}

// began is what a start of the device in s does about its incarnation.
func began(t *testing.T, s *State) tree.Actor {
	t.Helper()
	st, err := openStore(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := loadIdentity(s, st)
	if err == nil {
		err = confirmIncarnation(s, st, &id, slog.New(slog.DiscardHandler))
	}
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadIdentity(s, st)
	if err != nil || again.actor != id.actor {
		t.Fatalf("incarnation %x was kept as %x, %v", id.actor, again.actor, err)
	}
	if self, _ := again.members.Member(id.key.ID()); tree.Actor(self.Actors[len(self.Actors)-1]) != id.actor {
		t.Fatalf("the latest of the incarnations %x is not %x", self.Actors, id.actor)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	return id.actor
}

func copyTree(t *testing.T, to, from string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
}

// TestIncarnation: a state directory goes on under its name as long as it is the
// one that it was, and no longer.
func TestIncarnation(t *testing.T) {
	s := born(t)
	first := began(t, s)
	for range 2 {
		if again := began(t, s); again != first {
			t.Fatal("a start makes a new incarnation of what was not copied")
		}
	}
	backup := &State{dir: filepath.Join(t.TempDir(), "backup")}
	copyTree(t, backup.dir, s.dir)
	if again := began(t, s); again != first {
		t.Fatal("making a copy makes a new incarnation of the original")
	}

	t.Run("copied", func(t *testing.T) {
		c := &State{dir: filepath.Join(t.TempDir(), "copy")}
		copyTree(t, c.dir, backup.dir)
		second := began(t, c)
		if second == first {
			t.Error("a copy goes on under the name of the original")
		}
		if again := began(t, c); again != second {
			t.Error("a copy becomes a new incarnation at each start")
		}
	})
	t.Run("moved", func(t *testing.T) {
		if err := os.Rename(s.dir, s.dir+".moved"); err != nil {
			t.Fatal(err)
		}
		s.dir += ".moved"
		if began(t, s) != first {
			t.Error("a directory that was renamed becomes a new incarnation")
		}
	})
	t.Run("the database put back", func(t *testing.T) {
		if err := os.RemoveAll(s.Database()); err != nil {
			t.Fatal(err)
		}
		copyTree(t, s.Database(), backup.Database())
		if began(t, s) == first {
			t.Error("an older database goes on under its name")
		}
	})
	t.Run("the backup written over it", func(t *testing.T) {
		before := began(t, s)
		// Into the directory that is there, each file as a new one: as rsync -a does it.
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", "--remove-destination", backup.dir+"/.", s.dir+"/").CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
		if after := began(t, s); after == first || after == before {
			t.Error("a directory that was put back goes on under its name")
		}
	})
	t.Run("the file lost", func(t *testing.T) {
		before := began(t, s)
		for _, content := range []string{"", "not a number\n"} {
			if err := os.WriteFile(s.path(incarnationName), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			after := began(t, s)
			if after == before {
				t.Error("without the file the device goes on under its name")
			}
			before = after
		}
	})
}

// TestIncarnationKilled: a start that is interrupted after any of its steps makes
// no new incarnation of what was not copied.
func TestIncarnationKilled(t *testing.T) {
	s := born(t)
	first := began(t, s)
	st, err := openStore(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	here, err := s.place()
	if err != nil {
		t.Fatal(err)
	}
	here.next = [16]byte{1}
	if err := keepPlace(st, here); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if began(t, s) != first {
		t.Error("killed before the file was written")
	}
	if st, err = openStore(s, nil); err != nil {
		t.Fatal(err)
	}
	if here, err = s.place(); err != nil {
		t.Fatal(err)
	}
	here.next = [16]byte{2}
	if err := keepPlace(st, here); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if err := overwrite(s.path(incarnationName), []byte("02000000000000000000000000000000\n")); err != nil {
		t.Fatal(err)
	}
	if began(t, s) != first {
		t.Error("killed after the file was written")
	}
}

// TestPlaceDiffers: what counts as another place.
func TestPlaceDiffers(t *testing.T) {
	was := location{inode: 1, birth: 2, machine: [16]byte{3}, number: [16]byte{4}, next: [16]byte{5}}
	for name, c := range map[string]struct {
		change func(*location)
		same   bool
	}{
		"nothing":     {func(*location) {}, true},
		"next number": {func(p *location) { p.number = was.next }, true},
		"number":      {func(p *location) { p.number = [16]byte{6} }, false},
		"inode":       {func(p *location) { p.inode = 7 }, false},
		"birth":       {func(p *location) { p.birth = 7 }, false},
		"machine":     {func(p *location) { p.machine = [16]byte{7} }, false},
		"no file":     {func(p *location) { *p = location{machine: was.machine} }, false},
	} {
		now := was
		c.change(&now)
		if got := was.differs(now); (got == "") != c.same {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func FuzzDecodePlace(f *testing.F) {
	f.Add(location{inode: 1, birth: 2, next: [16]byte{3}}.encode())
	f.Add([]byte{placeVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePlace(b)
		if err == nil && !bytes.Equal(p.encode(), b) {
			t.Errorf("%x is read as what is written %x", b, p.encode())
		}
	})
}
