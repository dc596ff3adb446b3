package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// row is one line of the table of what two concurrent changes lead to. Steps
// are written one to a line: write FILE TEXT, mkdir DIR, mv OLD NEW, rm PATH (with all that is in
// it), ln OLD NEW, symlink TARGET NAME, chmod MODE PATH, xattr VALUE PATH, and
// save, vim or swap FILE TEXT as programs do (names_test.go). A conflict copy is (*)
// in what is wanted; a mode that is not the usual one stands behind.
type row struct {
	name         string
	before, a, b string
	want         []string
	or           []string // the other outcome, where the devices' clocks and ids decide
}

var conflictTable = []row{
	{"edit and edit of one file", "write f.txt 0", "write f.txt A", "write f.txt B", []string{"f(*).txt=A", "f.txt=B"}, []string{"f(*).txt=B", "f.txt=A"}},
	{"the same edit twice", "write f 0", "write f A", "write f A", []string{"f=A"}, nil},
	{"edit and delete", "write f 0\nchmod 600 f", "write f A", "rm f", []string{"f=A 600"}, nil},
	{"edit and rename", "write f 0", "write f A", "mv f g", []string{"g=A"}, nil},
	{"edit and mode", "write f 0", "write f A", "chmod 640 f", []string{"f=A 640"}, nil},
	{"edit and save by rename", "write f 0", "write f A", "write f.tmp B\nmv f.tmp f", []string{"f(*)=B", "f=A"}, []string{"f(*)=A", "f=B"}},
	{"edit of b and mv a b", "write a a\nwrite b b", "write b A", "mv a b", []string{"b(*)=a", "b=A"}, []string{"b(*)=A", "b=a"}},
	{"rename and rename of one file", "write f 0", "mv f a", "mv f b", []string{"a=0"}, []string{"b=0"}},
	{"rename and delete of a file", "write f 0\nchmod 640 f", "mv f g", "rm f", []string{"g=0 640"}, nil},
	{"rename of two files to one name", "write a a\nwrite b b", "mv a z", "mv b z", []string{"z(*)=b", "z=a"}, []string{"z(*)=a", "z=b"}},
	{"rename and create of one name", "write a a", "mv a z", "write z B", []string{"z(*)=B", "z=a"}, []string{"z(*)=a", "z=B"}},
	{"create and create of one name", "", "write f A", "write f B", []string{"f(*)=B", "f=A"}, []string{"f(*)=A", "f=B"}},
	{"create and create of one name and content", "", "write f x", "write f x", []string{"f=x"}, nil},
	{"delete and delete", "write f 0", "rm f", "rm f", nil, nil},
	{"delete and mode", "write f 0", "rm f", "chmod 600 f", nil, nil},
	{"unlink of the two last names", "write a 0\nln a b", "rm a", "rm b", []string{"a=0", "b=0"}, nil},
	{"link and delete", "write a 0", "ln a b", "rm a", []string{"b=0"}, nil},
	{"mkdir and mkdir of one name", "", "mkdir d\nmkdir d/e\nwrite d/e/x A", "mkdir d\nmkdir d/e\nwrite d/e/y B", []string{"d/", "d/e/", "d/e/x=A", "d/e/y=B"}, nil},
	{"rm -r and create inside", "mkdir d\nwrite d/old 0\nchmod 700 d", "rm d", "write d/new B", []string{"d/ 700", "d/new=B"}, nil},
	{"rm -r and edit inside", "mkdir d\nmkdir d/e\nwrite d/e/f 0\nwrite d/g 0", "rm d", "write d/e/f B", []string{"d/", "d/e/", "d/e/f=B"}, nil},
	{"rm -r and move into", "mkdir d\nwrite f 0", "rm d", "mv f d/f", []string{"d/", "d/f=0"}, nil},
	{"rm -r and move out", "mkdir d\nwrite d/f 0\nwrite d/g 0", "rm d", "mv d/f f", []string{"f=0"}, nil},
	{"rm -r and rename of the directory", "mkdir d\nwrite d/f 0", "rm d", "write d/g B\nmv d e", []string{"e/", "e/g=B"}, nil},
	{"rename of a directory and changes inside", "mkdir d\nwrite d/f 0\nwrite d/g 0", "mv d e", "write d/f B\nrm d/g\nwrite d/h B\nmkdir d/i", []string{"e/", "e/f=B", "e/h=B", "e/i/"}, nil},
	{"rename and rename of a directory", "mkdir d\nwrite d/f 0", "mv d a", "mv d b", []string{"a/", "a/f=0"}, []string{"b/", "b/f=0"}},
	{"two directories into each other", "mkdir x\nmkdir y\nwrite x/f 0\nwrite y/g 0", "mv x y/x", "mv y x/y", []string{"x/", "x/f=0", "x/y/", "x/y/g=0"}, []string{"y/", "y/g=0", "y/x/", "y/x/f=0"}},
	{"directory and file of one name", "", "mkdir n\nwrite n/f A", "write n B", []string{"n(*)=B", "n/", "n/f=A"}, nil},
	{"file and symlink of one name", "", "write n A", "symlink t n", []string{"n(*)->t", "n=A"}, []string{"n(*)=A", "n->t"}},
	{"symlink and symlink of one name", "", "symlink s n", "symlink t n", []string{"n(*)->t", "n->s"}, []string{"n(*)->s", "n->t"}},
	{"edit and replacement by a directory", "write n 0", "write n A", "rm n\nmkdir n", []string{"n(*)=A", "n/"}, nil},
	{"mode and mode", "write f 0", "chmod 600 f", "chmod 640 f", []string{"f=0 600"}, []string{"f=0 640"}},
}

