package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// httpServer serves /healthz, /readyz, /metrics and /log/level, from before anything else is there until after it.
type httpServer struct {
	listener net.Listener // nil = off
	server   *http.Server
	serving  sync.WaitGroup
	failed   chan error // gets the error of serving, if there is one
	metrics  *metrics
	state    atomic.Pointer[readiness]
}

// readiness is what /readyz goes by: the daemon once it is up, before and after that the reason why it is not.
type readiness struct {
	daemon *daemon
	reason string
}

// listenHTTP begins to serve on addr, on nothing if that is "".
func listenHTTP(addr string, level *logLevel, logger hclog.Logger) (*httpServer, error) {
	s := &httpServer{failed: make(chan error, 1), metrics: newMetrics()}
	s.notReady("starting")
	if addr == "" {
		return s, nil
	}
	var err error
	if s.listener, err = net.Listen("tcp", addr); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("http: %w: stop the program that listens there, or choose another port with --http-addr (0 is a free one)", err)
		}
		return nil, fmt.Errorf("http: %w: check --http-addr", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /log/level", level)
	mux.Handle("PUT /log/level", level)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	s.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
	}
	s.serving.Go(func() {
		if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	})
	return s, nil
}

// url is where it is served, the real port filled in; "" = off.
func (s *httpServer) url() string {
	if s.listener == nil {
		return ""
	}
	return "http://" + s.listener.Addr().String()
}

func (s *httpServer) ready(d *daemon) {
	s.metrics.watch(d)
	s.state.Store(&readiness{daemon: d})
}

func (s *httpServer) notReady(reason string) { s.state.Store(&readiness{reason: reason}) }

func (s *httpServer) close(ctx context.Context) error {
	if s.server == nil {
		return nil
	}
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("http: %w", err), s.server.Close())
	}
	s.serving.Wait()
	return err
}

// check is one thing that has to be right.
type check struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason"`
}

// healthz tells whether the process is worth keeping: one that starts or ends is.
func (s *httpServer) healthz(w http.ResponseWriter, _ *http.Request) {
	state := s.state.Load()
	c := check{"server", true, state.reason}
	if state.daemon != nil {
		c = state.daemon.checkServer()
	}
	answer(w, "healthy", []check{c})
}

// serverHeader names, by its id, the NATS server the daemon is on: so that whoever asks can tell whose answer it is.
const serverHeader = "Cimbus-Server"

// readyz tells whether events are taken, handled and delivered.
func (s *httpServer) readyz(w http.ResponseWriter, r *http.Request) {
	state := s.state.Load()
	if state.daemon == nil {
		answer(w, "ready", []check{{"daemon", false, state.reason}})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	w.Header().Set(serverHeader, state.daemon.bus.Conn().ConnectedServerId())
	answer(w, "ready", state.daemon.checks(ctx))
}

func answer(w http.ResponseWriter, word string, checks []check) {
	ok := true
	for _, c := range checks {
		ok = ok && c.OK
	}
	body, err := json.Marshal(checks)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// A client that hangs up need not hear the answer.
	_, _ = fmt.Fprintf(w, "{%q:%t,\"checks\":%s}\n", word, ok, body)
}
