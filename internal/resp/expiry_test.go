package resp

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestMomentsAreExact compares moment and number with numbers that cannot
// overflow.
func TestMomentsAreExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	edges := []int64{0, 1, -1, 499, 500, 999, 1000, math.MaxInt64, math.MinInt64, math.MaxInt64 / 1000, math.MinInt64 / 1000,
		math.MaxInt64/1000 + 1, math.MinInt64/1000 - 1, math.MaxInt64 - 1_767_323_045_678, math.MaxInt64 - 1_767_323_045_678 + 1}
	draw := func() int64 {
		if rng.IntN(2) == 0 {
			return edges[rng.IntN(len(edges))]
		}
		return int64(rng.Uint64()) >> rng.IntN(64)
	}
	largest, smallest := big.NewInt(math.MaxInt64), big.NewInt(math.MinInt64)
	fits, past := 0, 0
	for range 200_000 {
		n, now := draw(), int64(1_767_323_045_678)
		for _, form := range []timeForm{secondsLeft, millisLeft, secondsSince, millisSince} {
			scaled := new(big.Int).Mul(big.NewInt(n), big.NewInt(form.unit))
			moment := new(big.Int).Set(scaled)
			if form.relative {
				moment.Add(moment, big.NewInt(now))
			}
			wantOK := scaled.Cmp(largest) <= 0 && scaled.Cmp(smallest) >= 0 && moment.Cmp(largest) <= 0
			at, ok := form.moment(n, now)
			if ok != wantOK {
				t.Fatalf("%+v of %d: fits is %v, want %v", form, n, ok, wantOK)
			}
			if !ok {
				continue
			}
			fits++
			if moment.Sign() <= 0 {
				moment.SetInt64(expiresMin)
				past++
			}
			if moment.Cmp(big.NewInt(at)) != 0 {
				t.Fatalf("%+v of %d is %d, want %v", form, n, at, moment)
			}
			// What a command was given, it answers.
			if back := form.number(at, now); at > expiresMin && (n >= 0 || !form.relative) && back != n {
				t.Fatalf("%+v of %d is %d and answers %d", form, n, at, back)
			}
		}
	}
	if fits < 10_000 || past < 1000 {
		t.Errorf("%d moments fit, %d of them until 1970: too few to show anything", fits, past)
	}
}

func TestExpireConditions(t *testing.T) {
	const earlier, same, later = 50, 100, 150 // against a present expiry of 100
	for _, tc := range []struct {
		cond    ExpireCondition
		current int64
		allows  []int64
		refuses []int64
	}{
		{0, 0, []int64{earlier, later}, nil},
		{0, 100, []int64{earlier, same, later}, nil},
		{ExpireNX, 0, []int64{earlier, later}, nil},
		{ExpireNX, 100, nil, []int64{earlier, same, later}},
		{ExpireXX, 0, nil, []int64{earlier, later}},
		{ExpireXX, 100, []int64{earlier, same, later}, nil},
		{ExpireGT, 0, nil, []int64{earlier, math.MaxInt64}},
		{ExpireGT, 100, []int64{later}, []int64{earlier, same}},
		{ExpireLT, 0, []int64{earlier, math.MaxInt64}, nil},
		{ExpireLT, 100, []int64{earlier}, []int64{same, later}},
		{ExpireXX | ExpireGT, 0, nil, []int64{earlier, later}},
		{ExpireXX | ExpireGT, 100, []int64{later}, []int64{earlier, same}},
		{ExpireXX | ExpireLT, 0, nil, []int64{earlier, later}},
		{ExpireXX | ExpireLT, 100, []int64{earlier}, []int64{same, later}},
	} {
		for _, at := range tc.allows {
			if !tc.cond.Allows(tc.current, at) {
				t.Errorf("condition %b refuses %d for %d", tc.cond, at, tc.current)
			}
		}
		for _, at := range tc.refuses {
			if tc.cond.Allows(tc.current, at) {
				t.Errorf("condition %b allows %d for %d", tc.cond, at, tc.current)
			}
		}
	}
}

// FuzzInteger: a number is taken when, and only when, it is what Go would print.
func FuzzInteger(f *testing.F) {
	for _, seed := range []string{"0", "-0", "+1", "01", "-1", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "", "-", " 1", "1_0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want, err := strconv.ParseInt(text, 10, 64)
		wantOK := err == nil && strconv.FormatInt(want, 10) == text
		if n, ok := parseInteger([]byte(text)); ok != wantOK || ok && n != want {
			t.Errorf("%q is %d (%v), want %d (%v)", text, n, ok, want, wantOK)
		}
	})
}
