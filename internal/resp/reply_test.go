package resp

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/redcon"
)

// collector is a connection that keeps what is written to it.
type collector struct {
	net.Conn
	written []byte
}

func (c *collector) Write(b []byte) (int, error) {
	c.written = append(c.written, b...)
	return len(b), nil
}

func (c *collector) SetWriteDeadline(time.Time) error { return nil }

// FuzzOneReply: whatever the arguments, a command writes exactly one well-formed
// reply, and an error is one line with a code.
func FuzzOneReply(f *testing.F) {
	for _, seed := range []string{
		"GET\nk", "SET\nk\nv", "SET\nk\nv\nEX\n10", "SET\nk\nv\nEX\n10\nPX\n10", "SET\nk\nv\nKEEPTTL\nNX\nGET", "SET\nk\nv\nEXAT\n-1",
		"SETEX\nk\n10\nv", "PSETEX\nk\n9223372036854775807\nv", "EXPIRE\nk\n10", "PEXPIRE\nk\n-1\nNX\nXX", "EXPIREAT\nk\n0\nGT\nLT",
		"PEXPIREAT\nk\n9223372036854775807\nLT", "EXPIRE\nk\n10\n\r+OK\r", "TTL\nk", "PTTL\nnothing", "EXPIRETIME\nk", "PEXPIRETIME\nk", "PERSIST\nk",
		"SYN.CONSISTENCY", "SYN.CONSISTENCY\nALL", "SYN.CONSISTENCY\nREAD\nONE\nWRITE\nx\r", "SCAN\n0\nMATCH\n*", "MGET\nk\nk", "COMMAND\nDOCS", "INFO",
		"HELLO\n2\nSETNAME\nx", "RESET", "CLIENT\nLIST", "GETEX\nk", "\r\n", "CONFIG\nGET\n*",
		"GETSET\nk\nv", "GETDEL\nk", "GETEX\nk\nPERSIST", "GETEX\nk\nEX\n10", "SET\nk\nv\nKEEPTTL\nGET", "GETRANGE\nk\n-1\n9", "TOUCH\nk",
		"SYN.TIMESTAMP\nk", "SYN.INSPECT\nk", "WAIT\n1\n0", "FLUSHALL\nSYNC", "FUNCTION\nFLUSH", "CLUSTER\nSLOTS", "CLUSTER\nSHARDS",
		"CLUSTER\nNODES", "CLUSTER\nINFO", "CLUSTER\nKEYSLOT\n{a}b", "CLUSTER\nMEET\r\n1", "CLUSTER\nHELP", "COMMAND\nINFO\ncluster|slots",
	} {
		f.Add(seed)
	}
	clock := newTestClock()
	near, far := net.Pipe()
	f.Cleanup(func() { near.Close(); far.Close() })
	f.Fuzz(func(t *testing.T, line string) {
		backend := newMapBackend()
		backend.now = clock.now
		backend.data["k"] = []byte("v")
		backend.expires["k"] = clock.ms.Load() + 1000
		nc := &collector{Conn: near}
		c := newConn(New(backend, Options{Now: clock.now}), 1, nc)
		var args [][]byte
		for _, arg := range strings.Split(line, "\n") {
			args = append(args, []byte(arg))
		}
		if hello := strings.EqualFold(string(args[0]), "hello"); hello && len(args) > 1 && string(args[1]) != "2" {
			return // the reader below knows RESP2
		}
		if !c.run.join(args) {
			c.dispatch(context.Background(), args)
		}
		c.run.finish(context.Background(), c)
		c.w.flush()
		size, reply := redcon.ReadNextRESP(nc.written)
		if size != len(nc.written) || size == 0 {
			t.Fatalf("%q answers %q, of which one reply is %d bytes", line, nc.written, size)
		}
		if reply.Type == redcon.Error {
			text := string(reply.Data)
			code, _, _ := strings.Cut(text, " ")
			if code == "" || code != strings.ToUpper(code) || strings.ContainsAny(text, "\r\n") {
				t.Errorf("%q answers the error %q", line, text)
			}
		}
	})
}
