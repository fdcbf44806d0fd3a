package antientropy

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"syntropy/merkle"
	"syntropy/storage"
)

// A session is only as good as the two views under it. These cannot be trusted.

// wrongTree is a view whose tree is not that of its rows.
type wrongTree struct {
	View
	at    merkle.Node // everything above it, that is kept, is off by extra
	extra merkle.Digest
}

func (v wrongTree) Root(shard int) merkle.Digest {
	d := v.View.Root(shard)
	if shardNode(v, shard).Above(v.at) {
		d = d.Plus(v.extra)
	}
	return d
}

func (v wrongTree) Syndromes(n merkle.Node, bits int, dst []merkle.Syndrome) bool {
	if !v.View.Syndromes(n, bits, dst) {
		return false
	}
	for i := range 1 << bits {
		if n.Down(bits, i).Above(v.at) {
			dst[i] = dst[i].Plus(v.extra.Syndrome)
		}
	}
	return true
}

// A tree that does not match its rows is found out, on whichever side it is,
// whatever else differs, and even where the other side holds nothing.
func TestAWrongTreeIsFoundOut(t *testing.T) {
	x := shardNode(newStore(t, storage.Options{Shards: 4}).view(), 1).First() + 0x5a<<44
	at := merkle.NodeAt(x, merkle.MaxBits)
	phantom := merkle.DigestOf(x, merkle.Sum{Hi: 1 << 60, Lo: 2})
	for _, rows := range []string{"none", "equal", "drifted"} {
		for _, side := range []string{"initiator", "partner"} {
			for name, extra := range map[string]merkle.Digest{
				"one phantom":      phantom,
				"a wrong sum":      {Sum: phantom.Sum},
				"a wrong syndrome": {Syndrome: phantom.Syndrome},
				"nonsense":         {Sum: phantom.Sum, Count: 40, Syndrome: merkle.Syndrome{1, 2, 3, 4}},
			} {
				for i, cfg := range []Config{{}, {Expected: 100}, {Textbook: true}, {Salt: 1}} {
					t.Run(fmt.Sprintf("%s rows, %s, %s, session %d", rows, side, name, i), func(t *testing.T) {
						a, b := newStore(t, storage.Options{Shards: 4, LeafKeys: 4}), newStore(t, storage.Options{Shards: 4, LeafKeys: 4})
						switch rows {
						case "equal":
							for i := range 100 {
								mustApply(t, a, value(fmt.Sprintf("key-%03d", i), "x", 1))
								mustApply(t, b, value(fmt.Sprintf("key-%03d", i), "x", 1))
							}
						case "drifted":
							a, b = drifted(t)
						}
						cfg.Now = second(100)
						s := session{a: a, b: b, cfg: cfg, viewA: a.view(), viewB: b.view()}
						if side == "initiator" {
							s.viewA = wrongTree{s.viewA, at, extra}
						} else {
							s.viewB = wrongTree{s.viewB, at, extra}
						}
						r, err := s.run(t)
						if cfg.Salt > 0 && extra.Sum == (merkle.Sum{}) {
							// Its digests are summed from the rows, and the others not looked at.
							if err != nil || !r.Complete {
								t.Errorf("error %v, report %+v", err, r)
							}
							return
						}
						if err == nil || r.Complete {
							t.Fatalf("error %v, report %+v", err, r)
						}
						if wrong := new(TreeError); name == "one phantom" && rows != "drifted" && errors.As(err, &wrong) && wrong.Shard != 1 {
							t.Errorf("error %v", err)
						}
					})
				}
			}
		}
	}
}

// A view that cannot be read is an error, on either side.
func TestAViewThatCannotBeRead(t *testing.T) {
	for _, sc := range scenarios {
		fresh := sc.sessions(t)
		for _, side := range []string{"initiator", "partner"} {
			for after := range 20 {
				s := fresh()
				v := &unreadable{left: after}
				if side == "initiator" {
					v.View, s.viewA = s.viewA, v
				} else {
					v.View, s.viewB = s.viewB, v
				}
				r, err := s.run(t)
				if v.left >= 0 {
					break // it was not read that often
				}
				if err == nil || !strings.Contains(err.Error(), "bad sector") || r.Complete {
					t.Errorf("%s, %s, read %d: error %v, report %+v", sc.name, side, after, err, r)
				}
			}
		}
	}
}

// unreadable fails after some reads.
type unreadable struct {
	View
	left int
}

func (v *unreadable) Rows(n merkle.Node, visit func(*merkle.Row) bool) error {
	if v.left--; v.left < 0 {
		return errors.New("bad sector")
	}
	return v.View.Rows(n, visit)
}

// Calls out of order by this side's own shell are errors too.
func TestCallsOutOfTurn(t *testing.T) {
	a, b := drifted(t)
	s := NewInitiator(a.view(), Config{Now: second(100)})
	if _, err := s.Receive([]byte{kindEqual}); err == nil {
		t.Error("Receive before Next")
	}
	s = NewInitiator(a.view(), Config{Now: second(100)})
	if _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(); err == nil {
		t.Error("Next twice")
	}
	resp := newResponder(b.view())
	if _, err := resp.Receive([]byte{kindFinish, 0}); err == nil || !resp.Done() {
		t.Error("finish before open")
	}
	if _, err := resp.Receive(nil); err == nil {
		t.Error("an empty message")
	}
}

// A view of a number of shards that cannot be is refused before any message.
func TestAViewOfStrangeShards(t *testing.T) {
	for _, n := range []int{0, 3, 1 << 15} {
		s := NewInitiator(&mapView{shards: n}, Config{Now: second(1)})
		if msg, err := s.Next(); err == nil || msg != nil {
			t.Errorf("%d shards: %x, %v", n, msg, err)
		}
	}
}
