package admin

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"syntropy"

	"syntropy/hlc"
	"syntropy/report"
)

// fakeNode answers what its fields say and notes what it was asked.
type fakeNode struct {
	err    error
	repair func(ctx context.Context, opts report.RepairOptions) ([]report.Repair, error)

	mu        sync.Mutex
	key       []byte
	recompute bool
	rows      []Row
	scrubbed  report.ScrubOptions
}

func (f *fakeNode) Status(context.Context) (report.Status, error) {
	return report.Status{Cluster: "c", Node: 1, OldestUnprovenSeconds: 1.5}, f.err
}

func (f *fakeNode) Inspect(_ context.Context, key []byte) (report.Inspection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.key = key
	in := report.Inspection{Shard: 7, Agree: true}
	in.Key, in.KeyBase64 = report.JSONKey(key)
	return in, f.err
}

func (f *fakeNode) Repair(ctx context.Context, opts report.RepairOptions) ([]report.Repair, error) {
	if f.repair != nil {
		return f.repair(ctx, opts)
	}
	return nil, f.err
}

func (f *fakeNode) CancelRepair(context.Context) (int, error) { return 2, f.err }

func (f *fakeNode) Roots(_ context.Context, recompute bool) (report.Roots, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recompute = recompute
	return report.Roots{Equal: true, Recomputed: recompute, Shards: []report.ShardRoots{{Shard: 3}}}, f.err
}

func (f *fakeNode) Scrub(_ context.Context, opts report.ScrubOptions) (report.Scrub, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scrubbed = opts
	return report.Scrub{Node: opts.Node, Shards: 1}, f.err
}

func (f *fakeNode) Load(_ context.Context, rows []Row) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rows = append(f.rows, rows...)
	return f.err
}

