package replica

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/roamfs/roamfs/sync/guard"
	"github.com/roamfs/roamfs/sync/tree"
)

// photos fills a tree with n files in two directories on one device.
func (d *node) photos(n int) {
	d.t.Helper()
	d.mkdir("p")
	d.mkdir("p/q")
	for i := range n {
		d.write(photo(i), fmt.Sprint("photo ", i))
	}
}

func photo(i int) string {
	if i%2 == 0 {
		return fmt.Sprintf("p/q/%05d", i)
	}
	return fmt.Sprintf("p/%05d", i)
}

func (d *node) removeAll(n int) {
	d.t.Helper()
	for i := range n {
		d.rm(photo(i))
	}
}

// guarded are three devices that have the files of the last; the last two hold
// back what takes away too much, the first lets all through.
func guarded(t *testing.T, files int) ([]*node, func()) {
	t.Helper()
	n := hive(t, 3)
	for _, d := range n[1:] {
		d.share = guard.Share
		d.restart()
	}
	wires := []*wire{connect(n[0], n[1]), connect(n[0], n[2]), connect(n[1], n[2])}
	n[2].photos(files)
	agree(t, n...)
	return n, func() {
		for _, w := range wires {
			w.disconnect()
		}
	}
}

func (d *node) holds() bool { return len(d.Pending()) == 1 }

func TestMassDeleteIsHeldAndAccepted(t *testing.T) {
	const files = 1300
	n, end := guarded(t, files)
	defer end()
	n[0].removeAll(files)
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
	const files = 1300
	n, end := guarded(t, files)
	defer end()
	before := n[1].listing()
	n[0].removeAll(files)
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
	const files = 1300
	n, end := guarded(t, files)
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
	const files = 1300
	n, end := guarded(t, files)
	n[0].removeAll(files)
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
	const files = 1300
	n := hive(t, 4)
	n[1].share = guard.Share
	n[1].restart()
	w := []*wire{connect(n[0], n[1]), connect(n[0], n[2]), connect(n[0], n[3])}
	n[3].photos(files)
	agree(t, n...)
	w[2].disconnect() // the fourth sees nothing of it
	n[0].removeAll(files)
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
