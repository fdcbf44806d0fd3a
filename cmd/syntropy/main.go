// Command syntropy runs a node of a Syntropy cluster and asks running nodes: do
// my replicas agree, what differs, and make them equal.
//
// Each command group is one file that ends in a function newX(*app)
// *cobra.Command; root.go lists them. A command writes what it was asked for to
// app.out, everything else to app.err, and returns an error; app.run turns that
// into a message and an exit status. Nothing else exits, so that every command
// runs in tests as it does in a shell.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end, the second one ends at once.
	context.AfterFunc(ctx, stop)
	a := &app{
		in:       os.Stdin,
		out:      os.Stdout,
		err:      os.Stderr,
		colour:   os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(os.Stdout.Fd())),
		progress: term.IsTerminal(int(os.Stderr.Fd())),
		getenv:   os.Getenv,
		environ:  os.Environ,
		now:      time.Now,
	}
	os.Exit(a.run(ctx, os.Args[1:]))
}
