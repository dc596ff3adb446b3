package replica

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/guard"
	"github.com/roamfs/roamfs/sync/tree"
)

const files = 1300 // so many that to remove all of them is too much

// photos fills a tree with files in two directories on one device.
func (d *node) photos() {
	d.t.Helper()
	d.mkdir("p")
	d.mkdir("p/q")
	for i := range files {
		d.write(photo(i), fmt.Sprint("photo ", i))
	}
}

func photo(i int) string {
	if i%2 == 0 {
		return fmt.Sprintf("p/q/%05d", i)
	}
	return fmt.Sprintf("p/%05d", i)
}

// guarded are three devices that have the files of the last; the last two hold
// back what takes away too much, the first lets all through.
func guarded(t *testing.T) ([]*node, func()) {
	t.Helper()
	n := hive(t, 3)
	for _, d := range n[1:] {
		d.share = guard.Share
		d.restart()
	}
	wires := []*wire{connect(n[0], n[1]), connect(n[0], n[2]), connect(n[1], n[2])}
	n[2].photos()
	agree(t, n...)
	return n, func() {
		for _, w := range wires {
			w.disconnect()
		}
	}
}

func (d *node) holds() bool { return len(d.Pending()) == 1 }

func TestMassDeleteIsHeldAndAccepted(t *testing.T) {
	n, end := guarded(t)
	defer end()
	n[0].removeAllBut(-1)
	if err := n[0].Rmdir(n[0].at("p").Ino, "q"); err != nil {
		t.Fatal(err)
	}
	await(t, n[1].holds)
	await(t, n[2].holds)
	p := n[1].Pending()[0]
	if p.Device.ID != n[0].key.ID() || p.Removed <= guard.Floor || p.Rewritten != 0 || len(p.Paths) == 0 || !strings.HasPrefix(p.Paths[0], "/p/") {
		t.Fatalf("pending: %+v", p)
	}
	if got := strings.Count(n[1].listing(), "file"); got < files-guard.Floor {
		t.Fatalf("%d files are left", got)
	}

	// The user's own work goes on, and goes to who does not hold.
	n[1].write("mine", "x")
	await(t, func() bool { _, err := n[2].Resolve("mine"); return err == nil })
	if err := n[1].Accept(n[2].key.ID()); !errors.Is(err, ErrNothingHeld) {
		t.Fatalf("accept of a device that is not held: %v", err)
	}
	for _, d := range n[1:] {
		if err := d.Accept(n[0].key.ID()); err != nil {
			t.Fatal(err)
		}
	}
	agree(t, n...)
	if got := n[1].listing(); strings.Contains(got, "photo") || len(n[1].Pending()) != 0 {
		t.Fatalf("after accept:\n%s", got)
	}
	n[0].write("later", "x")
	agree(t, n...)
}

