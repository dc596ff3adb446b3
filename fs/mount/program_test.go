package mount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// programs are what people run in the mount. Each is a shell script; $D is a
// directory in the mount, $S one on the disk with a small tree of all sorts.
var programs = []struct{ name, needs, script string }{
	{"cp -a", "", `
		cp -a "$S" "$D/copy"
		diff -r -x fifo --no-dereference "$S" "$D/copy"
		cp -a "$D/copy" "$D/copy2"; diff -r -x fifo --no-dereference "$S" "$D/copy2"
		cp -a "$D/copy" "$T/back"; diff -r -x fifo --no-dereference "$S" "$T/back"
		list() { (cd "$1" && find . -printf '%p %y %m %T@ %l %n\n' | grep -v '^\. ' | sort); }
		list "$S" >"$T/a"; list "$D/copy" >"$T/b"; cmp "$T/a" "$T/b"
		[ "$(getfattr --only-values -n user.note "$D/copy/file")" = "a note" ]
		[ "$(stat -c %i "$D/copy/file")" = "$(stat -c %i "$D/copy/hardlink")" ]`},
	{"rsync -a", "rsync", `
		rsync -aHX "$S/" "$D/r/"
		[ -z "$(rsync -aHXin --checksum "$S/" "$D/r/")" ] || { rsync -aHXin --checksum "$S/" "$D/r/"; exit 1; }
		echo more >>"$S/file"; rsync -aHX --inplace "$S/" "$D/r/"; diff "$S/file" "$D/r/file"
		rsync -a --delete "$S/sub/" "$D/r/"; diff -r "$S/sub" "$D/r"`},
	{"tar", "tar", `
		tar -C "$S" -cf "$D/a.tar" .
		mkdir "$D/x"; tar -C "$D/x" -xpf "$D/a.tar"; diff -r -x fifo --no-dereference "$S" "$D/x"
		tar -C "$D/x" --sparse -czf - . | tar -tzf - >/dev/null
		tar -C "$D/x" --compare -f "$D/a.tar"`},
	{"git", "git", `
		cd "$D"; git init -q -b main repo; cd repo
		git config user.email a@b; git config user.name n
		cp -a "$S/sub" "$S/file" .; for i in $(seq 100); do echo $i >f$i; done
		git add -A; git commit -qm one
		[ -z "$(git status --porcelain)" ]
		seq 1000 >f1; git mv f2 g2; rm f3; git add -A; git commit -qm two
		git checkout -q HEAD~1; git checkout -q main; git gc -q; git fsck --strict
		[ -z "$(git status --porcelain)" ]
		git clone -q . ../clone; cd ../clone; git fsck --strict; [ "$(git rev-parse HEAD)" = "$(git -C ../repo rev-parse HEAD)" ]
		git worktree add -q ../tree HEAD~1; git stash list; git branch x; git rebase -q HEAD~1`},
	{"sqlite WAL", "sqlite3", sqlite("wal")},
	{"sqlite DELETE", "sqlite3", sqlite("delete")},
	{"sed -i", "sed", `
		cp "$S/file" "$D/f"; sed -i 's/line/LINE/' "$D/f"; grep -q LINE "$D/f"; ! grep -q line "$D/f"
		[ "$(ls "$D")" = f ]`},
	{"vim", "vim", `
		printf 'one\ntwo\n' >"$D/f"
		HOME="$T" vim -u NONE -es -c 'set backup writebackup' -c '%s/one/three/' -c wq "$D/f" </dev/null
		[ "$(cat "$D/f")" = "$(printf 'three\ntwo')" ]`},
	{"find, grep, du, wc", "", `
		cp -a "$S" "$D/t"; echo needle >"$D/t/sub/deeper/needle"
		[ "$(cd "$D/t"; find . -type f | wc -l)" = "$(( $(cd "$S"; find . -type f | wc -l) + 1 ))" ]
		[ "$(grep -rl '^needle' "$D/t")" = "$D/t/sub/deeper/needle" ]
		[ "$(find "$D" -name .roam)" = "" ]
		find "$D" -newer "$S" -links 2 -print0 >/dev/null; du -s "$D" >/dev/null`},
	{"mv, ln, rm, mkfifo, install, dd, truncate", "", `
		cp -a "$S" "$D/a"; mv "$D/a" "$D/b"; mv "$D/b/file" "$D/b/sub/moved"; ln "$D/b/sub/moved" "$D/hard"
		ln -s "b/sub/moved" "$D/soft"; cmp "$D/soft" "$D/hard"; ln -sfn b "$D/soft"; [ -d "$D/soft/sub" ]
		mv -n "$D/hard" "$D/b/sub/moved" || true; mkfifo "$D/p"; (echo through >"$D/p" &); [ "$(cat "$D/p")" = through ]
		install -D -m 750 "$S/hardlink" "$D/i/j"; [ "$(stat -c %a "$D/i/j")" = 750 ]
		dd if=/dev/urandom of="$D/dd" bs=1M count=8 conv=fsync status=none; cp "$D/dd" "$T/dd"; cmp "$D/dd" "$T/dd"
		dd if="$T/dd" of="$D/dd" bs=4k count=1 seek=100 conv=notrunc oflag=direct,sync status=none
		truncate -s 100K "$D/dd"; [ "$(stat -c %s "$D/dd")" = 102400 ]
		rm -rf "$D/b" "$D/i" "$D"/*; [ -z "$(ls -A "$D")" ]`},
	{"sparse copies", "", `
		truncate -s 5G "$D/s"; printf data | dd of="$D/s" bs=1 seek=3G conv=notrunc status=none
		cp --sparse=auto "$D/s" "$T/s"; [ "$(du -k "$T/s" | cut -f1)" -lt 2000 ]
		[ "$(tail -c +$((3*1024*1024*1024+1)) "$T/s" | head -c 4)" = data ]
		tar -C "$D" --sparse -cf "$T/s.tar" s; [ "$(du -k "$T/s.tar" | cut -f1)" -lt 2000 ]
		fallocate -p -o 0 -l 1M "$D/s"; fallocate -l 6G "$D/s"; [ "$(stat -c %s "$D/s")" = $((6*1024*1024*1024)) ]`},
	{"fio with mmap and verify", "fio", `
		fio --name=v --directory="$D" --ioengine=mmap --rw=randrw --bs=4k --size=4M --verify=crc32c --verify_fatal=1 --output="$T/o" || { cat "$T/o"; exit 1; }
		fio --name=w --directory="$D" --ioengine=psync --rw=randwrite --bs=3k --size=4M --verify=crc32c --fsync=50 --verify_fatal=1 --output="$T/o" || { cat "$T/o"; exit 1; }`},
	{"a program in the mount", "", `
		cp /bin/true "$D/true"; "$D/true"; printf '#!/bin/sh\necho ran' >"$D/s"; chmod +x "$D/s"; [ "$("$D/s")" = ran ]`},
	{"flock", "flock", `
		touch "$D/l"; flock "$D/l" sh -c '! flock -n "$0" true' "$D/l"; flock -n "$D/l" true`},
}

