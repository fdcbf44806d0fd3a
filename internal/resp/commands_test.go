package resp

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// bulks encodes a command.
func bulks(args ...string) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, arg := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	return b
}

func expect(t *testing.T, nc net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(nc, got); err != nil || string(got) != want {
		t.Fatalf("got %.300q (%v), want %.300q", got[:n], err, want)
	}
}

func expectEnd(t *testing.T, nc net.Conn, want string) {
	t.Helper()
	got, err := io.ReadAll(nc)
	if err != nil || string(got) != want {
		t.Fatalf("got %.300q (%v), want %.300q and the end", got, err, want)
	}
}

func TestEveryCommandChecksItsArity(t *testing.T) {
	_, addr := startServer(t, newMapBackend(), Options{})
	nc := dial(t, addr)
	try := func(full string, cmd *command) {
		args := strings.Split(full, "|")
		for len(args) < max(cmd.arity, -cmd.arity)+1 {
			args = append(args, "x")
		}
		if cmd.arity < 0 {
			args = args[:-cmd.arity-1]
			if len(args) == 0 || len(args) < strings.Count(full, "|")+1 {
				return // cannot be too few
			}
		}
		nc.Write(bulks(args...))
		expect(t, nc, "-ERR wrong number of arguments for '"+full+"' command\r\n")
	}
	for name, cmd := range commandTable() {
		if cmd.summary == "" || cmd.since == "" || cmd.group == "" {
			t.Errorf("%s is not documented", name)
		}
		if cmd.subcommands == nil {
			try(name, cmd)
		}
		for i := range cmd.subcommands {
			try(name+"|"+cmd.subcommands[i].name, &cmd.subcommands[i])
		}
	}
}

func TestEveryRefusalSaysWhy(t *testing.T) {
	backend := newMapBackend()
	_, addr := startServer(t, backend, Options{})
	nc := dial(t, addr)
	commands := commandTable()
	total := 0
	for _, group := range refusals {
		for _, name := range strings.Fields(group.commands) {
			total++
			if commands[name] != nil {
				t.Errorf("%s is both served and refused", name)
			}
			nc.Write(bulks(name, "k", "v"))
			expect(t, nc, "-ERR "+strings.ToUpper(name)+" is refused: "+group.reason+"\r\n")
		}
	}
	if total != len(refusedTable()) {
		t.Errorf("%d names are refused, %d of them differ", total, len(refusedTable()))
	}
	if calls := backend.taken(); len(calls) > 0 {
		t.Errorf("the backend was called: %v", calls)
	}
}

func TestUnknownCommandShowsOnlyTheBeginning(t *testing.T) {
	_, addr := startServer(t, newMapBackend(), Options{})
	nc := dial(t, addr)
	long := strings.Repeat("z", 1000)
	nc.Write(bulks(long, "a\r\nb", long, long))
	expect(t, nc, "-ERR unknown command '"+long[:128]+"', with args beginning with: 'a  b' '"+long[:121]+"' \r\n")
}

