package sim

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// An image is a copy of all that a machine had on its disk at some moment.
type image struct {
	dir   string
	when  string // for people
	ops   int    // the operations that had returned by then
	exact string // the listing of that moment, if it is known
	shown map[string]bool
	known tree.Vector // what was durable
	actor tree.Actor
}

// capture copies the disk of m as it is now.
func (m *machine) capture(when string) *image {
	m.w.images++
	img := &image{
		dir: filepath.Join(m.w.dir, fmt.Sprintf("image%d", m.w.images)), when: when,
		ops: m.ops, shown: m.shownNow, known: vectorOf(m.st), actor: m.actor,
	}
	check(copyTree(img.dir, m.dir))
	return img
}

func (img *image) remove() {
	if img != nil {
		_ = os.RemoveAll(img.dir) // all of it is removed at the end
	}
}

// copyTree copies a directory that may be changing: a database whose logs are
// being written into tables. A copy that saw names come or go is made again.
func copyTree(to, from string) error {
	for range 100 {
		before, err := names(from)
		if err != nil {
			return err
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		for _, name := range before {
			if err = copyFile(filepath.Join(to, name), filepath.Join(from, name)); err != nil {
				break
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errShrunk) {
			return err
		}
		after, err2 := names(from)
		if err2 != nil {
			return err2
		}
		if err == nil && slices.Equal(before, after) {
			return nil
		}
	}
	return fmt.Errorf("copy of %s: it does not come to rest", from)
}

// names returns the files below dir, the list of the database's tables last.
func names(dir string) (out []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		out = append(out, rel)
		return err
	})
	slices.SortStableFunc(out, func(a, b string) int {
		last := func(s string) int {
			if filepath.Base(s) == "MANIFEST" {
				return 1
			}
			return 0
		}
		return last(a) - last(b)
	})
	return out, err
}

// Where the next data or hole of a file is, as lseek(2) has it.
const (
	seekData = 3
	seekHole = 4
)

// errShrunk means that a file has become shorter while it was copied.
var errShrunk = errors.New("file is changing")

// copyFile copies a file and leaves out its holes: the logs of the database are
// nearly all hole.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := copyData(out, in, st.Size()); err != nil {
		_ = out.Close() // the error before counts
		return err
	}
	return out.Close()
}

func copyData(out, in *os.File, size int64) error {
	if err := out.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		begin, err := in.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			return nil // no more data
		}
		if err != nil {
			return err
		}
		end, err := in.Seek(begin, seekHole)
		if errors.Is(err, syscall.ENXIO) {
			return errShrunk
		}
		if err != nil {
			return err
		}
		if _, err := in.Seek(begin, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(begin, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, end-begin); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		at = end
	}
	return nil
}

// vectorOf returns the commits that a database knows.
func vectorOf(st *store.Store) tree.Vector {
	b, err := st.Value("vector")
	check(err)
	if b == nil {
		return tree.Vector{}
	}
	v, rest, err := tree.DecodeVector(b)
	check(err)
	if len(rest) > 0 {
		violate("the vector in the database is followed by %d bytes", len(rest))
	}
	return v
}
