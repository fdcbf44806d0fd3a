package hint_test

import (
	"fmt"
	"time"

	"syntropy/hint"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage/memstore"
)

// Node 2 is down for a while. What was written meanwhile waits for it, in the
// order in which it was written, and what is too old when it returns does not
// reach it any more.
func Example() {
	queue, err := hint.Open(memstore.New(), hint.Options{Window: 3 * time.Hour})
	if err != nil {
		panic(err)
	}
	noon := hlc.FromTime(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC))
	keep := func(after time.Duration, key, value string) {
		e := lww.Entry{Key: []byte(key), Value: []byte(value), Version: lww.Version{Stamp: noon.Add(after), Node: 1}}
		if err := queue.Add(2, []lww.Entry{e}); err != nil {
			panic(err)
		}
	}
	keep(0, "pluto", "planet")
	keep(2*time.Hour, "eris", "dwarf planet")
	keep(time.Hour, "pluto", "dwarf planet") // its coordinator's clock is an hour behind

	batch, err := queue.Next(2, noon.Add(3*time.Hour+time.Minute), 64<<10)
	if err != nil {
		panic(err)
	}
	for _, e := range batch.Entries {
		fmt.Printf("%s %s = %s\n", e.Stamp.Time().Format("15:04"), e.Key, e.Value)
	}
	if err := queue.Delivered(batch); err != nil { // once node 2 has them on disk
		panic(err)
	}
	s := queue.Stats()
	fmt.Printf("delivered %d, expired %d, pending %d\n", s.Delivered, s.Expired, len(s.Pending))
	// Output:
	// 13:00 pluto = dwarf planet
	// 14:00 eris = dwarf planet
	// delivered 2, expired 1, pending 0
}