func (d *node) at(path string) tree.Node {
	d.t.Helper()
	n, err := d.Resolve(path)
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

func TestRejectBringsBack(t *testing.T) {
	n, end := guarded(t)
	defer end()
	before := n[1].listing()
	n[0].removeAllBut(-1)
	if err := n[0].Rmdir(n[0].at("p").Ino, "q"); err != nil {
		t.Fatal(err)
	}
	await(t, n[1].holds)
	await(t, n[2].holds)
	n[0].write("added", "by the offender")
	await(t, func() bool { return n[1].Pending()[0].Removed == files+1 })
	if err := n[1].Reject(n[0].key.ID()); err != nil {
		t.Fatal(err)
	}
	if got := n[1].listing(); strings.Replace(got, line(got, "/added"), "", 1) != before {
		t.Fatalf("after reject:\n%s", got)
	}
	agree(t, n...) // the third lets it through by itself: all is given back
	if len(n[2].Pending()) != 0 {
		t.Fatalf("still pending: %+v", n[2].Pending())
	}
}

// line returns the line of a listing that begins so.
func line(listing, begin string) string {
	for l := range strings.Lines(listing) {
		if strings.HasPrefix(l, begin+" ") {
			return l
		}
	}
	return ""
}

func TestRansomIsRejected(t *testing.T) {
	n, end := guarded(t)
	defer end()
	before := n[1].listing()
	dir := n[0].at("p")
	for i := range files {
		n[0].write(photo(i), fmt.Sprint("ransom ", i))
		parent, name := n[0].parent(photo(i))
		if err := n[0].Rename(parent, name, dir.Ino, name+".enc", false, false); err != nil {
			t.Fatal(err)
		}
	}
	await(t, n[1].holds)
	await(t, n[2].holds)
	await(t, func() bool { return n[1].Pending()[0].Rewritten == files })
	if err := n[1].Reject(n[0].key.ID()); err != nil {
		t.Fatal(err)
	}
	agree(t, n...)
	if got := n[1].listing(); got != before {
		t.Fatalf("after reject:\n%.2000s\nbefore:\n%.2000s", got, before)
	}
}

func TestHoldSurvivesRestart(t *testing.T) {
	n, end := guarded(t)
	n[0].removeAllBut(-1)
	await(t, n[1].holds)
	await(t, func() bool { return n[1].Pending()[0].Removed == files })
	end()
	want := n[1].Pending()[0]
	n[1].restart()
	got := n[1].Pending()
	if len(got) != 1 || got[0].Removed != want.Removed || got[0].Commits != want.Commits || !got[0].Since.Equal(want.Since) || fmt.Sprint(got[0].Paths) != fmt.Sprint(want.Paths) {
		t.Fatalf("before the restart %+v, after it %+v", want, got)
	}
	if err := n[1].Accept(n[0].key.ID()); err != nil { // with nobody connected
		t.Fatal(err)
	}
	if got := n[1].listing(); got != n[0].listing() {
		t.Fatalf("after accept:\n%s", got)
	}
}

func TestWhatBuildsOnAHeldCommitWaits(t *testing.T) {
	n := hive(t, 4)
	n[1].share = guard.Share
	n[1].restart()
	w := []*wire{connect(n[0], n[1]), connect(n[0], n[2]), connect(n[0], n[3])}
	n[3].photos()
	agree(t, n...)
	w[2].disconnect() // the fourth sees nothing of it
	n[0].removeAllBut(-1)
	agree(t, n[0], n[2])
	await(t, n[1].holds)
	n[2].write("dependent", "x")
	agree(t, n[0], n[2])
	n[3].write("independent", "x")
	w = append(w[:2], connect(n[3], n[1]))
	await(t, func() bool { _, err := n[1].Resolve("independent"); return err == nil })
	if _, err := n[1].Resolve("dependent"); err == nil {
		t.Fatal("what builds on a held commit is shown")
	}
	if len(n[1].Pending()) != 1 {
		t.Fatalf("pending: %+v", n[1].Pending())
	}
	if err := n[1].Accept(n[0].key.ID()); err != nil {
		t.Fatal(err)
	}
	agree(t, n...)
	for _, x := range w {
		x.disconnect()
	}
}

// TestHeldCommitsAreNotSentAgain: who holds commits back gets them once, however
// much it has to say itself.
func TestHeldCommitsAreNotSentAgain(t *testing.T) {
	n := hive(t, 3)
	n[1].share = guard.Share
	n[1].restart()
	first := []*wire{connect(n[0], n[1]), connect(n[0], n[2])}
	n[2].photos()
	agree(t, n...)
	n[0].removeAllBut(-1)
	await(t, func() bool { return n[1].holds() && n[1].Pending()[0].Removed == files })
	for _, w := range first {
		w.disconnect()
	}
	sent := 0
	w := connectCounting(n[0], n[1], func(from *node, msg []byte) {
		if from == n[0] && msg[0] == msgCommit {
			sent++
		}
	})
	for i := range 5 {
		n[1].write(fmt.Sprint("own", i), "x")
		await(t, func() bool { _, err := n[0].Resolve(fmt.Sprint("own", i)); return err == nil })
	}
	if err := n[0].Publish(); err != nil {
		t.Fatal(err)
	}
	w.disconnect()
	if sent != 0 {
		t.Fatalf("%d held commits were sent again", sent)
	}
}

// TestMoreThanThereIsRoomFor: commits that are held back beyond the bound stay
// with the peers, and come once the rest is accepted.
func TestMoreThanThereIsRoomFor(t *testing.T) {
	n := hive(t, 3)
	w := []*wire{connect(n[0], n[1]), connect(n[0], n[2])}
	n[2].photos()
	agree(t, n...)
	w[0].disconnect()
	n[1].share, n[1].keep = guard.Share, 10000 // holds four times that
	n[1].restart()
	for i := range files {
		n[0].rm(photo(i))
		if i%100 == 0 {
			if err := n[0].Publish(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := n[0].Publish(); err != nil {
		t.Fatal(err)
	}
	w[0] = connect(n[0], n[1])
	await(t, n[1].holds)
	for i := range 5 {
		n[0].write(fmt.Sprint("more", i), strings.Repeat("x", 60))
		_ = n[0].SetXattr(n[0].at(fmt.Sprint("more", i)).Ino, "user.x", make([]byte, 30000))
		if err := n[0].Publish(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, func() bool { n[1].mu.RLock(); defer n[1].mu.RUnlock(); return n[1].guard.full[n[0].actor] })
	n[1].mu.RLock()
	bytes := n[1].guard.bytes
	n[1].mu.RUnlock()
	if bytes > 4*n[1].keep {
		t.Fatalf("%d bytes are held", bytes)
	}
	if err := n[1].Accept(n[0].key.ID()); err != nil {
		t.Fatal(err)
	}
	agree(t, n...)
	for _, x := range w {
		x.disconnect()
	}
}

// TestWholeStateIsHeld: so is a whole state that takes away too much, from
// before it is joined until it is decided about.
func TestWholeStateIsHeld(t *testing.T) {
	for _, accept := range []bool{true, false} {
		t.Run(fmt.Sprint("accept ", accept), func(t *testing.T) {
			n := hive(t, 3)
			w := []*wire{connect(n[0], n[1]), connect(n[0], n[2])}
			n[2].photos()
			agree(t, n...)
			w[0].disconnect()
			before := n[1].listing()
			n[1].share = guard.Share
			n[1].restart()
			n[1].sessions.rest = 0
			n[0].keep = 2000
			w[1].disconnect()
			n[0].restart()
			n[0].removeAllBut(-1)
			n[0].history("later")
			w[0], w[1] = connect(n[0], n[1]), connect(n[0], n[2])
			await(t, n[1].holds)
			if p := n[1].Pending()[0]; !p.Whole || p.Removed != files || p.Device.ID != n[0].key.ID() || len(p.Paths) != mostSamples {
				t.Fatalf("pending: %+v", p)
			}
			if got := n[1].listing(); got != before {
				t.Fatalf("it is joined:\n%.1000s", got)
			}
			w[0].disconnect()
			n[1].restart()
			w[0] = connect(n[0], n[1])
			if !n[1].holds() {
				t.Fatal("not held after a restart")
			}
			decide := n[1].Reject
			if accept {
				decide = n[1].Accept
			}
			if err := decide(n[0].key.ID()); err != nil {
				t.Fatal(err)
			}
			await(t, func() bool { _, err := n[1].Resolve("later0"); return err == nil })
			agree(t, n...)
			if got := strings.Count(n[0].listing(), "photo"); got != map[bool]int{true: 0, false: files}[accept] {
				t.Fatalf("%d photos", got)
			}
			for _, x := range w {
				x.disconnect()
			}
		})
	}
}

// TestRejectIsCompleted: a reject that a kill interrupts ends with the next Open.
func TestRejectIsCompleted(t *testing.T) {
	n, end := guarded(t)
	before := n[1].listing()
	n[0].removeAllBut(-1)
	await(t, func() bool { return n[1].holds() && n[1].Pending()[0].Removed == files })
	end()
	n[1].mu.Lock()
	err := n[1].planLocked(n[1].guard.holds[n[0].actor].account, n[0].actor)
	n[1].mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	n[1].restart()
	if got := n[1].listing(); got != before || len(n[1].Pending()) != 0 {
		t.Fatalf("after the restart, pending %+v:\n%.1000s", n[1].Pending(), got)
	}
	n[1].restart()
	w := connect(n[0], n[1])
	defer w.disconnect()
	agree(t, n[:2]...)
}

// TestRejectKeepsWhatOthersWrote: what somebody else wrote after the offender
// stays, and so do attributes, links and symlinks of what comes back.
func TestRejectKeepsWhatOthersWrote(t *testing.T) {
	n := hive(t, 3)
	n[1].share = guard.Share
	n[1].restart()
	w := []*wire{connect(n[0], n[1]), connect(n[0], n[2])}
	n[2].photos()
	rich := n[2].at(photo(1))
	for _, err := range []error{
		n[2].Chmod(rich.Ino, 0o600), n[2].SetMTime(rich.Ino, 12345), n[2].SetXattr(rich.Ino, "user.a", []byte("b")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n[2].Link(rich.Ino, tree.Root, "hard"); err != nil {
		t.Fatal(err)
	}
	agree(t, n...)
	rich = n[1].at(photo(1))
	n[0].rm("hard")
	n[0].write(photo(2), "ransom")
	n[0].removeAllBut(2)
	agree(t, n[0], n[2])
	n[2].write(photo(2), "by the owner since")
	agree(t, n[0], n[2])
	await(t, n[1].holds)
	await(t, func() bool {
		n[1].mu.RLock()
		defer n[1].mu.RUnlock()
		return n[1].guard.at[tree.Dot{Actor: n[2].actor, Ctr: n[0].known()[n[2].actor]}]
	})
	if err := n[1].Reject(n[0].key.ID()); err != nil {
		t.Fatal(err)
	}
	agree(t, n...)
	got := n[0].at(photo(1))
	if got.Mode != rich.Mode || got.MTime != rich.MTime || string(got.Xattrs["user.a"]) != "b" || got.NLink != 2 || n[0].at("hard").Ino != got.Ino {
		t.Errorf("came back as %+v, was %+v", got, rich)
	}
	if got := n[0].at(photo(2)); string(got.Inline) != "by the owner since" {
		t.Errorf("another device's later change is lost: %q", got.Inline)
	}
	for _, x := range w {
		x.disconnect()
	}
}

// removeAllBut removes all photos but one, in several commits.
func (d *node) removeAllBut(keep int) {
	d.t.Helper()
	for i := range files {
		if i%400 == 399 {
			if err := d.Publish(); err != nil {
				d.t.Fatal(err)
			}
		}
		if i != keep {
			d.rm(photo(i))
		}
	}
}

// TestGuardOff: without a share nothing is held, and what was held is let through.
func TestGuardOff(t *testing.T) {
	n, end := guarded(t)
	n[0].removeAllBut(-1)
	await(t, func() bool { return n[1].holds() && n[1].Pending()[0].Removed == files })
	end()
	n[1].share = 0
	n[1].restart()
	if len(n[1].Pending()) != 0 || strings.Contains(n[1].listing(), "photo") {
		t.Fatalf("pending %+v", n[1].Pending())
	}
}

func FuzzDecodeLoss(f *testing.F) {
	f.Add([]byte{})
	content := tree.Record{Key: tree.ContentKey(tree.Ino{1}), Dot: tree.Dot{Actor: tree.Actor{1}, Ctr: 1}, Value: tree.Content{Kind: tree.File, Rank: 1}.Encode()}
	for _, l := range []guard.Loss{{At: 1}, {At: -1, Kind: guard.Removed, Before: []tree.Record{content}}, {Kind: guard.Replaced, By: tree.Ino{2}}} {
		b, err := encodeLoss(l)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeLoss(b)
		if err != nil || len(b) > mostLoss/2 {
			return
		}
		if again, err := encodeLoss(l); err != nil || string(again) != string(b) {
			t.Fatalf("%x is %x again, %v", b, again, err)
		}
	})
}

// TestRejectOfMoreThanACommit: what is brought back may take several commits, which
// others that hold back as well let through once all of it has come. A reject that
// was cut off between two of them goes on where it was, and leaves nothing twice.
func TestRejectOfMoreThanACommit(t *testing.T) {
	const many = 2*batchRecords + 300
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprint("cut off ", cut), func(t *testing.T) {
			n := hive(t, 3)
			for _, d := range n[1:] {
				d.share = guard.Share
				d.restart()
			}
			wires := []*wire{connect(n[0], n[1]), connect(n[0], n[2]), connect(n[1], n[2])}
			n[2].mkdir("p")
			for i := range many {
				n[2].write(fmt.Sprintf("p/%05d", i), fmt.Sprint("photo ", i))
			}
			agree(t, n...)
			before := n[1].listing()
			for i := range many {
				n[0].rm(fmt.Sprintf("p/%05d", i))
			}
			if err := n[0].Rmdir(tree.Root, "p"); err != nil {
				t.Fatal(err)
			}
			for _, d := range n[1:] {
				await(t, func() bool { return d.holds() && d.Pending()[0].Removed == many+1 })
			}
			commits := n[1].known()[n[1].actor]
			if !cut {
				if err := n[1].Reject(n[0].key.ID()); err != nil {
					t.Fatal(err)
				}
			} else {
				for _, w := range wires {
					w.disconnect()
				}
				a := n[0].actor
				n[1].mu.Lock()
				all := n[1].guard.holds[a].account.Clone()
				part := &guard.Account{}
				i := 0
				all.Lost(func(ino tree.Ino, l guard.Loss) {
					if i++; i <= many-1000 {
						part.Set(ino, l)
					}
				})
				err := n[1].planLocked(all, a)
				if err == nil {
					_, err = n[1].releaseLocked(a, false)
				}
				if err == nil {
					err = n[1].planLocked(part, a)
				}
				if err == nil {
					_, err = n[1].restoreLocked()
				}
				if err == nil {
					err = n[1].planLocked(all, a)
				}
				n[1].mu.Unlock()
				if err != nil {
					t.Fatal(err)
				}
				n[1].restart()
				wires = []*wire{connect(n[0], n[1]), connect(n[0], n[2]), connect(n[1], n[2])}
			}
			if got := n[1].listing(); got != before {
				t.Fatalf("after reject:\n%.1000s", got)
			}
			agree(t, n...)
			if took := n[1].known()[n[1].actor] - commits; took < 2 {
				t.Errorf("it took %d commits", took)
			}
			if len(n[2].Pending()) != 0 {
				t.Errorf("still pending: %+v", n[2].Pending())
			}
			for _, w := range wires {
				w.disconnect()
			}
		})
	}
}

// TestNamesAreCountedAsFarAsTheyMatter: how many names there are is read no further
// than what was taken away asks for, again only for more, or later.
func TestNamesAreCountedAsFarAsTheyMatter(t *testing.T) {
	d := hive(t, 1)[0]
	const all = 50
	for i := range all {
		d.write(fmt.Sprint("f", i), "x")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range []struct {
		what         string
		enough, want int
		later        time.Duration
	}{
		{"twice as far as is asked", 5, 10, 0},
		{"as before", 10, 10, 0},
		{"further", 11, 22, 0},
		{"less", 5, 22, 0},
		{"all of them", 40, all, 0},
		{"more than there are", 400, all, 0},
		{"later", 5, 10, 11 * time.Minute},
		{"when the clock was set back", 6, 12, -time.Hour},
	} {
		d.skew.Add(int64(c.later))
		if n, err := d.namesLocked(c.enough); err != nil || n != c.want {
			t.Errorf("%s: %d names, %v, want %d", c.what, n, err, c.want)
		}
	}
}

// TestCheckoutIsNotHeld: neither by its commits, also if those come late, nor in a
// whole state.
func TestCheckoutIsNotHeld(t *testing.T) {
	for _, whole := range []bool{false, true} {
		t.Run(fmt.Sprint("whole ", whole), func(t *testing.T) {
			n := hive(t, 3)
			w := []*wire{connect(n[0], n[1]), connect(n[0], n[2])}
			big := func(d *node, dir, name, what string) {
				t.Helper()
				c := tree.Content{Kind: tree.File, Mode: 0o644, Size: 1 << 20, Ref: tree.Ref{ID: block.Sum([]byte(what))}}
				if _, err := d.Create(d.at(dir).Ino, name, c); err != nil {
					t.Fatal(err)
				}
			}
			n[2].photos()
			for _, dir := range []string{".git", ".git/objects", ".git/refs"} {
				n[2].mkdir("p/" + dir)
			}
			n[2].write("p/.git/HEAD", "ref")
			big(n[2], "p/.git", "index", "index")
			agree(t, n...)
			w[0].disconnect()
			n[1].share = guard.Share
			n[1].restart()
			n[1].sessions.rest = 0
			if whole {
				n[0].keep = 2000
				w[1].disconnect()
				n[0].restart()
			}
			big(n[0], "p/.git", "index.lock", "new index")
			n[0].removeAllBut(-1)
			git := n[0].at("p/.git").Ino
			if err := n[0].Rename(git, "index.lock", git, "index", false, false); err != nil {
				t.Fatal(err)
			}
			if whole {
				n[0].history("later")
			}
			w[0] = connect(n[0], n[1])
			if whole {
				w[1] = connect(n[0], n[2])
			}
			agree(t, n...)
			if n[1].said.count("takes away much") != 0 {
				t.Error("the checkout was held back")
			}
			for _, x := range w {
				x.disconnect()
			}
		})
	}
}
