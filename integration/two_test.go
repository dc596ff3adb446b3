package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/roamfs/roamfs/integration/cli"
)

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// noise returns n bytes that do not compress, the same for one seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 7})
	_, _ = src.Read(b) // never fails
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// reads waits until the file has the content.
func (d *device) reads(name string, want []byte) {
	d.t.Helper()
	eventually(d.t, time.Minute, name+" on "+d.Name, func() error {
		got, err := os.ReadFile(filepath.Join(d.Mount, name))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%d bytes, want %d", len(got), len(want))
		}
		return nil
	})
}

// TestDemo runs what the README promises.
func TestDemo(t *testing.T) {
	needMount(t)
	if testing.Short() {
		t.Skip("the demo copies 200 MB; make demo runs it")
	}
	out, err := exec.CommandContext(t.Context(), "go", "run", "../examples/demo", "-roam", roam).CombinedOutput()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
}

// TestEveryOperationTravels does each operation on one device and sees it on
// the other, in both directions.
func TestEveryOperationTravels(t *testing.T) {
	nas, laptop := pair(t)
	for _, way := range []struct{ from, to *device }{{nas, laptop}, {laptop, nas}} {
		dir := "from " + way.from.Name
		in := func(name string) string { return filepath.Join(way.from.Mount, dir, name) }
		steps := []struct {
			what string
			do   func() error
		}{
			{"mkdir", func() error { return os.Mkdir(in(""), 0o750) }},
			{"create", func() error { return os.WriteFile(in("a"), noise(1, 300_000), 0o640) }},
			{"a big file", func() error { return os.WriteFile(in("big"), noise(2, 5<<20), 0o644) }},
			{"an empty file", func() error { return os.WriteFile(in("empty"), nil, 0o600) }},
			{"rename", func() error { return os.Rename(in("a"), in("b")) }},
			{"symlink", func() error { return os.Symlink("b", in("s")) }},
			{"hard link", func() error { return os.Link(in("b"), in("h")) }},
			{"chmod", func() error { return os.Chmod(in("b"), 0o755) }},
			{"mtime", func() error { return os.Chtimes(in("b"), time.Time{}, time.Unix(1234567890, 123456789)) }},
			{"xattr", func() error { return syscall.Setxattr(in("b"), "user.colour", []byte("blue"), 0) }},
			{"overwrite in the middle", func() error {
				f, err := os.OpenFile(in("big"), os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				_, err = f.WriteAt([]byte("changed"), 2_000_000)
				return errors.Join(err, f.Close())
			}},
			{"truncate", func() error { return os.Truncate(in("h"), 100_000) }},
			{"subfolder", func() error { return os.MkdirAll(in("x/y/z"), 0o755) }},
			{"file in it", func() error { return os.WriteFile(in("x/y/z/deep"), []byte("deep"), 0o644) }},
			{"rename the folder", func() error { return os.Rename(in("x"), in("moved")) }},
			{"rename over a file", func() error {
				return errors.Join(os.WriteFile(in("new"), []byte("new"), 0o644), os.Rename(in("new"), in("empty")))
			}},
			{"delete", func() error { return os.Remove(in("s")) }},
			{"delete a folder", func() error { return os.RemoveAll(in("moved/y/z")) }},
		}
		for _, s := range steps {
			if err := s.do(); err != nil {
				t.Fatalf("%s on %s: %v", s.what, way.from.Name, err)
			}
			sameTree(way.from, way.to)
			if t.Failed() {
				t.Fatalf("after %s on %s", s.what, way.from.Name)
			}
		}
		var buf [16]byte
		n, err := syscall.Getxattr(filepath.Join(way.to.Mount, dir, "b"), "user.colour", buf[:])
		if err != nil || string(buf[:n]) != "blue" {
			t.Fatalf("xattr on %s: %q, %v", way.to.Name, buf[:max(n, 0)], err)
		}
		var one, two syscall.Stat_t
		if err := errors.Join(syscall.Stat(filepath.Join(way.to.Mount, dir, "b"), &one), syscall.Stat(filepath.Join(way.to.Mount, dir, "h"), &two)); err != nil {
			t.Fatal(err)
		}
		if one.Ino != two.Ino || one.Nlink != 2 {
			t.Fatalf("hard link on %s: inodes %d and %d, %d links", way.to.Name, one.Ino, two.Ino, one.Nlink)
		}
	}
}

// TestOddNames checks names and sizes at the bounds.
func TestOddNames(t *testing.T) {
	nas, laptop := pair(t)
	names := []string{
		strings.Repeat("n", 255), "\x01\xff\xfe odd", " ", "ä\u0308 é", "-rf", "a\nb", "`$(x)`", "CON", ".hidden", "x (conflict y 2026-01-01 abcdef).txt",
	}
	for i, n := range names {
		write(t, filepath.Join(nas.Mount, n), noise(uint64(i), i*1000))
	}
	deep := nas.Mount
	for len(deep)-len(nas.Mount) < 3600 {
		deep = filepath.Join(deep, strings.Repeat("d", 200))
	}
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(deep, "end"), []byte("of a long path"))
	sparse := filepath.Join(nas.Mount, "sparse")
	f, err := os.Create(sparse)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("end"), 5<<30)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the sparse file", func() error {
		g, err := os.Open(filepath.Join(laptop.Mount, "sparse"))
		if err != nil {
			return err
		}
		defer g.Close()
		info, err := g.Stat()
		if err != nil {
			return err
		}
		var b [5]byte
		if _, err := g.ReadAt(b[:], 5<<30-2); err != nil && err != io.EOF {
			return err
		}
		if info.Size() != 5<<30+3 || string(b[:]) != "\x00\x00end" {
			return fmt.Errorf("%d bytes, ends with %q", info.Size(), b)
		}
		return nil
	})
	if err := os.Remove(sparse); err != nil { // 5 GB of zeros need not be compared
		t.Fatal(err)
	}
	sameTree(nas, laptop)
	if err := os.WriteFile(filepath.Join(nas.Mount, strings.Repeat("n", 256)), nil, 0o644); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Fatalf("a name of 256 bytes: %v", err)
	}
}

