package syntropytest

import (
	"bytes"
	"fmt"
	"runtime/pprof"
	"strings"
	"time"
)

// labelKey is the name of the label of a node's goroutines, in profiles.
const labelKey = "syntropytest"

// waitForGoroutines waits until no goroutine with the label is left, and returns the
// stacks of those that still are after the timeout. What has been told to end needs a
// moment to be gone.
func waitForGoroutines(label string, timeout time.Duration) (left string) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for end := time.Now().Add(timeout); ; <-tick.C {
		if left = labelled(label); left == "" || time.Now().After(end) {
			return left
		}
	}
}

// labelled returns the part of the goroutine profile that has the label.
func labelled(label string) string {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return err.Error() // a buffer takes everything, so this is worth a failed test
	}
	mark := fmt.Sprintf("%q:%q", labelKey, label)
	var found []string
	for _, stack := range strings.Split(profile.String(), "\n\n") {
		if strings.Contains(stack, mark) {
			found = append(found, stack)
		}
	}
	return strings.Join(found, "\n\n")
}
