package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// saveTmp writes text to a new file beside path and syncs it.
func saveTmp(path, text string) (tmp string, err error) {
	tmp = path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text)
	return tmp, errors.Join(err, f.Sync(), f.Close())
}

// save replaces a file as most editors do: by a new one that is renamed over it.
func save(path, text string) error {
	tmp, err := saveTmp(path, text)
	if err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// saveWithBackup is what vim does: the old file becomes a backup, the new one is
// written under the name, and the backup goes.
func saveWithBackup(path, text string) error {
	if err := os.Rename(path, path+"~"); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(path+"~"))
}

// saveByExchange is what ReplaceFile does: old and new change places, and the
// old one goes.
func saveByExchange(path, text string) error {
	tmp, err := saveTmp(path, text)
	if err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	return os.Remove(tmp)
}

// saves are the rows of programs that save by making a new file. It is another
// file for the tree, so what others did to the old one meanwhile (a new name, a
// mode) stays with that; nothing anybody wrote is lost.
func saves() (table []row) {
	for _, how := range []string{"save", "vim", "swap"} {
		do := how + " f.txt A"
		for _, r := range []row{
			{"edit", "write f.txt 0", do, "write f.txt B", []string{"f(*).txt=A", "f.txt=B"}, []string{"f(*).txt=B", "f.txt=A"}},
			{"save", "write f.txt 0", do, "save f.txt B", []string{"f(*).txt=A", "f.txt=B"}, []string{"f(*).txt=B", "f.txt=A"}},
			{"the same save", "write f.txt 0", do, "save f.txt A", []string{"f.txt=A"}, nil},
			{"rename", "write f.txt 0", do, "mv f.txt g.txt", []string{"f.txt=A", "g.txt=0"}, nil},
			{"rename of the folder", "mkdir d\nwrite d/f.txt 0", how + " d/f.txt A", "mv d e", []string{"e/", "e/f.txt=A"}, nil},
			{"delete", "write f.txt 0", do, "rm f.txt", []string{"f.txt=A"}, nil},
			{"delete of the folder", "mkdir d\nwrite d/f.txt 0", how + " d/f.txt A", "rm d", []string{"d/", "d/f.txt=A"}, nil},
			{"mode", "write f.txt 0", do, "chmod 600 f.txt", []string{"f.txt=A"}, nil},
			{"xattr", "write f.txt 0", do, "xattr v f.txt", []string{"f(*).txt=A", "f.txt=0 x=v"}, []string{"f(*).txt=0 x=v", "f.txt=A"}},
		} {
			r.name = how + " and " + r.name
			table = append(table, r)
		}
	}
	return table
}

// TestSaves: what becomes of a save by rename on one device and a change of the
// same file on another.
func TestSaves(t *testing.T) {
	play(t, saves(), [][]string{{"nas", "desktop"}, {"desktop", "laptop"}, {"nas", "laptop", "desktop"}})
}

// TestSaveIsAtomic: another device that looks all the time sees the file with
// one content or the next, never without any, whichever way a program saves it.
func TestSaveIsAtomic(t *testing.T) {
	nas, laptop := pair(t)
	for name, how := range map[string]func(path, text string) error{"rename": save, "exchange": saveByExchange} {
		path := filepath.Join(nas.Mount, name)
		text := func(i int) string { return fmt.Sprintf("%s, version %d", name, i) }
		write(t, path, []byte(text(0)))
		laptop.reads(name, []byte(text(0)))
		last := 0
		for i := 1; i <= 30; i++ {
			if err := how(path, text(i)); err != nil {
				t.Fatal(err)
			}
			eventually(t, time.Minute, text(i), func() error {
				b, err := os.ReadFile(filepath.Join(laptop.Mount, name))
				if err != nil {
					t.Fatalf("save by %s: the other device: %v", name, err)
				}
				var n int
				if _, err := fmt.Sscanf(string(b), name+", version %d", &n); err != nil || n < last || string(b) != text(n) {
					t.Fatalf("save by %s %d: the other device reads %q after version %d", name, i, b, last)
				}
				if last = n; n < i {
					return fmt.Errorf("version %d", n)
				}
				return nil
			})
		}
	}
}

