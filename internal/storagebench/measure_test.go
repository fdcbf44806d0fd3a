package storagebench

import (
	"math"
	"os"
	"testing"
)

// TestMeasure runs all comparisons, of a size that says nothing: what was written
// is found, scans are complete, and trees are those of their rows.
func TestMeasure(t *testing.T) {
	w := Workload{Dir: t.TempDir(), Rows: 3000, Writers: 4, Slice: 500, Rounds: 1, Seed: 1, CacheBytes: 8 << 20, VersionBytes: 1 << 20}
	f, err := Measure(t.Context(), w, func(what string) { t.Log(what) })
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, figure := range f.Figures {
		if name := figure.What + " than " + figure.Than; seen[name] {
			t.Errorf("%s is there twice", name)
		} else {
			seen[name] = true
		}
		for _, x := range []float64{figure.Wall, figure.CPU, figure.Cost.WallMicros, figure.Cost.CPUMicros} {
			if !(x > 0) || math.IsInf(x, 0) {
				t.Errorf("%+v", figure)
			}
		}
	}
	if len(seen) != 3*4+2+1+1+1 {
		t.Errorf("%d figures", len(seen))
	}
	if left, err := os.ReadDir(w.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestMedian(t *testing.T) {
	if a, b := median([]float64{3, 1, 2}), median([]float64{4, 1, 3, 2}); a != 2 || b != 2.5 {
		t.Error(a, b)
	}
}
