package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// answering returns the address of a listener that reads what is asked, up to a
// number of bytes, and answers with a text.
func answering(t *testing.T, asked int, answer string) (addr string, got <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	heard := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return // the test is over
		}
		defer conn.Close()
		text := make([]byte, asked)
		_, _ = io.ReadFull(conn, text) // what is missing shows in the text
		heard <- string(text)
		_, _ = io.WriteString(conn, answer)
		_, _ = bufio.NewReader(conn).ReadByte() // until the client has gone
	}()
	return l.Addr().String(), heard
}

func TestPipeline(t *testing.T) {
	const asked = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
	addr, got := answering(t, len(asked), "+OK\r\n$4\r\na\r\nb\r\n$-1\r\n:7\r\n-ERR no\r\n?\r\n")
	c, err := dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	c.send([]byte("SET"), []byte("k"), nil)
	c.send([]byte("GET"), []byte("k"))
	for _, want := range []string{"OK", "a\r\nb", "", "7"} {
		if answer, err := c.receive(); err != nil || string(answer) != want || (answer == nil) != (want == "") {
			t.Errorf("%q, %v, want %q", answer, err, want)
		}
	}
	if text := <-got; text != asked {
		t.Errorf("sent %q", text)
	}
	if _, err := c.receive(); !errors.Is(err, refusal("ERR no")) {
		t.Error(err)
	}
	if _, err := c.receive(); err == nil || !strings.Contains(err.Error(), "not an answer") {
		t.Error(err)
	}
}

// TestRefusedSets: after a refusal the other answers are still read, and the
// first reason is told.
func TestRefusedSets(t *testing.T) {
	addr, _ := answering(t, 0, "+OK\r\n-TIMEOUT one\r\n-TIMEOUT two\r\n+OK\r\n+PONG\r\n")
	c, err := dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if refused, err := c.receiveOKs(4); err != nil || refused != "TIMEOUT one" {
		t.Errorf("%q, %v", refused, err)
	}
	if answer, err := c.receive(); err != nil || string(answer) != "PONG" {
		t.Errorf("%q, %v", answer, err)
	}
}

// TestInterrupted: who waits for an answer hears why there will be none.
func TestInterrupted(t *testing.T) {
	addr, _ := answering(t, 1, "")
	ctx, cancel := context.WithCancelCause(t.Context())
	c, err := dial(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	enough := errors.New("enough")
	cancel(enough)
	if _, err := c.receive(); !errors.Is(err, enough) {
		t.Error(err)
	}
}
