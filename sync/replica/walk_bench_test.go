package replica

import (
	"errors"
	"testing"
)

// BenchmarkReconnect: two devices with 100,000 records, of which 100 files differ
// and the commits are kept no more.
func BenchmarkReconnect(b *testing.B) {
	n := hive(b, 2)
	for _, d := range n {
		d.keep = 2000
		d.restart()
	}
	n[0].crowd(50_000)
	w := connect(n[0], n[1])
	same(b, n...)
	for b.Loop() {
		b.StopTimer()
		w.disconnect()
		n[0].rewrite(100)
		var m meter
		b.StartTimer()
		w = tapped(n[0], n[1], m.tap)
		same(b, n...)
		b.ReportMetric(float64(m.n.Load()), "B-wire/op")
	}
	w.disconnect()
}

// same waits until two nodes have one state.
func same(tb testing.TB, nodes ...*node) {
	tb.Helper()
	await(tb, func() bool {
		_, x, err := nodes[0].State()
		_, y, err2 := nodes[1].State()
		return x == y && errors.Join(err, err2) == nil
	})
}
