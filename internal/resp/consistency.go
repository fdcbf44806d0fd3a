package resp

import (
	"context"
	"fmt"
	"strings"
)

// Consistency is how many replicas of a key a command waits for. The levels are
// those of a quorum store: a read and a write that each wait for a quorum always
// meet in one replica, so the read sees the write.
type Consistency uint8

// The levels. The zero value leaves the choice to the node's settings.
const (
	ConsistencyDefault Consistency = iota
	ConsistencyOne
	ConsistencyQuorum
	ConsistencyAll
)

// levelNames are the levels as clients write them, in any case.
var levelNames = [...]string{"default", "one", "quorum", "all"}

// String returns the level as SYN.CONSISTENCY writes it.
func (l Consistency) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return fmt.Sprintf("consistency(%d)", uint8(l))
}

func parseConsistency(text []byte) (l Consistency, ok bool) {
	for i, name := range levelNames {
		if strings.EqualFold(name, string(text)) {
			return Consistency(i), true
		}
	}
	return ConsistencyDefault, false
}

// levels are what a connection reads and writes at.
type levels struct{ read, write Consistency }

// choose sets the levels of the commands to come. It runs between commands, and
// a run of joined ones ends before any other command, so no run has two levels.
func (c *conn) choose(chosen levels) {
	c.levels, c.backend = chosen, c.srv.backend
	if chosen != (levels{}) {
		c.backend = c.srv.backend.At(chosen.read, chosen.write)
	}
}

const consistencyUsage = "use SYN.CONSISTENCY level, or SYN.CONSISTENCY [READ level] [WRITE level], where level is ONE, QUORUM, ALL or DEFAULT"

// consistency answers the levels in effect, or sets one or both of them. Either
// all of the arguments are good or nothing changes.
func consistency(_ context.Context, c *conn, args [][]byte) {
	chosen := c.levels
	switch args = args[1:]; len(args) {
	case 0:
		read, write := c.backend.Consistency()
		c.w.mapOf(2)
		for _, field := range [][2]string{{"read", read.String()}, {"write", write.String()}} {
			c.w.bulkString(field[0])
			c.w.bulkString(field[1])
		}
		return
	case 1:
		level, ok := parseConsistency(args[0])
		if !ok {
			c.w.error(fmt.Sprintf("ERR unknown consistency '%.64s': %s", args[0], consistencyUsage))
			return
		}
		chosen = levels{read: level, write: level}
	default:
		for ; len(args) >= 2; args = args[2:] {
			level, ok := parseConsistency(args[1])
			if !ok {
				c.w.error(fmt.Sprintf("ERR unknown consistency '%.64s': %s", args[1], consistencyUsage))
				return
			}
			switch strings.ToLower(string(args[0])) {
			case "read":
				chosen.read = level
			case "write":
				chosen.write = level
			default:
				c.w.error(errSyntax + ": " + consistencyUsage)
				return
			}
		}
		if len(args) > 0 {
			c.w.error(errSyntax + ": " + consistencyUsage)
			return
		}
	}
	c.choose(chosen)
	c.w.ok()
}
