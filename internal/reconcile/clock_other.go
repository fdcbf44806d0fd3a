//go:build !linux

package reconcile

import "time"

// threadTime is not known.
func threadTime() (time.Duration, bool) { return 0, false }
