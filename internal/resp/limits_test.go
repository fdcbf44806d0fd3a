package resp

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs a server in virtual time.
func bubble(t *testing.T, backend Backend, opts Options, test func(t *testing.T, srv *Server, dial func() net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv, ln := New(backend, opts), newPipeListener()
		go srv.Serve(ln)
		defer srv.Close()
		test(t, srv, ln.dial)
	})
}

func readReply(t *testing.T, nc net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(nc, got); string(got) != want {
		t.Fatalf("got %q (%v), want %q", got[:n], err, want)
	}
}

// TestIdleTimeout: who says nothing is cut off, without a word; who does, stays.
func TestIdleTimeout(t *testing.T) {
	bubble(t, newMapBackend(), Options{IdleTimeout: 5 * time.Minute, IdleBuffers: 10 * time.Second}, func(t *testing.T, srv *Server, dial func() net.Conn) {
		silent, used, alive := dial(), dial(), dial()
		ping := func(nc net.Conn) {
			go nc.Write([]byte("PING\r\n"))
			readReply(t, nc, "+PONG\r\n")
		}
		ping(used)
		began := time.Now()
		for range 10 {
			ping(alive)
			<-time.After(time.Minute)
		}
		for _, nc := range []net.Conn{silent, used} {
			if rest, err := io.ReadAll(nc); len(rest) > 0 || err != nil {
				t.Errorf("a silent client reads %q, %v", rest, err)
			}
		}
		ping(alive)
		synctest.Wait()
		if n := len(srv.clients()); n != 1 {
			t.Errorf("after %v %d clients are left", time.Since(began), n)
		}
	})
}

// TestNoIdleTimeout: by default a client may be silent for ever.
func TestNoIdleTimeout(t *testing.T) {
	bubble(t, newMapBackend(), Options{}, func(t *testing.T, _ *Server, dial func() net.Conn) {
		nc := dial()
		<-time.After(1000 * time.Hour)
		go nc.Write([]byte("PING\r\n"))
		readReply(t, nc, "+PONG\r\n")
	})
}

// TestCommandTimeout: a command that has begun must go on. A slow line is fine, a byte a
// second is not, and neither is silence.
func TestCommandTimeout(t *testing.T) {
	const refusal = "-ERR Protocol error: a command was begun, and the rest of it, or the next 256 KiB, has not come within 1m0s\r\n"
	bubble(t, newMapBackend(), Options{CommandTimeout: time.Minute}, func(t *testing.T, srv *Server, dial func() net.Conn) {
		feeder, stuck, slow := dial(), dial(), dial()
		big := bulks("SET", "k", strings.Repeat("v", 1<<20))
		fed := make(chan int)
		go func() {
			n := 0
			for ; n < len(big); n++ {
				if _, err := feeder.Write(big[n : n+1]); err != nil {
					break
				}
				<-time.After(time.Second)
			}
			fed <- n
		}()
		go stuck.Write([]byte("GET"))
		go func() {
			for piece := range slices.Chunk(big, 10<<10) { // 10 KiB a second
				slow.Write(piece)
				<-time.After(time.Second)
			}
			slow.Write([]byte("PING\r\n"))
		}()
		began := time.Now()
		readReply(t, stuck, refusal)
		if took := time.Since(began); took != time.Minute {
			t.Errorf("the client that was stuck was cut off after %v", took)
		}
		readReply(t, feeder, refusal)
		if n := <-fed; n < 55 || n > 65 {
			t.Errorf("%d bytes came through at one a second", n)
		}
		readReply(t, slow, "+OK\r\n+PONG\r\n")
		if took := time.Since(began); took < 100*time.Second {
			t.Errorf("the slow client took %v, which shows nothing", took)
		}
		slow.Close()
		<-time.After(time.Minute)
		synctest.Wait()
		if n := len(srv.clients()); n != 0 || srv.buffered.Load() != 0 {
			t.Errorf("%d clients and %d bytes are left", n, srv.buffered.Load())
		}
	})
}