func TestNeighboursShareACall(t *testing.T) {
	backend, clock := newMapBackend(), newTestClock()
	backend.now = clock.now
	_, addr := startServer(t, backend, Options{Now: clock.now})
	nc := dial(t, addr)
	for _, tc := range []struct {
		send  []string
		calls []string
	}{
		{[]string{"SET a 1", "SET b 2", "set c 3"}, []string{"put 3"}},
		{[]string{"SET a 1", "SET b 2", "SET a 3", "SET c 4"}, []string{"put 2", "put 2"}},
		{[]string{"GET a", "GET a", "GET b"}, []string{"mget 3"}},
		{[]string{"GET a"}, []string{"get"}},
		{[]string{"SET a 1", "GET a", "SET a 2", "GET a"}, []string{"put 1", "get", "put 1", "get"}},
		{[]string{"SET a 1", "PING", "SET b 2"}, []string{"put 1", "put 1"}},
		{[]string{"SET a 1", "SET b 2 NX", "SET c 2"}, []string{"put 1", "put 1"}},
		{[]string{"GET a", "MGET a b", "GET b", "GET c"}, []string{"get", "mget 2", "mget 2"}},
		{[]string{"SET a 1 EX 10", "SET b 2", "SET c 3 PXAT 5"}, []string{"put 3"}},
		{[]string{"SET a 1 EX 10", "SET b 2 EX 0", "SET c 3 EX", "SETEX d 9 4", "SET e 5"}, []string{"put 1", "put 1", "put 1"}},
		{[]string{"SET a 1 EX 10", "EXPIREAT a 5", "TTL a", "PERSIST a"}, []string{"put 1", "expire 5000", "expiry", "persist"}},
		// Never two levels in one call.
		{[]string{"SET a 1", "SYN.CONSISTENCY ALL", "SET b 2", "SET c 3", "SYN.CONSISTENCY READ ONE", "SET d 4", "GET a", "DEL a", "RESET", "SET e 5"},
			[]string{"put 1", "put 2 at all/all", "put 1 at one/all", "get at one/all", "delete 1 at one/all", "put 1"}},
		{[]string{"SYN.CONSISTENCY WRITE ONE", "MGET a", "EXPIRE a 10", "TTL a", "PERSIST a", "EXISTS a", "SCAN 0", "DBSIZE", "SYN.CONSISTENCY DEFAULT", "GET a"},
			[]string{"mget 1 at default/one", "expire 1767323055678 at default/one", "expiry at default/one", "persist at default/one", "exists 1 at default/one", "scan 0 10 at default/one", "size at default/one", "get"}},
	} {
		nc.Write([]byte(strings.Join(tc.send, "\r\n") + "\r\nECHO end\r\n"))
		var got []byte
		for !bytes.HasSuffix(got, []byte("$3\r\nend\r\n")) {
			buf := make([]byte, 512)
			n, err := nc.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, buf[:n]...)
		}
		if calls := backend.taken(); !slices.Equal(calls, tc.calls) {
			t.Errorf("%q made the calls %q, want %q", tc.send, calls, tc.calls)
		}
	}
}

func TestRunsAreBounded(t *testing.T) {
	seed := maphash.MakeSeed()
	r := run{seed: seed}
	for i := range putRunPairsMax {
		if !r.join([][]byte{[]byte("SET"), fmt.Append(nil, i), nil}) {
			t.Fatalf("pair %d was not joined", i)
		}
	}
	if r.join([][]byte{[]byte("SET"), []byte("one more"), nil}) {
		t.Error("more pairs than the limit")
	}
	r = run{seed: seed}
	half := make([]byte, putRunBytesMax/2)
	for i, want := range []bool{true, false} {
		if r.join([][]byte{[]byte("SET"), {byte(i)}, half}) != want {
			t.Errorf("value %d of half the byte limit: joined is not %v", i, want)
		}
	}
	r = run{seed: seed}
	for i := range getRunKeysMax + 1 {
		if r.join([][]byte{[]byte("GET"), []byte("k")}) != (i < getRunKeysMax) {
			t.Errorf("GET %d", i)
		}
	}
}

func TestAFailedRunAnswersEachCommand(t *testing.T) {
	backend := newMapBackend()
	_, addr := startServer(t, backend, Options{})
	nc := dial(t, addr)
	backend.fail = fmt.Errorf("shard 7: %w", codedError{"QUORUM", "1 of 2 replicas\r\nanswered"})
	nc.Write([]byte("SET a 1\r\nSET b 2\r\nGET a\r\nGET b\r\nDEL a\r\nMSET a 1\r\nSCAN 0\r\nDBSIZE\r\nTYPE a\r\nSTRLEN a\r\nMGET a\r\nEXISTS a\r\n" +
		"SETEX a 1 v\r\nEXPIRE a 1\r\nPERSIST a\r\nTTL a\r\nPEXPIRETIME a\r\n"))
	expect(t, nc, strings.Repeat("-QUORUM shard 7: 1 of 2 replicas  answered\r\n", 17))
	// Whatever a backend says, a reply is one line.
	backend.fail = codedError{"NO\r\n+OK", "a\nb\rc\r\n+OK\r\n"}
	nc.Write([]byte("GET a\r\n"))
	expect(t, nc, "-ERR a b c  +OK  \r\n")
	nc.Write([]byte("PING\r\n"))
	expect(t, nc, "+PONG\r\n")
}

