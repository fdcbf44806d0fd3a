// Package clients tests a node with the programs that people have: redis-cli,
// redis-benchmark, go-redis, rueidis, and the test suite of Redis itself. Each
// test runs real processes.
//
// It is a module of its own, so that the clients it tries are nobody's
// dependency.
package clients
