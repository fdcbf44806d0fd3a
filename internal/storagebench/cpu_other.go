//go:build !unix

package storagebench

import "time"

// processCPU is not known here: ratios of CPU are not numbers then.
func processCPU() time.Duration { return 0 }
