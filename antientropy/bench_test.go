package antientropy

import (
	"fmt"
	"testing"

	"syntropy/lww"
	"syntropy/storage"
)

// BenchmarkSession measures a session over 100,000 keys of one shard of which d
// are stale at the partner: time of both sides together, and what travels
// besides the repaired entries themselves. A dry run finds the same and changes
// nothing, so every iteration meets the same differences.
func BenchmarkSession(b *testing.B) {
	const keys = 100_000
	mine := newStore(b, storage.Options{Shards: 1, LeafLevel: 3})
	theirs := newStore(b, storage.Options{Shards: 1, LeafLevel: 3})
	var all []lww.Entry
	for i := range keys {
		all = append(all, value(fmt.Sprintf("key-%06d", i), "a value of some length, as values are", 1))
	}
	mustApply(b, mine, all...)
	mustApply(b, theirs, all...)
	diverged := 0
	for _, d := range []int{0, 1, 100} {
		for ; diverged < d; diverged++ {
			mustApply(b, mine, value(fmt.Sprintf("key-%06d", diverged*997), "newer", 60))
		}
		b.Run(fmt.Sprintf("diverged=%d", d), func(b *testing.B) {
			viewA, viewB := mine.view(), theirs.view()
			var r Report
			for b.Loop() {
				s := session{a: mine, b: theirs, cfg: Config{Now: second(100), DryRun: true}, viewA: viewA, viewB: viewB}
				var err error
				if r, err = s.run(b); err != nil || r.Diverged != d {
					b.Fatalf("error %v, report %+v", err, r)
				}
			}
			b.ReportMetric(float64(r.BytesSent+r.BytesReceived)/float64(max(d, 1)), "B/diverged")
			b.ReportMetric(float64(r.Rounds), "rounds")
		})
	}
}
