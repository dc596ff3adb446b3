package history

import (
	"strconv"
	"strings"
	"time"
)

// layouts are the times that a user may write, each a beginning of RFC 3339, and
// how much later than what it says the time ends that it means. Those without a
// zone are in the zone of whoever asks.
var layouts = []struct {
	layout string
	lasts  func(time.Time) time.Time
}{
	{"2006", func(t time.Time) time.Time { return t.AddDate(1, 0, 0) }},
	{"2006-01", func(t time.Time) time.Time { return t.AddDate(0, 1, 0) }},
	{"2006-01-02", func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }},
	{"2006-01-02T15", func(t time.Time) time.Time { return t.Add(time.Hour) }},
	{"2006-01-02T15:04", func(t time.Time) time.Time { return t.Add(time.Minute) }},
	{"2006-01-02T15:04Z07:00", func(t time.Time) time.Time { return t.Add(time.Minute) }},
	{"2006-01-02T15:04:05", func(t time.Time) time.Time { return t.Add(time.Second) }},
	{time.RFC3339, func(t time.Time) time.Time { return t.Add(time.Second) }},
	{"2006-01-02T150405Z", func(t time.Time) time.Time { return t.Add(time.Second) }},
}

// ParseTime reads a time as a user writes it: RFC 3339 or a beginning of it,
// which stands for all that begins so; a title of a snapshot; an age such as 90s,
// 5m, 2h, 3d or 2w; "yesterday", which is all of that day. It returns when what is
// meant ends, and whether s has this form at all; exact says that it names one
// second. The zone of now counts for what has none.
func ParseTime(s string, now time.Time) (end time.Time, exact, ok bool) {
	if s == "yesterday" {
		y, m, d := now.Date()
		return time.Date(y, m, d, 0, 0, 0, 0, now.Location()).Add(-1), false, true
	}
	for _, l := range layouts {
		t, err := time.ParseInLocation(l.layout, s, now.Location())
		if strings.HasSuffix(l.layout, "05Z") {
			t, err = time.ParseInLocation(l.layout, s, time.UTC)
		}
		if err == nil {
			end = l.lasts(t)
			return end.Add(-1), end.Sub(t) == time.Second, true
		}
	}
	if n := len(s); n > 1 {
		if unit, known := map[byte]time.Duration{'d': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[s[n-1]]; known {
			if count, err := strconv.ParseUint(s[:n-1], 10, 16); err == nil && count > 0 {
				return now.Add(-time.Duration(count) * unit), false, true
			}
		}
		if d, err := time.ParseDuration(s); err == nil && d > 0 {
			return now.Add(-d), false, true
		}
	}
	return time.Time{}, false, false
}

// Find returns which of the snapshots, sorted by time, when means: the one with
// that name or title, the newest if several have it; else the newest that is
// not later than the time. understood is false if when is neither.
func Find(all []Snapshot, when string, now time.Time) (s Snapshot, found, understood bool) {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Name == when && when != "" || all[i].Title() == when {
			return all[i], true, true
		}
	}
	end, _, ok := ParseTime(when, now)
	if !ok {
		return Snapshot{}, false, false
	}
	for i := len(all) - 1; i >= 0; i-- {
		if !all[i].Time.After(end) {
			return all[i], true, true
		}
	}
	return Snapshot{}, false, true
}