func TestCommandsHaveTheDeadlineOfTheBackend(t *testing.T) {
	backend := newMapBackend()
	left := make(chan time.Duration, 2)
	backend.onPut = func(ctx context.Context) {
		at, _ := ctx.Deadline()
		left <- time.Until(at)
	}
	_, addr := startServer(t, backend, Options{})
	nc := dial(t, addr)
	nc.Write([]byte("SET a 1\r\nMSET b 2\r\n"))
	expect(t, nc, "+OK\r\n+OK\r\n")
	for range 2 {
		if d := <-left; d <= 0 || d > backend.deadline {
			t.Errorf("%v left of a deadline of %v", d, backend.deadline)
		}
	}
}

func TestValuesGivenToTheBackendAreItsOwn(t *testing.T) {
	backend := newMapBackend()
	_, addr := startServer(t, backend, Options{})
	nc := dial(t, addr)
	nc.Write([]byte("SET first 1111\r\nSET second 2222\r\n"))
	expect(t, nc, "+OK\r\n+OK\r\n")
	nc.Write([]byte("SET other xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"))
	expect(t, nc, "+OK\r\n")
	nc.Write([]byte("MGET first second\r\n"))
	expect(t, nc, "*2\r\n$4\r\n1111\r\n$4\r\n2222\r\n")
}

func TestSizesOfKeysAndValues(t *testing.T) {
	backend := newMapBackend()
	_, addr := startServer(t, backend, Options{})
	nc := dial(t, addr)
	key, value := strings.Repeat("k", KeyBytesMax), strings.Repeat("v", ValueBytesMax)
	nc.Write(bulks("SET", key, value))
	expect(t, nc, "+OK\r\n")
	nc.Write(bulks("GET", key))
	expect(t, nc, fmt.Sprintf("$%d\r\n%s\r\n", len(value), value))
	backend.taken()

	keyLong, valueLong := "-ERR "+errKeyLong.Error()+"\r\n", "-ERR "+errValueLong.Error()+"\r\n"
	for _, name := range []string{"GET", "DEL", "UNLINK", "EXISTS", "MGET", "STRLEN", "TYPE", "TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "PERSIST"} {
		nc.Write(bulks(name, key+"k"))
		expect(t, nc, keyLong)
	}
	for _, name := range []string{"EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"} {
		nc.Write(bulks(name, key+"k", "10"))
		expect(t, nc, keyLong)
	}
	nc.Write(bulks("SET", key+"k", "v"))
	expect(t, nc, keyLong)
	nc.Write(bulks("SETEX", "k", "10", value+"v"))
	expect(t, nc, valueLong)
	nc.Write(bulks("SET", "k", value+"v"))
	expect(t, nc, valueLong)
	nc.Write(bulks("MSET", "good", "v", "k", value+"v"))
	expect(t, nc, valueLong)
	if calls := backend.taken(); len(calls) > 0 {
		t.Errorf("the backend was called: %v", calls)
	}
}

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"a*c", "abbc", true}, {"a*c", "abb", false},
		{"h?llo", "hello", true}, {"h?llo", "hllo", false}, {"h[ae]llo", "hallo", true}, {"h[^e]llo", "hello", false},
		{"h[a-c]llo", "hbllo", true}, {"h[c-a]llo", "hbllo", true}, {`\*`, "*", true}, {`\*`, "a", false},
		{`[\]]`, "]", true}, {"[abc", "c", true}, {"?", "\xff", true}, {"?", "é", false}, {"a**b", "ab", true},
		{"*a*b*", "xxaxxbxx", true}, {`a\`, `a\`, true}, {"[]", "a", false}, {"[^]", "a", true},
		{strings.Repeat("*a", 60) + "b", strings.Repeat("a", 5000), false},
	} {
		if got := globMatch([]byte(tc.pattern), []byte(tc.s)); got != tc.want {
			t.Errorf("%.20q matches %.20q: %v", tc.pattern, tc.s, got)
		}
	}
}
