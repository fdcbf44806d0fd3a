package e2e

import (
	"syscall"
	"testing"
	"time"

	"syntropy/report"
)

// TestFrozen (I2): a process that was frozen for longer than gc_grace, as a
// suspended virtual machine is, does not know that time has passed. The others
// refuse it, it goes out of service, and what was deleted meanwhile does not come
// back.
func TestFrozen(t *testing.T) {
	servers := startServers(t, 3, "--gc-grace", "3s", "--hint-window", "600ms", "--settle", "200ms",
		"--request-deadline", "1s", "--shards", "8")
	ctx, first, frozen := t.Context(), servers[0].redis(), servers[2]
	if err := first.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := frozen.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, s := range servers[:2] {
		eventually(t, "the others have given it up", func() bool {
			st, err := s.status()
			return err == nil && st.Nodes[2].Reason == "away for longer than gc_grace"
		})
	}
	if err := first.Del(ctx, "k").Err(); err != nil {
		t.Fatal(err)
	}
	if err := frozen.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	began, client, served := time.Now(), frozen.redis(), 0
	eventually(t, "it goes out of service", func() bool {
		if client.Get(ctx, "k").Err() == nil {
			served++
		}
		st, err := frozen.status()
		return err == nil && st.Nodes[2].State == report.StateStale
	})
	t.Logf("out of service %v after it thawed; it served the deleted key %d times until then", time.Since(began), served)
	err := client.Get(ctx, "k").Err()
	if err == nil {
		t.Fatal("it serves a deleted key")
	}
	wantWords(t, err.Error(), "STALE", "gc_grace")
	_, status, stderr := syntropy(t, nil, "repair", "--admin", servers[0].admin)
	if status != 3 {
		t.Errorf("a repair of two pairs out of three: status %d: %s", status, stderr)
	}
	for _, s := range servers[:2] {
		if got, err := s.redis().Get(ctx, "k").Result(); err == nil {
			t.Errorf("the deleted key is back: %q", got)
		}
	}
}
