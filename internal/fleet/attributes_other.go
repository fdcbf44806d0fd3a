//go:build !linux

package fleet

import "syscall"

// attributes keep the terminal's Ctrl-C away from a node.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
