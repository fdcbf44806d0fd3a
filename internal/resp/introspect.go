package resp

import (
	"context"
	"slices"
	"strconv"
	"strings"
)

// The commands that describe the server: CONFIG GET, COMMAND, TIME; INFO is in info.go.

func serverCommands() []command {
	quick := []string{"loading", "stale"}
	return []command{
		{name: "info", arity: -1, flags: quick, group: "server", since: "1.0.0", usage: "[section ...]",
			note: "differs: fewer sections and fields, and some of its own", summary: "Describes the server, or the given sections.", run: info},
		{name: "time", arity: 1, flags: append([]string{"fast"}, quick...), group: "server", since: "2.6.0",
			summary: "Returns the time of this node.", run: timeNow},
		{name: "config", arity: -2, flags: append([]string{"admin"}, quick...), group: "server", since: "2.0.0",
			summary: "A container for commands about the configuration.", subcommands: []command{
				{name: "get", arity: -3, since: "2.0.0", usage: "pattern [pattern ...]",
					note: "differs: a few settings that tools ask for", summary: "Returns the settings that match the patterns.", run: configGet},
			}},
		{name: "command", arity: -1, flags: quick, group: "server", since: "2.8.13",
			note:    "differs: without tips, key specifications and arguments",
			summary: "Describes the commands.", run: commandAll, subcommands: []command{
				{name: "count", arity: 2, since: "2.8.13", summary: "Counts the commands.",
					run: func(_ context.Context, c *conn, _ [][]byte) { c.w.integer(int64(len(c.srv.commands))) }},
				{name: "docs", arity: -2, since: "7.0.0", usage: "[name ...]", note: "differs: without complexity, history and arguments",
					summary: "Documents the given commands, or all.", run: commandDocs},
				{name: "info", arity: -2, since: "2.8.13", usage: "[name ...]",
					note: "differs: without tips, key specifications and arguments", summary: "Describes the given commands, or all.", run: commandInfo},
				{name: "list", arity: -2, since: "7.0.0", usage: "[FILTERBY MODULE name | ACLCAT category | PATTERN pattern]", summary: "Returns the names of the commands.", run: commandList},
			}},
		{name: "module", arity: -2, flags: []string{"admin"}, group: "server", since: "4.0.0",
			summary: "A container for commands about modules.", subcommands: []command{
				{name: "list", arity: 2, since: "4.0.0", summary: "Returns the modules: there are none.",
					run: func(_ context.Context, c *conn, _ [][]byte) { c.w.array(0) }},
			}},
	}
}

func timeNow(_ context.Context, c *conn, _ [][]byte) {
	now := c.srv.opts.Now()
	c.w.array(2)
	c.w.bulkString(strconv.FormatInt(now.Unix(), 10))
	c.w.bulkString(strconv.Itoa(now.Nanosecond() / 1000))
}

// settings are answers to what tools ask of CONFIG GET when they connect, true
// in Redis' words as far as these go: every write is in a log, nothing is
// evicted, there is one database.
func (s *Server) settings() [][2]string {
	return [][2]string{
		{"appendonly", "yes"},
		{"cluster-enabled", "no"},
		{"databases", "1"},
		{"maxclients", strconv.Itoa(s.opts.MaxClients)},
		{"maxmemory", "0"},
		{"maxmemory-policy", "noeviction"},
		{"proto-max-bulk-len", strconv.Itoa(ValueBytesMax)},
		{"save", ""},
		{"timeout", strconv.Itoa(int(s.opts.IdleTimeout.Seconds()))},
	}
}

func configGet(_ context.Context, c *conn, args [][]byte) {
	var found [][2]string
	for _, setting := range c.srv.settings() {
		for _, pattern := range args[2:] {
			if globMatch([]byte(strings.ToLower(string(pattern))), []byte(setting[0])) {
				found = append(found, setting)
				break
			}
		}
	}
	c.w.mapOf(len(found))
	for _, setting := range found {
		c.w.bulkString(setting[0])
		c.w.bulkString(setting[1])
	}
}

// sorted returns the commands by name, so that COMMAND reads the same each time.
func (s *Server) sorted() []*command {
	all := make([]*command, 0, len(s.commands))
	for _, cmd := range s.commands {
		all = append(all, cmd)
	}
	slices.SortFunc(all, func(a, b *command) int { return strings.Compare(a.name, b.name) })
	return all
}

func commandAll(_ context.Context, c *conn, _ [][]byte) {
	all := c.srv.sorted()
	c.w.array(len(all))
	for _, cmd := range all {
		cmd.describe(&c.w, cmd.name)
	}
}

