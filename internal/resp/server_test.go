package resp

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestClientList(t *testing.T) {
	_, addr := startServer(t, newMapBackend(), Options{})
	a, b := dial(t, addr), dial(t, addr)
	a.Write([]byte("CLIENT SETNAME first\r\nCLIENT SETINFO LIB-VER 1.2\r\n"))
	expect(t, a, "+OK\r\n+OK\r\n")
	b.Write([]byte("CLIENT LIST\r\n"))
	buf := make([]byte, 4096)
	n, _ := b.Read(buf)
	lines := strings.Split(strings.TrimSpace(string(buf[:n])), "\n")
	if len(lines) != 3 || !strings.Contains(lines[1], " name=first ") || !strings.Contains(lines[1], " cmd=client|setinfo ") ||
		!strings.Contains(lines[1], " lib-ver=1.2") || !strings.Contains(lines[1], "id=1 addr="+a.LocalAddr().String()) || !strings.Contains(lines[2], "cmd=client|list") {
		t.Errorf("CLIENT LIST answers %q", lines)
	}
	b.Write([]byte("CLIENT LIST ID 9\r\nCLIENT LIST TYPE pubsub\r\nCLIENT LIST ID x\r\n"))
	expect(t, b, "$0\r\n\r\n$0\r\n\r\n-ERR Invalid client ID\r\n")
}

func TestMaxClients(t *testing.T) {
	_, addr := startServer(t, newMapBackend(), Options{MaxClients: 1})
	first := dial(t, addr)
	first.Write([]byte("PING\r\n"))
	expect(t, first, "+PONG\r\n")
	second := dial(t, addr)
	second.Write([]byte("PING\r\n"))
	expectEnd(t, second, "-ERR max number of clients reached\r\n")
	first.Write([]byte("INFO stats\r\nQUIT\r\n"))
	if rest, err := io.ReadAll(first); err != nil || !strings.Contains(string(rest), "rejected_connections:1\r\n") || !strings.Contains(string(rest), "hints_pending:0\r\n") {
		t.Errorf("INFO answers %q (%v)", rest, err)
	}
}

func TestShutdownWaitsForTheCommandInFlight(t *testing.T) {
	backend := newMapBackend()
	entered, leave := make(chan struct{}), make(chan struct{})
	backend.onPut = func(context.Context) { close(entered); <-leave }
	srv, addr := startServer(t, backend, Options{})
	idle, busy := dial(t, addr), dial(t, addr)
	idle.Write([]byte("PING\r\n"))
	expect(t, idle, "+PONG\r\n")
	busy.Write([]byte("SET k v\r\nGET k\r\n"))
	<-entered
	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(t.Context()) }()
	expectEnd(t, idle, "")
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v while a command was running", err)
	default:
	}
	close(leave)
	expectEnd(t, busy, "+OK\r\n$1\r\nv\r\n")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("a stopped server accepts")
	}
}

func TestShutdownLosesPatience(t *testing.T) {
	backend := newMapBackend()
	entered := make(chan struct{})
	backend.onPut = func(ctx context.Context) { close(entered); <-ctx.Done() }
	srv, addr := startServer(t, backend, Options{})
	nc := dial(t, addr)
	nc.Write([]byte("SET k v\r\n"))
	<-entered
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if err := srv.Shutdown(now); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returned %v", err)
	}
}

// pipeListener hands out in-memory connections, so that time can be virtual.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{make(chan net.Conn), make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (l *pipeListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

func TestASlowReaderIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := newMapBackend()
		backend.data["k"] = make([]byte, 1<<20)
		srv, ln := New(backend, Options{WriteTimeout: 30 * time.Second}), newPipeListener()
		go srv.Serve(ln)
		never, slow := ln.dial(), ln.dial()
		began := time.Now()
		never.Write([]byte("GET k\r\n"))
		slow.Write([]byte("GET k\r\n"))
		// Slow, but every 256 KiB within the limit: served to the end.
		buf := make([]byte, 64<<10)
		total, pause := 0, time.NewTimer(0)
		for want := len("$1048576\r\n") + 1<<20 + len("\r\n"); total < want; {
			<-pause.C
			n, err := slow.Read(buf)
			if err != nil {
				t.Fatalf("after %v and %d bytes: %v", time.Since(began), total, err)
			}
			total += n
			pause.Reset(5 * time.Second)
		}
		if time.Since(began) < time.Minute {
			t.Errorf("the slow client took %v, which shows nothing", time.Since(began))
		}
		if n := len(srv.clients()); n != 1 {
			t.Errorf("%d clients are left, want the slow one only", n)
		}
		srv.Close()
	})
}

func TestIdleConnectionsHoldNoBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, ln := New(newMapBackend(), Options{IdleBuffers: 10 * time.Second}), newPipeListener()
		go srv.Serve(ln)
		nc := ln.dial()
		ask := func() {
			go nc.Write([]byte("GET k\r\nSET k v\r\n"))
			buf := make([]byte, 64)
			for got := ""; !strings.HasSuffix(got, "+OK\r\n"); {
				n, err := nc.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				got += string(buf[:n])
			}
		}
		ask()
		<-time.After(time.Minute)
		synctest.Wait()
		c := srv.clients()[0]
		if c.in != nil || c.w.buf != nil || c.args != nil || c.run.args != nil {
			t.Error("an idle connection holds buffers")
		}
		ask()
		// Half a command stays, but in little room.
		go nc.Write([]byte("*1\r\n$4\r\nPI"))
		<-time.After(45 * time.Second)
		synctest.Wait()
		if cap(c.in) > wakeBytes {
			t.Errorf("a few bytes are held in %d", cap(c.in))
		}
		go nc.Write([]byte("NG\r\n"))
		buf := make([]byte, 16)
		if n, err := nc.Read(buf); string(buf[:n]) != "+PONG\r\n" {
			t.Errorf("got %q, %v", buf[:n], err)
		}
		srv.Close()
	})
}
