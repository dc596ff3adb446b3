package replica

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/roamfs/roamfs/sync/tree"
)

// row is one line of the table of what two concurrent changes lead to. Steps
// stand in one string, separated by "; ": write FILE TEXT, mkdir DIR, mv OLD NEW,
// rm PATH (with all that is in it), ln OLD NEW, symlink TARGET NAME, chmod MODE
// PATH, touch NS PATH, xattr VALUE PATH. In what is wanted, (*) is a conflict copy; a mode
// that is not the usual one, an xattr and a time that was set stand behind.
type row struct {
	name         string
	before, a, b string
	ahead        []string // when the clock of a is ahead
	behind       []string // when the clock of b is; nil if it makes no difference
}

var conflictTable = []row{
	{"edit and edit", "write f.txt 0", "write f.txt A", "write f.txt B", []string{"f(*).txt=B", "f.txt=A"}, []string{"f(*).txt=A", "f.txt=B"}},
	{"the same edit twice", "write f 0", "write f A", "write f A", []string{"f=A"}, nil},
	{"edit and delete", "write f 0; chmod 600 f", "write f A", "rm f", []string{"f=A 600"}, nil},
	{"edit and rename", "write f 0", "write f A", "mv f g", []string{"g=A"}, nil},
	{"edit and mode", "write f 0", "write f A", "chmod 640 f", []string{"f=A 640"}, nil},
	{"edit and time", "write f 0", "write f A", "touch 77 f", []string{"f=A @77"}, nil},
	{"edit and xattr", "write f 0", "write f A", "xattr v f", []string{"f=A x=v"}, nil},
	{"edit and save by rename", "write f 0", "write f A", "write f.tmp B; mv f.tmp f", []string{"f(*)=B", "f=A"}, nil},
	{"edit of b and mv a b", "write a a; write b b", "write b A", "mv a b", []string{"b(*)=a", "b=A"}, nil},
	{"rename and rename of one file", "write f 0", "mv f a", "mv f b", []string{"a=0"}, []string{"b=0"}},
	{"rename and delete of a file", "write f 0; chmod 640 f; xattr v f", "mv f g", "rm f", []string{"g=0 640"}, nil},
	{"rename of two files to one name", "write a a; write b b", "mv a z", "mv b z", []string{"z(*)=a", "z=b"}, []string{"z(*)=b", "z=a"}},
	{"rename and create of one name", "write a a", "mv a z", "write z B", []string{"z(*)=a", "z=B"}, []string{"z(*)=B", "z=a"}},
	{"create and create of one name", "", "write f A", "write f B", []string{"f(*)=A", "f=B"}, []string{"f(*)=B", "f=A"}},
	{"create and create of one name and content", "", "write f x", "write f x", []string{"f=x"}, nil},
	{"delete and delete", "write f 0", "rm f", "rm f", nil, nil},
	{"delete and mode", "write f 0", "rm f", "chmod 600 f", nil, nil},
	{"delete and time", "write f 0", "rm f", "touch 77 f", nil, nil},
	{"delete and xattr", "write f 0", "rm f", "xattr v f", []string{"f=0 x=v"}, nil},
	{"unlink of the two last names", "write a 0; ln a b", "rm a", "rm b", []string{"a=0", "b=0"}, nil},
	{"link and delete", "write a 0", "ln a b", "rm a", []string{"b=0"}, nil},
	{"mkdir and mkdir of one name", "", "mkdir d; mkdir d/e; write d/e/x A", "mkdir d; mkdir d/e; write d/e/y B", []string{"d/", "d/e/", "d/e/x=A", "d/e/y=B"}, nil},
	{"mkdir and mkdir with a rename", "", "mkdir d; write d/x A", "mkdir d; write d/y B; mv d e", []string{"e/", "e/x=A", "e/y=B"}, nil},
	{"rm -r and create inside", "mkdir d; write d/old 0; chmod 700 d", "rm d", "write d/new B", []string{"d/ 700", "d/new=B"}, nil},
	{"rm -r and edit inside", "mkdir d; mkdir d/e; write d/e/f 0; write d/g 0", "rm d", "write d/e/f B", []string{"d/", "d/e/", "d/e/f=B"}, nil},
	{"rm -r and move into", "mkdir d; write f 0", "rm d", "mv f d/f", []string{"d/", "d/f=0"}, nil},
	{"rm -r and move out", "mkdir d; write d/f 0; write d/g 0", "rm d", "mv d/f f", []string{"f=0"}, nil},
	{"rm -r and rename of the directory", "mkdir d; write d/f 0", "rm d", "write d/g B; mv d e", []string{"e/", "e/g=B"}, nil},
	{"rename of a directory and changes inside", "mkdir d; write d/f 0; write d/g 0", "mv d e", "write d/f B; rm d/g; write d/h B; mkdir d/i", []string{"e/", "e/f=B", "e/h=B", "e/i/"}, nil},
	{"rename and rename of a directory", "mkdir d; write d/f 0", "mv d a", "mv d b", []string{"a/", "a/f=0"}, []string{"b/", "b/f=0"}},
	{"two directories into each other", "mkdir x; mkdir y; write x/f 0; write y/g 0", "mv x y/x", "mv y x/y", []string{"x/", "x/f=0", "x/y/", "x/y/g=0"}, []string{"y/", "y/g=0", "y/x/", "y/x/f=0"}},
	{"three directories in a ring", "mkdir x; mkdir y; mkdir z", "mv x y/x", "mv y z/y; mv z x/z", []string{"x/", "x/z/", "x/z/y/"}, []string{"z/", "z/y/", "z/y/x/"}},
	{"directory and file of one name", "", "mkdir n; write n/f A", "write n B", []string{"n(*)=B", "n/", "n/f=A"}, nil},
	{"directory and symlink of one name", "", "mkdir n", "symlink t n", []string{"n(*)->t", "n/"}, nil},
	{"file and symlink of one name", "", "write n A", "symlink t n", []string{"n(*)=A", "n->t"}, []string{"n(*)->t", "n=A"}},
	{"symlink and symlink of one name", "", "symlink s n", "symlink t n", []string{"n(*)->s", "n->t"}, []string{"n(*)->t", "n->s"}},
	{"edit and replacement by a directory", "write n 0", "write n A", "rm n; mkdir n", []string{"n(*)=A", "n/"}, nil},
	{"mode and mode", "write f 0", "chmod 600 f", "chmod 640 f", []string{"f=0 600"}, []string{"f=0 640"}},
	{"time and time", "write f 0", "touch 77 f", "touch 78 f", []string{"f=0 @77"}, []string{"f=0 @78"}},
	{"xattr and xattr", "write f 0", "xattr v f", "xattr w f", []string{"f=0 x=v"}, []string{"f=0 x=w"}},
}

