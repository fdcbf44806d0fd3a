package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"syntropy/report"
)

// Node is what the API needs of a node. All methods may be called concurrently;
// they end early when the context does.
type Node interface {
	Status(ctx context.Context) (report.Status, error)
	Inspect(ctx context.Context, key []byte) (report.Inspection, error)
	Repair(ctx context.Context, opts report.RepairOptions) ([]report.Repair, error)
	// CancelRepair stops the repairs that run and tells how many there were.
	CancelRepair(ctx context.Context) (int, error)
	Roots(ctx context.Context, recompute bool) (report.Roots, error)
	Scrub(ctx context.Context, opts report.ScrubOptions) (report.Scrub, error)
	// Load writes rows as a client would. After an error some of them may be
	// written; loading the same rows again is safe.
	Load(ctx context.Context, rows []Row) error
}

// Row is a key and its value.
type Row struct{ Key, Value []byte }

// Limits of the server.
const (
	// MaxLoadBytes bounds the body of a load: two of the largest values, or
	// many thousands of usual rows.
	MaxLoadBytes = 32 << 20
	// maxOptionBytes bounds every other body, which holds a few options.
	maxOptionBytes = 64 << 10
	// maxLoads bounds the loads that are held in memory at a time; further
	// ones wait, which slows the importer down and costs the node nothing.
	maxLoads = 4
	// headerTimeout and bodyTimeout end requests that trickle in.
	headerTimeout = 5 * time.Second
	bodyTimeout   = time.Minute
	idleTimeout   = 2 * time.Minute
)

// errStopping cancels long requests when the server shuts down.
var errStopping = errors.New("admin: the server is shutting down")

// Server answers operators for one node.
type Server struct {
	node     Node
	log      *slog.Logger
	http     http.Server
	routes   []route
	loads    chan struct{} // a token per load in memory
	stopping chan struct{} // closed by Shutdown
	stop     sync.Once
}

// route is one thing that the API does. A handler returns what is answered as
// JSON.
type route struct {
	method, path string
	// long requests have no end in sight, so they are cancelled by Shutdown,
	// where others are waited for.
	long    bool
	handler func(s *Server, w http.ResponseWriter, r *http.Request) (any, error)
}

// New returns a server for n. A nil logger discards.
func New(n Node, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		node:     n,
		log:      log,
		routes:   routes,
		loads:    make(chan struct{}, maxLoads),
		stopping: make(chan struct{}),
	}
	s.http = http.Server{
		Handler: s,
		// No ReadTimeout: its deadline would also cancel the context of a
		// repair that outlasts it. Bodies have bodyTimeout instead.
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers requests on l, which it closes, until Shutdown; then it returns
// nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin API on %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown stops accepting requests, cancels repairs, waits for everything else
// and returns. When ctx ends first it cuts the remaining connections.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop.Do(func() { close(s.stopping) })
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("admin API: requests were still running: %w", err), s.http.Close())
	}
	return err
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	answer, err := s.answer(w, r)
	log := s.log.With("method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr, "took", time.Since(began))
	status := http.StatusOK
	if err != nil {
		e := toError(err)
		status = e.Status
		answer = struct {
			Error string `json:"error"`
			Code  string `json:"code"`
		}{e.Message, e.Code}
		level := slog.LevelWarn
		if status == http.StatusServiceUnavailable {
			level = slog.LevelDebug // whoever asked knows; pollers ask again and again
		}
		log.Log(r.Context(), level, "admin request failed", "status", status, "error", err)
	} else if r.Method == http.MethodPost {
		log.Info("admin request", "status", status)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(answer); err != nil {
		log.Debug("admin answer was not taken", "error", err)
	}
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := refuseBrowsers(r); err != nil {
		return nil, err
	}
	rt, err := s.route(w, r)
	if err != nil {
		return nil, err
	}
	if !rt.long {
		return rt.handler(s, w, r)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-s.stopping:
			cancel(errStopping)
		case <-ctx.Done():
		}
	}()
	answer, err := rt.handler(s, w, r.WithContext(ctx))
	cause := context.Cause(ctx)
	cancel(nil)
	<-watched
	if err != nil && errors.Is(cause, errStopping) {
		err = fmt.Errorf("%w: %w", errStopping, err)
	}
	return answer, err
}

// route finds what a request asks for. Who asks for something else is told what
// there is.
func (s *Server) route(w http.ResponseWriter, r *http.Request) (route, error) {
	allowed, list := "", ""
	for _, rt := range s.routes {
		if rt.path == r.URL.Path {
			if rt.method == r.Method {
				return rt, nil
			}
			allowed = rt.method
		}
		list += ", " + rt.method + " " + rt.path
	}
	if allowed != "" {
		w.Header().Set("Allow", allowed)
		return route{}, newError(http.StatusMethodNotAllowed, CodeMethod, "%s takes %s, not %s", r.URL.Path, allowed, r.Method)
	}
	return route{}, newError(http.StatusNotFound, CodeNotFound, "%s does not exist; there are %s", r.URL.Path, list[2:])
}

// refuseBrowsers refuses what a web page asks for. Browsers put Origin on every
// POST of a page and Sec-Fetch-Site on everything; for a page of another site
// the latter is all that marks a GET. What a person types into the address bar
// ("none") passes.
func refuseBrowsers(r *http.Request) error {
	site := r.Header.Get("Sec-Fetch-Site")
	if len(r.Header.Values("Origin")) == 0 && (site == "" || site == "none") {
		return nil
	}
	return newError(http.StatusForbidden, CodeForbidden, "web pages may not drive a node (the request has an Origin header): use the syntropy command or another program")
}