// TestManyFeedersCostLittle: the beginning of a command is held in little room while
// nothing comes.
func TestManyFeedersCostLittle(t *testing.T) {
	bubble(t, newMapBackend(), Options{IdleBuffers: time.Second, CommandTimeout: time.Hour}, func(t *testing.T, srv *Server, dial func() net.Conn) {
		command := bulks("SET", "k", strings.Repeat("v", 2000))
		nc := dial()
		for i, cut := range []int{10, 200, 300, 1000, len(command)} {
			from := []int{0, 10, 200, 300, 1000}[i]
			nc.Write(command[from:cut])
			if cut == len(command) {
				break
			}
			<-time.After(time.Minute)
			synctest.Wait()
			if c := srv.clients()[0]; cut <= wakeBytes/2 && cap(c.in) > wakeBytes || len(c.in) != cut {
				t.Errorf("%d of %d bytes are held in %d", len(c.in), cut, cap(c.in))
			}
		}
		readReply(t, nc, "+OK\r\n")
	})
}

// TestTheBudgetOfReplies: values that wait for clients that do not take them are bounded;
// more are refused, until there is room again.
func TestTheBudgetOfReplies(t *testing.T) {
	const refusal = "-ERR too many bytes of values wait on this node for clients to take them: try again later, or read fewer at a time\r\n"
	backend := newMapBackend()
	backend.data["big"], backend.data["small"] = bytes.Repeat([]byte("v"), 1<<20), []byte("s")
	bubble(t, backend, Options{ReplyBytesMax: 3 << 20, WriteTimeout: 30 * time.Second}, func(t *testing.T, srv *Server, dial func() net.Conn) {
		for _, command := range []string{"GET big\r\n", "GETEX big\r\n", "GETRANGE big 0 -1\r\n"} {
			dial().Write([]byte(command)) // and never reads
		}
		synctest.Wait()
		other := dial()
		for _, command := range []string{"GET big\r\n", "GET big\r\nGET small\r\n", "MGET big small\r\n", "GETRANGE big 0 99999\r\n"} {
			go other.Write([]byte(command))
			switch command {
			case "GET big\r\nGET small\r\n": // asked for together, refused together
				readReply(t, other, refusal+refusal)
			case "MGET big small\r\n":
				readReply(t, other, "*2\r\n"+refusal+refusal)
			default:
				readReply(t, other, refusal)
			}
		}
		go other.Write([]byte("GET small\r\n"))
		readReply(t, other, "$1\r\ns\r\n")
		<-time.After(time.Minute) // those that never read are cut off
		go other.Write([]byte("GET big\r\n"))
		readReply(t, other, "$1048576\r\n"+strings.Repeat("v", 1<<20)+"\r\n")
		synctest.Wait()
		if n := srv.replying.Load(); n != 0 {
			t.Errorf("%d bytes are not given back", n)
		}
	})
}

// TestAPipelineIsNotHeld: however many commands a client sends without reading, the
// server reads on only as its replies are taken.
func TestAPipelineIsNotHeld(t *testing.T) {
	backend := newMapBackend()
	backend.data["k"] = bytes.Repeat([]byte("v"), 1000)
	bubble(t, backend, Options{WriteTimeout: time.Hour}, func(t *testing.T, srv *Server, dial func() net.Conn) {
		nc := dial()
		go func() {
			for {
				if _, err := nc.Write([]byte(strings.Repeat("GET k\r\n", 1000))); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if n := srv.executed.Load(); n > 100_000 {
			t.Errorf("%d commands were executed for a client that reads nothing", n)
		}
		c := srv.clients()[0]
		if cap(c.in) > pipelineBytes {
			t.Errorf("the client's commands are held in %d bytes", cap(c.in))
		}
		nc.Close()
	})
}
