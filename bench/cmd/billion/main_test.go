package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// TestTheTreeIsThatOfItsRows: filled in parts, it has the digests that adjusting
// row by row makes.
func TestTheTreeIsThatOfItsRows(t *testing.T) {
	for _, n := range []int{1, 71, 73, 1000, 50_000} {
		b := build(newRows(n), 2)
		tree := merkle.NewTreeOf(merkle.Node{}, 0, b.tree.Leaves())
		before := ring.Position(0)
		v := view{b.rows, b.tree, nil}
		rows := 0
		_ = v.Rows(merkle.Node{}, func(r *merkle.Row) bool {
			if rows > 0 && r.Position <= before {
				t.Fatalf("%d rows: %v follows %v", n, r.Position, before)
			}
			if v.Position(r.Entry.Key) != r.Position || v.Sum(r.Entry) != r.Sum {
				t.Fatalf("%d rows: %+v is not what its key says", n, r)
			}
			before, rows = r.Position, rows+1
			tree.Adjust(r.Position, merkle.DigestOf(r.Position, r.Sum))
			return true
		})
		if rows != n || tree.Root() != b.tree.Root() {
			t.Errorf("%d rows: %d were read, their root is %v, not %v", n, rows, tree.Root(), b.tree.Root())
		}
		for x := ring.Position(0); ; {
			leaf := tree.Leaf(x)
			if tree.LeafSyndrome(leaf) != b.tree.LeafSyndrome(leaf) {
				t.Errorf("%d rows: leaf %v differs", n, leaf)
			}
			if leaf.Last() == ring.MaxPosition {
				break
			}
			x = leaf.Last() + 1
		}
	}
}

func TestVersionsDiffer(t *testing.T) {
	r := newRows(10)
	var b buffer
	older := r.entry(&b, 3, r.position(3), false).Clone()
	if newer := r.entry(&b, 3, r.position(3), true); lww.Compare(newer, older) <= 0 {
		t.Errorf("%+v is not newer than %+v", newer, older)
	}
}

func TestOutput(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"-n", "1e3,1e5", "-d", "0,1,3"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 7 {
		t.Errorf("%d lines:\n%s", lines, &out)
	}
	for _, args := range []string{"-n 0", "-n x", "-d x", "-n 1e10"} {
		if err := run(strings.Fields(args), io.Discard, io.Discard); err == nil {
			t.Errorf("%s was taken", args)
		}
	}
}