func sqlite(journal string) string {
	return strings.ReplaceAll(`
		q() { sqlite3 -bail "$D/db" "$@"; }
		[ "$(q 'PRAGMA journal_mode=JOURNAL')" = "JOURNAL" ]
		q 'CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)'
		for i in 1 2 3 4; do (for j in $(seq 25); do q '.timeout 20000' "INSERT INTO t (v) VALUES (hex(randomblob(500)))" >/dev/null; done) & done; wait
		[ "$(q 'SELECT count(*) FROM t')" = 100 ]
		q 'BEGIN; UPDATE t SET v = v || v; ROLLBACK; DELETE FROM t WHERE id % 2; VACUUM'
		[ "$(q 'PRAGMA integrity_check')" = ok ]; [ "$(q 'SELECT count(*) FROM t')" = 50 ]`, "JOURNAL", journal)
}

const sample = `
	mkdir -p sub/deeper "odd names"; seq -f 'line %g' 2000 >file; ln file hardlink; ln -s file symlink; ln -s /nowhere/at/all dangling
	head -c 700000 /dev/urandom >sub/large; : >sub/empty; echo hi >"odd names/ü $(printf '\001\377')"; mkfifo fifo; chmod 640 file; chmod 711 sub
	setfattr -n user.note -v 'a note' file; touch -d '2001-02-03 04:05:06.789012345' file; touch -d '1999-01-01' sub/empty; touch -h -d '2005-05-05' symlink
	touch -d '2003-03-03 03:03:03.333333333' sub/deeper; touch -d '2004-04-04' sub "odd names"`

func TestPrograms(t *testing.T) {
	r := newRig(t)
	for i, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			if _, err := exec.LookPath(p.needs); p.needs != "" && err != nil {
				missing(t, err)
			}
			d, s, tmp := r.path(fmt.Sprint(i)), t.TempDir(), t.TempDir()
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
			run := func(dir, script string) {
				cmd := exec.CommandContext(t.Context(), "bash", "-euc", script)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "D="+d, "S="+s, "T="+tmp, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "HOME="+tmp)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			run(s, sample)
			run("/", "set -x; umask 022; "+p.script)
			r.settled(t)
		})
	}
	if log := r.log.String(); strings.Contains(log, "level=ERROR") {
		t.Errorf("log of the mount:\n%s", log)
	}
}

