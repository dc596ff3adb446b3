package history

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 3, 11, 12, 0, 0, 0, time.UTC) // a Wednesday

func at(ages ...time.Duration) (out []Snapshot) {
	for _, a := range ages {
		out = append(out, Snapshot{Key: fmt.Sprint(noon.Add(-a)), Reason: Automatic, Time: noon.Add(-a)})
	}
	slices.SortFunc(out, Snapshot.Compare)
	return out
}

func every(step time.Duration, n int) (out []Snapshot) {
	for i := range n {
		out = append(out, at(time.Duration(i)*step)...)
	}
	return out
}

func TestThin(t *testing.T) {
	const day = 24 * time.Hour
	named := func(s []Snapshot) []Snapshot { s[0].Name = "mine"; return s }
	asked := func(s []Snapshot) []Snapshot { s[0].Reason = BeforeRestore; return s }
	for _, c := range []struct {
		name string
		all  []Snapshot
		left int
	}{
		{"none", nil, 0},
		{"one of long ago", at(1000 * day), 1},
		{"two in one hour", at(10*time.Minute, 20*time.Minute), 1},
		{"the last day, hour by hour", every(time.Hour, 24), 24},
		{"two days, hour by hour", every(time.Hour, 48), 24 + 1}, // and the newest of the day before yesterday
		{"a month, day by day", every(day, 30), 30},
		{"ten years, week by week", every(7*day, 520), 52},
		{"two in one hour, one named", append(at(10*time.Minute), named(at(20*time.Minute))...), 2},
		{"two in one hour, one before a restore", append(at(10*time.Minute), asked(at(20*time.Minute))...), 2},
		{"two in one hour of last year, one before a restore", append(every(time.Hour, 100), append(at(400*day+10*time.Minute), asked(at(400*day+20*time.Minute))...)...), 24 + 4 - 1 + 1},
	} {
		all := slices.Clone(c.all)
		slices.SortFunc(all, Snapshot.Compare)
		if got := len(all) - len(Thin(all, noon)); got != c.left {
			t.Errorf("%s: %d are left, want %d", c.name, got, c.left)
		}
	}
}

// TestThinModel compares with the rule said plainly, and thins the rest again.
func TestThinModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []Snapshot
		for i, minutes := range rapid.SliceOf(rapid.OneOf(rapid.IntRange(0, 4000), rapid.IntRange(0, 1_000_000))).Draw(t, "ages") {
			s := at(time.Duration(minutes) * time.Minute)[0]
			s.Key = fmt.Sprint(i)
			s.Reason = rapid.SampledFrom([]Reason{Automatic, Automatic, Asked, BeforeRestore}).Draw(t, "reason")
			s.Name = rapid.SampledFrom([]string{"", "", "", "named"}).Draw(t, "name")
			all = append(all, s)
		}
		slices.SortFunc(all, Snapshot.Compare)
		// A snapshot stays if it is the newest of its period and fewer than so many
		// periods after it have one.
		newest := func(i, most int, period string) bool {
			later := map[string]bool{}
			mine := stamp(all[i], period)
			for _, s := range all[i+1:] {
				if stamp(s, period) == mine {
					return false
				}
				later[stamp(s, period)] = true
			}
			return len(later) < most
		}
		var want []Snapshot
		for i, s := range all {
			stays := s.Name != "" || s.Reason != Automatic && noon.Sub(s.Time) < AskedFor ||
				newest(i, 24, "hour") || newest(i, 30, "day") || newest(i, 52, "week")
			if !stays {
				want = append(want, s)
			}
		}
		got := Thin(all, noon)
		if !slices.Equal(got, want) {
			t.Fatalf("of %v go %v, want %v", all, got, want)
		}
		left := slices.DeleteFunc(slices.Clone(all), func(s Snapshot) bool { return slices.Contains(got, s) })
		if again := Thin(left, noon); len(again) > 0 {
			t.Fatalf("of the rest go %v", again)
		}
	})
}

