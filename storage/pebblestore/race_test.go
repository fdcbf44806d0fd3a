//go:build race

package pebblestore_test

func init() { raceEnabled = true }
