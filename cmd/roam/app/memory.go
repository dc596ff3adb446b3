package app

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How a daemon that has nothing to do gives memory back.
const (
	restTime  = time.Second // how often it is looked at
	restAlloc = 8 << 20     // bytes allocated in that time, up to which it rests; one that writes files: 75 MiB
	restWorth = 32 << 20    // bytes allocated since, from which on collecting is worth its 60 ms
	restAgain = 2           // after so many ticks of rest once more
)

// returnMemory gives memory back to the system whenever the daemon has come to
// rest, until ctx ends.
//
// Right after 20,000 files were written the daemon held 230 MiB of which 67 MiB
// were in use: the collector lets the heap grow to twice of what is in use, does
// not run again while nothing is allocated, and gives pages back slowly. A limit
// (debug.SetMemoryLimit) would bound it too, but a tree that needs more than the
// limit would keep the collector running.
func returnMemory(ctx context.Context) error {
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
	var again bool            // what lingers after a commit is still to be given back
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
		first := resting > 0 && now-returned > restWorth
		if first || again && resting >= restAgain {
			again = first
			returned = now
			runtime.GC() // what a sync.Pool holds goes with the second collection
			debug.FreeOSMemory()
		}
	}
}
