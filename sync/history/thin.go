package history

import (
	"slices"
	"time"
)

// How many snapshots thinning leaves of each sort.
const (
	Hours = 24
	Days  = 30
	Weeks = 52

	// AskedFor is how long one that was asked for without a name, or made before a
	// restore, is not thinned.
	AskedFor = 30 * 24 * time.Hour
)

// Thin returns those of the snapshots that may go, sorted by time. Of the
// automatic ones it leaves the newest of each of the last 24 hours that have
// one, of each of the last 30 days and of each of the last 52 weeks, all in UTC
// so that every device says the same. Named ones stay for ever, others that
// somebody asked for stay at least for [AskedFor]. The newest of all stays.
//
// An hour without a change has no snapshot, and takes no place from one that
// has: who was away for a month finds the hours before it.
func Thin(all []Snapshot, now time.Time) []Snapshot {
	all = slices.SortedFunc(slices.Values(all), Snapshot.Compare)
	keep := make([]bool, len(all))
	sort := func(most int, period func(time.Time) [2]int) {
		var last [2]int
		for i, n := len(all)-1, 0; i >= 0 && n < most; i-- {
			if p := period(all[i].Time.UTC()); n == 0 || p != last {
				keep[i], last = true, p
				n++
			}
		}
	}
	sort(Hours, func(t time.Time) [2]int { return [2]int{t.Year()*366 + t.YearDay(), t.Hour()} })
	sort(Days, func(t time.Time) [2]int { return [2]int{t.Year(), t.YearDay()} })
	sort(Weeks, func(t time.Time) [2]int { y, w := t.ISOWeek(); return [2]int{y, w} })
	var out []Snapshot
	for i, s := range all {
		asked := s.Name != "" || s.Reason != Automatic && now.Sub(s.Time) < AskedFor
		if !keep[i] && !asked {
			out = append(out, s)
		}
	}
	return out
}

// How long after the turn of the hour, or its own start, a device makes the
// snapshot of the hour if nobody else did: archives, which hold everything, first.
const (
	ArchiveWaits = time.Minute
	CacheWaits   = 10 * time.Minute
)

// Due reports whether a device that runs since up should make an automatic
// snapshot at now: the hour, in UTC, has turned since the newest snapshot, and
// others had the time to make it. The zero newest is that there is none.
func Due(now, up, newest time.Time, waits time.Duration) bool {
	hour := now.UTC().Truncate(time.Hour)
	from := hour
	if up.After(from) {
		from = up
	}
	return newest.Before(hour) && now.Sub(from) >= waits
}