// names lists a directory.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		all = append(all, e.Name())
	}
	return all
}

// TestCaseAndForm: names are bytes. To change the case of a name is a rename
// like any other, and names that differ by case or by Unicode form alone stand
// side by side, on every device.
func TestCaseAndForm(t *testing.T) {
	const composed, decomposed = "Caf\u00e9.txt", "Cafe\u0301.txt"
	nas, laptop := pair(t)
	both := []*device{nas, laptop}
	in := func(d *device, name string) string { return filepath.Join(d.Mount, name) }
	show := func(dir string, want ...string) {
		t.Helper()
		sameTree(nas, laptop)
		slices.Sort(want)
		for _, d := range both {
			if got := names(t, in(d, dir)); !slices.Equal(got, want) {
				t.Fatalf("%s shows %q, want %q", d.Name, got, want)
			}
		}
	}
	move := func(d *device, from, to string) {
		t.Helper()
		if err := os.Rename(in(d, from), in(d, to)); err != nil {
			t.Fatal(err)
		}
	}

	// Both look before, so that they hold the old names.
	if err := os.Mkdir(in(nas, "photos"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, in(nas, "photos/img.jpg"), []byte("img"))
	show("", "photos")
	move(laptop, "photos/img.jpg", "photos/IMG.JPG")
	show("photos", "IMG.JPG")
	move(nas, "photos", "Photos")
	show("", "Photos")
	for _, d := range both {
		for _, old := range []string{"photos", "photos/IMG.JPG", "Photos/img.jpg"} {
			if _, err := os.Lstat(in(d, old)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %s: %v", d.Name, old, err)
			}
		}
		d.reads("Photos/IMG.JPG", []byte("img"))
	}
	move(nas, "Photos", "photos")
	move(nas, "photos/IMG.JPG", "photos/img.jpg")
	show("photos", "img.jpg")
	show("", "photos")

	all := []string{"a", "A", composed, decomposed, "stra\u00dfe", "STRASSE"}
	for i, name := range all {
		write(t, in(both[i%2], name), []byte("before "+name))
	}
	show("", append([]string{"photos"}, all...)...)
	for _, name := range all {
		nas.reads(name, []byte("before "+name))
		laptop.reads(name, []byte("before "+name))
	}

	// Apart, each is edited on both, and folders of both cases are made.
	laptop.down()
	apart := func(d *device, other string) {
		t.Helper()
		for _, name := range all {
			write(t, in(d, name), []byte(d.Name+" "+name))
		}
		for _, name := range []string{"new", other} {
			if err := os.Mkdir(in(d, name), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, in(d, name+"/"+d.Name), []byte(d.Name))
		}
	}
	apart(nas, "NEW")
	nas.down()
	laptop.up()
	apart(laptop, "New")
	move(laptop, "photos", "PHOTOS") // while nothing is known of what the other does there
	nas.up()
	connected(nas, laptop)
	sameTree(nas, laptop)
	for _, d := range both {
		shown := map[string]string{} // content -> name
		for _, name := range names(t, d.Mount) {
			if info, err := os.Stat(in(d, name)); err != nil {
				t.Fatal(err)
			} else if !info.IsDir() {
				shown[string(read(t, in(d, name)))] = name
			}
		}
		if len(shown) != 2*len(all) {
			t.Errorf("%s shows %d contents: %q", d.Name, len(shown), shown)
		}
		for _, name := range all {
			of := []string{shown["nas "+name], shown["laptop "+name]}
			if of[0] == name {
				slices.Reverse(of)
			}
			if of[1] != name || conflictMark.ReplaceAllString(of[0], "") != name || of[0] == name {
				t.Errorf("%s shows the versions of %q as %q", d.Name, name, of)
			}
		}
		for dir, want := range map[string][]string{"new": {"laptop", "nas"}, "NEW": {"nas"}, "New": {"laptop"}, "PHOTOS": {"img.jpg"}} {
			if got := names(t, in(d, dir)); !slices.Equal(got, want) {
				t.Errorf("%s: %s has %q, want %q", d.Name, dir, got, want)
			}
		}
	}
}
