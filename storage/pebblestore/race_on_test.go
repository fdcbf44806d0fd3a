//go:build race

package pebblestore_test

// few is the part of the bit flips and faults that is tried under the race detector,
// which makes each ten times as long; "make models" tries all.
const few = 10
