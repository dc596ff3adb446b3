package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"github.com/roamfs/roamfs/sync/tree"
)

// Handle is an open file. It reads the version that it was opened on, with
// what is written here since, until it is released; when another device
// replaces the content, only handles opened afterwards see that. It is safe for concurrent use;
// concurrent writes to one range take effect one after the other.
type Handle struct {
	t     *Table
	write bool
	ahead ahead

	f      atomic.Pointer[inode] // changes with Table.mu
	closed atomic.Bool
}

// Open opens a file as n shows it. A handle that is opened for writing may
// change it, with truncate it begins with no bytes. If n was read before a
// commit that is done by now, the handle is on the file as it is since.
func (t *Table) Open(n tree.Node, write, truncate bool) (*Handle, error) {
	if n.Kind != tree.File {
		return nil, fmt.Errorf("open %v: %v: %w", n.Ino, n.Kind, fs.ErrInvalid)
	}
	f, err := t.join(n, write)
	if err != nil {
		return nil, fmt.Errorf("open %v: %w", n.Ino, err)
	}
	h := &Handle{t: t, write: write}
	h.ahead.t = t
	h.f.Store(f)
	if truncate {
		if err := h.Truncate(context.Background(), 0); err != nil {
			h.Release()
			return nil, err
		}
	}
	return h, nil
}

// Release ends the handle: readahead stops, and a draft is committed soon if
// nobody else writes to it. What was not flushed before is kept as well, but a
// kill -9 may lose it.
func (h *Handle) Release() {
	if h.closed.Swap(true) {
		return
	}
	h.ahead.close()
	h.t.leave(h.f.Load(), h.write)
}

// Size returns the present size in bytes.
func (h *Handle) Size() int64 {
	f := h.f.Load()
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.size()
}

// ReadAt reads up to len(p) bytes at off and returns how many: fewer only at the
// end of the file, 0 beyond it, without an error. The error is that of fetching a block, a
// [block.UnavailableError] for one that cannot be had, or ctx's.
func (h *Handle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if h.closed.Load() {
		return 0, ErrClosed
	}
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, fs.ErrInvalid)
	}
	f := h.f.Load()
	for {
		f.mu.RLock()
		n := int(max(0, min(int64(len(p)), f.size()-off)))
		var buf [4]piece
		pieces := buf[:0]
		if n > 0 {
			pieces = gather(f.layers(), f.base, p[:n], 0, off, pieces)
		}
		base := f.base
		f.mu.RUnlock()
		err := h.t.readPieces(ctx, base, p, pieces, &h.ahead)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return n, nil
	}
}

// errMoved means that a commit took the bytes from the draft to elsewhere.
var errMoved = errors.New("draft is committed")

// readPieces does what gather left to do.
func (t *Table) readPieces(ctx context.Context, base *version, p []byte, pieces []piece, a *ahead) error {
	for _, x := range pieces {
		in := p[x.at : x.at+x.n]
		if x.file != nil {
			err := readFull(x.file, in, x.off)
			if errors.Is(err, os.ErrClosed) {
				return errMoved
			}
			if err != nil {
				return fmt.Errorf("draft: %w", err)
			}
		} else if err := t.readVersion(ctx, base, in, x.off, a); err != nil {
			return err
		}
	}
	return nil
}

