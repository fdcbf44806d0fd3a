package syntropytest

import (
	"context"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// A goroutine that a node leaves behind is found, and one of another test is not
// taken for it.
func TestGoroutinesLeftBehind(t *testing.T) {
	release := make(chan struct{})
	begin := func(label string) {
		began := make(chan struct{})
		pprof.Do(t.Context(), pprof.Labels(labelKey, label), func(context.Context) {
			go func() { // the label is inherited by what this starts, too
				go forgotten(began, release)
			}()
		})
		<-began
	}
	begin("mine, with \"quotes\"")
	begin("another's")
	left := waitForGoroutines("mine, with \"quotes\"", time.Millisecond)
	if strings.Count(left, "forgotten") != 1 {
		t.Errorf("one goroutine is left behind, found: %q", left)
	}
	if left := labelled("nobody's"); left != "" {
		t.Errorf("found what nobody has started: %s", left)
	}
	close(release)
	if left := waitForGoroutines("mine, with \"quotes\"", patience); left != "" {
		t.Errorf("it has ended, and is found all the same: %s", left)
	}
}

func forgotten(began, release chan struct{}) {
	close(began)
	<-release
}
