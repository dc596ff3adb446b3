package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/roamfs/roamfs/sync/tree"
)

// rescued is a file that the other devices lack.
type rescued struct {
	path string
	node tree.Node
}

// mostMissing bounds how many files are named that could not be copied.
const mostMissing = 100

// settleTime is how long it is waited for that the account of what is only here goes on.
const settleTime = 5 * time.Second

// Rescue copies what the other devices lack into the folder dir; see [Device].
func (d *live) Rescue(ctx context.Context, dir string) (done Rescued, err error) {
	if err := refuseRescueInto(dir); err != nil {
		return done, err
	}
	if err := emptyFolder(dir); err != nil {
		return done, err
	}
	if d.replica.Writable() == nil { // else what is being written stays that, and is read as it is
		if err := d.files.Flush(ctx); err != nil {
			return done, err
		}
	}
	files, err := d.lacking(ctx)
	if err != nil {
		return done, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return done, fmt.Errorf("rescue: %w", err)
	}
	defer discard(root)
	done.Dir = dir
	for _, f := range files {
		n, err := d.copyOut(ctx, root, f)
		switch _, unreadable := errors.AsType[*unreadableError](err); {
		case unreadable:
			d.log.Warn("a file that is only here cannot be read in whole", "path", f.path, "err", err)
			if done.Lacking++; done.Lacking <= mostMissing {
				done.Missing = append(done.Missing, Path{Path: f.path})
			}
		case err != nil:
			return done, fmt.Errorf("rescue %s: %w", f.path, err)
		default:
			done.Files++
			done.Bytes += n
		}
	}
	return done, nil
}

// emptyFolder makes sure that dir is a folder with nothing in it, and makes it if it is missing.
func emptyFolder(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("rescue: %w", err)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("rescue: %w", err)
	}
	if len(list) > 0 {
		return failure(CodeFailed, "name a new or empty folder", "the folder %s is not empty", dir)
	}
	return nil
}

// lacking finds what of this device's own work does not count in the hive or is not
// known to be known to another device, and all of which some bytes are only here, by path.
func (d *live) lacking(ctx context.Context) (out []rescued, err error) {
	if err := d.await(ctx, settleTime, d.keeper.Settled); err != nil && !errors.Is(err, errNoProgress) {
		return nil, err
	}
	versions := map[tree.Ino][]tree.Content{}
	if err := d.replica.Lacking(func(ino tree.Ino, c tree.Content) error {
		versions[ino] = append(versions[ino], c)
		return ctx.Err()
	}); err != nil {
		return nil, err
	}
	shown := d.keeper.OnlyHere(math.MaxInt)
	drafts, err := d.store.Drafts()
	if err != nil {
		return nil, err
	}
	for _, x := range drafts {
		shown = append(shown, x.Ino)
	}
	for _, ino := range shown {
		if _, ok := versions[ino]; !ok {
			versions[ino] = nil
		}
	}
	for ino, all := range versions {
		n, err := d.replica.Node(ino)
		at := ""
		if err == nil {
			at, err = d.replica.Path(ino)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since
		}
		if err != nil {
			return nil, err
		}
		if n.Kind == tree.File || n.Kind == tree.Symlink {
			out = append(out, rescued{at, n})
		}
		for i, c := range all { // of conflict copies
			if c.Kind != tree.File || c.Ref.ID == n.Ref.ID && string(c.Inline) == string(n.Inline) && c.Size == n.Size {
				continue
			}
			sum := sha256.Sum256(append(append([]byte{}, c.Ref.ID[:]...), c.Inline...))
			v := tree.Node{Ino: tree.Ino{0xff, 'R', 'V'}, Kind: c.Kind, Mode: n.Mode, Size: c.Size, MTime: c.MTime, Ref: c.Ref, Inline: c.Inline}
			copy(v.Ino[3:], sum[:])
			out = append(out, rescued{otherName(at, i+1), v})
		}
	}
	slices.SortFunc(out, func(a, b rescued) int { return strings.Compare(a.path, b.path) })
	return out, nil
}

// otherName is the path for the nth other version of the file at path at.
func otherName(at string, n int) string {
	dir, name := path.Split(at)
	suffix := fmt.Sprintf(" (other version %d)", n)
	return dir + name[:min(len(name), tree.MaxName-len(suffix))] + suffix
}

// unreadableError says that a file cannot be read here, through no fault of the disk that
// it is copied to.
type unreadableError struct{ err error }

func (e *unreadableError) Error() string { return e.err.Error() }
func (e *unreadableError) Unwrap() error { return e.err }

// copyOut copies one file below root, durably, and returns its bytes.
func (d *live) copyOut(ctx context.Context, root *os.Root, f rescued) (n int64, err error) {
	name := strings.TrimPrefix(f.path, "/")
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
	}
	if f.node.Kind == tree.Symlink {
		return 0, root.Symlink(string(f.node.Inline), name)
	}
	h, err := d.files.Open(f.node, false, false)
	if err != nil {
		return 0, &unreadableError{err}
	}
	defer h.Release()
	w, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	if n, err = readAll(ctx, w, h); err == nil {
		err = errors.Join(w.Chmod(fs.FileMode(f.node.Mode&0o777)), w.Sync())
	}
	err = errors.Join(err, w.Close())
	if err != nil {
		return 0, errors.Join(err, root.Remove(name)) // a part of a file would pass for all of it
	}
	at := time.Unix(0, d.files.Stat(f.node).MTime)
	return n, root.Chtimes(name, at, at)
}

// contextReaderAt is what a file of the tree is to a copy.
type contextReaderAt interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	Size() int64
}

// readAll copies all of r; that it cannot be read is an [unreadableError].
func readAll(ctx context.Context, w io.Writer, r contextReaderAt) (off int64, err error) {
	buf := make([]byte, 1<<20)
	for size := r.Size(); off < size; {
		n, err := r.ReadAt(ctx, buf[:min(int64(len(buf)), size-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			if ctx.Err() != nil {
				return off, err
			}
			return off, &unreadableError{err}
		}
		if n == 0 {
			return off, &unreadableError{io.ErrUnexpectedEOF}
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return off, err
		}
		off += int64(n)
	}
	return off, nil
}
