// Package syntropytest starts a cluster of real nodes inside one test, in the manner
// of net/http/httptest: real sockets on loopback, real disks in the test's temporary
// directory, nothing simulated.
//
//	func TestMine(t *testing.T) {
//		cluster := syntropytest.NewCluster(t, 3)
//		err := cluster.DB(0).Put(t.Context(), []byte("k"), []byte("v"))
//		...
//		value, err := cluster.DB(2).Get(t.Context(), []byte("k"))
//	}
//
// Nodes can be stopped, started again and given an empty disk. When the test ends they
// are closed, and the test fails if one does not close well or leaves a goroutine
// behind.
//
// # Caveats
//
// All nodes share one process, so there is no kill -9 here: [Cluster.Stop] is an
// orderly stop. Nodes have the default settings of a production cluster except that
// differences count at once (Settle), that there are few shards, and that no repair
// runs by itself; see [NewClusterWith] for other ones.
package syntropytest
