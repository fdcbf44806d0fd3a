package syntropy

import (
	"context"
	"iter"
)

// Cursor is a place in a scan. It stays valid over restarts and on other nodes. Zero
// is both the beginning and, from Page, the end.
type Cursor uint64

// scanPage is how many keys Scan asks for at a time: enough that the round trips
// weigh little, few enough that a caller who stops early has not paid for much.
const scanPage = 256

// Scan returns all keys with their values, in no useful order. A key that exists
// throughout the scan is returned exactly once; one that is written or deleted
// meanwhile may be returned or not. Each shard is read on as many replicas as the
// level asks for, and the newest version counts. The slices are the caller's.
//
// After an error the sequence ends. Breaking off leaves nothing behind; [DB.Page]
// resumes a scan.
func (db *DB) Scan(ctx context.Context) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		for from := Cursor(0); ; {
			page, err := db.Page(ctx, PageOptions{From: from, Count: scanPage})
			if err != nil {
				yield(Pair{}, err)
				return
			}
			for _, p := range page.Pairs {
				if !yield(p, nil) {
					return
				}
			}
			if from = page.Next; from == 0 {
				return
			}
		}
	}
}

// PageOptions say what a page of a scan holds.
type PageOptions struct {
	From Cursor // zero: the beginning
	// Count is how many keys are asked for, 10 by default. There may be some more,
	// or fewer or none when they are large, or many were deleted.
	Count    int
	KeysOnly bool // leave the values out
}

// Page is a part of a scan.
type Page struct {
	Pairs []Pair
	Next  Cursor // where to go on; zero: there is no more
}

const defaultPage = 10 // as Redis has it for SCAN

// Page returns a part of a scan and the place to go on from, for scans that are to
// be resumed: by another process, or after an error. What Scan says of the keys holds
// over all pages of a scan.
func (db *DB) Page(ctx context.Context, o PageOptions) (Page, error) {
	if o.Count == 0 {
		o.Count = defaultPage
	}
	if o.Count < 0 {
		return Page{}, invalid("Count is %d: give how many keys to look for", o.Count)
	}
	next, entries, err := db.core.node.Scan(ctx, db.read, uint64(o.From), o.Count, !o.KeysOnly)
	if err != nil {
		return Page{}, db.explain(ctx, reading, err)
	}
	page := Page{Next: Cursor(next), Pairs: make([]Pair, len(entries))}
	for i, e := range entries {
		page.Pairs[i] = Pair{Key: e.Key, Expires: expiryOf(e)}
		if !o.KeysOnly {
			page.Pairs[i].Value = append([]byte{}, e.Value...)
		}
	}
	return page, nil
}

// Size returns about how many keys there are: exact where this node holds every key
// and nobody writes, else by what the shards hold that it has.
func (db *DB) Size(ctx context.Context) (int64, error) {
	n, err := db.core.node.Size(ctx)
	return n, db.explain(ctx, reading, err)
}
