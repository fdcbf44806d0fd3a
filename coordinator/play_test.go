package coordinator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"syntropy/hlc"
	"syntropy/lww"
)

// read reads the keys at a level and checks the answers against what earlier
// requests have promised. It returns the entries, or nil when the read failed.
func (r *run) read(level Level, promised []lww.Entry) ([]lww.Entry, error) {
	keys := make([][]byte, len(r.ms))
	for i := range r.ms {
		keys[i] = r.ms[i].Key
	}
	asked := level
	if r.planted == readOne {
		asked = One
	}
	rd, err := NewRead(r.place(), digest, asked, keys)
	if err != nil {
		var unavailable *UnavailableError
		if !errors.As(err, &unavailable) {
			return nil, err
		}
		return nil, nil
	}
	var asks []Ask
	var repairs []Send
	repaired := true
	for {
		if r.pick(6) == 0 {
			rd.Hurry()
		}
		asks = append(asks, rd.Asks()...)
		for _, s := range rd.Repairs() {
			if r.planted == repairBackwards {
				s.Entries = slices.Clone(s.Entries)
				for n := range s.Entries {
					s.Entries[n] = r.replicas[s.To][string(s.Entries[n].Key)]
				}
			}
			repairs = append(repairs, s)
		}
		done, err := rd.Done()
		var unavailable *UnavailableError
		switch {
		case done && errors.As(err, &unavailable):
			return nil, nil
		case done && err != nil:
			return nil, err
		case done:
			got := make([]lww.Entry, rd.Prefix())
			if len(got) == 0 {
				return nil, errors.New("a prefix of no keys")
			}
			for i := range got {
				e, ok := rd.Entry(i)
				if promised != nil && i < len(promised) && promised[i].Key != nil && (!ok || lww.Compare(e, promised[i]) < 0) {
					return nil, fmt.Errorf("read %s after %s was promised", entryText(e), entryText(promised[i]))
				}
				got[i] = e
			}
			if !repaired {
				return nil, nil // later reads may go back
			}
			return got, nil
		case len(asks) > 0:
			n := r.pick(len(asks))
			a := asks[n]
			asks = slices.Delete(asks, n, n+1)
			if r.chance(8) {
				rd.Failed(a, errLost)
				break
			}
			full := len(a.Full)
			if full > 1 && r.chance(4) {
				full = 1 + r.pick(full)
			}
			rd.Answered(a, r.replicas[a.To].lookup(a, keys, full))
			rd.Failed(a, errLost) // too late to matter
		case len(repairs) > 0:
			s := repairs[0]
			repairs = repairs[1:]
			if r.chance(8) {
				repaired = false
				rd.Repaired(s, errLost)
				break
			}
			r.replicas[s.To].apply(s)
			rd.Repaired(s, nil)
		default:
			return nil, errors.New("the read waits for nothing")
		}
	}
}

// play is a whole run: a write, a read that must see it, and a read that must
// not go back behind that one.
func play(pick func(n int) int, planted mistake) error {
	r := &run{pick: pick, planted: planted}
	r.setUp()
	writeLevel, readLevel := Level(1+pick(3)), Level(1+pick(3))
	if err := r.write(writeLevel); err != nil {
		return err
	}
	overlap := func(a, b Level) bool {
		return !slices.ContainsFunc(r.shards, func(s []hlc.NodeID) bool { return a.Of(len(s))+b.Of(len(s)) <= len(s) })
	}
	var promised []lww.Entry
	if r.w != nil && overlap(writeLevel, readLevel) {
		if _, err := r.w.Done(); err == nil {
			promised = make([]lww.Entry, len(r.ms))
			for i, result := range r.w.Results() {
				if result == Written {
					promised[i] = r.w.Entry(i)
				}
			}
		}
	}
	for id := range r.down {
		r.down[id] = false
	}
	got, err := r.read(readLevel, promised)
	if err != nil || got == nil || !overlap(readLevel, readLevel) {
		return err
	}
	_, err = r.read(readLevel, got)
	return err
}

func TestRandomRequests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pick := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") }
		if err := play(pick, noMistake); err != nil {
			t.Fatal(err)
		}
	})
}

// TestManyRandomRequests goes further than rapid does in the same time, since it
// keeps no record to shrink. A failure names its seed.
func TestManyRandomRequests(t *testing.T) {
	for seed := range uint64(20000) {
		if err := play(rand.New(rand.NewPCG(seed, 1)).IntN, noMistake); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestPlantedMistakesAreCaught: checks that never fail prove nothing.
func TestPlantedMistakesAreCaught(t *testing.T) {
	const seedsMax = 20000
	for m := noMistake + 1; m < mistakes; m++ {
		caught := false
		for seed := uint64(0); seed < seedsMax && !caught; seed++ {
			if err := play(rand.New(rand.NewPCG(seed, 1)).IntN, m); err != nil {
				t.Logf("mistake %d, seed %d: %v", m, seed, err)
				caught = true
			}
		}
		if !caught {
			t.Errorf("mistake %d passes %d runs", m, seedsMax)
		}
	}
}
