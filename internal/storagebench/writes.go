package storagebench

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
)

// Workload is what is written: rows of 16-byte keys and 100-byte values that do
// not compress.
type Workload struct {
	Dir     string // where databases are made, and removed; "" is that of temporary files
	Rows    int
	Writers int  // calls at a time, of one row each
	Sync    bool // each is durable when it returns
	Slice   int  // writes of one way before it is the turn of the next
	Rounds  int  // turns of each way in a run
	Seed    uint64
	// CacheBytes is the block cache of each database.
	CacheBytes int64
	// VersionBytes is storage.Options.VersionBytes.
	VersionBytes int64
}

// Cost is what an operation took.
type Cost struct {
	WallMicros float64 `json:"wall_us"`
	CPUMicros  float64 `json:"cpu_us"`
}

const valueBytes = 100

// noise is where values come from: random bytes, at a random place.
var noise = func() []byte {
	b := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(b)
	return b
}()

func entryOf(i int, stamp hlc.Stamp, rng *rand.Rand) lww.Entry {
	key := make([]byte, 16)
	copy(key, "key:")
	binary.BigEndian.PutUint64(key[8:], uint64(i)*0x9e3779b97f4a7c15) // in no order
	at := rng.IntN(len(noise) - valueBytes)
	return lww.Entry{Key: key, Value: noise[at : at+valueBytes : at+valueBytes], Version: lww.Version{Stamp: stamp, Node: 1}}
}

// fill writes all rows in large batches.
func (w Workload) fill(d *database) error {
	rng := rand.New(rand.NewPCG(w.Seed, 0))
	const batch = 1000
	for i := 0; i < w.Rows; {
		var entries []lww.Entry
		for ; len(entries) < batch && i < w.Rows; i++ {
			entries = append(entries, entryOf(i, 1, rng))
		}
		if err := d.put(entries); err != nil {
			return err
		}
	}
	settle(d)
	return nil
}

// settle waits until nothing is compacted.
func settle(d *database) {
	for idle := 0; idle < 3; idle++ {
		m := d.db.Metrics()
		if m.Compact.NumInProgress > 0 || m.Flush.NumInProgress > 0 {
			idle = -1
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// slice overwrites rows at random and returns what it took.
func (w Workload) slice(d *database, turn int, stamp *atomic.Uint64) (Cost, error) {
	cpu, begun := processCPU(), time.Now()
	var left atomic.Int64
	left.Store(int64(w.Slice))
	errs := make([]error, w.Writers)
	var wg sync.WaitGroup
	for i := range w.Writers {
		rng := rand.New(rand.NewPCG(w.Seed+uint64(turn), uint64(i)))
		wg.Go(func() {
			one := make([]lww.Entry, 1)
			for left.Add(-1) >= 0 && errs[i] == nil {
				one[0] = entryOf(rng.IntN(w.Rows), hlc.Stamp(stamp.Add(1)), rng)
				errs[i] = d.put(one)
			}
		})
	}
	wg.Wait()
	wall := time.Since(begun)
	settle(d)
	per := float64(w.Slice) * 1e3
	return Cost{float64(wall.Nanoseconds()) / per, float64((processCPU() - cpu).Nanoseconds()) / per}, errors.Join(errs...)
}