// wanted is the outcome when the one device, which did a unless swapped, has its
// clock ahead of the other's.
func (r *row) wanted(swapped bool) []string {
	if swapped && r.behind != nil {
		return r.behind
	}
	return r.ahead
}

// steps carries out steps of a row in a directory.
func (d *node) steps(dir, steps string) {
	d.t.Helper()
	for step := range strings.SplitSeq(steps, "; ") {
		f := strings.Fields(step)
		if len(f) == 0 {
			return
		}
		if err := d.step(dir, f[0], f[1], f[len(f)-1]); err != nil {
			d.t.Fatalf("%s: %q: %v", dir, step, err)
		}
	}
}

// step does one thing in dir.
func (d *node) step(dir, what, arg, last string) error {
	first, path := dir+"/"+arg, dir+"/"+last
	if what == "write" {
		d.write(first, last)
		return nil
	}
	parent, name := d.parent(path)
	switch what {
	case "mkdir":
		d.mkdir(path)
		return nil
	case "rm":
		return d.removeAll(path)
	case "mv":
		from, old := d.parent(first)
		return d.Rename(from, old, parent, name, false, false)
	case "ln":
		_, err := d.Link(d.find(first).Ino, parent, name)
		return err
	case "symlink":
		_, err := d.Create(parent, name, tree.Content{Kind: tree.Symlink, Size: int64(len(arg)), Inline: []byte(arg), Mode: 0o777})
		return err
	case "xattr":
		return d.SetXattr(d.find(path).Ino, "user.x", []byte(arg))
	}
	var n int64
	format, do := "%o", func() error { return d.Chmod(d.find(path).Ino, uint32(n)) }
	if what == "touch" {
		format, do = "%d", func() error { return d.SetMTime(d.find(path).Ino, n) }
	} else if what != "chmod" {
		return os.ErrInvalid
	}
	if _, err := fmt.Sscanf(arg, format, &n); err != nil {
		return err
	}
	return do()
}

// removeAll is rm -r.
func (d *node) removeAll(path string) error {
	n := d.find(path)
	parent, name := d.parent(path)
	if n.Kind != tree.Dir {
		return d.Unlink(parent, name)
	}
	list, err := d.List(n.Ino)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := d.removeAll(path + "/" + e.Name); err != nil {
			return err
		}
	}
	return d.Rmdir(parent, name)
}

