package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMassDamage has one device remove most of the tree through its mount. The
// other one holds that back, and brings the files back with their content, or lets them go.
func TestMassDamage(t *testing.T) {
	nas, laptop := pair(t)
	const files = 1200
	content := func(i int) []byte { return []byte(strings.Repeat(fmt.Sprint("photo ", i, " "), 50)) }
	name := func(i int) string { return filepath.Join("photos", fmt.Sprint(i%10), fmt.Sprintf("%04d.jpg", i)) }
	for i := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(nas.Mount, name(i))), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(nas.Mount, name(i)), content(i))
	}
	sameTree(nas, laptop)
	before, err := listing(nas.Mount)
	if err != nil {
		t.Fatal(err)
	}
	held := func() {
		t.Helper()
		eventually(t, time.Minute, "it is held back", func() error {
			out, err := nas.Run(t.Context(), "status", "--json")
			if err != nil || !strings.Contains(out, `"removes":1`) {
				return errors.Join(err, errors.New(out))
			}
			return nil
		})
		if _, err := os.Stat(filepath.Join(laptop.Mount, "photos")); !os.IsNotExist(err) {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "all of it is here", func() error {
			if out, err := nas.Run(t.Context(), "pending"); err != nil || !strings.Contains(out, "laptop removes 1211 files") {
				return errors.Join(err, errors.New(out))
			}
			return nil
		})
	}

	if err := os.RemoveAll(filepath.Join(laptop.Mount, "photos")); err != nil {
		t.Fatal(err)
	}
	held()
	if out, code := nas.try("reject", "laptop"); code != 0 {
		t.Fatalf("reject: code %d: %s", code, out)
	}
	sameTree(nas, laptop)
	if after, err := listing(laptop.Mount); err != nil || after != before {
		t.Fatalf("%v, after the reject\n%.2000s\nbefore\n%.2000s", err, after, before)
	}

	if err := os.RemoveAll(filepath.Join(laptop.Mount, "photos")); err != nil {
		t.Fatal(err)
	}
	held()
	if out, code := nas.try("accept", "all"); code != 0 {
		t.Fatalf("accept: code %d: %s", code, out)
	}
	sameTree(nas, laptop)
	if _, err := os.Stat(filepath.Join(nas.Mount, "photos")); !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if out, code := nas.try("accept", "laptop"); code != 3 {
		t.Fatalf("accept of nothing: code %d: %s", code, out)
	}
}

// TestWorkIsNoDamage has one device do what people do to thousands of files, in a clone
// that the other one made, so that nothing in it counts as the first one's own: the
// checkout of other branches, a repack, an import of photos and the move of a big folder are
// not held back. The encryption of all that is.
func TestWorkIsNoDamage(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		missing(t, "%v", err)
	}
	nas, laptop := pair(t)
	git := func(d *device, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{
			"-C", filepath.Join(d.Mount, "repo"),
			"-c", "user.name=u", "-c", "user.email=u@example.org", "-c", "gc.auto=0", "-c", "core.untrackedCache=false",
		}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args, err, out)
		}
	}
	const files = 2400
	name := func(i int) string { return filepath.Join("repo", fmt.Sprint("src", i%10), fmt.Sprintf("%04d.go", i)) }
	if err := os.Mkdir(filepath.Join(nas.Mount, "repo"), 0o755); err != nil {
		t.Fatal(err)
	}
	git(nas, "init", "-q", "-b", "main")
	write(t, filepath.Join(nas.Mount, "repo", "README"), []byte("read me"))
	git(nas, "add", "-A")
	git(nas, "commit", "-q", "-m", "empty")
	git(nas, "branch", "empty")
	for _, branch := range []string{"other", "main"} {
		git(nas, "checkout", "-q", "-B", branch, "empty")
		for i := range files {
			p := filepath.Join(nas.Mount, name(i))
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, p, fmt.Appendf(nil, "%s %d", branch, i))
		}
		git(nas, "add", "-A")
		git(nas, "commit", "-q", "-m", branch)
	}
	holds := 0
	calm := func(after string) {
		t.Helper()
		sameTree(nas, laptop)
		if n := strings.Count(nas.logged(), "takes away much"); n != holds {
			t.Fatalf("%s: held back %d times, not %d", after, n, holds)
		}
	}
	calm("the first of it")

	git(laptop, "checkout", "-q", "other")
	calm("a checkout that rewrites all")
	git(laptop, "checkout", "-q", "empty")
	calm("a checkout that removes all")
	git(laptop, "checkout", "-q", "main")
	calm("a checkout that brings all back")

	for i := range files / 2 {
		p := filepath.Join(laptop.Mount, "photos", fmt.Sprintf("%04d.jpg", i))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, p, fmt.Append(nil, "photo", i))
	}
	calm("an import of photos")
	if err := os.Rename(filepath.Join(laptop.Mount, "repo"), filepath.Join(laptop.Mount, "moved")); err != nil {
		t.Fatal(err)
	}
	calm("the move of a big folder")
	if err := os.Rename(filepath.Join(laptop.Mount, "moved"), filepath.Join(laptop.Mount, "repo")); err != nil {
		t.Fatal(err)
	}
	calm("the move back")

	if err := filepath.WalkDir(filepath.Join(laptop.Mount, "repo"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, []byte("ransom"), 0o600)
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the encryption is held back", func() error {
		out, err := nas.Run(t.Context(), "pending")
		if err != nil || !strings.Contains(out, "laptop rewrites") {
			return errors.Join(err, errors.New(out))
		}
		return nil
	})
	holds++

	// What the reject brings back is a sound repository, which may be repacked. To the
	// laptop it is much that the nas rewrites, so that it asks in turn.
	eventually(t, time.Minute, "all is brought back", func() error {
		if out, code := nas.try("reject", "laptop"); code != 0 && code != 3 {
			return errors.New(out)
		}
		if out, code := laptop.try("accept", "nas"); code != 0 && code != 3 {
			return errors.New(out)
		}
		return oneRoot([]*device{nas, laptop})
	})
	git(laptop, "fsck", "--no-progress")
	git(laptop, "gc", "-q", "--prune=now")
	calm("a repack")
	git(nas, "fsck", "--no-progress")
}
