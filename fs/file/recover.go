package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/roamfs/roamfs/sync/tree"
)

// Recover takes up the drafts that an earlier run left in the journal; they are
// committed soon, those of files that another device deleted too: see the package
// comment. It deletes draft files that the journal does not name: nothing in
// them was ever flushed. A record that cannot be used stays where it is and is
// logged. It is called once, before anything else.
func (t *Table) Recover(ctx context.Context) error {
	files, err := t.draftFiles()
	if err != nil {
		return err
	}
	drafts, err := t.o.Tree.Drafts()
	if err != nil {
		return fmt.Errorf("read the journal of drafts: %w", err)
	}
	used := map[string]bool{}
	for _, d := range drafts {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := decodeRecord(d.Data)
		if err != nil {
			t.log.Error("draft cannot be read; it is kept", "ino", d.Ino, "err", err)
			t.keepFiles(d.Ino, used)
			continue
		}
		for _, l := range r.layers {
			if l.path = files[l.seq]; l.path == "" {
				l.path = t.draftPath(d.Ino, l.seq)
			}
			l.filed = l.filed && l.set.n > 0
			used[l.path] = l.filed
			t.seq.Store(max(t.seq.Load(), l.seq))
		}
		n, err := t.o.Tree.Node(d.Ino)
		if errors.Is(err, fs.ErrNotExist) {
			// The tree knows where it was, and that its user did not remove it.
			n, err = tree.Node{Ino: d.Ino, Kind: tree.File, Mode: 0o600}, nil
		}
		if err == nil {
			err = t.restore(ctx, d, r, n)
		}
		if err != nil {
			return fmt.Errorf("draft of %v: %w", d.Ino, err)
		}
	}
	return t.removeStrays(files, used)
}

// restore makes the inode that a record describes.
func (t *Table) restore(ctx context.Context, d tree.Draft, r record, n tree.Node) error {
	for _, l := range r.layers {
		if err := t.reopen(l, d.Ino); err != nil {
			return err
		}
		l.begun = l.mtime
		if need := l.claim(); t.purse.take(ctx, need) == nil {
			l.room = need
		} else {
			t.log.Warn("no room for a draft that is there already", "ino", d.Ino, "bytes", need)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.newInode(n)
	f.journaled, f.topSaved, f.drafted = true, true, true
	f.top = r.layers[0]
	committed := r.next != nil && r.next.same(n)
	if !committed {
		r.base.ino, r.base.dots = d.Ino, d.Base
		f.base = r.base
	}
	switch {
	case len(r.layers) == 2 && committed: // the crash came before the record was replaced
		f.spent = r.layers[1:]
		f.unsaved = true
	case len(r.layers) == 2:
		f.frozen = r.layers[1]
	}
	t.files[d.Ino] = f
	t.schedule(f)
	return nil
}

// reopen opens the draft file of a layer and drops what never reached it: a
// power loss may have kept the record and lost bytes that were not synced. What was there
// before shows instead.
func (t *Table) reopen(l *layer, ino tree.Ino) error {
	if !l.filed {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		t.log.Error("draft file is missing", "ino", ino, "bytes", l.set.bytes)
		l.set = spans{}
		l.filed = false
		return nil
	}
	if err != nil {
		return err
	}
	var pos int64
	for pos < l.size {
		from, to, err := nextData(f, pos)
		if err != nil {
			return errors.Join(err, f.Close())
		}
		if from == to {
			break
		}
		l.set.clear(pos, from)
		l.backed.set(roundDown(from), roundUp(to))
		pos = to
	}
	l.set.clear(pos, l.size)
	if st, err := f.Stat(); err == nil && !l.kept {
		l.mtime = max(l.mtime, st.ModTime().UnixNano())
	}
	l.file = f
	return nil
}

// keepFiles marks every draft file of an inode as used.
func (t *Table) keepFiles(ino tree.Ino, used map[string]bool) {
	paths, err := filepath.Glob(filepath.Join(t.o.Dir, fmt.Sprintf("%x-*", ino[:])))
	if err != nil {
		return
	}
	for _, p := range paths {
		used[p] = true
	}
}

// draftFiles returns the paths of the draft files by their numbers, which are
// what a record names them by: its inode may have got another number since.
func (t *Table) draftFiles() (map[uint64]string, error) {
	entries, err := os.ReadDir(t.o.Dir)
	if err != nil {
		return nil, fmt.Errorf("drafts: %w", err)
	}
	files := map[uint64]string{}
	for _, e := range entries {
		if seq, ok := draftSeq(e.Name()); ok {
			files[seq] = filepath.Join(t.o.Dir, e.Name())
			t.seq.Store(max(t.seq.Load(), seq))
		}
	}
	return files, nil
}

// removeStrays deletes the draft files that are not used.
func (t *Table) removeStrays(files map[uint64]string, used map[string]bool) error {
	for _, path := range files {
		if used[path] {
			continue
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("drafts: %w", err)
		}
	}
	return nil
}

// draftSeq returns the layer number in the name of a draft file.
func draftSeq(name string) (uint64, bool) {
	ino, seq, ok := strings.Cut(name, "-")
	if !ok || len(ino) != 2*len(tree.Ino{}) {
		return 0, false
	}
	n, err := strconv.ParseUint(seq, 16, 64)
	return n, err == nil
}