var conflictMark = regexp.MustCompile(` \(conflict dev\d \d{4}-\d\d-\d\d [0-9a-f]{6,}\)`)

// outcome lists what is below dir as a row has it.
func (d *node) outcome(dir string) (out []string) {
	d.t.Helper()
	list, err := d.List(d.find(dir).Ino)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range list {
		n, err := d.Node(e.Ino)
		if err != nil {
			d.t.Fatal(err)
		}
		name, usual := conflictMark.ReplaceAllString(e.Name, "(*)"), uint32(0o644)
		if (name != e.Name) != e.Conflict {
			d.t.Errorf("%q is a conflict copy: %v", e.Name, e.Conflict)
		}
		switch n.Kind {
		case tree.Dir:
			name, usual = name+"/", 0o755
		case tree.Symlink:
			name, usual = name+"->"+string(n.Inline), 0o777
		default:
			name += "=" + string(n.Inline)
		}
		if n.Mode != usual {
			name += fmt.Sprintf(" %o", n.Mode)
		}
		if x, ok := n.Xattrs["user.x"]; ok {
			name += " x=" + string(x)
		}
		if n.Kind == tree.File && n.MTime != 1 { // what write sets
			name += fmt.Sprintf(" @%d", n.MTime)
		}
		out = append(out, name)
		if n.Kind == tree.Dir {
			for _, below := range d.outcome(dir + "/" + e.Name) {
				out = append(out, strings.TrimSuffix(name, " 700")+below)
			}
		}
	}
	slices.Sort(out)
	return out
}

// TestConflictTable does each row on two devices that are apart, in both roles,
// the clock of one ten years ahead, while a third only knows how it began. One
// is started again before they meet, two at a time in each order. All show what
// the row says, have one state, and to meet again changes nothing.
func TestConflictTable(t *testing.T) {
	pairs := [][2]int{{0, 1}, {0, 2}, {1, 2}}
	orders := [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
	for i, order := range orders {
		for ahead := range 2 {
			t.Run(fmt.Sprintf("order %v, clock of %d ahead, %d restarts", order, ahead, i%3), func(t *testing.T) {
				n := hive(t, 3)
				meet := func(i, j int) {
					w := connect(n[i], n[j])
					agree(t, n[i], n[j])
					w.disconnect()
				}
				every := func(fn func(r *row, dir string, swapped bool)) {
					for i := range conflictTable {
						fn(&conflictTable[i], fmt.Sprintf("%02d", i), false)
						fn(&conflictTable[i], fmt.Sprintf("%02d swapped", i), true)
					}
				}
				every(func(r *row, dir string, _ bool) {
					n[0].mkdir(dir)
					n[0].steps(dir, r.before)
				})
				meet(0, 1)
				meet(0, 2)
				n[ahead].skew.Store(int64(10 * 365 * 24 * time.Hour))
				every(func(r *row, dir string, swapped bool) {
					do := [2]string{r.a, r.b}
					if swapped {
						do = [2]string{r.b, r.a}
					}
					n[0].steps(dir, do[0])
					n[1].steps(dir, do[1])
				})
				n[i%3].restart()
				for _, p := range order {
					meet(pairs[p][0], pairs[p][1])
				}
				agree(t, n...)
				every(func(r *row, dir string, swapped bool) {
					t.Run(strings.TrimLeft(dir, "0123456789 ")+" "+r.name, func(t *testing.T) {
						want := r.wanted(swapped != (ahead == 1))
						for i, d := range n {
							if got := d.outcome(dir); !slices.Equal(got, want) {
								t.Errorf("device %d shows %q, want %q", i, got, want)
							}
						}
					})
				})

				counters := func(d *node) tree.Vector {
					if err := d.Publish(); err != nil { // a vector has what is on the disk
						t.Fatal(err)
					}
					return d.known()
				}
				want, listing := counters(n[0]), n[0].listing()
				for _, p := range pairs {
					meet(p[0], p[1])
				}
				n[0].mkdir("last") // arrives after all that meeting again has led to
				want[n[0].actor]++
				meet(0, 1)
				meet(0, 2)
				for i, d := range n {
					if got := counters(d); !maps.Equal(got, want) {
						t.Errorf("device %d has commits up to %v, want %v", i, got, want)
					}
					if got := strings.Replace(d.listing(), "/last directory 755 0 2 \"\"\n", "", 1); got != listing {
						t.Errorf("device %d shows\n%s\nafter\n%s", i, got, listing)
					}
				}
			})
		}
	}
}