// serve runs a real server on a real socket.
func serve(t *testing.T, n Node) (*Server, *Client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(n, slog.New(slog.NewTextHandler(io.Discard, nil)))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	c := NewClient(l.Addr().String())
	t.Cleanup(func() {
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, c
}

func TestClientAndServerUnderstandEachOther(t *testing.T) {
	ctx := t.Context()
	shard := 0
	asked := make(chan report.RepairOptions, 1)
	f := &fakeNode{repair: func(_ context.Context, opts report.RepairOptions) ([]report.Repair, error) {
		asked <- opts
		return []report.Repair{{Initiator: 1, Partner: 2, KeysDiverged: 3}}, nil
	}}
	_, c := serve(t, f)

	st, err := c.Status(ctx)
	if err != nil || st.Cluster != "c" || st.Node != 1 || st.OldestUnprovenSeconds != 1.5 {
		t.Errorf("status: %+v, %v", st, err)
	}
	for _, key := range []string{"plain", "a b&c=d?#%+/é", "\x00\xff\xfe", strings.Repeat("\xff", 64<<10)} {
		in, err := c.Inspect(ctx, []byte(key))
		if err != nil || in.Shard != 7 || string(f.key) != key {
			t.Errorf("inspect %.20q: the node was asked for %.20q; %v", key, f.key, err)
		}
	}
	want := report.RepairOptions{Node: 3, Shard: &shard, DryRun: true, Explain: true, NoWait: true}
	reports, err := c.Repair(ctx, want)
	if err != nil || len(reports) != 1 || reports[0].KeysDiverged != 3 {
		t.Errorf("repair: %+v, %v", reports, err)
	}
	if got := <-asked; got.Node != hlc.NodeID(3) || *got.Shard != 0 || !got.DryRun || !got.Explain || !got.NoWait {
		t.Errorf("repair was asked with %+v", got)
	}
	scrub := report.ScrubOptions{Node: 2, Shard: new(int), Heal: true}
	if got, err := c.Scrub(ctx, scrub); err != nil || got.Node != 2 || !f.scrubbed.Heal || f.scrubbed.Shard == nil {
		t.Errorf("Scrub: %+v, %v, the node was asked %+v", got, err, f.scrubbed)
	}
	if n, err := c.CancelRepair(ctx); n != 2 || err != nil {
		t.Errorf("cancel: %d, %v", n, err)
	}
	for _, recompute := range []bool{false, true} {
		roots, err := c.Roots(ctx, recompute)
		if err != nil || !roots.Equal || f.recompute != recompute {
			t.Errorf("roots: %+v, %v", roots, err)
		}
	}
	rows := []Row{{[]byte("k"), []byte("v")}, {[]byte("\xff"), nil}, {[]byte("big"), bytes.Repeat([]byte{0}, 8<<20)}}
	if err := c.Load(ctx, rows); err != nil {
		t.Fatal(err)
	}
	for i, r := range rows {
		if !bytes.Equal(f.rows[i].Key, r.Key) || !bytes.Equal(f.rows[i].Value, r.Value) {
			t.Errorf("row %d was not loaded as it is", i)
		}
	}
	if err := c.Load(ctx, []Row{rows[2], rows[2], rows[2]}); err == nil || !strings.Contains(err.Error(), "send fewer") {
		t.Errorf("an oversized load: %v", err)
	}
}

// TestRefusals sends what the client never would. Nothing may reach the node.
func TestRefusals(t *testing.T) {
	f := &fakeNode{repair: func(context.Context, report.RepairOptions) ([]report.Repair, error) {
		t.Error("a refused request ran a repair")
		return nil, nil
	}}
	s := New(f, nil)
	key := url.QueryEscape(base64.StdEncoding.EncodeToString(make([]byte, 64<<10+1)))
	for _, tc := range []struct {
		method, path, body string
		header             string
		status             int
		code, want         string
	}{
		{"GET", "/", "", "", 404, "not_found", "/ does not exist; there are GET /v1/status, GET /v1/inspect, POST /v1/repair, "},
		{"GET", "/v1/repair", "", "", 405, "method_not_allowed", "/v1/repair takes POST, not GET"},
		{"DELETE", "/v1/status", "", "", 405, "method_not_allowed", "takes GET"},
		{"GET", "/v1/status?verbose=1", "", "", 400, "bad_request", `no parameter "verbose"`},
		{"GET", "/v1/status?a=%zz", "", "", 400, "bad_request", "malformed"},
		{"GET", "/v1/inspect", "", "", 400, "bad_request", "give the key"},
		{"GET", "/v1/inspect?key=", "", "", 400, "bad_request", "the key is empty"},
		{"GET", "/v1/inspect?key=a&key=b", "", "", 400, "bad_request", "2 times"},
		{"GET", "/v1/inspect?key=a&key_base64=YQ==", "", "", 400, "bad_request", "only once"},
		{"GET", "/v1/inspect?key_base64=!", "", "", 400, "bad_request", "not base64"},
		{"GET", "/v1/inspect?key_base64=" + key, "", "", 400, "bad_request", "65537 bytes"},
		{"GET", "/v1/roots?recompute=maybe", "", "", 400, "bad_request", "1 or 0"},
		{"POST", "/v1/repair", `{"shards":1}`, "", 400, "bad_request", `unknown field \"shards\"`},
		{"POST", "/v1/repair", `{"node":"x7"}`, "", 400, "bad_request", "not a node"},
		{"POST", "/v1/repair", `{"shard":-1}`, "", 400, "bad_request", "counted from 0"},
		{"POST", "/v1/repair", `{} {}`, "", 400, "bad_request", "something follows"},
		{"POST", "/v1/repair", `{`, "", 400, "bad_request", "unexpected EOF"},
		{"POST", "/v1/repair", strings.Repeat(" ", 65<<10), "", 413, "too_large", "65536"},
		{"POST", "/v1/load", `{"key":"a","value":"b"}` + "\n" + `{"key":"","value":"b"}`, "", 400, "bad_request", "nothing was written"},
		{"POST", "/v1/load", strings.Repeat(" ", 33<<20), "", 413, "too_large", "33554432"},
		{"GET", "/v1/status", "", "Origin: http://evil.example", 403, "forbidden", "web pages"},
		{"GET", "/v1/status", "", "Origin: null", 403, "forbidden", "web pages"},
		{"GET", "/v1/roots?recompute=1", "", "Sec-Fetch-Site: cross-site", 403, "forbidden", "web pages"},
		{"POST", "/v1/repair", "{}", "Origin: http://127.0.0.1:7201", 403, "forbidden", "web pages"},
	} {
		t.Run(fmt.Sprintf("%s %.40s %.20s %s", tc.method, tc.path, tc.body, tc.header), func(t *testing.T) {
			req := httptest.NewRequest(tc.method, tc.path, strings.NewReader(tc.body))
			if name, value, ok := strings.Cut(tc.header, ": "); ok {
				req.Header.Set(name, value)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, req)
			var e struct{ Error, Code string }
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
				t.Fatalf("%v in %s", err, w.Body)
			}
			want := strings.ReplaceAll(tc.want, `\"`, `"`)
			if w.Code != tc.status || e.Code != tc.code || !strings.Contains(e.Error, want) {
				t.Errorf("%d %s, want %d %s with %s", w.Code, w.Body, tc.status, tc.code, tc.want)
			}
		})
	}
	if f.rows != nil || f.key != nil || f.recompute {
		t.Errorf("the node was asked: %+v", f)
	}
}

func TestErrorsOfTheNode(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
		code   string
		text   string
	}{
		{errors.New("disk on fire"), 500, CodeInternal, "disk on fire"},
		{Unavailable("too few replicas"), 503, CodeUnavailable, "too few replicas"},
		{fmt.Errorf("shard 3: %w", Conflict("it is being rebuilt")), 409, CodeConflict, "shard 3: it is being rebuilt"},
		{BadRequest("no shard 999: %w", io.ErrUnexpectedEOF), 400, CodeBadRequest, "no shard 999: unexpected EOF"},
		{fmt.Errorf("asking n2: %w", context.DeadlineExceeded), 504, CodeTimeout, "not done in time"},
		{fmt.Errorf("there is no shard 900: %w", syntropy.ErrInvalid), 400, CodeBadRequest, "no shard 900"},
		{fmt.Errorf("not formed yet: %w", syntropy.ErrNotReady), 503, CodeUnavailable, "not formed yet"},
		{fmt.Errorf("n2 is down: %w", syntropy.ErrUnavailable), 503, CodeUnavailable, "n2 is down"},
		{fmt.Errorf("stopping: %w", syntropy.ErrClosed), 503, CodeUnavailable, "stopping"},
		{fmt.Errorf("no answer from n2: %w (%w)", syntropy.ErrUnknownOutcome, context.DeadlineExceeded), 504, CodeTimeout, "no answer from n2"},
		{fmt.Errorf("the disk: %w", syntropy.ErrFailed), 500, CodeInternal, "the disk"},
	} {
		_, c := serve(t, &fakeNode{err: tc.err})
		_, err := c.Status(t.Context())
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Status != tc.status || e.Code != tc.code || !strings.Contains(e.Message, tc.text) {
			t.Errorf("%v became %+v", tc.err, err)
		}
	}
}