// WriteAt writes p at off. It waits for room while there is hope for some, then
// fails with [block.ErrNoRoom]; other errors are those of the local disk. After an
// error nothing of p is written.
func (h *Handle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	err := h.change(ctx, func(f *inode) (int64, int64, error) {
		if off < 0 {
			return 0, 0, fmt.Errorf("write at %d: %w", off, fs.ErrInvalid)
		}
		return off, off + int64(len(p)), nil
	}, func(f *inode) error { return f.write(p, off) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Append writes p at the end of the file, wherever that is by then, as a write
// with O_APPEND does. Errors are those of WriteAt.
func (h *Handle) Append(ctx context.Context, p []byte) (int, error) {
	err := h.change(ctx, func(f *inode) (int64, int64, error) {
		return f.size(), f.size() + int64(len(p)), nil
	}, func(f *inode) error { return f.write(p, f.size()) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Truncate sets the size; what is new reads as zeros. It takes no room.
func (h *Handle) Truncate(ctx context.Context, size int64) error {
	if size < 0 {
		return fmt.Errorf("truncate to %d: %w", size, fs.ErrInvalid)
	}
	if size > MaxSize {
		return ErrTooLarge
	}
	return h.change(ctx, noRoomNeeded, func(f *inode) error {
		f.mu.Lock()
		f.top.resize(size)
		f.mu.Unlock()
		f.touched()
		return nil
	})
}

// Allocate does what fallocate(2) does for the range of size bytes at off: with
// punch or zero it reads as zeros afterwards; otherwise it only becomes part of the file.
// Unless keepSize is set, which punch implies, the file grows to the end of the
// range. Room for later writes is looked for, but not held.
func (h *Handle) Allocate(ctx context.Context, off, size int64, keepSize, punch, zero bool) error {
	if off < 0 || size <= 0 {
		return fmt.Errorf("allocate %d bytes at %d: %w", size, off, fs.ErrInvalid)
	}
	if off > MaxSize-size {
		return ErrTooLarge
	}
	end := off + size
	if !punch && !zero {
		if err := h.t.needRoom(ctx, size); err != nil {
			return err
		}
		h.t.purse.give(size)
		if keepSize || end <= h.Size() {
			return nil
		}
	}
	return h.change(ctx, noRoomNeeded, func(f *inode) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		l := f.top
		if punch || zero {
			l.zero(off, min(end, l.size))
		}
		if !keepSize && !punch && end > l.size {
			l.resize(end)
		}
		f.touched()
		return nil
	})
}

func noRoomNeeded(*inode) (int64, int64, error) { return 0, 0, nil }

// Flush is close(2): afterwards everything that was written through any handle
// of the file survives kill -9.
func (h *Handle) Flush(ctx context.Context) error {
	if !h.write {
		return nil
	}
	f := h.f.Load()
	f.op.Lock()
	defer f.op.Unlock()
	if f.removed || f.upper() == nil {
		return nil
	}
	if f.journaled && !f.unsaved {
		return nil
	}
	if h.t.commitInline(f) {
		return nil
	}
	return f.save()
}

// Sync is fsync(2): afterwards everything that was written through any handle
// of the file survives power loss.
func (h *Handle) Sync(ctx context.Context) error {
	f := h.f.Load()
	f.op.Lock()
	if f.removed {
		f.op.Unlock()
		return nil
	}
	if f.top != nil && f.top.stale.n > 0 {
		if err := f.save(); err != nil { // which takes the stale parts out, before the sync
			f.op.Unlock()
			return err
		}
	}
	rec, saves, changes := tree.Draft{}, f.saves, f.changes
	unsaved := f.upper() != nil && (f.unsaved || !f.journaled)
	if unsaved {
		rec = f.record()
	}
	layers := f.layers()
	for _, l := range layers {
		l.synced = true
	}
	f.op.Unlock()
	for _, l := range layers {
		if err := h.t.syncLayer(f, l); err != nil {
			return fmt.Errorf("sync draft: %w", err)
		}
	}
	if unsaved {
		// The record is that of the bytes that are durable now. If one was
		// written or dropped meanwhile, it is newer.
		f.op.Lock()
		err := error(nil)
		if f.saves == saves && !f.removed {
			err = f.put(rec, layers)
			f.unsaved = f.unsaved || f.changes != changes
		}
		f.op.Unlock()
		if err != nil {
			return err
		}
	}
	if err := h.t.o.Tree.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// syncLayer makes a layer's draft file durable.
func (t *Table) syncLayer(f *inode, l *layer) error {
	f.mu.RLock()
	file, named := l.file, l.named
	f.mu.RUnlock()
	if file == nil {
		return nil // its bytes are in the journal record
	}
	if err := t.datasync(file); err != nil {
		f.mu.RLock()
		defer f.mu.RUnlock()
		if l != f.top && l != f.frozen {
			return nil // committed meanwhile, and the file closed
		}
		return err
	}
	if named {
		return nil
	}
	if err := t.syncDir(t.o.Dir); err != nil {
		return err
	}
	f.mu.Lock()
	l.named = true
	f.mu.Unlock()
	return nil
}

// SeekData returns the first offset at or after off that is not in a hole, or
// [io.EOF] if there is none.
func (h *Handle) SeekData(off int64) (int64, error) { return h.seek(off, false) }

// SeekHole returns the first offset at or after off that is in a hole; the end
// of the file is one. Beyond the end it fails with [io.EOF].
func (h *Handle) SeekHole(off int64) (int64, error) { return h.seek(off, true) }

func (h *Handle) seek(off int64, hole bool) (int64, error) {
	f := h.f.Load()
	f.mu.RLock()
	base := f.base
	f.mu.RUnlock()
	// What lies where may have to be fetched first, without locks.
	y, err := h.t.layout(context.Background(), base)
	if err != nil {
		return 0, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.base != base {
		y = f.base.list.Load() // a commit's content comes with its list
	}
	size := f.size()
	if off < 0 || off >= size {
		return 0, io.EOF
	}
	for off < size {
		end, zero := extentAt(f.layers(), f.base, y, off, size)
		if zero == hole {
			return off, nil
		}
		off = end
	}
	if hole {
		return size, nil
	}
	return 0, io.EOF
}
