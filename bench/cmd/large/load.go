package main

import (
	"syntropy/lww"
	"syntropy/storage"
)

// loadShard loads the rows of a shard, which are in order.
func loadShard(store *storage.Store, r rows, shard int, list []row) error {
	var b buffers
	next := func() (e lww.Entry, ok bool, err error) {
		if len(list) == 0 {
			return e, false, nil
		}
		e = r.entry(&b, list[0].number, 0)
		list = list[1:]
		return e, true, nil
	}
	_, err := store.Load(shard, uint64(len(list)), next)
	return err
}
