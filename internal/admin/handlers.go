package admin

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"syntropy/internal/rowfile"
	"syntropy/report"
)

// routes is the whole API.
var routes = []route{
	{method: "GET", path: "/v1/status", handler: (*Server).status},
	{method: "GET", path: "/v1/inspect", handler: (*Server).inspect},
	{method: "POST", path: "/v1/repair", handler: (*Server).repair, long: true},
	{method: "POST", path: "/v1/repair/cancel", handler: (*Server).cancelRepair},
	{method: "GET", path: "/v1/roots", handler: (*Server).roots, long: true},
	{method: "POST", path: "/v1/scrub", handler: (*Server).scrub, long: true},
	{method: "POST", path: "/v1/load", handler: (*Server).load},
	{method: "GET", path: "/healthz", handler: (*Server).healthz},
}

type healthAnswer struct {
	Status string `json:"status"`
}

type cancelAnswer struct {
	Cancelled int `json:"cancelled"`
}

type loadAnswer struct {
	Rows int `json:"rows"`
}

func (s *Server) healthz(http.ResponseWriter, *http.Request) (any, error) {
	return healthAnswer{"ok"}, nil
}

func (s *Server) status(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	st, err := s.node.Status(r.Context())
	st.Nodes, st.Pairs = list(st.Nodes), list(st.Pairs)
	return st, err
}

func (s *Server) inspect(_ http.ResponseWriter, r *http.Request) (any, error) {
	q, err := params(r, "key", "key_base64")
	if err != nil {
		return nil, err
	}
	if q.Has("key") == q.Has("key_base64") {
		return nil, BadRequest("give the key as key=K, or as key_base64=B for bytes that are not text, and only once")
	}
	key := []byte(q.Get("key"))
	if q.Has("key_base64") {
		if key, err = base64.StdEncoding.DecodeString(q.Get("key_base64")); err != nil {
			return nil, BadRequest("key_base64 is not base64 (in a URL, write + as %%2B): %w", err)
		}
	}
	if err := checkKey(key); err != nil {
		return nil, err
	}
	in, err := s.node.Inspect(r.Context(), key)
	in.Replicas = list(in.Replicas)
	return in, err
}

func (s *Server) repair(w http.ResponseWriter, r *http.Request) (any, error) {
	var opts report.RepairOptions
	if err := readOptions(w, r, &opts); err != nil {
		return nil, err
	}
	if opts.Shard != nil && *opts.Shard < 0 {
		return nil, BadRequest("shard %d: shards are counted from 0", *opts.Shard)
	}
	reports, err := s.node.Repair(r.Context(), opts)
	return list(reports), err
}

func (s *Server) scrub(w http.ResponseWriter, r *http.Request) (any, error) {
	var opts report.ScrubOptions
	if err := readOptions(w, r, &opts); err != nil {
		return nil, err
	}
	if opts.Shard != nil && *opts.Shard < 0 {
		return nil, BadRequest("shard %d: shards are counted from 0", *opts.Shard)
	}
	out, err := s.node.Scrub(r.Context(), opts)
	out.Problems = list(out.Problems)
	return out, err
}

func (s *Server) cancelRepair(w http.ResponseWriter, r *http.Request) (any, error) {
	var none struct{}
	if err := readOptions(w, r, &none); err != nil {
		return nil, err
	}
	n, err := s.node.CancelRepair(r.Context())
	return cancelAnswer{n}, err
}

func (s *Server) roots(_ http.ResponseWriter, r *http.Request) (any, error) {
	q, err := params(r, "recompute")
	if err != nil {
		return nil, err
	}
	recompute := false
	if q.Has("recompute") {
		if recompute, err = strconv.ParseBool(q.Get("recompute")); err != nil {
			return nil, BadRequest("recompute is %q: it is 1 or 0", q.Get("recompute"))
		}
	}
	roots, err := s.node.Roots(r.Context(), recompute)
	roots.Shards = list(slices.Clone(roots.Shards)) // the node's slice is not ours to change
	for i := range roots.Shards {
		roots.Shards[i].Replicas = list(roots.Shards[i].Replicas)
	}
	return roots, err
}

// load reads all rows before it writes the first one: a request with a broken
// row changes nothing.
func (s *Server) load(w http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	select {
	case s.loads <- struct{}{}:
		defer func() { <-s.loads }()
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	body, done := limitBody(w, r, MaxLoadBytes)
	defer done()
	reader, err := rowfile.NewReader(body, "rows", rowfile.Options{Format: rowfile.JSONL})
	if err != nil {
		return nil, err
	}
	var rows []Row
	for {
		row, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("nothing was written: %w", bodyError(err))
		}
		rows = append(rows, Row{Key: row.Key, Value: row.Value})
	}
	done()
	if len(rows) > 0 {
		if err := s.node.Load(r.Context(), rows); err != nil {
			return nil, err
		}
	}
	return loadAnswer{len(rows)}, nil
}

// readOptions reads a small JSON object; an empty body is an empty object.
func readOptions(w http.ResponseWriter, r *http.Request, into any) error {
	if _, err := params(r); err != nil {
		return err
	}
	body, done := limitBody(w, r, maxOptionBytes)
	defer done()
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	switch err := d.Decode(into); {
	case err == io.EOF:
		return nil
	case err != nil:
		return bodyError(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return BadRequest("something follows the JSON object in the body")
	}
	return nil
}

// limitBody bounds a body in bytes and time. done lifts the time limit again:
// left in place it would later cancel the request's context.
func limitBody(w http.ResponseWriter, r *http.Request, limit int64) (body io.Reader, done func()) {
	c := http.NewResponseController(w)
	// A connection without deadlines, as in tests, has no slow clients either.
	_ = c.SetReadDeadline(time.Now().Add(bodyTimeout))
	return http.MaxBytesReader(w, r.Body, limit), func() { _ = c.SetReadDeadline(time.Time{}) }
}

func bodyError(err error) error {
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return newError(http.StatusRequestEntityTooLarge, CodeTooLarge, "the body is larger than %d bytes: send less at a time", e.Limit)
	}
	if t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && t.Timeout() {
		return newError(http.StatusRequestTimeout, CodeTimeout, "the body did not arrive within %v", bodyTimeout)
	}
	return BadRequest("the body is not what it should be: %w", err)
}

// params returns the query's parameters, which must be among the known ones: a
// misspelt option must not be taken for its default.
func params(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, BadRequest("the query is malformed: %w", err)
	}
	for name, values := range q {
		if !slices.Contains(known, name) {
			return nil, BadRequest("%s has no parameter %q", r.URL.Path, name)
		}
		if len(values) > 1 {
			return nil, BadRequest("the parameter %q is given %d times", name, len(values))
		}
	}
	return q, nil
}

func checkKey(key []byte) error {
	switch {
	case len(key) == 0:
		return BadRequest("the key is empty")
	case len(key) > rowfile.MaxKeyBytes:
		return BadRequest("the key has %d bytes, more than the limit of %d (64 KiB)", len(key), rowfile.MaxKeyBytes)
	}
	return nil
}

// list makes JSON say [] and not null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
