package resp

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The commands about the connection itself.

// redisVersion is the Redis whose protocol and error texts we follow. Clients
// choose their features by it, so it is not our own version.
const redisVersion = "7.0.15"

// clientNameBytesMax bounds what a client may have us remember about it.
const clientNameBytesMax = 256

func connectionCommands() []command {
	fast := []string{"loading", "stale", "fast"}
	return []command{
		{name: "ping", arity: -1, flags: []string{"fast"}, group: "connection", since: "1.0.0",
			usage: "[message]", summary: "Answers PONG, or the given message.", run: ping},
		{name: "echo", arity: 2, flags: fast, group: "connection", since: "1.0.0",
			usage: "message", summary: "Returns the given message.", run: func(_ context.Context, c *conn, args [][]byte) { c.w.bulk(args[1]) }},
		{name: "hello", arity: -1, flags: append([]string{"no_auth"}, fast...), group: "connection", since: "6.0.0",
			usage: "[protover [SETNAME name]]", note: "differs: AUTH is refused",
			summary: "Chooses the protocol version and describes the server.", run: hello},
		{name: "select", arity: 2, flags: fast, group: "connection", since: "1.0.0",
			usage: "index", note: "differs: there is only database 0",
			summary: "Accepts database 0, the only one.", run: selectDatabase},
		{name: "quit", arity: -1, flags: append([]string{"no_auth"}, fast...), group: "connection", since: "1.0.0",
			summary: "Closes the connection.", run: func(_ context.Context, c *conn, _ [][]byte) { c.quit = true; c.w.ok() }},
		{name: "reset", arity: 1, flags: append([]string{"no_auth"}, fast...), group: "connection", since: "6.2.0",
			summary: "Forgets what was set for the connection, its consistency too.", run: reset},
		{name: "syn.consistency", arity: -1, flags: fast, group: "connection", since: "0.1.0",
			usage: "[level | [READ level] [WRITE level]]", note: "own: a level is ONE, QUORUM, ALL or DEFAULT; for this connection, until RESET",
			summary: "Sets, or without a level returns, how many replicas reads and writes wait for.", run: consistency},
		{name: "readonly", arity: 1, flags: fast, group: "cluster", since: "3.0.0",
			note:    "differs: accepted, changes nothing",
			summary: "Accepted: every node takes reads and writes.", run: okay},
		{name: "readwrite", arity: 1, flags: fast, group: "cluster", since: "3.0.0",
			note:    "differs: accepted, changes nothing",
			summary: "Accepted: every node takes reads and writes.", run: okay},
		{name: "client", arity: -2, flags: []string{"loading", "stale"}, group: "connection", since: "2.4.0",
			summary: "A container for commands about client connections.", subcommands: []command{
				{name: "getname", arity: 2, since: "2.6.9", summary: "Returns the name of the connection.", run: clientGetName},
				{name: "id", arity: 2, since: "5.0.0", summary: "Returns the number of the connection.",
					run: func(_ context.Context, c *conn, _ [][]byte) { c.w.integer(c.id) }},
				{name: "info", arity: 2, since: "6.2.0", note: "differs: fewer fields", summary: "Describes the connection.",
					run: func(_ context.Context, c *conn, _ [][]byte) { c.w.text(c.describe(time.Now())) }},
				{name: "list", arity: -2, since: "2.4.0", usage: "[TYPE type | ID id [id ...]]",
					note: "differs: fewer fields", summary: "Describes every connection.", run: clientList},
				{name: "no-evict", arity: 3, since: "7.0.0", usage: "ON | OFF", note: "differs: accepted, changes nothing",
					summary: "Accepted: clients are not evicted.", run: onOrOff},
				{name: "no-touch", arity: 3, since: "7.2.0", usage: "ON | OFF", note: "differs: accepted, changes nothing",
					summary: "Accepted: keys have no access time.", run: onOrOff},
				{name: "setinfo", arity: 4, since: "7.2.0", usage: "LIB-NAME name | LIB-VER version", summary: "Sets LIB-NAME or LIB-VER of the connection.", run: clientSetInfo},
				{name: "setname", arity: 3, since: "2.6.9", usage: "name", summary: "Sets the name of the connection.", run: clientSetName},
			}},
	}
}

func okay(_ context.Context, c *conn, _ [][]byte) { c.w.ok() }

func ping(_ context.Context, c *conn, args [][]byte) {
	switch len(args) {
	case 1:
		c.w.status("PONG")
	case 2:
		c.w.bulk(args[1])
	default:
		c.w.error("ERR wrong number of arguments for 'ping' command")
	}
}

func selectDatabase(_ context.Context, c *conn, args [][]byte) {
	switch n, err := strconv.Atoi(string(args[1])); {
	case err != nil:
		c.w.error(errNotInteger)
	case n != 0:
		c.w.error("ERR there is only database 0")
	default:
		c.w.ok()
	}
}

func reset(_ context.Context, c *conn, _ [][]byte) {
	c.setIdentity(func(who *identity) { who.name, who.resp3 = "", false })
	c.choose(levels{})
	c.w.status("RESET")
}

// setIdentity changes what CLIENT LIST shows, and with it the protocol version
// of the replies from now on.
func (c *conn) setIdentity(change func(*identity)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.identity)
	c.w.resp3 = c.identity.resp3
}

