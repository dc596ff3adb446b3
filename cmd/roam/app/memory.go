package app

import (
	"context"
	"maps"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"time"
)

// How a daemon that has nothing to do gives memory back.
const (
	restTime  = time.Second // how often it is looked at
	restAlloc = 8 << 20     // bytes allocated in that time, up to which it rests; one that writes files: 75 MiB
	restWorth = 32 << 20    // bytes allocated since, from which on collecting is worth its 60 ms
	restLast  = 27          // ticks of rest after which it has all been given back

	// After so many ticks of rest the kernel is asked to forget inodes if it knows more
	// than so many, with what the mount keeps of them: 800 MiB after something went through
	// a million files. Not sooner, since programs may use what is cached without a word.
	restForget = 600
	restInodes = 100_000
)

// returnMemory gives memory back to the system whenever the daemon has come to
// rest, until ctx ends: at once, and again after 3, 9 and 27 seconds, since decoded content
// and what Badger keeps ready for its next table are let go one by one.
//
// Right after 20,000 files were written the daemon held 230 MiB of which 67 MiB
// were in use: the collector lets the heap grow to twice of what is in use, does
// not run again while nothing is allocated, and gives pages back slowly. A limit
// (debug.SetMemoryLimit) would bound it too, but a tree that needs more than the
// limit would keep the collector running.
func (d *live) returnMemory(ctx context.Context) error {
	allocs := metrics.Sample{Name: "/gc/heap/allocs:bytes"}
	read := func() uint64 {
		s := []metrics.Sample{allocs}
		metrics.Read(s)
		if s[0].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return s[0].Value.Uint64()
	}
	tick := time.NewTicker(restTime)
	defer tick.Stop()
	var last, returned uint64 // what had been allocated at the tick before, and when memory was given back
	var resting int           // ticks
	next := 0                 // tick of rest at which to give back again
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now := read()
		resting++
		if now-last > restAlloc {
			resting = 0
		}
		last = now
		if resting == restForget {
			d.forget(restInodes)
			next = resting + 1 // it comes in answer
		}
		first := resting > 0 && now-returned > restWorth
		again := next > 0 && resting >= next
		if !first && !again {
			continue
		}
		returned = now
		d.files.Shrink()
		runtime.GC() // what a sync.Pool holds goes with the second collection
		debug.FreeOSMemory()
		if next = 3 * resting; next > restLast {
			next = 0
		}
	}
}

// forget has the kernel forget inodes that nothing uses, if a mount knows more than most.
func (d *live) forget(most int) {
	d.mu.Lock()
	mounts := slices.Collect(maps.Values(d.mounts))
	d.mu.Unlock()
	for _, m := range mounts {
		m.Shrink(most)
	}
}
