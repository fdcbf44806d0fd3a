package antientropy

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

// A session is only as good as the two views under it. These cannot be trusted.

// wrongTree is a view whose tree is not that of its rows.
type wrongTree struct {
	View
	shard int
	node  merkle.Node // everything on the path to it is off by extra
	extra merkle.Digest
}

func (v wrongTree) Root(shard int) merkle.Digest {
	d := v.View.Root(shard)
	if shard == v.shard {
		d = d.Plus(v.extra)
	}
	return d
}

func (v wrongTree) Children(shard int, n merkle.Node) ([merkle.Fanout]merkle.Digest, error) {
	c, err := v.View.Children(shard, n)
	if shard == v.shard && n.Level < v.node.Level && n.Contains(v.node.First()) {
		i := v.node.First().Nibble(int(n.Level))
		c[i] = c[i].Plus(v.extra)
	}
	return c, err
}

// A tree that does not match its rows is found out, on whichever side it is,
// whatever else differs, and even where the other side holds nothing.
func TestAWrongTreeIsFoundOut(t *testing.T) {
	phantom := merkle.Digest{Sum: merkle.Sum{Hi: 1, Lo: 2}, Count: 1}
	for _, rows := range []string{"none", "equal", "drifted"} {
		for _, side := range []string{"initiator", "partner"} {
			for _, extra := range []merkle.Digest{phantom, {Sum: phantom.Sum}, {Sum: phantom.Sum, Count: 40}} {
				for level := range uint8(3) {
					t.Run(fmt.Sprintf("%s rows, %s, %d phantoms, level %d", rows, side, extra.Count, level), func(t *testing.T) {
						a, b := newStore(t, storage.Options{Shards: 4}), newStore(t, storage.Options{Shards: 4})
						switch rows {
						case "equal":
							for i := range 100 {
								mustApply(t, a, value(fmt.Sprintf("key-%03d", i), "x", 1))
								mustApply(t, b, value(fmt.Sprintf("key-%03d", i), "x", 1))
							}
						case "drifted":
							a, b = drifted(t)
						}
						s := session{a: a, b: b, cfg: smallLists, viewA: a.view(), viewB: b.view()}
						node := merkle.NodeOf(0x5a<<52, int(level))
						if side == "initiator" {
							s.viewA = wrongTree{s.viewA, 1, node, extra}
						} else {
							s.viewB = wrongTree{s.viewB, 1, node, extra}
						}
						r, err := s.run(t)
						var wrong *TreeError
						if !errors.As(err, &wrong) || r.Complete || wrong.Shard != 1 {
							t.Errorf("error %v, report %+v", err, r)
						}
					})
				}
			}
		}
	}
}

// A view that cannot be read is an error, on either side.
func TestAViewThatCannotBeRead(t *testing.T) {
	for _, side := range []string{"initiator", "partner"} {
		a, b := drifted(t)
		s := session{a: a, b: b, cfg: smallLists, viewA: a.view(), viewB: b.view()}
		if side == "initiator" {
			s.viewA = unreadable{s.viewA}
		} else {
			s.viewB = unreadable{s.viewB}
		}
		r, err := s.run(t)
		if err == nil || !strings.Contains(err.Error(), "bad sector") || r.Complete {
			t.Errorf("%s: error %v, report %+v", side, err, r)
		}
	}
}

type unreadable struct{ View }

func (unreadable) Rows(int, merkle.Node, func(ring.Token, lww.Entry, merkle.Digest) bool) error {
	return errors.New("bad sector")
}

// Calls out of order by this side's own shell are errors too.
func TestCallsOutOfTurn(t *testing.T) {
	a, b := drifted(t)
	s := NewInitiator(a.view(), smallLists)
	if _, err := s.Receive([]byte{kindEqual}); err == nil {
		t.Error("Receive before Next")
	}
	s = NewInitiator(a.view(), smallLists)
	if _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(); err == nil {
		t.Error("Next twice")
	}
	resp := NewResponder(b.view())
	if _, err := resp.Receive([]byte{kindFinish}); err == nil || !resp.Done() {
		t.Error("finish before open")
	}
	if _, err := resp.Receive(nil); err == nil {
		t.Error("an empty message")
	}
}
