package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/roamfs/roamfs/sync/block"
)

// golden compares got with a file in testdata, or rewrites that with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fullStatus has something in every field.
func fullStatus() Status {
	seen, rtt := noon.Add(-3*24*time.Hour), 1.25
	return Status{
		Device: DeviceInfo{"id-1", "laptop", RoleCache},
		Hive:   HiveInfo{"hive-1"},
		Root:   "c0ffee",
		Mounts: []string{"/home/u/Roam"},
		Cache:  CacheStatus{LimitBytes: 20 << 30, UsedBytes: 5 << 29, OnlyHereBytes: 12 << 20, PinnedBytes: 1 << 20, Blocks: 4711},
		Peers: []PeerStatus{
			{DeviceInfo: DeviceInfo{"id-3", "desktop", RoleCache}, LastSeen: &seen},
			{DeviceInfo: DeviceInfo{"id-2", "nas", RoleArchive}, Connected: true, LastSeen: &seen, RTT: &rtt, Path: "lan tcp", Problem: "phone made two different changes"},
			{DeviceInfo: DeviceInfo{"id-4", "phone", RoleCache}},
		},
		History:       HistoryStatus{OnlyHereBytes: 3 << 20, Complete: true, AsOf: &noon},
		WaitingToCopy: Amount{Files: 2, Bytes: 12 << 20},
		Pending: []Pending{{
			Device: DeviceRef{"id-3", "desktop"}, Removes: 1500, Rewrites: 2, Since: time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC),
			Paths: []Path{{Path: "/photos/1.jpg"}},
		}},
		Conflicts:     1,
		UnsafeBecause: []string{"2 files (12 MiB) exist only here", "1 file is being written"},
		Unavailable:   []Unavailable{{Path: "/films/\xff.mkv", Holders: []DeviceRef{{"id-3", "desktop"}}, At: noon.Add(-time.Minute)}},
		PID:           4242,
	}
}

func TestStatusText(t *testing.T) {
	var b bytes.Buffer
	if err := writeStatus(&b, fullStatus(), true, noon); err != nil {
		t.Fatal(err)
	}
	golden(t, "status.txt", b.Bytes())
	b.Reset()
	calm := Status{Device: DeviceInfo{"id-1", "nas", RoleArchive}, SafeToStop: true, PID: 1}
	if err := writeStatus(&b, calm, false, noon); err != nil {
		t.Fatal(err)
	}
	golden(t, "status-calm.txt", b.Bytes())
}

// TestStatusJSON fixes the fields of status: they are a contract.
func TestStatusJSON(t *testing.T) {
	var b bytes.Buffer
	p := &program{streams: streams{out: &b}}
	full := fullStatus()
	if err := errors.Join(p.print(&full), p.print(&Status{})); err != nil {
		t.Fatal(err)
	}
	golden(t, "status.json", b.Bytes())
}

func TestExitCode(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{context.Canceled, 1},
		{usage("x"), 2},
		{fmt.Errorf("ls: %w", fs.ErrNotExist), 3},
		{fmt.Errorf("read: %w", &block.UnavailableError{Err: errors.New("x")}), 4},
		{ErrExpired, 4},
		{failure(CodeRefused, "", "x"), 5},
		{fmt.Errorf("a: %w", &block.MismatchError{}), 6},
		{fmt.Errorf("a: %w", failure(CodeNotRunning, "", "x")), 7},
		{errors.Join(errors.New("a"), failure(CodeConflict, "", "x")), 8},
	} {
		if got := ExitCode(test.err); got != test.want {
			t.Errorf("ExitCode(%v) = %d, want %d", test.err, got, test.want)
		}
		if test.err == nil {
			continue
		}
		if got := ExitCode(newAPIError(test.err).err()); got != test.want {
			t.Errorf("over the socket %v became code %d", test.err, got)
		}
	}
}

func TestProgressText(t *testing.T) {
	for _, test := range []struct {
		p    Progress
		d    time.Duration
		want string
	}{
		{Progress{Stage: "pairing"}, time.Minute, "pairing"},
		{Progress{Stage: "reading", Done: 1 << 20}, 0, "reading: 1 MiB"},
		{Progress{Stage: "reading", Total: 1 << 20}, time.Minute, "reading: 0 B of 1 MiB"},
		{Progress{Stage: "reading", Done: 1 << 20, Total: 3 << 20}, 2 * time.Second, "reading: 1 MiB of 3 MiB, 512 KiB/s, 4s left"},
	} {
		if got := test.p.text(test.d); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "just now", 0: "just now", 90 * time.Second: "90 seconds ago", time.Hour: "60 minutes ago", 5 * time.Hour: "5 hours ago", 72 * time.Hour: "3 days ago",
	} {
		if got := agoText(noon.Add(-d), noon); got != want {
			t.Errorf("%v ago is %q, want %q", d, got, want)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"192.168.1.5:4001":     "[/ip4/192.168.1.5/tcp/4001 /ip4/192.168.1.5/udp/4001/quic-v1]",
		"[::1]:1":              "[/ip6/::1/tcp/1 /ip6/::1/udp/1/quic-v1]",
		"nas.local:4001":       "[/dns/nas.local/tcp/4001 /dns/nas.local/udp/4001/quic-v1]",
		"/ip4/10.0.0.1/tcp/22": "[/ip4/10.0.0.1/tcp/22]",
		"nas":                  "", "nas:0": "", "nas:http": "", "/nas": "", ":1": "", "a/b:1": "", "": "",
	} {
		got, err := parseAddress(in)
		if want == "" && err == nil || want != "" && fmt.Sprint(got) != want {
			t.Errorf("parseAddress(%q) = %v, %v, want %s", in, got, err, want)
		}
	}
}