func init() {
	// A file that is mapped shared by one program and read and written by
	// others: all see the same.
	children["mmap"] = func() {
		path := os.Args[1]
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		check(err)
		m, err := unix.Mmap(int(f.Fd()), 0, 16384, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		check(err)
		if m[5000] != 'x' {
			check(fmt.Errorf("mapped byte is %q", m[5000]))
		}
		copy(m[5000:], "stored")
		got := make([]byte, 6)
		_, err = f.ReadAt(got, 5000)
		check(err)
		if string(got) != "stored" {
			check(fmt.Errorf("read %q after a store", got))
		}
		_, err = f.WriteAt([]byte("written"), 9000)
		check(err)
		if string(m[9000:9007]) != "written" {
			check(fmt.Errorf("mapped %q after a write", m[9000:9007]))
		}
		check(unix.Msync(m, unix.MS_SYNC))
		other, err := os.ReadFile(path)
		check(err)
		if !bytes.Equal(other, m) {
			check(fmt.Errorf("another descriptor reads something else"))
		}
		copy(m[100:], "last")
		check(unix.Munmap(m))
		check(f.Close())
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // a program of its own
	}
}

func TestSharedMapping(t *testing.T) {
	r := newRig(t)
	write(t, r.path("f"), strings.Repeat("x", 16384))
	r.settled(t)
	if out, err := child(t, "mmap", r.path("f")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := bytes.Repeat([]byte("x"), 16384)
	copy(want[5000:], "stored")
	copy(want[9000:], "written")
	copy(want[100:], "last")
	r.settled(t)
	wantFile(t, r.path("f"), string(want))
}

// TestOtherUsers: what others may do follows from mode and local owner, and
// content that an ordinary user changes loses suid and sgid.
func TestOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, errors.New("needs root to become another user"))
	}
	r := newRig(t, func(o *Options) { o.AllowOther = true })
	if err := os.Chmod(filepath.Dir(filepath.Dir(r.dir)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(r.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(r.dir, 0o1777); err != nil {
		t.Fatal(err)
	}
	as := func(script string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
		cmd.Dir = r.dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	write(t, r.path("private"), "secret")
	if err := os.Chmod(r.path("private"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := as("cat private"); err == nil {
		t.Errorf("another user reads %q", out)
	}
	if out, err := as("rm -f private || mv private x"); err == nil {
		t.Errorf("another user removes a file from a sticky directory: %s", out)
	}
	if out, err := as("echo mine >own && mkdir dir && echo y >dir/f && chmod 700 dir && cat own"); err != nil || out != "mine\n" {
		t.Errorf("%v: %s", err, out)
	}
	for _, name := range []string{"own", "dir", "dir/f"} {
		if st := stat(t, r.path(name)); st.Uid != 1000 || st.Gid != 1000 {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
	for _, change := range []string{"echo more >>s", "truncate -s 3 s", ": >s", "fallocate -l 100 s"} {
		write(t, r.path("s"), "content")
		if err := unix.Chmod(r.path("s"), 0o6777); err != nil {
			t.Fatal(err)
		}
		if out, err := as(change); err != nil {
			t.Fatalf("%s: %v: %s", change, err, out)
		}
		if st := stat(t, r.path("s")); st.Mode&0o7777 != 0o777 {
			t.Errorf("mode is %o after %s", st.Mode&0o7777, change)
		}
	}
	write(t, r.path("s"), "content")
	for _, c := range []struct{ before, after uint32 }{{0o6755, 0o755}, {0o2644, 0o2644}, {0o4644, 0o644}} {
		if err := unix.Chmod(r.path("s"), c.before); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(r.path("s"), 1000, 1000); err != nil {
			t.Fatal(err)
		}
		if st := stat(t, r.path("s")); st.Mode&0o7777 != c.after {
			t.Errorf("mode is %o after chown of %o, want %o", st.Mode&0o7777, c.before, c.after)
		}
	}
	// A setgid directory passes its group on, and to directories the bit too.
	if err := os.Mkdir(r.path("g"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(r.path("g"), 0, 4242); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(r.path("g"), 0o2777); err != nil {
		t.Fatal(err)
	}
	if out, err := as("mkdir g/d; : >g/f"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if d, f := stat(t, r.path("g", "d")), stat(t, r.path("g", "f")); d.Gid != 4242 || f.Gid != 4242 || d.Mode&unix.S_ISGID == 0 || f.Mode&unix.S_ISGID != 0 {
		t.Errorf("groups %d and %d, modes %o and %o", d.Gid, f.Gid, d.Mode, f.Mode)
	}
}
