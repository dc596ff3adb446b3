package mount

import (
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/roamfs/roamfs/sync/tree"
)

func TestInodeNumbers(t *testing.T) {
	if n := number(tree.Root); n != 1 {
		t.Errorf("root has number %d, want 1", n)
	}
	seen := map[uint64]tree.Ino{}
	for i := range 100_000 {
		var ino tree.Ino
		ino[i%24], ino[(i/24)%24], ino[23] = byte(i), byte(i>>8), byte(i>>16)+1
		if ino == tree.Root {
			continue
		}
		n := number(ino)
		if n <= 1 || n&virtualBit != 0 {
			t.Fatalf("%v has the reserved number %#x", ino, n)
		}
		if old, ok := seen[n]; ok && old != ino {
			t.Fatalf("%v and %v share number %#x", old, ino, n)
		}
		seen[n] = ino
	}
	// Scripts and backup programs keep these over restarts.
	if n := number(tree.Ino{1, 2, 3}); n != 0x4433c0ffbf5659cb {
		t.Errorf("number of 010203… is %#x: the function has changed", n)
	}
}

func TestSignals(t *testing.T) {
	const text = "Name:\tcat\nSigQ:\t0/95952\nSigPnd:\t0000000000000002\nShdPnd:\t0000000000400000\nSigBlk:\t0000000000000004\n"
	pending, blocked, ok := signals([]byte(text))
	if !ok || pending != 1<<(syscall.SIGINT-1)|1<<(syscall.SIGURG-1) || blocked != 1<<(syscall.SIGQUIT-1) {
		t.Errorf("signals = %#x, %#x, %v", pending, blocked, ok)
	}
	for _, text := range []string{"", "SigPnd:\t0\n", "SigPnd:\tx\nShdPnd:\t0\nSigBlk:\t0\n"} {
		if _, _, ok := signals([]byte(text)); ok {
			t.Errorf("signals(%q) is ok", text)
		}
	}
	if signalled(uint32(os.Getpid())) {
		t.Error("this process has a signal pending")
	}
	if !signalled(0) {
		t.Error("a thread that cannot be seen is thought not to be interrupted")
	}
}

func TestParseMount(t *testing.T) {
	for _, c := range []struct{ line, at, fstype string }{
		{`22 1 254:0 / / rw shared:1 - ext4 /dev/root rw`, "/", "ext4"},
		{`99 22 0:52 / /home/a\040b\134c rw,nosuid - fuse.roamfs roam rw,user_id=0`, `/home/a b\c`, "fuse.roamfs"},
		{`99 22 0:52 / /x rw`, "", ""},
		{``, "", ""},
	} {
		at, fstype, _ := parseMount(c.line)
		if at != c.at || fstype != c.fstype {
			t.Errorf("parseMount(%q) = %q, %q, want %q, %q", c.line, at, fstype, c.at, c.fstype)
		}
	}
}

func TestDirTimes(t *testing.T) {
	var d dirTimes
	a := tree.Ino{1}
	if _, ok := d.get(a); ok {
		t.Error("a time is known for a directory that never changed")
	}
	last := time.Now().UnixNano()
	for range 1000 {
		d.touch(a)
		if got, ok := d.get(a); !ok || got <= last {
			t.Fatalf("time went from %d to %d", last, got)
		} else {
			last = got
		}
	}
	for i := range 3 * mostTimes {
		var ino tree.Ino
		copy(ino[8:], strconv.Itoa(i))
		d.touch(ino)
	}
	if len(d.at) > mostTimes {
		t.Errorf("%d times are kept, more than %d", len(d.at), mostTimes)
	}
}

func TestNanos(t *testing.T) {
	for _, sec := range []int64{0, -1, 1 << 40, -1 << 40, 1 << 33} {
		got := nanos(time.Unix(sec, 5))
		if sec > -1<<34 && sec < 1<<33 && got != sec*1e9+5 {
			t.Errorf("nanos(%d s) = %d", sec, got)
		}
		var s uint64
		var ns uint32
		setTime(&s, &ns, got)
		if ns >= 1e9 || (int64(s) < 0) != (sec < 0) {
			t.Errorf("%d s come back as %d s %d ns", sec, int64(s), ns)
		}
	}
}
