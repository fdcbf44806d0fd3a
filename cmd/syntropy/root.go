package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"syntropy/internal/admin"
	"syntropy/internal/config"
)

// The exit statuses, part of the contract with scripts.
const (
	exitOK       = 0
	exitFailed   = 1 // the command failed
	exitUsage    = 2 // an unknown flag, command or argument; nothing was done
	exitDisagree = 3 // the cluster answered, and something does not agree
)

// defaultAdmin is where the first node of `syntropy dev` listens for operators.
const defaultAdmin = "127.0.0.1:7201"

// app is the world as commands see it.
type app struct {
	in       io.Reader
	out, err io.Writer
	colour   bool // out is a terminal that wants colours
	progress bool // err is a terminal: draw a progress bar
	getenv   func(string) string
	environ  func() []string // all of it, as os.Environ
	now      func() time.Time

	admin string // --admin
	json  bool   // --json
}

// statusError gives an error an exit status other than exitFailed.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// usageError reports a command line that makes no sense.
func usageError(format string, args ...any) error {
	return &statusError{exitUsage, fmt.Errorf(format, args...)}
}

// disagree reports that the cluster answered and something does not agree.
func disagree(format string, args ...any) error {
	return &statusError{exitDisagree, fmt.Errorf(format, args...)}
}

// run runs one command line and returns the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(append([]string{}, args...)) // never nil: cobra would take os.Args
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	status := exitFailed
	if e, ok := errors.AsType[*statusError](err); ok {
		status = e.status
	}
	text := err.Error()
	if err == context.Canceled {
		text = "interrupted"
	}
	fmt.Fprintf(a.err, "syntropy: %s\n", text)
	if status == exitUsage {
		fmt.Fprintf(a.err, "see %s --help\n", cmd.CommandPath())
	}
	return status
}

// newRoot builds the command tree. A new command is a line here.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "syntropy",
		Short: "a leaderless replicated key-value store whose replicas provably agree",
		Long: `Syntropy is a leaderless, replicated key-value store. Clients speak to it with
any Redis library, and any node serves any key. Its replicas drift apart whenever a
node is down or a write is lost; they bring each other up to date by themselves, and
"syntropy status" tells until when each pair is proven to agree.

To see the whole story:   syntropy demo
To try it yourself:       syntropy dev, then syntropy status

Exit statuses, the same for all commands:
  0  fine
  1  the command failed; the message says why and what to do
  2  the command line makes no sense; nothing was done
  3  the cluster answered, and something does not agree (each command's help
     says what)`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError("%w", err) })
	root.AddGroup(
		&cobra.Group{ID: groupNode, Title: "Run nodes:"},
		&cobra.Group{ID: groupAsk, Title: "Ask and repair a running cluster:"},
		&cobra.Group{ID: groupData, Title: "Move data:"},
	)
	root.AddCommand(
		newServe(a),
		newInit(a),
		newConfig(a),
		newDev(a),
		newDemo(a),
		newStatus(a),
		newInspect(a),
		newRepair(a),
		newRoots(a),
		newScrub(a),
		newImport(a),
		newBench(a),
		newVersion(a),
	)
	root.SetHelpCommand(newHelp())
	return root
}

// The groups of commands in the help of syntropy.
const (
	groupNode = "node" // serve, init, config, dev, demo
	groupAsk  = "ask"
	groupData = "data"
)

// client adds the flags of commands that talk to a running node.
func (a *app) client(cmd *cobra.Command) *cobra.Command {
	addr := cmp.Or(a.getenv("SYNTROPY_ADMIN"), defaultAdmin)
	// Also for subcommands. Help never comes here.
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		source := "--admin"
		if !cmd.Flags().Changed("admin") && a.getenv("SYNTROPY_ADMIN") != "" {
			source = "SYNTROPY_ADMIN"
		}
		if err := config.CheckAddr(a.admin, 1, defaultAdmin); err != nil {
			return usageError("%s %q: %w", source, a.admin, err)
		}
		return nil
	}
	cmd.PersistentFlags().StringVar(&a.admin, "admin", addr, "admin address `H:P` of a node (also SYNTROPY_ADMIN)")
	return a.jsonFlag(cmd)
}

func (a *app) jsonFlag(cmd *cobra.Command) *cobra.Command {
	cmd.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON on stdout and nothing else")
	return cmd
}

// dial returns a client for the node that --admin names.
func (a *app) dial() *admin.Client { return admin.NewClient(a.admin) }

// printJSON prints an answer for programs. Keys are printed as they are, so
// without the escapes that make JSON safe inside HTML.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// noArgs is cobra.NoArgs with exit status 2.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError("%s takes no argument %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// oneArg asks for exactly one argument.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError("%s takes one argument, %s, not %d", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// knownCommand is the Args of commands that have subcommands: what is left over
// is a command that does not exist.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		return usageError("unknown command %q: did you mean %s?", args[0], strings.Join(like, " or "))
	}
	return usageError("unknown command %q", args[0])
}

// newHelp replaces cobra's help command, which prints the usage of everything
// and succeeds when it is asked for a command that does not exist.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "explain a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usageError("there is no command %q", strings.Join(args, " "))
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}
