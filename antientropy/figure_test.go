package antientropy

import (
	"bytes"
	"fmt"
	"testing"

	"syntropy/internal/unidata"
	"syntropy/lww"
	"syntropy/storage"
)

// Two replicas of the Unicode character names, of which one was away while
// 1,000 names were overwritten, 500 deleted and 200 added: exactly 1,700
// entries travel, and no other key is mentioned on the wire.
func TestOnlyWhatWasMissedTravels(t *testing.T) {
	a := newStore(t, storage.Options{Shards: 256})
	b := newStore(t, storage.Options{Shards: 256})
	var all []lww.Entry
	for key, name := range unidata.Rows() {
		all = append(all, value("<"+key+">", name, 1))
	}
	if len(all) < 30_000 {
		t.Fatalf("only %d rows", len(all))
	}
	mustApply(t, a, all...)
	mustApply(t, b, all...)

	missed := make(map[string]bool)
	var writes []lww.Entry
	miss := func(e lww.Entry) {
		missed[string(e.Key)] = true
		writes = append(writes, e)
	}
	for i := range 1000 {
		miss(value(string(all[17*i].Key), "renamed", 60))
	}
	for i := range 500 {
		miss(tombstone(string(all[17*i+5].Key), 61))
	}
	for i := range 200 {
		miss(value(fmt.Sprintf("<new-%03d>", i), "added", 62))
	}
	if len(missed) != 1700 {
		t.Fatalf("%d different keys were missed", len(missed))
	}
	mustApply(t, a, writes...)

	s := session{a: a, b: b, cfg: Config{Now: second(100)}}
	r := s.mustRun(t)
	if r.Diverged != 1700 || r.Pushed != 1700 || r.Pulled != 0 || len(s.appliedB) != 1700 || len(s.appliedA) != 0 {
		t.Fatalf("report %+v, %d and %d entries travelled", r, len(s.appliedB), len(s.appliedA))
	}
	var wire []byte
	for _, m := range s.transcript {
		wire = append(append(wire, m.bytes...), "|||"...)
	}
	// Each key is bracketed, so every one on the wire is found this way.
	for rest := wire; ; {
		_, after, found := bytes.Cut(rest, []byte("<U+"))
		if !found {
			break
		}
		key, _, _ := bytes.Cut(after, []byte(">"))
		if len(key) <= 6 && !missed["<U+"+string(key)+">"] {
			t.Fatalf("key %q is on the wire and does not differ", key)
		}
		rest = after
	}
	t.Logf("%d rows, %d rounds, %d bytes sent, %d received; %d rounds and %.1f bytes a key to name what differs",
		len(all), r.Rounds, r.BytesSent, r.BytesReceived, r.NamingRounds, float64(r.NamingBytes)/1700)
	if !equalReplicas(t, a, b) {
		t.Fatal("the replicas are not equal")
	}
	expectOneDigest(t, a, b)
}

// What tombstones are for: a replica that was away while a key was deleted
// still has the value. Without a tombstone, nobody can tell "deleted here" from
// "never arrived here", and the session brings the value back.
func TestWhatTombstonesAreFor(t *testing.T) {
	for _, physical := range []bool{false, true} {
		t.Run(fmt.Sprintf("physical delete %v", physical), func(t *testing.T) {
			a := newStore(t, storage.Options{Shards: 4, PhysicalDelete: physical})
			b := newStore(t, storage.Options{Shards: 4, PhysicalDelete: physical})
			mustApply(t, a, value("pluto", "planet", 1))
			mustApply(t, b, value("pluto", "planet", 1))
			mustApply(t, a, tombstone("pluto", 60)) // b is away

			s := session{a: a, b: b, cfg: Config{Now: second(100)}}
			s.mustRun(t)
			e, found := allRows(t, a.view())["pluto"]
			if deleted := !found || e.Tombstone; deleted == physical {
				t.Errorf("after the session: deleted %v", deleted)
			}
		})
	}
}

// The first exchange does not grow with the data or the shards.
func TestAgreementCostsOneDigest(t *testing.T) {
	for _, shards := range []int{1, 256, 16384} {
		a, b := newStore(t, storage.Options{Shards: shards}), newStore(t, storage.Options{Shards: shards})
		for i := range 100 {
			mustApply(t, a, value(fmt.Sprint("key-", i), "x", 1))
			mustApply(t, b, value(fmt.Sprint("key-", i), "x", 1))
		}
		expectOneDigest(t, a, b)
	}
}
