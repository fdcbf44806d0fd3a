//go:build !race

package pebblestore_test

const few = 1
