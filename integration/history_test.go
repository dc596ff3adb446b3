package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// snapshot makes one and returns its directory in the mount.
func (d *device) snapshot(name string) string {
	d.t.Helper()
	out, err := d.Run(d.t.Context(), "snapshot", name, "--json")
	d.check(err)
	var s struct{ Snapshot string }
	d.check(json.Unmarshal([]byte(out), &s))
	return filepath.Join(d.Mount, ".roam", "snapshots", s.Snapshot)
}

// TestHistory edits and deletes on one device and brings back on the other, from
// the command line and out of .roam/snapshots, which cannot be written to.
func TestHistory(t *testing.T) {
	nas, laptop := pair(t, "--cache-size", "64MiB")
	at := func(d *device, name string) string { return filepath.Join(d.Mount, filepath.FromSlash(name)) }
	draft, photo := noise(1, 300<<10), noise(2, 3<<20)
	for _, dir := range []string{"docs", "docs/old", "photos"} {
		if err := os.Mkdir(at(laptop, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, at(laptop, "docs/thesis"), draft)
	write(t, at(laptop, "docs/old/notes"), []byte("notes"))
	write(t, at(laptop, "photos/1.jpg"), photo)
	if err := os.Symlink("thesis", at(laptop, "docs/link")); err != nil {
		t.Fatal(err)
	}
	laptop.copied()
	kept := laptop.snapshot("before the move")
	want, err := listing(kept)
	laptop.check(err)
	if now, err := listing(laptop.Mount); err != nil || strings.ReplaceAll(now, laptop.Mount, kept) != want {
		t.Fatalf("the snapshot shows\n%sand the tree, %v,\n%s", want, err, now)
	}

	write(t, at(laptop, "docs/thesis"), []byte("spoilt"))
	for _, dir := range []string{"docs/old", "photos"} {
		if err := os.RemoveAll(at(laptop, dir)); err != nil {
			t.Fatal(err)
		}
	}
	nas.reads("docs/thesis", []byte("spoilt"))

	// The other device shows the same past.
	there := filepath.Join(nas.Mount, ".roam", "snapshots", filepath.Base(kept))
	eventually(t, time.Minute, "nas shows the snapshot", func() error { _, err := os.Stat(there); return err })
	if got, err := listing(there); err != nil || strings.ReplaceAll(got, there, kept) != want {
		t.Fatalf("nas shows the snapshot, %v, as\n%swant\n%s", err, got, want)
	}
	for what, try := range map[string]func() error{
		"write":  func() error { return os.WriteFile(filepath.Join(there, "docs/thesis"), nil, 0o644) },
		"create": func() error { return os.WriteFile(filepath.Join(there, "docs/new"), nil, 0o644) },
		"mkdir":  func() error { return os.Mkdir(filepath.Join(there, "docs/new"), 0o755) },
		"unlink": func() error { return os.Remove(filepath.Join(there, "docs/thesis")) },
		"rename": func() error { return os.Rename(filepath.Join(there, "docs/thesis"), filepath.Join(there, "x")) },
		"chmod":  func() error { return os.Chmod(filepath.Join(there, "docs/thesis"), 0o600) },
	} {
		if err := try(); !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s in a snapshot: %v", what, err)
		}
	}

	out, err := nas.Run(t.Context(), "versions", at(nas, "docs/thesis"))
	nas.check(err)
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 2 || !strings.HasSuffix(lines[0], "now") || !strings.HasSuffix(lines[1], filepath.Base(kept)) {
		t.Errorf("versions:\n%s", out)
	}
	for _, args := range [][]string{
		{"restore", at(nas, "docs/thesis")},
		{"restore", "roam:/docs/old@before the move"},
		{"restore", at(nas, "photos")},
		{"restore", "roam:/photos/1.jpg@before the move", "--to", "roam:/copies/of/1.jpg"},
	} {
		if talk, code := nas.try(args...); code != 0 {
			t.Fatalf("%v: code %d\n%s", args, code, talk)
		}
	}
	for _, d := range []*device{nas, laptop} {
		d.reads("docs/thesis", draft)
		d.reads("docs/old/notes", []byte("notes"))
		d.reads("photos/1.jpg", photo)
		d.reads("copies/of/1.jpg", photo)
	}
	// What the restore replaced is to be had as well.
	if talk, code := laptop.try("restore", at(laptop, "docs/thesis"), "--to", at(laptop, "spoilt")); code != 0 {
		t.Fatalf("code %d\n%s", code, talk)
	}
	nas.reads("spoilt", []byte("spoilt"))
	for _, args := range [][]string{{"restore", "roam:/never"}, {"restore", "roam:/docs@2020"}, {"versions", "roam:/never"}} {
		if talk, code := laptop.try(args...); code != 3 {
			t.Errorf("%v: code %d\n%s", args, code, talk)
		}
	}
	sameRoot(nas, laptop)
}

// TestSnapshotOutlivesPressure: what only a snapshot needs, and only this device
// has, stays while its cache is filled again and again, and is copied to the
// archive when that comes.
func TestSnapshotOutlivesPressure(t *testing.T) {
	nas, laptop := pair(t, "--cache-size", "64MiB")
	nas.down()
	old := noise(3, 6<<20)
	write(t, filepath.Join(laptop.Mount, "film"), old)
	kept := laptop.snapshot("mine")
	if err := os.Remove(filepath.Join(laptop.Mount, "film")); err != nil {
		t.Fatal(err)
	}
	waste := filepath.Join(laptop.Mount, "waste")
	for i := range 12 { // 96 MiB go through what is left
		eventually(t, time.Minute, "there is room", func() error {
			if err := os.WriteFile(waste, noise(uint64(10+i), 8<<20), 0o644); err != nil {
				return err
			}
			f, err := os.OpenFile(waste, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			return errors.Join(f.Sync(), f.Close())
		})
		if _, err := laptop.Run(t.Context(), "versions", "roam:/waste"); err != nil { // which commits it
			t.Fatal(err)
		}
		if err := os.Remove(waste); err != nil {
			t.Fatal(err)
		}
	}
	if b := read(t, filepath.Join(kept, "film")); !bytes.Equal(b, old) {
		t.Fatal("the snapshot has other bytes")
	}
	nas.up()
	connected(nas, laptop)
	there := filepath.Join(nas.Mount, ".roam", "snapshots", filepath.Base(kept), "film")
	eventually(t, time.Minute, "nas has it", func() error { _, err := os.Stat(there); return err })
	eventually(t, time.Minute, "nas holds the old blocks", func() error {
		if s := nas.status(); s.Cache.Used < int64(len(old)) {
			return fmt.Errorf("it uses %d bytes", s.Cache.Used)
		}
		return nil
	})
	laptop.down()
	if b := read(t, there); !bytes.Equal(b, old) {
		t.Fatal("nas shows other bytes")
	}
	if talk, code := nas.try("restore", "roam:/film"); code != 0 {
		t.Fatalf("code %d\n%s", code, talk)
	}
	nas.reads("film", old)
}

// TestWhereVersionsAre: of each version it is told where it is, and of what only old
// versions need, that it is here only; that keeps no device from being shut down. Two
// names of one file come back as that.
func TestWhereVersionsAre(t *testing.T) {
	nas, laptop := pair(t, "--cache-size", "64MiB")
	film, small := filepath.Join(laptop.Mount, "d", "film"), filepath.Join(laptop.Mount, "d", "small")
	if err := os.Mkdir(filepath.Dir(film), 0o755); err != nil {
		t.Fatal(err)
	}
	nas.down()
	old := noise(7, 2<<20)
	write(t, film, old)
	write(t, small, []byte("small"))
	if err := os.Link(film, filepath.Join(laptop.Mount, "d", "second")); err != nil {
		t.Fatal(err)
	}
	laptop.snapshot("mine")
	write(t, film, []byte("new"))
	write(t, small, []byte("new"))

	type version struct {
		Current    bool
		State      string
		LocalBytes int64 `json:"local_bytes"`
		Copies     int
	}
	versions := func(d *device, name string) (out []version) {
		t.Helper()
		text, err := d.Run(t.Context(), "versions", "roam:/d/"+name, "--json")
		d.check(err)
		for line := range strings.Lines(text) {
			var v version
			d.check(json.Unmarshal([]byte(line), &v))
			out = append(out, v)
		}
		return out
	}
	status := func() (out struct {
		History struct {
			OnlyHere int64 `json:"only_here_bytes"`
			Complete bool
		}
		Safe bool `json:"safe_to_stop"`
	},
	) {
		t.Helper()
		text, err := laptop.Run(t.Context(), "status", "--json")
		laptop.check(err)
		laptop.check(json.Unmarshal([]byte(text), &out))
		return out
	}
	for name, size := range map[string]int64{"film": 2 << 20, "small": 5} {
		want := version{State: "here", LocalBytes: size, Copies: 1}
		if got := versions(laptop, name); len(got) != 2 || got[1] != want || !got[0].Current || got[0].Copies != 1 {
			t.Errorf("versions of %s with nas away: %+v", name, got)
		}
	}
	eventually(t, time.Minute, "the old version is counted", func() error {
		if s := status(); s.History.OnlyHere < 2<<20 || !s.History.Complete {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})

	nas.up()
	connected(nas, laptop)
	for name, size := range map[string]int64{"film": 2 << 20, "small": 5} {
		for _, d := range []*device{laptop, nas} {
			want := version{State: "here", LocalBytes: size, Copies: 2}
			eventually(t, time.Minute, "the old version of "+name+" has two copies", func() error {
				if got := versions(d, name); len(got) != 2 || got[1] != want {
					return fmt.Errorf("%s: %+v", d.Name, got)
				}
				return nil
			})
		}
	}
	eventually(t, time.Minute, "nothing is here only", func() error {
		if s := status(); s.History.OnlyHere != 0 || !s.Safe {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})

	if err := os.RemoveAll(filepath.Dir(film)); err != nil {
		t.Fatal(err)
	}
	if talk, code := nas.try("restore", "roam:/d@mine"); code != 0 {
		t.Fatalf("code %d\n%s", code, talk)
	}
	nas.reads("d/film", old)
	sameTree(nas, laptop)
	a, err := os.Stat(film)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.Stat(filepath.Join(laptop.Mount, "d", "second"))
	if err != nil || !os.SameFile(a, b) || a.Sys().(*syscall.Stat_t).Nlink != 2 {
		t.Errorf("two names of one file came back as two files: %v", err)
	}
}
