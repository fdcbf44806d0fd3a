// Package e2e tests the binary as people run it: real processes, real sockets,
// real signals. It holds only tests.
package e2e