// TestStreamLargerThanCache reads a file of three times the laptop's bound
// while du is watched all the time.
func TestStreamLargerThanCache(t *testing.T) {
	const limit = 64 << 20
	nas, laptop := pair(t, "--cache-size", "64MiB")
	want := noise(3, 3*limit)
	write(t, filepath.Join(nas.Mount, "film"), want)
	eventually(t, time.Minute, "the film is on the laptop", func() error {
		info, err := os.Stat(filepath.Join(laptop.Mount, "film"))
		if err == nil && info.Size() != int64(len(want)) {
			return fmt.Errorf("%d bytes", info.Size())
		}
		return err
	})
	sameRoot(nas, laptop)
	stop := watchUse(t, laptop, limit)
	for range 2 {
		if got := read(t, filepath.Join(laptop.Mount, "film")); !bytes.Equal(got, want) {
			t.Fatal("the film is not the same")
		}
	}
	stop()
	if s := laptop.status(); s.Cache.Limit != limit || s.Cache.Used > limit {
		t.Fatalf("status: %d of %d bytes used", s.Cache.Used, s.Cache.Limit)
	}
}

// watchUse samples the disk use of a device's state directory until stop is
// called, and fails the test if it was ever above the limit.
func watchUse(t *testing.T, d *device, limit int64) (stop func()) {
	t.Helper()
	type use struct {
		most int64
		err  error
	}
	end, seen := make(chan struct{}), make(chan use, 1)
	go func() {
		var u use
		for {
			n, err := cli.DiskUse(d.State)
			u = use{max(u.most, n), errors.Join(u.err, err)}
			select {
			case <-end:
				seen <- u
				return
			case <-t.Context().Done(): // the test has failed
				return
			default:
			}
		}
	}()
	return func() {
		t.Helper()
		close(end)
		switch u := <-seen; {
		case u.err != nil:
			t.Error(u.err)
		case u.most > limit:
			t.Errorf("%s used %d bytes of disk, its limit is %d", d.Name, u.most, limit)
		default:
			t.Logf("%s used at most %.1f MiB of %d", d.Name, float64(u.most)/(1<<20), limit>>20)
		}
	}
}

// TestSecondDaemonIsRefused starts a second process on one state directory.
func TestSecondDaemonIsRefused(t *testing.T) {
	needMount(t)
	d := newDevice(t, "solo")
	d.init()
	d.up()
	talk, code := d.try("serve")
	if code != 1 || !strings.Contains(talk, fmt.Sprint(d.status().PID)) {
		t.Fatalf("exit code %d, %q", code, talk)
	}
	write(t, filepath.Join(d.Mount, "f"), []byte("still works"))
}

