package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"syntropy/internal/unidata"
	"syntropy/lww"
)

// What the demo writes while a node is away, and reads when it is back.
const (
	demoOverwritten = 1000
	demoDeleted     = 500
	demoAdded       = 200
	demoEntries     = demoOverwritten + demoDeleted + demoAdded // their hints grow too old
	demoLate        = 300                                       // theirs do not
	demoRead        = 100                                       // read repair heals these of demoEntries
	demoLeft        = demoEntries - demoRead                    // and anti-entropy the others
)

// Keys that the demo shows: one that it overwrites and one that it deletes.
const (
	demoFace  = "U+1F600" // GRINNING FACE
	demoGhost = "U+1F47B" // GHOST
)

// demoData is what the demo writes, and so what every replica must hold in the
// end. It is the same on every run.
type demoData struct {
	rows  []demoRow // the names as they are loaded
	bytes int64     // of their keys and values

	overwritten, added []demoRow // written while a node is away, with the new values
	deleted            []string
	late               []demoRow // written shortly before it returns

	model map[string]string // the end state
}

type demoRow struct{ key, value string }

func newDemoData() *demoData {
	d := &demoData{model: map[string]string{}}
	for key, value := range unidata.Rows() {
		d.rows = append(d.rows, demoRow{key, value})
		d.bytes += int64(len(key) + len(value))
		d.model[key] = value
	}
	shuffled := slices.Clone(d.rows)
	rand.New(rand.NewPCG(1, 7)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	toFront(shuffled, demoFace, 0)
	toFront(shuffled, demoGhost, demoOverwritten)
	for _, row := range shuffled[:demoOverwritten] {
		// As long as before, so nothing but the value and its stamp tells.
		d.overwritten = append(d.overwritten, demoRow{row.key, strings.ToLower(row.value)})
	}
	for _, row := range shuffled[demoOverwritten:][:demoDeleted] {
		d.deleted = append(d.deleted, row.key)
		delete(d.model, row.key)
	}
	for i := range demoAdded { // in the Private Use Area, where no character has a name
		d.added = append(d.added, demoRow{fmt.Sprintf("U+%04X", 0xE000+i), fmt.Sprintf("SYNTROPY DEMO CHARACTER %d", i+1)})
	}
	for i := range demoLate {
		d.late = append(d.late, demoRow{fmt.Sprintf("U+%04X", 0xE000+demoAdded+i), fmt.Sprintf("SYNTROPY DEMO LATECOMER %d", i+1)})
	}
	for _, row := range slices.Concat(d.overwritten, d.added, d.late) {
		d.model[row.key] = row.value
	}
	return d
}

// demoWrites are what a client sends at one point of the story.
type demoWrites struct {
	set []demoRow
	del []string
}

func (d *demoData) whileAway() demoWrites {
	return demoWrites{slices.Concat(d.overwritten, d.added), d.deleted}
}

func (d *demoData) lateWrites() demoWrites { return demoWrites{set: d.late} }

// read returns the keys that are read at QUORUM: the last of those overwritten, so
// that the one that the demo shows is not among them.
func (d *demoData) read() []demoRow { return d.overwritten[demoOverwritten-demoRead:] }

// toFront swaps the row with a key to a place.
func toFront(rows []demoRow, key string, place int) {
	i := slices.IndexFunc(rows, func(r demoRow) bool { return r.key == key })
	rows[place], rows[i] = rows[i], rows[place]
}

// demoCosts are what it takes, in bytes, to make one pair of replicas equal in
// ways that need no tree. They are computed from the data, without any framing.
type demoCosts struct {
	entries  int   // that one replica holds, tombstones included
	listed   int64 // the key and version of each: what must cross to compare key by key
	held     int64 // all of them, with values: what must cross to stream everything
	diverged int64 // the entries that differ, which must cross in any case
}

func (d *demoData) costs() demoCosts {
	c := demoCosts{entries: len(d.model) + len(d.deleted)}
	add := func(key, value string) int64 {
		c.listed += int64(lww.EncodedLen(lww.Entry{Key: []byte(key)}))
		whole := int64(lww.EncodedLen(lww.Entry{Key: []byte(key), Value: []byte(value)}))
		c.held += whole
		return whole
	}
	for key, value := range d.model {
		add(key, value)
	}
	for _, key := range d.deleted {
		c.diverged += add(key, "")
	}
	for _, row := range slices.Concat(d.overwritten[:demoOverwritten-demoRead], d.added) {
		c.diverged += int64(lww.EncodedLen(lww.Entry{Key: []byte(row.key), Value: []byte(row.value)}))
	}
	return c
}