func hello(_ context.Context, c *conn, args [][]byte) {
	resp3 := c.w.resp3
	var name *string
	if len(args) > 1 {
		version, err := strconv.Atoi(string(args[1]))
		switch {
		case err != nil:
			c.w.error("ERR Protocol version is not an integer or out of range")
			return
		case version != 2 && version != 3:
			c.w.error("NOPROTO unsupported protocol version")
			return
		}
		resp3 = version == 3
		for options := args[2:]; len(options) > 0; {
			switch option := strings.ToLower(string(options[0])); {
			case option == "auth" && len(options) >= 3:
				// To accept any password would be to pretend that it
				// protects something.
				c.w.error("ERR HELLO AUTH is refused: authentication is not enabled on this server; connect without a password")
				return
			case option == "setname" && len(options) >= 2:
				if text := checkName(options[1]); text != "" {
					c.w.error(text)
					return
				}
				given := string(options[1])
				name, options = &given, options[2:]
			default:
				c.w.error(fmt.Sprintf("ERR Syntax error in HELLO option '%.64s'", options[0]))
				return
			}
		}
	}
	c.setIdentity(func(who *identity) {
		who.resp3 = resp3
		if name != nil {
			who.name = *name
		}
	})
	c.w.mapOf(7)
	for _, field := range [][2]string{{"server", "redis"}, {"version", redisVersion}} {
		c.w.bulkString(field[0])
		c.w.bulkString(field[1])
	}
	c.w.bulkString("proto")
	c.w.integer(int64(c.protocol()))
	c.w.bulkString("id")
	c.w.integer(c.id)
	for _, field := range [][2]string{{"mode", "standalone"}, {"role", "master"}} {
		c.w.bulkString(field[0])
		c.w.bulkString(field[1])
	}
	c.w.bulkString("modules")
	c.w.array(0)
}

func (c *conn) protocol() int {
	if c.w.resp3 {
		return 3
	}
	return 2
}

// checkName returns Redis' error for a name that would break CLIENT LIST apart.
func checkName(name []byte) string {
	if len(name) > clientNameBytesMax {
		return fmt.Sprintf("ERR Client names have at most %d bytes.", clientNameBytesMax)
	}
	for _, b := range name {
		if b < '!' || b > '~' {
			return "ERR Client names cannot contain spaces, newlines or special characters."
		}
	}
	return ""
}

func clientSetName(_ context.Context, c *conn, args [][]byte) {
	if text := checkName(args[2]); text != "" {
		c.w.error(text)
		return
	}
	c.setIdentity(func(who *identity) { who.name = string(args[2]) })
	c.w.ok()
}

func clientGetName(_ context.Context, c *conn, _ [][]byte) {
	if c.identity.name == "" {
		c.w.null()
		return
	}
	c.w.bulkString(c.identity.name)
}

func clientSetInfo(_ context.Context, c *conn, args [][]byte) {
	option, value := strings.ToUpper(string(args[2])), string(args[3])
	if option != "LIB-NAME" && option != "LIB-VER" {
		c.w.error(fmt.Sprintf("ERR Unrecognized option '%.64s'", args[2]))
		return
	}
	if checkName(args[3]) != "" {
		c.w.error(fmt.Sprintf("ERR %s cannot contain spaces, newlines or special characters and has at most %d bytes.",
			strings.ToLower(option), clientNameBytesMax))
		return
	}
	c.setIdentity(func(who *identity) {
		if option == "LIB-NAME" {
			who.libName = value
		} else {
			who.libVersion = value
		}
	})
	c.w.ok()
}

func onOrOff(_ context.Context, c *conn, args [][]byte) {
	if s := string(args[2]); !strings.EqualFold(s, "on") && !strings.EqualFold(s, "off") {
		c.w.error(errSyntax)
		return
	}
	c.w.ok()
}

func clientList(_ context.Context, c *conn, args [][]byte) {
	wanted := map[int64]bool{}
	all := true
	switch options := args[2:]; {
	case len(options) == 0:
	case len(options) >= 2 && strings.EqualFold(string(options[0]), "id"):
		all = false
		for _, arg := range options[1:] {
			id, err := strconv.ParseInt(string(arg), 10, 64)
			if err != nil {
				c.w.error("ERR Invalid client ID")
				return
			}
			wanted[id] = true
		}
	case len(options) == 2 && strings.EqualFold(string(options[0]), "type"):
		switch kind := strings.ToLower(string(options[1])); kind {
		case "normal":
		case "master", "replica", "slave", "pubsub":
			all = false
		default:
			c.w.error(fmt.Sprintf("ERR Unknown client type '%.64s'", options[1]))
			return
		}
	default:
		c.w.error(errSyntax)
		return
	}
	clients := c.srv.clients()
	slices.SortFunc(clients, func(a, b *conn) int { return cmp.Compare(a.id, b.id) })
	now := time.Now()
	var list strings.Builder
	for _, client := range clients {
		if all || wanted[client.id] {
			list.WriteString(client.describe(now))
		}
	}
	c.w.text(list.String())
}

// describe is a line of CLIENT LIST.
func (c *conn) describe(now time.Time) string {
	c.mu.Lock()
	who := c.identity
	c.mu.Unlock()
	version, command := 2, "NULL"
	if who.resp3 {
		version = 3
	}
	if last := c.lastCommand.Load(); last != nil {
		command = *last
	}
	idle := now.Sub(time.Unix(0, c.lastActive.Load()))
	return fmt.Sprintf("id=%d addr=%s laddr=%s name=%s age=%d idle=%d flags=N db=0 cmd=%s resp=%d lib-name=%s lib-ver=%s\n",
		c.id, c.nc.RemoteAddr(), c.nc.LocalAddr(), who.name,
		int64(now.Sub(c.since).Seconds()), int64(max(0, idle).Seconds()), command, version, who.libName, who.libVersion)
}