func stamp(s Snapshot, period string) string {
	switch period {
	case "hour":
		return s.Time.Format("2006-01-02 15")
	case "day":
		return s.Time.Format("2006-01-02")
	}
	y, w := s.Time.ISOWeek()
	return fmt.Sprint(y, w)
}

// TestThinning makes one every hour for three years and thins at once, as a
// device does: what is left is bounded, and reaches back as it should.
func TestThinning(t *testing.T) {
	var all []Snapshot
	now := noon
	for range 3 * 365 * 24 {
		now = now.Add(time.Hour)
		all = append(all, Snapshot{Key: Key(now, [8]byte{}), Reason: Automatic, Time: now})
		gone := Thin(all, now)
		all = slices.DeleteFunc(all, func(s Snapshot) bool { return slices.Contains(gone, s) })
	}
	if len(all) > Hours+Days+Weeks || len(all) < 95 {
		t.Errorf("%d are left", len(all))
	}
	for _, c := range []struct{ age, off time.Duration }{
		{23 * time.Hour, time.Hour}, {28 * 24 * time.Hour, 24 * time.Hour}, {51 * 7 * 24 * time.Hour, 7 * 24 * time.Hour},
	} {
		if !slices.ContainsFunc(all, func(s Snapshot) bool { return now.Add(-c.age).Sub(s.Time).Abs() <= c.off }) {
			t.Errorf("none is left of %v ago", c.age)
		}
	}
}

func TestDue(t *testing.T) {
	long := noon.Add(-100 * time.Hour)
	for _, c := range []struct {
		name            string
		now, up, newest time.Time
		want            bool
	}{
		{"none yet", noon.Add(time.Minute), long, time.Time{}, true},
		{"the hour has just turned", noon.Add(59 * time.Second), long, long, false},
		{"one in this hour", noon.Add(30 * time.Minute), long, noon, false},
		{"one in the hour before", noon.Add(time.Minute), long, noon.Add(-time.Second), true},
		{"just started", noon.Add(30 * time.Minute), noon.Add(30 * time.Minute), long, false},
		{"started a minute ago", noon.Add(30 * time.Minute), noon.Add(29 * time.Minute), long, true},
		{"one of a device whose clock is ahead", noon.Add(30 * time.Minute), long, noon.Add(5 * time.Hour), false},
	} {
		if got := Due(c.now, c.up, c.newest, ArchiveWaits); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestFind(t *testing.T) {
	now := noon.Add(20 * time.Minute)
	all := at(400*24*time.Hour, 50*time.Hour, 26*time.Hour, 2*time.Hour, time.Hour)
	for i := range all {
		all[i].Key = fmt.Sprint(i)
	}
	all[1].Name = "old"
	all[2].Name = "old"
	for when, want := range map[string]string{
		"old": "2", "2026-03-11T110000Z": "4", "2026-03-09T100000Z-old": "1",
		"1h": "4", "90m": "3", "3h": "2", "yesterday": "2", "2d": "1", "1w": "0", "2y": "?", "500d": "none", "2025": "0", "2024": "none",
		"2026": "4", "2026-03": "4", "2026-03-09": "1", "2026-03-11T10": "3", "2026-03-11T11:00": "4", "2026-03-11T12:59:59+02:00": "3",
		"tomorrow": "?", "": "?", "-1h": "?", "2026-13": "?", "1d2": "?",
	} {
		got := "none"
		if s, found, understood := Find(all, when, now); !understood {
			got = "?"
		} else if found {
			got = s.Key
		}
		if got != want {
			t.Errorf("%q finds %s, want %s", when, got, want)
		}
	}
	for name, ok := range map[string]bool{"a": true, "vor dem Umzug": true, "": false, "2h": false, "2026": false, "yesterday": false, ".x": false, "a/b": false, "a@b": false, "a\nb": false, "\xff": false} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("name %q: %v", name, err)
		}
	}
}