// steps carries out lines of a row in a directory.
func steps(t *testing.T, dir, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		in := func(i int) string { return filepath.Join(dir, f[i]) }
		var err error
		switch f[0] {
		case "write":
			err = os.WriteFile(in(1), []byte(f[2]), 0o644)
		case "mkdir":
			err = os.Mkdir(in(1), 0o755)
		case "mv":
			err = os.Rename(in(1), in(2))
		case "rm":
			err = os.RemoveAll(in(1))
		case "ln":
			err = os.Link(in(1), in(2))
		case "symlink":
			err = os.Symlink(f[1], in(2))
		case "save":
			err = save(in(1), f[2])
		case "vim":
			err = saveWithBackup(in(1), f[2])
		case "swap":
			err = saveByExchange(in(1), f[2])
		case "xattr":
			err = unix.Setxattr(in(2), "user.x", []byte(f[1]), 0)
		case "chmod":
			var mode os.FileMode
			if _, err = fmt.Sscanf(f[1], "%o", &mode); err == nil {
				err = os.Chmod(in(2), mode)
			}
		default:
			err = errors.New("no such step")
		}
		if err != nil {
			t.Fatalf("%s: %q: %v", dir, line, err)
		}
	}
}

var conflictMark = regexp.MustCompile(` \(conflict [a-z0-9-]+ \d{4}-\d\d-\d\d [0-9a-f]{6,}\)`)

// outcome lists what is in a directory as a row has it.
func outcome(t *testing.T, dir string) (out []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, usual := conflictMark.ReplaceAllString(path[len(dir)+1:], "(*)"), fs.FileMode(0o644)
		switch {
		case d.IsDir():
			name, usual = name+"/", 0o755
		case d.Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			name, usual = name+"->"+to, info.Mode().Perm()
		default:
			name += "=" + string(read(t, path))
			x := make([]byte, 16)
			if n, err := unix.Getxattr(path, "user.x", x); err == nil {
				name += " x=" + string(x[:n])
			}
		}
		if mode := info.Mode().Perm(); mode != usual {
			name += fmt.Sprintf(" %o", mode)
		}
		out = append(out, name)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// TestConflictTable does each row on two devices that are apart, in both roles,
// while a third only knows how it began. Whoever meets whom first afterwards, all
// of them show one of the outcomes of the row, and the same one.
func TestConflictTable(t *testing.T) {
	orders := map[string][][]string{
		"together":            {{"nas", "laptop", "desktop"}},
		"one after the other": {{"nas", "desktop"}, {"desktop", "laptop"}, {"nas", "laptop", "desktop"}},
		"the other way":       {{"laptop", "desktop"}, {"desktop", "nas"}, {"nas", "laptop", "desktop"}},
	}
	if testing.Short() {
		delete(orders, "together")
		delete(orders, "the other way")
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			play(t, conflictTable, order)
		})
	}
}

// play does each row of the table on two devices that are apart, in both roles.
// Then the devices meet as order says, and all must show one of the outcomes.
func play(t *testing.T, table []row, order [][]string) {
	t.Helper()
	nas, laptop := pair(t)
	desktop := newDevice(t, "desktop")
	desktop.join(nas)
	desktop.up()
	connected(nas, laptop, desktop)
	devices := map[string]*device{"nas": nas, "laptop": laptop, "desktop": desktop}
	every := func(fn func(r row, dir string, swapped bool)) {
		for i, r := range table {
			fn(r, fmt.Sprintf("%02d", i), false)
			fn(r, fmt.Sprintf("%02d swapped", i), true)
		}
	}
	every(func(r row, dir string, _ bool) {
		dir = filepath.Join(nas.Mount, dir)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		steps(t, dir, r.before)
	})
	sameTree(nas, laptop, desktop)
	laptop.down()
	desktop.down()
	every(func(r row, dir string, swapped bool) {
		do := r.a
		if swapped {
			do = r.b
		}
		steps(t, filepath.Join(nas.Mount, dir), do)
	})
	nas.down()
	laptop.up()
	every(func(r row, dir string, swapped bool) {
		do := r.b
		if swapped {
			do = r.a
		}
		steps(t, filepath.Join(laptop.Mount, dir), do)
	})
	laptop.down()

	running := map[*device]bool{}
	for _, meeting := range order {
		var there []*device
		for _, name := range meeting {
			there = append(there, devices[name])
		}
		for d := range running {
			if !slices.Contains(there, d) {
				d.down()
				delete(running, d)
			}
		}
		for _, d := range there {
			if !running[d] {
				d.up()
				running[d] = true
			}
		}
		eventually(t, 2*time.Minute, fmt.Sprint(meeting, " show one tree"), func() error { return oneRoot(there) })
	}
	sameTree(nas, laptop, desktop)
	every(func(r row, dir string, _ bool) {
		for _, d := range devices {
			got := outcome(t, filepath.Join(d.Mount, dir))
			if !slices.Equal(got, r.want) && (r.or == nil || !slices.Equal(got, r.or)) {
				t.Errorf("%s (%s): %s shows %q, want %q or %q", r.name, dir, d.Name, got, r.want, r.or)
			}
		}
	})
}
