package coordinator

import (
	"fmt"
	"testing"
)

// BenchmarkWrite is the coordinator's share of a write to three replicas.
func BenchmarkWrite(b *testing.B) {
	for _, keys := range []int{1, 100} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			p := place(1, always, 1, 2, 3)
			clock := &manualClock{}
			ms := make([]Mutation, keys)
			for i := range ms {
				ms[i] = put(fmt.Sprintf("key%d", i), "value")
			}
			answers := make([]Answer, keys)
			b.ReportAllocs()
			for b.Loop() {
				w, err := NewWrite(p, clock, Quorum, ms)
				if err != nil {
					b.Fatal(err)
				}
				for _, s := range w.Sends() {
					w.Answered(s, answers)
				}
				if !w.Finished() || len(w.Hints()) > 0 {
					b.Fatal("not finished")
				}
			}
		})
	}
}

// BenchmarkRead is the coordinator's share of a read whose two replicas agree.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			p := place(1, always, 1, 2, 3)
			held := replica{}
			keys := make([][]byte, n)
			for i := range keys {
				keys[i] = fmt.Appendf(nil, "key%d", i)
				held.applyOne(value(string(keys[i]), "value", 10, 1))
			}
			all := make([]int, n)
			for i := range all {
				all[i] = i
			}
			full, digests := held.lookup(Ask{Full: all}, keys, n), held.lookup(Ask{Digest: all}, keys, n)
			b.ReportAllocs()
			for b.Loop() {
				r, err := NewRead(p, digest, Quorum, keys)
				if err != nil {
					b.Fatal(err)
				}
				for _, a := range r.Asks() {
					if len(a.Full) > 0 {
						r.Answered(a, full)
					} else {
						r.Answered(a, digests)
					}
				}
				if done, err := r.Done(); !done || err != nil {
					b.Fatal(done, err)
				}
			}
		})
	}
}