// TestCorruptBlock damages every block file on the laptop: readers get the right
// bytes all the same, fetched again.
func TestCorruptBlock(t *testing.T) {
	nas, laptop := pair(t)
	want := map[string][]byte{"small": noise(4, 10_000), "large": noise(5, 3<<20)}
	for n, b := range want {
		write(t, filepath.Join(nas.Mount, n), b)
	}
	for n, b := range want {
		laptop.reads(n, b)
	}
	laptop.down()
	damaged := 0
	err := filepath.WalkDir(filepath.Join(laptop.State, "blocks"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			return err
		}
		for i := len(b) / 2; i < len(b); i += 4096 {
			b[i] ^= 1
		}
		damaged++
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil || damaged == 0 {
		t.Fatalf("%d files damaged, %v", damaged, err)
	}
	laptop.up()
	connected(nas, laptop)
	for n, b := range want {
		if got := read(t, filepath.Join(laptop.Mount, n)); !bytes.Equal(got, b) {
			t.Fatalf("%s is damaged for its reader", n)
		}
	}
}

// TestKillDuringWrites kills the device while files are written: everything
// that was synced or closed before is there, whole.
func TestKillDuringWrites(t *testing.T) {
	needMount(t)
	d := newDevice(t, "solo")
	d.init()
	rounds := 6
	if testing.Short() {
		rounds = 3
	}
	acknowledged := map[string][]byte{}
	for round := range rounds {
		d.up()
		for n, want := range acknowledged {
			if got := read(t, filepath.Join(d.Mount, n)); !bytes.Equal(got, want) {
				t.Fatalf("round %d: %s has %d bytes, want %d", round, n, len(got), len(want))
			}
		}
		type ack struct {
			name string
			data []byte
		}
		acks := make(chan ack, 10_000)
		ended := make(chan struct{})
		go func() { // writes until the mount dies
			defer close(ended)
			rnd := rand.New(rand.NewPCG(uint64(round), 9))
			for i := 0; ; i++ {
				a := ack{fmt.Sprintf("r%d-%d", round, i), noise(uint64(round*1000+i), rnd.IntN(200_000))}
				if i%3 == 2 { // the way editors save
					a.name = fmt.Sprintf("saved-%d", i%5)
				}
				tmp := filepath.Join(d.Mount, "tmp")
				f, err := os.Create(tmp)
				if err != nil {
					return
				}
				_, err = f.Write(a.data)
				if i%2 == 0 && err == nil {
					err = f.Sync()
				}
				if errors.Join(err, f.Close()) != nil || os.Rename(tmp, filepath.Join(d.Mount, a.name)) != nil {
					return
				}
				acks <- a
			}
		}()
		var seen []ack
		for len(seen) < 20+7*round {
			seen = append(seen, <-acks)
		}
		d.kill()
		<-ended
		close(acks)
		for a := range acks {
			seen = append(seen, a)
		}
		for _, a := range seen {
			acknowledged[a.name] = a.data
		}
		// A save that was under way may have replaced its target just before the kill.
		delete(acknowledged, "tmp")
		if n := len(seen); n > 0 {
			for i := range 5 {
				name := fmt.Sprintf("saved-%d", i)
				if _, ok := acknowledged[name]; ok && strings.HasPrefix(nextName(round, n), name) {
					delete(acknowledged, name)
				}
			}
		}
	}
	if len(acknowledged) < 60 {
		t.Fatalf("only %d writes were acknowledged", len(acknowledged))
	}
}

// nextName is the name that the writer of a round uses for its n-th file.
func nextName(round, n int) string {
	if n%3 == 2 {
		return fmt.Sprintf("saved-%d", n%5)
	}
	return fmt.Sprintf("r%d-%d", round, n)
}

// TestWhereisAndStatus checks what the two verbs say against what is true.
func TestWhereisAndStatus(t *testing.T) {
	nas, laptop := pair(t)
	write(t, filepath.Join(laptop.Mount, "letter"), noise(6, 100_000))
	sameRoot(nas, laptop)
	laptop.copied()
	for _, path := range []string{filepath.Join(laptop.Mount, "letter"), "roam:/letter"} {
		w, err := laptop.Whereis(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if w.Copies != 2 || len(w.Holders) != 2 {
			t.Fatalf("whereis %s: %+v", path, w)
		}
	}
	if _, code := laptop.try("whereis", "roam:/nothing"); code != 3 {
		t.Fatalf("whereis of nothing exits with %d", code)
	}
	if s := laptop.status(); !s.Safe || s.Cache.OnlyHere != 0 {
		t.Fatalf("status: %+v", s)
	}
}