func commandInfo(ctx context.Context, c *conn, args [][]byte) {
	if len(args) == 2 {
		commandAll(ctx, c, args)
		return
	}
	c.w.array(len(args) - 2)
	for _, name := range args[2:] {
		if cmd, full := c.srv.find(name); cmd != nil {
			cmd.describe(&c.w, full)
		} else if c.w.resp3 {
			c.w.null()
		} else {
			c.w.array(-1)
		}
	}
}

// find resolves "get" and "client|id".
func (s *Server) find(name []byte) (cmd *command, full string) {
	first, second, isSub := strings.Cut(string(name), "|")
	cmd, ok := lookup(s.commands, []byte(first))
	if !ok {
		return nil, ""
	}
	if !isSub {
		return cmd, strings.ToLower(first)
	}
	return cmd.subcommand([]byte(second)), strings.ToLower(string(name))
}

// describe writes an entry of COMMAND as of Redis 7: ten elements, of which the
// tips and the key specifications are empty; first, last and step say it all for
// commands as plain as these.
func (cmd *command) describe(w *replyWriter, full string) {
	w.array(10)
	w.bulkString(full)
	w.integer(int64(cmd.arity))
	w.set(len(cmd.flags))
	for _, flag := range cmd.flags {
		w.status(flag)
	}
	w.integer(int64(cmd.firstKey))
	w.integer(int64(cmd.lastKey))
	w.integer(int64(cmd.keyStep))
	categories := cmd.categories()
	w.set(len(categories))
	for _, category := range categories {
		w.status(category)
	}
	w.set(0)
	w.array(0)
	w.array(len(cmd.subcommands))
	for i := range cmd.subcommands {
		sub := &cmd.subcommands[i]
		sub.describe(w, cmd.name+"|"+sub.name)
	}
}

// categories are the ACL categories that follow from flags and group.
func (cmd *command) categories() []string {
	speed := "@slow"
	var categories []string
	for _, flag := range cmd.flags {
		switch flag {
		case "readonly":
			categories = append(categories, "@read")
		case "write":
			categories = append(categories, "@write")
		case "admin":
			categories = append(categories, "@admin", "@dangerous")
		case "fast":
			speed = "@fast"
		}
	}
	switch cmd.group {
	case "string":
		categories = append(categories, "@string")
	case "generic":
		categories = append(categories, "@keyspace")
	case "connection", "cluster":
		categories = append(categories, "@connection")
	}
	return append(categories, speed)
}

func commandDocs(_ context.Context, c *conn, args [][]byte) {
	var found []*command
	if len(args) == 2 {
		found = c.srv.sorted()
	}
	var names []string
	for _, cmd := range found {
		names = append(names, cmd.name)
	}
	for _, name := range args[2:] {
		if cmd, full := c.srv.find(name); cmd != nil {
			found, names = append(found, cmd), append(names, full)
		}
	}
	c.w.mapOf(len(found))
	for i, cmd := range found {
		c.w.bulkString(names[i])
		cmd.document(&c.w)
	}
}

func (cmd *command) document(w *replyWriter) {
	fields := [][2]string{{"summary", cmd.summary}, {"since", cmd.since}, {"group", cmd.group}}
	n := len(fields)
	if cmd.subcommands != nil {
		n++
	}
	w.mapOf(n)
	for _, field := range fields {
		w.bulkString(field[0])
		w.bulkString(field[1])
	}
	if cmd.subcommands == nil {
		return
	}
	w.bulkString("subcommands")
	w.mapOf(len(cmd.subcommands))
	for i := range cmd.subcommands {
		sub := &cmd.subcommands[i]
		w.bulkString(cmd.name + "|" + sub.name)
		sub.document(w)
	}
}

func commandList(_ context.Context, c *conn, args [][]byte) {
	keep := func(*command) bool { return true }
	switch options := args[2:]; {
	case len(options) == 0:
	case len(options) == 3 && strings.EqualFold(string(options[0]), "filterby"):
		value := strings.ToLower(string(options[2]))
		switch strings.ToLower(string(options[1])) {
		case "module":
			keep = func(*command) bool { return false }
		case "aclcat":
			keep = func(cmd *command) bool { return slices.Contains(cmd.categories(), "@"+value) }
		case "pattern":
			keep = func(cmd *command) bool { return globMatch([]byte(value), []byte(cmd.name)) }
		default:
			c.w.error(errSyntax)
			return
		}
	default:
		c.w.error(errSyntax)
		return
	}
	var names []string
	for _, cmd := range c.srv.sorted() {
		if keep(cmd) {
			names = append(names, cmd.name)
		}
	}
	c.w.array(len(names))
	for _, name := range names {
		c.w.bulkString(name)
	}
}
