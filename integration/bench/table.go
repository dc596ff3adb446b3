package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// report is all that was measured.
type report struct {
	FirstTouch touch  `json:"first_touch"`
	Lines      []line `json:"lines"`
}

// line is one measurement. Disk and Memory are absent where there is nothing to
// compare.
type line struct {
	Name     string  `json:"name"`
	Unit     string  `json:"unit"`
	Roam     spread  `json:"roam"`
	Disk     *spread `json:"disk,omitempty"`
	Memory   *spread `json:"memory_fuse,omitempty"`       // the file system in memory
	Ratio    float64 `json:"ratio,omitempty"`             // roam's speed over the disk's
	OfMemory float64 `json:"ratio_memory_fuse,omitempty"` // and over that of the file system in memory
	Target   string  `json:"target"`
}

// spread is the median of several runs, with the extremes.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(v []float64) spread {
	slices.Sort(v)
	return spread{v[len(v)/2], v[0], v[len(v)-1]}
}

// text is empty for what was not measured.
func (s *spread) text(unit string) string {
	if s == nil {
		return ""
	}
	digits := 0
	if s.Median < 10 {
		digits = 2
	}
	return fmt.Sprintf("%.*f %s (%.*f–%.*f)", digits, s.Median, unit, digits, s.Min, digits, s.Max)
}

func (r report) show(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	fmt.Fprintf(w, "first touch of memory: %.2f s per GiB, again right after: %.2f s per GiB\n\n", r.FirstTouch.Fresh, r.FirstTouch.Again)
	const row = "%-50s %24s %24s %7s %24s %7s  %s\n"
	fmt.Fprintf(w, row, "", "roam", "disk", "of it", "in-memory FUSE", "of it", "target")
	ratio := func(v float64) string {
		if v == 0 {
			return ""
		}
		return fmt.Sprintf("%.2f", v)
	}
	for _, l := range r.Lines {
		fmt.Fprintf(w, row, l.Name, l.Roam.text(l.Unit), l.Disk.text(l.Unit), ratio(l.Ratio), l.Memory.text(l.Unit), ratio(l.OfMemory), l.Target)
	}
	return nil
}