func TestListsAreNeverNull(t *testing.T) {
	s := New(&fakeNode{}, nil)
	for path, want := range map[string]string{
		"GET /v1/status":        `"nodes":[],"pairs":[]`,
		"GET /v1/inspect?key=<": `"key":"<","shard":7,"slot":0,"token":"","agree":true,"replicas":[]`,
		"GET /v1/roots":         `"shards":[{"shard":3,"replicas":[]}]`,
		"POST /v1/repair":       "[]\n",
		"GET /healthz":          `{"status":"ok"}`,
	} {
		method, path, _ := strings.Cut(path, " ")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %s", path, w.Code, w.Body, want)
		}
	}
}

// blockingRepair is a repair that runs until its context ends.
func blockingRepair() (f *fakeNode, began chan struct{}, ended chan error) {
	began, ended = make(chan struct{}), make(chan error, 1)
	f = &fakeNode{repair: func(ctx context.Context, _ report.RepairOptions) ([]report.Repair, error) {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}}
	return f, began, ended
}

func TestWhoDisconnectsCancelsHisRepair(t *testing.T) {
	f, began, ended := blockingRepair()
	_, c := serve(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	if _, err := c.Repair(ctx, report.RepairOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("the client: %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the node: %v", err)
	}
}

func TestShutdownCancelsRepairsAndSaysSo(t *testing.T) {
	f, began, ended := blockingRepair()
	s, c := serve(t, f)
	answered := make(chan error, 1)
	go func() {
		_, err := c.Repair(t.Context(), report.RepairOptions{})
		answered <- err
	}()
	<-began
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-ended
	if err := <-answered; err == nil || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("the client: %v", err)
	}
	_, err := c.Status(t.Context())
	if _, ok := errors.AsType[*NoAnswerError](err); !ok {
		t.Errorf("after shutdown: %v", err)
	}
	want := "no node answers at " + c.addr + ": is `syntropy serve` or `syntropy dev` running? give its admin address with --admin"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestStrangers talks to ports that are not the admin API.
func TestStrangers(t *testing.T) {
	answer := func(text string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.ReadAtLeast(conn, make([]byte, 1024), 10)
				_, _ = io.WriteString(conn, text)
				conn.Close()
			}
		}()
		return l.Addr().String()
	}
	for text, want := range map[string]string{
		"-ERR unknown command\r\n":                             "is it the client or the peer port",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi":       "is it the client or the peer port",
		"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1\r\n": "",
		"": "broke the connection",
		"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{": "broke the connection",
	} {
		_, err := NewClient(answer(text)).Status(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := NewClient("not an address").Status(t.Context()); err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("not an address: %v", err)
	}
}
