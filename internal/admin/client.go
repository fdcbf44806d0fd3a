package admin

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"

	"syntropy/report"
)

// Limits of the client.
const (
	// dialTimeout is long for a node that is there and short for a person.
	dialTimeout = 3 * time.Second
	// askTimeout bounds questions that a node answers from memory or with one
	// round trip to its peers.
	askTimeout = 30 * time.Second
	// loadTimeout bounds one batch of rows.
	loadTimeout = 2 * time.Minute
	// maxAnswerBytes bounds an answer: the roots of the largest cluster, or
	// the longest explanation of a repair, are far below.
	maxAnswerBytes = 256 << 20
)

// NoAnswerError reports that nobody listens at the address.
type NoAnswerError struct {
	Addr string
	Err  error
}

func (e *NoAnswerError) Error() string {
	return fmt.Sprintf("no node answers at %s: is `syntropy serve` or `syntropy dev` running? give its admin address with --admin", e.Addr)
}

// Unwrap returns what the network said.
func (e *NoAnswerError) Unwrap() error { return e.Err }

// Client asks one node. It is safe for concurrent use.
type Client struct {
	addr string
	http http.Client
}

// NewClient returns a client for the admin address "host:port". It does not
// connect yet.
func NewClient(addr string) *Client {
	return &Client{
		addr: addr,
		http: http.Client{
			// No proxy: an operator's question goes to the node itself.
			Transport: &http.Transport{
				DialContext:     (&net.Dialer{Timeout: dialTimeout}).DialContext,
				MaxIdleConns:    4,
				IdleConnTimeout: idleTimeout,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status returns the cluster as the node sees it.
func (c *Client) Status(ctx context.Context) (report.Status, error) {
	return ask[report.Status](ctx, c, askTimeout, http.MethodGet, "/v1/status", nil)
}

// Inspect returns every replica's version of a key.
func (c *Client) Inspect(ctx context.Context, key []byte) (report.Inspection, error) {
	q := url.Values{}
	if utf8.Valid(key) {
		q.Set("key", string(key))
	} else {
		q.Set("key_base64", base64.StdEncoding.EncodeToString(key))
	}
	return ask[report.Inspection](ctx, c, askTimeout, http.MethodGet, "/v1/inspect?"+q.Encode(), nil)
}

// Repair runs anti-entropy and returns when it is done. When ctx ends the node
// stops repairing.
func (c *Client) Repair(ctx context.Context, opts report.RepairOptions) ([]report.Repair, error) {
	body, err := json.Marshal(opts)
	if err != nil {
		return nil, err
	}
	return ask[[]report.Repair](ctx, c, 0, http.MethodPost, "/v1/repair", body)
}

// CancelRepair stops the repairs that run and tells how many there were.
func (c *Client) CancelRepair(ctx context.Context) (int, error) {
	a, err := ask[cancelAnswer](ctx, c, askTimeout, http.MethodPost, "/v1/repair/cancel", []byte("{}"))
	return a.Cancelled, err
}

// Roots returns the roots of all replicas. With recompute the nodes read all
// their rows, which may take long.
func (c *Client) Roots(ctx context.Context, recompute bool) (report.Roots, error) {
	path := "/v1/roots"
	if recompute {
		path += "?recompute=1"
	}
	return ask[report.Roots](ctx, c, 0, http.MethodGet, path, nil)
}

// Scrub has a node compare its disk with its trees and returns when it is done. When
// ctx ends the node stops.
func (c *Client) Scrub(ctx context.Context, opts report.ScrubOptions) (report.Scrub, error) {
	body, err := json.Marshal(opts)
	if err != nil {
		return report.Scrub{}, err
	}
	return ask[report.Scrub](ctx, c, 0, http.MethodPost, "/v1/scrub", body)
}

// Load writes rows. After an error some of them may be written; loading the
// same rows again is safe.
func (c *Client) Load(ctx context.Context, rows []Row) error {
	size := 0
	for _, r := range rows {
		size += 48 + base64.StdEncoding.EncodedLen(len(r.Key)) + base64.StdEncoding.EncodedLen(len(r.Value))
	}
	// Always base64: no escapes to get wrong, and a size known beforehand.
	body := make([]byte, 0, size)
	for _, r := range rows {
		body = append(body, `{"key_base64":"`...)
		body = base64.StdEncoding.AppendEncode(body, r.Key)
		body = append(body, `","value_base64":"`...)
		body = base64.StdEncoding.AppendEncode(body, r.Value)
		body = append(body, "\"}\n"...)
	}
	if len(body) > MaxLoadBytes {
		return fmt.Errorf("%d rows of %d bytes as sent are more than a node takes at a time (%d bytes): send fewer", len(rows), len(body), MaxLoadBytes)
	}
	a, err := ask[loadAnswer](ctx, c, loadTimeout, http.MethodPost, "/v1/load", body)
	if err == nil && a.Rows != len(rows) {
		return fmt.Errorf("%s took %d of %d rows", c.addr, a.Rows, len(rows))
	}
	return err
}

// ask makes one request. A timeout of 0 is none.
func ask[T any](ctx context.Context, c *Client, timeout time.Duration, method, path string, body []byte) (T, error) {
	var answer, zero T
	caller := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.addr+path, bytes.NewReader(body))
	if err != nil {
		return zero, fmt.Errorf("%q is not an address: an admin address is host:port, like 127.0.0.1:7201", c.addr)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return zero, c.explain(caller, ctx, timeout, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return zero, c.explain(caller, ctx, timeout, err)
	}
	if len(text) > maxAnswerBytes {
		return zero, fmt.Errorf("the answer of %s is larger than %d bytes", c.addr, maxAnswerBytes)
	}
	if resp.StatusCode != http.StatusOK {
		var e struct{ Error, Code string }
		if json.Unmarshal(text, &e) != nil || e.Code == "" {
			return zero, c.stranger(fmt.Errorf("HTTP status %s", resp.Status))
		}
		return zero, &Error{Status: resp.StatusCode, Code: e.Code, Message: e.Error}
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return zero, c.stranger(err)
	}
	return answer, nil
}

// explain turns an error of the network into one for people.
func (c *Client) explain(caller, ctx context.Context, timeout time.Duration, err error) error {
	if caller.Err() != nil {
		return context.Cause(caller)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s did not answer within %v, so the outcome is unknown: look at its log, or ask again", c.addr, timeout)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return &NoAnswerError{Addr: c.addr, Err: err}
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the URL, which may hold a key of any length
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s broke the connection before it answered, so the outcome is unknown: is the node still running? (%w)", c.addr, err)
	}
	return c.stranger(err)
}

// stranger reports that something answers which is not this API.
func (c *Client) stranger(err error) error {
	return fmt.Errorf("%s answers, but not as the admin API of a node: is it the client or the peer port? give the admin address with --admin (%w)", c.addr, err)
}
