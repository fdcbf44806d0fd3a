package bench

import (
	"testing"

	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// TestPeersFindTheTruth runs every peer over every case at small sizes: nothing
// may be missed, and nothing named that does not differ.
func TestPeersFindTheTruth(t *testing.T) {
	// Few symbols kept, so that sessions need more than there are.
	for _, peer := range append(Peers(), RIBLT{Kept: 16}) {
		t.Run(peer.Name(), func(t *testing.T) {
			for _, c := range reconcile.Cases() {
				for _, size := range []struct{ keys, diverged int }{{0, 0}, {1, 0}, {1, 1}, {2, 2}, {40, 3}, {3000, 0}, {3000, 1}, {3000, 10}, {3000, 300}, {500, 500}} {
					for seed := range uint64(3) {
						w := reconcile.Workload{Keys: size.keys, Diverged: size.diverged, Case: c, Seed: seed, Shards: 1 << (2 * seed)}
						if peer.Limit(w) != "" {
							t.Fatalf("%+v is beyond the peer: %s", w, peer.Limit(w))
						}
						r := run(t, peer, w)
						if r.Missed != 0 || r.Extra != 0 {
							t.Errorf("%+v: %d missed, %d extra", w, r.Missed, r.Extra)
						}
						if w.Diverged > 0 && (r.BytesAtoB == 0 || r.BytesBtoA == 0 || r.RoundTrips < 1) {
							t.Errorf("%+v: nothing was said: %+v", w, r)
						}
					}
				}
			}
		})
	}
}

func run(t *testing.T, peer Peer, w reconcile.Workload) Result {
	t.Helper()
	a, b := reconcile.Generate(w)
	sideA, err := peer.Build(a)
	if err != nil {
		t.Fatalf("%+v: %v", w, err)
	}
	sideB, err := peer.Build(b)
	if err != nil {
		t.Fatalf("%+v: %v", w, err)
	}
	r, err := Run(sideA, sideB, a.Truth())
	if err != nil {
		t.Fatalf("%+v: %v", w, err)
	}
	return r
}

// TestUpdates makes the index of one side that of the other, write by write. The
// indexes are then equal though the rows are not, so nothing is found.
func TestUpdates(t *testing.T) {
	w := reconcile.Workload{Keys: 3000, Diverged: 200, Case: reconcile.Stale, Seed: 1}
	for _, peer := range Peers() {
		t.Run(peer.Name(), func(t *testing.T) {
			a, b := reconcile.Generate(w)
			sideA, err := peer.Build(a)
			if err != nil {
				t.Fatal(err)
			}
			u, ok := sideA.(Updater)
			if !ok {
				t.Skip("its index cannot be updated")
			}
			sideB, err := peer.Build(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range a.Truth() {
				u.Update(x, sumAt(a, x), sumAt(b, x))
			}
			r, err := Run(sideA, sideB, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.RoundTrips != 1 || r.Extra != 0 {
				t.Errorf("equal indexes, and yet %+v", r)
			}
		})
	}
}

func sumAt(r *reconcile.Replica, x ring.Position) (sum merkle.Sum) {
	r.Rows(x, x, func(_ ring.Position, _ lww.Entry, s merkle.Sum) bool {
		sum = s
		return true
	})
	return sum
}

// TestEntriesAreNotCounted: how long the values are that a session moves does
// not change its figures, but for the length of values in some messages.
func TestEntriesAreNotCounted(t *testing.T) {
	var bytes [2][2]int
	for i, length := range []int{20, 2000} {
		r := run(t, Syntropy{}, reconcile.Workload{Keys: 3000, Diverged: 100, ValueBytes: length, Seed: 1})
		bytes[i] = [2]int{r.BytesAtoB, r.BytesBtoA}
		if r.RoundTrips > r.RoundTripsTotal || r.NamingBytes > r.BytesAtoB+r.BytesBtoA {
			t.Errorf("naming cost more than all: %+v", r)
		}
	}
	for i := range 2 {
		if grown := bytes[1][i] - bytes[0][i]; grown < -300 || grown > 300 {
			t.Errorf("with values 100 times as long, %v bytes became %v", bytes[0], bytes[1])
		}
	}
}

// liar is a peer that forgets the first key and names one that does not differ.
type liar struct{ Brute }

func (l liar) Build(r *reconcile.Replica) (Side, error) {
	side, err := l.Brute.Build(r)
	return liarSide{side}, err
}

type liarSide struct{ Side }

func (s liarSide) Initiate() Initiator { return liarInitiator{s.Side.Initiate()} }

type liarInitiator struct{ Initiator }

func (i liarInitiator) Named() []ring.Position {
	return append([]ring.Position{ring.MaxPosition}, i.Initiator.Named()[1:]...)
}

func TestWhatIsWrongIsSeen(t *testing.T) {
	r := run(t, liar{}, reconcile.Workload{Keys: 100, Diverged: 7})
	if r.Missed != 1 || r.Extra != 1 {
		t.Errorf("%d missed and %d extra, want one of each", r.Missed, r.Extra)
	}
}

// TestBytes counts by hand what a session of the plainest peer sends.
func TestBytes(t *testing.T) {
	r := run(t, Brute{}, reconcile.Workload{Keys: 100, Diverged: 8, Case: reconcile.Stale})
	if want := frameBytes + 1 + 1 + 100*rowBytes; r.BytesAtoB != want {
		t.Errorf("sent %d, want %d", r.BytesAtoB, want)
	}
	if want := frameBytes + 1 + 1 + 1 + 8*(tokenBytes+versionBytes); r.BytesBtoA != want {
		t.Errorf("received %d, want %d", r.BytesBtoA, want)
	}
	if r.RoundTrips != 1 || r.Comparisons != 100 {
		t.Errorf("%v round trips and %d comparisons, want 1 and 100", r.RoundTrips, r.Comparisons)
	}
}
