package antientropy

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/storage"
)

// An initiator that refuses an entry goes on with the others, and neither side
// takes the session for complete: the partner would record a proof.
func TestARefusedEntryProvesNothing(t *testing.T) {
	a, b := newStore(t, storage.Options{Shards: 1}), newStore(t, storage.Options{Shards: 1})
	mustApply(t, a, value("here", "x", 1))
	mustApply(t, b, value("bad", "x", 1), value("good", "x", 1), value("fine", "x", 1))
	init, resp := NewInitiator(a.view(), Config{Now: second(100)}), newResponder(b.view())
	msg, err := init.Next()
	for ; msg != nil && err == nil; msg, err = init.Next() {
		pushed, refused := resp.Receive(msg)
		mustApply(t, b, pushed...)
		pulled, rerr := init.Receive(resp.Reply(refused))
		if rerr != nil {
			t.Fatal(rerr)
		}
		bad := 0
		for _, e := range pulled {
			if string(e.Key) == "bad" {
				bad++
				continue
			}
			mustApply(t, a, e)
		}
		if bad > 0 {
			init.Refused(bad, errors.New("it is from the future"))
		} else {
			init.Applied(nil)
		}
	}
	r := init.Report()
	if err == nil || !strings.Contains(err.Error(), "from the future") || r.Complete || resp.Complete() {
		t.Errorf("error %v, complete here %v, there %v", err, r.Complete, resp.Complete())
	}
	if r.Pulled != 2 || r.Pushed != 1 || len(allRows(t, a.view())) != 3 || len(allRows(t, b.view())) != 4 {
		t.Errorf("%d pulled, %d pushed", r.Pulled, r.Pushed)
	}
}

// A dry run against a side with more rows than fit into one answer ends, and
// tells of all of them.
func TestADryRunOfManyRows(t *testing.T) {
	for _, empty := range []bool{true, false} {
		a, b := newStore(t, storage.Options{Shards: 4}), newStore(t, storage.Options{Shards: 4})
		var many []lww.Entry
		for i := range 5 * maxListed {
			many = append(many, value(fmt.Sprint("key-", i), "x", 1))
		}
		mustApply(t, b, many...)
		if !empty {
			mustApply(t, a, many[0], value("other", "x", 1))
		}
		s := session{a: a, b: b, cfg: Config{Now: second(100), DryRun: true}}
		r, err := s.run(t)
		if err != nil || r.Rounds > 40 {
			t.Fatalf("error %v after %d rounds", err, r.Rounds)
		}
		want := len(many)
		if len(s.found) != want || r.Diverged != want {
			t.Errorf("%d found, %d counted, of %d", len(s.found), r.Diverged, want)
		}
	}
}

// A request of a kilobyte does not make the partner read its rows a hundred
// times over: the rest has to be asked for again.
func TestRowsReadForOneMessageAreBounded(t *testing.T) {
	b := newStore(t, storage.Options{Shards: 1})
	var many []lww.Entry
	for i := range 20_000 {
		many = append(many, value(fmt.Sprint("key-", i), "x", 1))
	}
	mustApply(t, b, many...)
	resp := newResponder(b.view())
	open := openMessage{protocol: protocolVersion, digestVersions: []byte{merkle.DigestVersion}, shards: 1, textbook: true, moment: second(1), settled: second(1), nameBits: nameBitsFor(0)}
	if _, err := resp.Receive(open.append(nil)); err != nil {
		t.Fatal(err)
	}
	resp.Reply(nil)
	req := request{splits: make([]splitAsk, 400)}
	for i := range req.splits {
		req.splits[i].bits = 1
	}
	if _, err := resp.Receive(resp.codec.appendRequest(nil, req)); err != nil {
		t.Fatal(err)
	}
	if read := resp.RowsRead(); read > rowsPerMessage+100_000 || len(resp.answer.splits) == 0 {
		t.Errorf("%d rows read for %d answers", read, len(resp.answer.splits))
	}
}

// What is remembered of rows is bounded also where there are none.
func TestTheRowCacheIsBounded(t *testing.T) {
	var c rowCache
	for i := range uint64(4 * cachedRows) {
		n := merkle.Node{Bits: 40, Path: i}
		if i%3 == 0 {
			c.add(&merkle.Row{Position: n.First(), Entry: lww.Entry{Key: fmt.Append(nil, i)}}, i)
		}
		c.keep(n)
		under := n.Down(20, 0)
		r, ok := c.under(under)
		if !ok || len(r.rows) > 1 || len(r.rows) == 1 && string(r.key(&r.rows[0])) != fmt.Sprint(i) {
			t.Fatal("the rows of a node are forgotten at once")
		}
		if i > 0 {
			if _, ok := c.under(merkle.Node{Bits: 40, Path: i - 1}); !ok {
				t.Fatal("so are those of the one before")
			}
		}
		for _, g := range []generation{c.now, c.before} {
			if len(g.runs) > cachedRows || g.count > 2*cachedRows {
				t.Fatalf("%d nodes, %d rows", len(g.runs), g.count)
			}
		}
	}
}

// A partner that offers what is in a shard that the session is not about is not
// asked for it.
func TestAnOfferFromAnotherShardIsRefused(t *testing.T) {
	a, b := newStore(t, storage.Options{Shards: 4}), newStore(t, storage.Options{Shards: 4})
	for i := range 40 {
		mustApply(t, b, value(fmt.Sprint("key-", i), "x", 1))
	}
	s := session{a: a, b: b, cfg: Config{Now: second(100), Shards: []int{1}}}
	init := NewInitiator(s.a.view(), s.cfg)
	if _, err := init.Next(); err != nil {
		t.Fatal(err)
	}
	for _, code := range []byte{childMine, childSplit, childList, childYours, childSlow} {
		if _, err := init.receiveChild(task{node: merkle.Node{Bits: 2, Path: 2}}, childAnswer{code: code}); !errors.Is(err, errWire) {
			t.Errorf("code %d: error %v", code, err)
		}
	}
}

// Without a time nothing is old enough to be repaired, and everything would wait.
func TestASessionNeedsATime(t *testing.T) {
	init := NewInitiator(newStore(t, storage.Options{Shards: 1}).view(), Config{})
	if _, err := init.Next(); err == nil || !strings.Contains(err.Error(), "Now") {
		t.Errorf("error %v", err)
	}
}
