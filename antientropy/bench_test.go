package antientropy

import (
	"fmt"
	"testing"

	"syntropy/lww"
	"syntropy/storage"
)

// BenchmarkSession measures a session over 100,000 keys of which d are stale at
// the partner: time of both sides together, and what it takes to name what
// differs. What is sent is not applied, so every iteration meets the same
// differences. With a hint, it expects as many as there are.
func BenchmarkSession(b *testing.B) {
	const keys = 100_000
	mine := newStore(b, storage.Options{Shards: 16})
	theirs := newStore(b, storage.Options{Shards: 16})
	var all []lww.Entry
	for i := range keys {
		all = append(all, value(fmt.Sprintf("key-%06d", i), "a value of some length, as values are", 1))
	}
	mustApply(b, mine, all...)
	mustApply(b, theirs, all...)
	diverged := 0
	for _, d := range []int{0, 1, 100, 10_000} {
		for ; diverged < d; diverged++ {
			mustApply(b, mine, value(fmt.Sprintf("key-%06d", diverged*997%keys), "newer", 60))
		}
		for _, hint := range []bool{false, true} {
			if hint && d < 3 {
				continue // the first message names them
			}
			b.Run(fmt.Sprintf("diverged=%d/hint=%v", d, hint), func(b *testing.B) {
				cfg := Config{Now: second(100)}
				if hint {
					cfg.Expected = d
				}
				ignore, drop := func(Comparison) {}, func([]lww.Entry) error { return nil }
				viewA, viewB := mine.view(), theirs.view()
				var r Report
				for b.Loop() {
					s := session{a: mine, b: theirs, cfg: cfg, viewA: viewA, viewB: viewB, applyA: drop, applyB: drop}
					s.cfg.Compared, s.cfg.Found = ignore, func(Difference) {}
					var err error
					if r, err = s.run(b); err != nil || r.Diverged != d {
						b.Fatalf("error %v, report %+v", err, r)
					}
				}
				b.ReportMetric(float64(r.NamingBytes)/float64(max(d, 1)), "B/diverged")
				b.ReportMetric(float64(r.RowsRead)/float64(max(d, 1)), "rows/diverged")
				b.ReportMetric(float64(r.Rounds), "rounds")
			})
		}
	}
}
