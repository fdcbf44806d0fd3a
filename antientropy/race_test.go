//go:build race

package antientropy

func init() { raceEnabled = true }
