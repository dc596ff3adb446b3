package main

import (
	"fmt"
	"syscall"
	"time"
)

// touch is what 1 GiB of memory costs that nobody has used just now, and that
// was given back just now, in seconds. See the package comment.
type touch struct {
	Fresh float64 `json:"fresh_s_per_gib"`
	Again float64 `json:"again_s_per_gib"`
}

func firstTouch() (t touch, err error) {
	if t.Fresh, err = populate(); err != nil {
		return t, err
	}
	t.Again, err = populate()
	return t, err
}

// populate takes 1 GiB from the system, all of it touched, and gives it back.
func populate() (seconds float64, err error) {
	began := time.Now()
	b, err := syscall.Mmap(-1, 0, gib, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANONYMOUS|syscall.MAP_PRIVATE|syscall.MAP_POPULATE)
	seconds = time.Since(began).Seconds()
	if err != nil {
		return 0, fmt.Errorf("take 1 GiB of memory: %w", err)
	}
	return seconds, syscall.Munmap(b)
}
