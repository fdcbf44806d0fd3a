package fleet

import (
	"os/exec"
	"runtime"
)

// spawner starts processes from one thread that lives as long as they do. Linux
// sends the signal of a parent's death when the *thread* that started the
// process ends, not when the process that it belongs to does; a goroutine on a
// thread of its choice could thus kill a healthy node.
type spawner struct {
	requests chan spawnRequest
	ended    chan struct{}
}

type spawnRequest struct {
	cmd *exec.Cmd
	err chan error
}

func newSpawner() *spawner {
	return &spawner{requests: make(chan spawnRequest), ended: make(chan struct{})}
}

// run serves requests until close.
func (s *spawner) run() {
	defer close(s.ended)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread() // a thread that ended locked would be destroyed
	for r := range s.requests {
		r.err <- r.cmd.Start()
	}
}

func (s *spawner) start(cmd *exec.Cmd) error {
	r := spawnRequest{cmd, make(chan error, 1)}
	s.requests <- r
	return <-r.err
}

// close ends the thread. All processes must have ended.
func (s *spawner) close() {
	close(s.requests)
	<-s.ended
}
