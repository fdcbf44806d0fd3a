package resp

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
)

// command is all there is to know about a command: how it is checked, run and
// documented. COMMAND is generated from it.
type command struct {
	name string
	// arity counts the arguments with the name; -n is n or more.
	arity int
	flags []string
	// firstKey, lastKey and keyStep say which arguments are keys, as COMMAND
	// does; all 0 for none.
	firstKey, lastKey, keyStep int

	group, since, summary string
	// usage is what follows the name, as docs/commands.md shows it.
	usage string
	// note says what a client of Redis must know: "racy: " how, "differs: "
	// how, "refused", or "own: " for a command that Redis does not have. Empty
	// means that the command does exactly what it does in Redis.
	note string

	run handler
	// paced: run gives each of its calls of the backend its own deadline,
	// since it waits for the client between them.
	paced bool
	// subcommands of a container such as CLIENT; then run is nil.
	subcommands []command
}

// handler writes exactly one reply. args begins with the name of the command (of
// a subcommand: of its container) and lies in the read buffer.
type handler func(ctx context.Context, c *conn, args [][]byte)

func commandTable() map[string]*command {
	var table []command
	for _, part := range [][]command{dataCommands(), setCommands(), swapCommands(), expiryCommands(), versionCommands(), connectionCommands(), clusterCommands(), serverCommands(), flushCommands()} {
		table = append(table, part...)
	}
	byName := make(map[string]*command, len(table))
	for i := range table {
		cmd := &table[i]
		for j := range cmd.subcommands {
			cmd.subcommands[j].group, cmd.subcommands[j].flags = cmd.group, cmd.flags
		}
		byName[cmd.name] = cmd
	}
	return byName
}

// lookup finds a command by its name in any case.
func lookup[T any](table map[string]T, name []byte) (T, bool) {
	var lower [32]byte
	if len(name) > len(lower) {
		var none T
		return none, false
	}
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	v, ok := table[string(lower[:len(name)])]
	return v, ok
}

func (cmd *command) accepts(n int) bool {
	if cmd.arity < 0 {
		return n >= -cmd.arity
	}
	return n == cmd.arity
}

// dispatch runs one command that was not joined with others.
func (c *conn) dispatch(ctx context.Context, args [][]byte) {
	cmd, ok := lookup(c.srv.commands, args[0])
	if !ok {
		if reason, ok := lookup(c.srv.refused, args[0]); ok {
			c.w.error("ERR " + strings.ToUpper(string(args[0])) + " is refused: " + reason)
			return
		}
		c.w.error(unknownCommand(args))
		return
	}
	name, full := cmd.name, cmd.name
	if cmd.subcommands != nil && len(args) >= 2 {
		sub := cmd.subcommand(args[1])
		if sub == nil {
			if bytes.EqualFold(args[1], []byte("help")) && len(args) == 2 {
				c.ran(name+"|help", 1)
				cmd.help(c)
				return
			}
			if reason, ok := lookup(c.srv.refused, slices.Concat([]byte(name+"|"), args[1])); ok {
				c.w.error(fmt.Sprintf("ERR %s %s is refused: %s", strings.ToUpper(name), strings.ToUpper(string(args[1])), reason))
				return
			}
			c.w.error(fmt.Sprintf("ERR unknown subcommand '%.128s'. Try %s HELP.", args[1], strings.ToUpper(name)))
			return
		}
		cmd, full = sub, name+"|"+sub.name
	}
	if !cmd.accepts(len(args)) || cmd.run == nil {
		c.w.error("ERR wrong number of arguments for '" + full + "' command")
		return
	}
	c.ran(full, 1)
	if !cmd.paced {
		var cancel context.CancelFunc
		ctx, cancel = c.deadline(ctx)
		defer cancel()
	}
	cmd.run(ctx, c, args)
}

// ran notes a command for CLIENT LIST and INFO.
func (c *conn) ran(name string, times int) {
	if last := c.lastCommand.Load(); last == nil || *last != name {
		c.lastCommand.Store(&name)
	}
	c.srv.executed.Add(int64(times))
}

func (cmd *command) subcommand(name []byte) *command {
	for i := range cmd.subcommands {
		if strings.EqualFold(cmd.subcommands[i].name, string(name)) {
			return &cmd.subcommands[i]
		}
	}
	return nil
}

func (cmd *command) help(c *conn) {
	lines := []string{strings.ToUpper(cmd.name) + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"}
	for _, sub := range cmd.subcommands {
		lines = append(lines, strings.ToUpper(sub.name), "    "+sub.summary)
	}
	c.w.array(len(lines))
	for _, line := range lines {
		c.w.status(line)
	}
}

// unknownCommand is Redis' own text, which shows what arrived: mostly it is a
// typing error, sometimes a client that lost its place in the stream.
func unknownCommand(args [][]byte) string {
	var shown strings.Builder
	for _, arg := range args[1:] {
		room := 128 - shown.Len()
		if room <= 0 {
			break
		}
		fmt.Fprintf(&shown, "'%s' ", arg[:min(len(arg), room)])
	}
	return fmt.Sprintf("ERR unknown command '%s', with args beginning with: %s", args[0][:min(len(args[0]), 128)], shown.String())
}

const (
	errSyntax     = "ERR syntax error"
	errNotInteger = "ERR value is not an integer or out of range"
)
