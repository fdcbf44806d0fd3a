package fleet

import "syscall"

// attributes keep the terminal's Ctrl-C away from a node and end the node when
// the one who started it dies.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
