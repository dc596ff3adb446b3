package mount

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkSmallFiles makes, lists and reads, and removes 10,000 files of 4 KiB.
func BenchmarkSmallFiles(b *testing.B) {
	r := newRig(b)
	const many = 10_000
	data := bytes.Repeat([]byte("0123456789abcdef"), 256)
	name := func(i int) string { return fmt.Sprintf("d%d/f%d", i/1000, i) }
	at := func(fn func(path string) error) {
		for i := range many {
			if err := fn(r.path(name(i))); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("create", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			_ = os.RemoveAll(r.path("d0"))
			for d := range many / 1000 {
				_ = os.RemoveAll(r.path(fmt.Sprintf("d%d", d)))
				if err := os.Mkdir(r.path(fmt.Sprintf("d%d", d)), 0o755); err != nil {
					b.Fatal(err)
				}
			}
			b.StartTimer()
			at(func(path string) error { return os.WriteFile(path, data, 0o644) })
		}
		b.ReportMetric(many*float64(b.N)/b.Elapsed().Seconds(), "files/s")
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			at(func(path string) error { _, err := os.ReadFile(path); return err })
		}
		b.ReportMetric(many*float64(b.N)/b.Elapsed().Seconds(), "files/s")
	})
	b.Run("walk", func(b *testing.B) {
		for b.Loop() {
			err := filepath.Walk(r.dir, func(_ string, _ os.FileInfo, err error) error { return err })
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(many*float64(b.N)/b.Elapsed().Seconds(), "files/s")
	})
	b.Run("remove", func(b *testing.B) {
		n := 0
		for b.Loop() {
			if n++; n > 1 {
				b.StopTimer()
				at(func(path string) error { return os.WriteFile(path, data, 0o644) })
				b.StartTimer()
			}
			at(os.Remove)
		}
		b.ReportMetric(many*float64(b.N)/b.Elapsed().Seconds(), "files/s")
	})
}

const large = 256 << 20

// BenchmarkSequentialWrite writes 256 MiB in pieces of 128 KiB.
func BenchmarkSequentialWrite(b *testing.B) {
	r := newRig(b)
	piece := bytes.Repeat([]byte("sixteen bytes...,"), 128<<10/17+1)[:128<<10]
	b.SetBytes(large)
	for b.Loop() {
		f, err := os.Create(r.path("f"))
		if err != nil {
			b.Fatal(err)
		}
		for range large / len(piece) {
			if _, err := f.Write(piece); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReread reads 256 MiB that the kernel has, after they were written and committed.
func BenchmarkReread(b *testing.B) {
	r := newRig(b)
	if err := os.WriteFile(r.path("f"), make([]byte, large), 0o644); err != nil {
		b.Fatal(err)
	}
	if err := r.files.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	b.SetBytes(large)
	for b.Loop() {
		f, err := os.Open(r.path("f"))
		if err != nil {
			b.Fatal(err)
		}
		for {
			if n, _ := f.Read(buf); n == 0 {
				break
			}
		}
		_ = f.Close()
	}
}

// BenchmarkStat asks for attributes that the kernel has.
func BenchmarkStat(b *testing.B) {
	r := newRig(b)
	write(b, r.path("f"), "x")
	for b.Loop() {
		if _, err := os.Lstat(r.path("f")); err != nil {
			b.Fatal(err)
		}
	}
}
