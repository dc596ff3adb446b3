package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/roamfs/roamfs/peer/device"
	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/tree"
)

func open(tb testing.TB, dir string) *Store {
	tb.Helper()
	s, err := Open(dir, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func inode(n byte) (i tree.Ino) { i[8] = n; return i }

func link(ino, parent tree.Ino, name string, dir bool, d tree.Dot) tree.Record {
	return tree.Record{Key: tree.LinkKey(ino, tree.LinkID{}), Dot: d, Value: tree.Link{Parent: parent, Name: name, Rank: 1, Dir: dir}.Encode()}
}

func content(ino tree.Ino, text string, d tree.Dot) tree.Record {
	c := tree.Content{Kind: tree.File, Rank: 1, Size: int64(len(text)), Inline: []byte(text), Mode: 0o644}
	return tree.Record{Key: tree.ContentKey(ino), Dot: d, Value: c.Encode()}
}

// TestStateMatchesModel drives the database and tree.Mem with the same random
// changes: both must answer every question of tree.State alike, also after the
// database was closed and opened again. (Opening takes too long for rapid's
// many short runs, so the seeds are our own.)
func TestStateMatchesModel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { matchModel(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func matchModel(t *testing.T, rnd *rand.Rand) {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir)
	defer func() { _ = s.Close() }()
	model := tree.NewMem()
	inos := []tree.Ino{{}, inode(1), inode(2), inode(3)}
	names := []string{"a", "ab", "b", "b (conflict x 2026-01-01 abcdef)"}
	dots := []tree.Dot{{Actor: tree.Actor{1}, Ctr: 1}, {Actor: tree.Actor{1}, Ctr: 2}, {Actor: tree.Actor{'b'}, Ctr: 7}}
	record := func() tree.Record {
		ino, d := inos[1+rnd.IntN(3)], dots[rnd.IntN(3)]
		switch rnd.IntN(5) {
		case 0:
			return content(ino, "text", d)
		case 1:
			return tree.Record{Key: tree.XattrKey(ino, "user."+names[rnd.IntN(3)]), Dot: d, Value: tree.Xattr{Rank: 1}.Encode()}
		case 2:
			snap := tree.Content{Kind: tree.File, Rank: 1, Inline: []byte{byte('0' + rnd.IntN(2))}, Size: 1}
			l := tree.Link{Parent: inos[rnd.IntN(4)], Name: names[rnd.IntN(4)], Rank: 1, Snap: &snap}
			return tree.Record{Key: tree.LinkKey(ino, tree.LinkID{}), Dot: d, Value: l.Encode()}
		default:
			return link(ino, inos[rnd.IntN(4)], names[rnd.IntN(4)], rnd.IntN(2) == 0, d)
		}
	}
	same := func(a, b tree.Ino) bool { return a == b }
	sameRecord := func(a, b tree.Record) bool { return a.ID() == b.ID() && bytes.Equal(a.Value, b.Value) }
	change := func() (ch tree.Change) {
		seen := map[tree.KeyDot]bool{}
		for range rnd.IntN(4) {
			if r := record(); !seen[r.ID()] {
				seen[r.ID()] = true
				ch.Put = append(ch.Put, r)
			}
		}
		for range rnd.IntN(3) {
			if r := record(); !seen[r.ID()] {
				seen[r.ID()] = true
				ch.Drop = append(ch.Drop, r.ID())
			}
		}
		return ch
	}
	refused := errors.New("refused")
	for step := range 90 {
		var all []tree.Change // of one transaction
		for range 1 + rnd.IntN(2) {
			all = append(all, change())
		}
		fails := rnd.IntN(8) == 0
		err := s.Update(func(tx *Tx) error {
			for _, ch := range all {
				if err := tx.Apply(ch); err != nil {
					return err
				}
			}
			if fails {
				return refused
			}
			return nil
		})
		switch {
		case fails && errors.Is(err, refused):
		case err != nil || fails:
			t.Fatal(err)
		default:
			for _, ch := range all {
				model.Apply(ch)
			}
		}
		if step%30 == 29 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir)
			s.reads.init(8 << 10)
		}
		// Some are asked for after each step, so that what the step has entered
		// stands beside what was read; the database itself has to know all.
		for _, ino := range inos {
			compare(t, "records in the database", s.readRecords, model.Records, ino, sameRecord)
			if rnd.IntN(2) == 0 {
				compare(t, "records", s.Records, model.Records, ino, sameRecord)
			}
			compare(t, "children", s.Children, model.Children, ino, same)
			for _, n := range names {
				want := func(i tree.Ino) ([]tree.Ino, error) { return model.Named(i, n) }
				compare(t, "name in the database: "+n, func(i tree.Ino) ([]tree.Ino, error) { return s.readNamed(i, n) }, want, ino, same)
				if rnd.IntN(2) == 0 {
					compare(t, "name "+n, func(i tree.Ino) ([]tree.Ino, error) { return s.Named(i, n) }, want, ino, same)
				}
			}
		}
		asked := slices.Clone(inos)
		rnd.Shuffle(len(asked), func(i, j int) { asked[i], asked[j] = asked[j], asked[i] })
		asked = asked[:rnd.IntN(len(asked)+1)]
		gathered := map[tree.Ino][]tree.Record{}
		if err := s.Gather(asked, func(ino tree.Ino, recs []tree.Record) { gathered[ino] = recs }); err != nil {
			t.Fatal(err)
		}
		if len(gathered) != len(asked) {
			t.Fatalf("%d inodes gathered, asked for %d", len(gathered), len(asked))
		}
		for ino, recs := range gathered {
			compare(t, "gathered records", func(tree.Ino) ([]tree.Record, error) { return recs, nil }, model.Records, ino, sameRecord)
		}
		each := func(fn func(func(tree.Ino) error) error) func(tree.Ino) ([]tree.Ino, error) {
			return func(tree.Ino) (out []tree.Ino, err error) {
				err = fn(func(i tree.Ino) error { out = append(out, i); return nil })
				slices.SortFunc(out, tree.Ino.Compare)
				return out, err
			}
		}
		compare(t, "dirs", each(s.Dirs), each(model.Dirs), tree.Ino{}, same)
		compare(t, "conflicted", each(s.Conflicted), each(model.Conflicted), tree.Ino{}, same)
		compare(t, "dead", each(s.Dead), each(model.Dead), tree.Ino{}, same)
	}
}

func compare[T any](t *testing.T, what string, got, want func(tree.Ino) ([]T, error), ino tree.Ino, same func(a, b T) bool) {
	t.Helper()
	g, err := got(ino)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	w, err := want(ino)
	if err != nil {
		t.Fatalf("%s of the model: %v", what, err)
	}
	if !slices.EqualFunc(g, w, same) {
		t.Fatalf("%s of %v: got %v, want %v", what, ino, g, w)
	}
}

// TestReadsDuringCommits reads while transactions commit: nobody may see a
// state from before a transaction that had returned, nor go back in time, and
// no entry may stay that a commit has overtaken.
func TestReadsDuringCommits(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	s.reads.init(2 << 10)
	const last = 400
	var returned [3]atomic.Uint64 // of each inode: the newest rank that is committed
	rank := func(ino tree.Ino) (uint64, error) {
		recs, err := s.Records(ino)
		if err != nil || len(recs) == 0 {
			return 0, err
		}
		if len(recs) > 1 {
			return 0, fmt.Errorf("%d records", len(recs))
		}
		c, err := tree.DecodeContent(recs[0].Value)
		return c.Rank, err
	}
	var g errgroup.Group
	for n := range returned {
		ino := inode(byte(n + 1))
		d := tree.Dot{Actor: tree.Actor{byte(n + 1)}, Ctr: 1}
		g.Go(func() error { // one writer for each, as callers order writes that depend on each other
			for i := uint64(1); i <= last; i++ {
				r := tree.Record{Key: tree.ContentKey(ino), Dot: d, Value: tree.Content{Kind: tree.File, Rank: i}.Encode()}
				if err := s.Update(func(tx *Tx) error { return tx.Apply(tree.Change{Put: []tree.Record{r}}) }); err != nil {
					return err
				}
				returned[n].Store(i)
			}
			return nil
		})
		for range 2 {
			g.Go(func() error {
				for seen := uint64(0); seen < last; {
					least := max(seen, returned[n].Load())
					var err error
					if seen, err = rank(ino); err != nil {
						return err
					}
					if seen < least {
						return fmt.Errorf("inode %d: read %d after %d", n, seen, least)
					}
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestDraftJournal(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	long := bytes.Repeat([]byte("0123456789abcdef"), 3*pieceSize/16+5)
	base := []tree.Dot{{Actor: tree.Actor{7}, Ctr: 9}}
	put := func(d tree.Draft) {
		t.Helper()
		if err := s.Update(func(tx *Tx) error { return tx.PutDraft(d) }); err != nil {
			t.Fatal(err)
		}
	}
	put(tree.Draft{Ino: inode(1), Base: base, Data: long})
	put(tree.Draft{Ino: inode(2), Data: []byte("x")})
	put(tree.Draft{Ino: inode(1), Base: base, Data: long[:pieceSize+1]}) // shorter than before
	put(tree.Draft{Ino: inode(3)})
	if err := s.Update(func(tx *Tx) error { return tx.DropDraft(inode(2)) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	got, err := s.Drafts()
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Ino != inode(1) || !bytes.Equal(got[0].Data, long[:pieceSize+1]) || !slices.Equal(got[0].Base, base) || got[1].Ino != inode(3) || len(got[1].Data) != 0 {
		t.Fatalf("journal after reopening: %d entries, %v", len(got), got)
	}
}

func TestCommitsAndHeads(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	a := tree.Actor{1}
	delta := bytes.Repeat([]byte{5}, 2*pieceSize+3)
	for seq := range uint64(3) {
		c := Commit{Actor: a, Ctr: seq + 1, Manifest: []byte{byte(seq)}, Delta: delta[:len(delta)-int(seq)]}
		if err := s.Update(func(tx *Tx) error { return tx.PutCommit(seq+10, c) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Update(func(tx *Tx) error { return tx.DropCommit(10, a, 1) }); err != nil {
		t.Fatal(err)
	}
	kept, err := s.Commits()
	if err != nil || len(kept) != 2 || kept[0].Seq != 11 || kept[1].Ctr != 3 {
		t.Fatalf("kept %v, %v", kept, err)
	}
	c, err := s.Commit(12)
	if err != nil || c.Ctr != 3 || c.Actor != a || !bytes.Equal(c.Manifest, []byte{2}) || len(c.Delta) != len(delta)-2 {
		t.Fatalf("commit 12: %v, %v", c.Ctr, err)
	}
	if h, err := s.Head(a); err != nil || !bytes.Equal(h, []byte{2}) {
		t.Fatalf("head %v, %v", h, err)
	}
	if _, err := s.Commit(10); err == nil {
		t.Fatal("a dropped commit is still there")
	}
}

func TestHoldings(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer func() { _ = s.Close() }()
	ids := make([]block.ID, 3)
	for i := range ids {
		ids[i] = block.ID(sha256.Sum256([]byte{byte(i)}))
	}
	nas, desk := device.ID{1}, device.ID{2}
	reopen := func() error {
		err := s.Close()
		s = open(t, dir)
		return err
	}
	for _, step := range []struct {
		name     string
		do       func() error
		held     string // by whom each block is, n for nas and d for desk
		affirmed string
		cursor   string // of nas
	}{
		{"nas tells", func() error { return s.Hold(nas, ids, nil, []byte("c1")) }, "n n n", "n n n", "c1"},
		{"desk tells", func() error { return s.Hold(desk, ids[:1], nil, nil) }, "nd n n", "nd n n", "c1"},
		{"nas gives one up", func() error { return s.Hold(nas, nil, ids[2:], []byte("c2")) }, "nd n ", "nd n ", "c2"},
		{"nas begins anew", func() error { return s.Retell(nas) }, "nd n ", "d  ", ""},
		{"it names one", func() error { return s.Hold(nas, ids[1:2], nil, nil) }, "nd n ", "d n ", ""},
		{"that breaks off", reopen, "nd n ", "d n ", ""},
		{"it begins anew again", func() error { return s.Retell(nas) }, "nd n ", "d  ", ""},
		{"it names another", func() error { return s.Hold(nas, ids[2:], nil, nil) }, "nd n n", "d  n", ""},
		{"desk goes on", func() error { return s.Hold(desk, ids[1:2], ids[:1], nil) }, "n nd n", " d n", ""},
		{"all was told", func() error { return s.Retold(nas, []byte("c3")) }, " d n", " d n", "c3"},
		{"nas goes on", func() error { return s.Hold(nas, ids[:1], ids[2:], []byte("c4")) }, "n d ", "n d ", "c4"},
		{"nothing is left", func() error { return errors.Join(s.Retell(nas), s.Retold(nas, []byte("c5"))) }, " d ", " d ", "c5"},
		{"what was not begun", func() error {
			if s.Retold(desk, nil) == nil {
				return errors.New("ends")
			}
			return nil
		}, " d ", " d ", "c5"},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		show := func(get func(block.ID) ([]device.ID, error)) string {
			var out []string
			for _, id := range ids {
				devs, err := get(id)
				if err != nil {
					t.Fatalf("%s: %v", step.name, err)
				}
				of := ""
				for _, dev := range devs {
					of += map[device.ID]string{nas: "n", desk: "d"}[dev]
				}
				out = append(out, of)
			}
			return strings.Join(out, " ")
		}
		c, err := s.Cursor(nas)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if held, affirmed := show(s.Holders), show(s.Affirmed); held != step.held || affirmed != step.affirmed || string(c) != step.cursor {
			t.Errorf("%s: held by %q, affirmed %q, cursor %q; want %q, %q, %q", step.name, held, affirmed, c, step.held, step.affirmed, step.cursor)
		}
	}
}

func TestBatchLog(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	d := tree.Dot{Actor: tree.Actor{3}, Ctr: 4}
	touches := []Touch{
		{Put: []tree.Key{tree.ContentKey(inode(1)), tree.LinkKey(inode(1), tree.LinkID{})}},
		{Drop: []tree.KeyDot{{Key: tree.ContentKey(inode(2)), Dot: d}}},
	}
	for i, c := range touches {
		if err := s.Update(func(tx *Tx) error { tx.LogTouch(uint64(i)+5, c); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	var got []Touch
	first, next, err := s.Touches(func(c Touch) { got = append(got, c) })
	if err != nil || first != 5 || next != 7 || len(got) != 2 || !slices.Equal(got[0].Put, touches[0].Put) || !slices.Equal(got[1].Drop, touches[1].Drop) {
		t.Fatalf("log %d..%d %v, %v", first, next, got, err)
	}
	if err := s.Update(func(tx *Tx) error { tx.ClearTouches(5, 7); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Touches(func(Touch) { t.Fatal("the log was cleared") }); err != nil {
		t.Fatal(err)
	}
}

// TestKill re-runs this test as a child that writes transactions and is
// killed: every transaction that had returned is there afterwards.
func TestKill(t *testing.T) {
	if dir := os.Getenv("STORE_KILL_DIR"); dir != "" {
		s := open(t, dir)
		for i := uint64(1); ; i++ {
			if err := s.Update(func(tx *Tx) error { tx.SetValue("n", binary.BigEndian.AppendUint64(nil, i)); return nil }); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stdout.Write(binary.BigEndian.AppendUint64(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := filepath.Join(t.TempDir(), "db")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "STORE_KILL_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var last uint64
	buf := make([]byte, 8)
	for last < 2000 {
		if _, err := out.Read(buf); err != nil {
			t.Fatal(err)
		}
		last = binary.BigEndian.Uint64(buf)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	s := open(t, dir)
	defer s.Close()
	v, err := s.Value("n")
	if err != nil || len(v) != 8 || binary.BigEndian.Uint64(v) < last {
		t.Fatalf("after kill: %v, %v; at least %d was acknowledged", v, err, last)
	}
}

func FuzzDecodeDraft(f *testing.F) {
	f.Add([]byte{1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeDraft(inode(1), b)
		if err == nil && len(d.Base)*dotLen+len(d.Data) > len(b) {
			t.Fatalf("%d bytes became %d dots and %d bytes", len(b), len(d.Base), len(d.Data))
		}
	})
}

func FuzzDecodeTouch(f *testing.F) {
	f.Add([]byte{1, 1, 'k', 1, 'q', 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9})
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = decodeTouch(b) })
}

func BenchmarkUpdate(b *testing.B) {
	s := open(b, b.TempDir())
	defer s.Close()
	d := tree.Dot{Actor: tree.Actor{1}, Ctr: 1}
	var n uint64
	for b.Loop() {
		n++
		var ino tree.Ino
		binary.BigEndian.PutUint64(ino[8:], n)
		ch := tree.Change{Put: []tree.Record{link(ino, tree.Ino{}, "some-file-name", false, d), content(ino, "0123456789", d)}}
		if err := s.Update(func(tx *Tx) error { return tx.Apply(ch) }); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSyncReachesRotatedTables: a memory table that ceases to be the active one
// while Sync runs is synced all the same.
func TestSyncReachesRotatedTables(t *testing.T) {
	s := open(t, t.TempDir())
	defer func() { _ = s.Close() }()
	synced := map[string]bool{}
	s.syncFile = func(name string) error {
		synced[filepath.Base(name)] = true
		return syncFile(name)
	}
	active := s.syncActive
	var was string
	s.syncActive = func() error {
		mem, err := s.memLogs()
		if err != nil {
			return err
		}
		was = mem[len(mem)-1]
		for i := 0; ; i++ { // others write meanwhile
			if err := s.Update(func(tx *Tx) error {
				tx.SetValue(fmt.Sprint("v", i), bytes.Repeat([]byte{byte(i)}, pieceSize))
				return nil
			}); err != nil {
				return err
			}
			if mem, err = s.memLogs(); err != nil || mem[len(mem)-1] != was {
				return errors.Join(err, active())
			}
		}
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if !synced[was] {
		t.Fatalf("%s was not synced, only %v", was, synced)
	}
}
