package syntropytest_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"slices"
	"testing"
	"time"

	"syntropy"
	"syntropy/report"
	"syntropy/syntropytest"
)

// TestThreeNodes is as much as it takes to have three embedded nodes in one test.
func TestThreeNodes(t *testing.T) {
	cluster := syntropytest.NewCluster(t, 3)
	key := []byte("greeting")
	if err := cluster.DB(0).Put(t.Context(), key, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	cluster.Stop(0) // two of three are a quorum
	value, err := cluster.DB(2).Get(t.Context(), key)
	if err != nil || string(value) != "hello" {
		t.Fatalf("got %q, %v", value, err)
	}
}

// What is promised of the test above, and of the example that does without this
// package, is counted here.
func TestThreeNodesTakeFewLines(t *testing.T) {
	for _, f := range []struct{ file, function string }{
		{"cluster_test.go", "TestThreeNodes"},
		{"../example_test.go", "Example_threeNodes"},
	} {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, f.file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(file.Decls, func(d ast.Decl) bool {
			fn, ok := d.(*ast.FuncDecl)
			return ok && fn.Name.Name == f.function
		})
		if i < 0 {
			t.Fatalf("%s has no %s", f.file, f.function)
		}
		lines := fset.Position(file.Decls[i].End()).Line - fset.Position(file.Decls[i].Pos()).Line + 1
		if lines > 25 {
			t.Errorf("%s takes %d lines: at most 25 were promised", f.function, lines)
		}
	}
}

func states(t *testing.T, db *syntropy.DB) map[string]string {
	t.Helper()
	members, err := db.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	states := make(map[string]string)
	for _, m := range members {
		states[m.Addr] = m.State
	}
	return states
}

func TestStopAndStart(t *testing.T) {
	c := syntropytest.NewCluster(t, 3)
	key := []byte("k")
	id := c.DB(1).ID()
	c.Stop(1)
	c.Stop(1) // stopping twice is no mistake
	c.WaitConnected()
	if s := states(t, c.DB(0)); len(s) != 3 || s[c.Addr(1)] != report.StateDown {
		t.Errorf("with node 1 stopped: %v", s)
	}
	conn, err := net.Dial("tcp", c.Addr(1)) // the port stays this test's own
	if err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("a stopped node answers with %d bytes", n)
	}
	conn.Close()
	if err := c.DB(0).Put(t.Context(), key, []byte("v")); err != nil {
		t.Fatal(err)
	}
	c.Start(1)
	c.WaitConnected()
	if got := c.DB(1).ID(); got != id {
		t.Errorf("node 1 was %v and came back as %v", id, got)
	}
	if v, err := c.DB(1).Get(t.Context(), key); err != nil || string(v) != "v" {
		t.Errorf("got %q, %v", v, err)
	}
}

func TestReplace(t *testing.T) {
	c := syntropytest.NewCluster(t, 3)
	key := []byte("k")
	if err := c.DB(0).At(syntropy.All).Put(t.Context(), key, []byte("v")); err != nil {
		t.Fatal(err)
	}
	disk := func() string {
		st, err := c.DB(0).Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.Nodes[c.DB(2).ID()-1].Incarnation
	}
	before := disk()
	c.Replace(2)
	c.WaitConnected()
	if disk() == before {
		t.Error("the node has the disk that it had")
	}
	if v, err := c.DB(2).At(syntropy.One).Get(t.Context(), key); err != nil || string(v) != "v" {
		t.Errorf("the new disk was not filled: %q, %v", v, err)
	}
}

func TestOptionsForEachNode(t *testing.T) {
	zones := []string{"a", "b"}
	c := syntropytest.NewClusterWith(t, 2, func(i int, o *syntropy.Options) {
		o.Zone, o.RequestDeadline = zones[i], 2*time.Second
	})
	if c.Len() != 2 {
		t.Errorf("Len is %d", c.Len())
	}
	if d := c.DB(1).RequestDeadline(); d != 2*time.Second {
		t.Errorf("the deadline is %v", d)
	}
	members, err := c.DB(0).Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if want := zones[slices.Index([]string{c.Addr(0), c.Addr(1)}, m.Addr)]; m.Zone != want {
			t.Errorf("%s is in zone %q, want %q", m.Addr, m.Zone, want)
		}
	}
}

// A cluster of more nodes than replicas: every node serves every key.
func TestMoreNodesThanReplicas(t *testing.T) {
	c := syntropytest.NewCluster(t, 5)
	for i := range 20 {
		key := []byte{byte(i)}
		if err := c.DB(i%5).Put(t.Context(), key, key); err != nil {
			t.Fatal(err)
		}
		in, err := c.DB((i+1)%5).Inspect(t.Context(), key)
		if err != nil || len(in.Replicas) != 3 {
			t.Fatalf("key %d: %d replicas, %v", i, len(in.Replicas), err)
		}
		if v, err := c.DB((i+2)%5).Get(t.Context(), key); err != nil || string(v) != string(key) {
			t.Errorf("key %d: %q, %v", i, v, err)
		}
	}
}

// Too few nodes for a quorum: an error at once, and not for requests at level ONE.
func TestNoQuorum(t *testing.T) {
	c := syntropytest.NewCluster(t, 3)
	key := []byte("k")
	if err := c.DB(0).At(syntropy.All).Put(t.Context(), key, []byte("v")); err != nil {
		t.Fatal(err)
	}
	c.Stop(1)
	c.WaitConnected()
	if err := c.DB(0).At(syntropy.All).Put(t.Context(), key, []byte("w")); !errors.Is(err, syntropy.ErrUnavailable) {
		t.Errorf("a write at ALL with a node down: %v", err)
	}
	if err := c.DB(0).Ready(t.Context()); err != nil {
		t.Errorf("two of three are ready for a quorum: %v", err)
	}
	c.Stop(2)
	c.WaitConnected()
	if _, err := c.DB(0).Get(t.Context(), key); !errors.Is(err, syntropy.ErrUnavailable) {
		t.Errorf("a read at QUORUM with one of three: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := c.DB(0).Ready(ctx); !errors.Is(err, syntropy.ErrNotReady) {
		t.Errorf("one of three is ready for a quorum: %v", err)
	}
	one := c.DB(0).At(syntropy.One)
	if err := one.Ready(t.Context()); err != nil {
		t.Errorf("one of three is not ready for level ONE: %v", err)
	}
	if v, err := one.Get(t.Context(), key); err != nil || string(v) != "v" {
		t.Errorf("a read at ONE: %q, %v", v, err)
	}
}
