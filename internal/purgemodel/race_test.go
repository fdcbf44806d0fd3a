//go:build race

package purgemodel

func init() { raceEnabled = true }
