package engineio

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Transports, as the query names them.
const (
	transportPolling   = "polling"
	transportWebSocket = "websocket"
)

// Server is an http.Handler. It does not look at the path: mount it where the clients expect it, "/engine.io/" if nothing else was said.
type Server struct {
	options Options
	open    func(*Session) Handler
	packets struct{ ping, noop, close *Message }
	buffers sync.Pool
	running sync.WaitGroup // requests, sessions and their goroutines

	mu       sync.RWMutex
	closed   bool
	sessions map[string]*Session
	perAddr  map[string]tally
	stats    Stats
}

// Stats of a Server since it was made; Sessions, Polling and WebSocket are those of now.
type Stats struct {
	Sessions, Polling, WebSocket int
	Opened, Upgraded             uint64
	Refused                      uint64 // for a limit or an origin
	PingTimeouts, Overflows      uint64
}

// New makes a server. open is called for every new session, before its client knows of it, and returns what is told of it; it may
// Send already.
func New(o Options, open func(*Session) Handler) (*Server, error) {
	if open == nil {
		return nil, errors.New("open: give the function that returns a session's Handler")
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("engine.io options: %w", err)
	}
	srv := &Server{
		options:  o.withDefaults(),
		open:     open,
		sessions: make(map[string]*Session),
		perAddr:  make(map[string]tally),
	}
	srv.packets.ping = control("2")
	srv.packets.noop = control("6")
	srv.packets.close = control("1")
	return srv, nil
}

// ServeHTTP serves one request of the protocol.
func (srv *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !srv.enter() {
		fail(w, http.StatusServiceUnavailable, forbidden)
		return
	}
	defer srv.running.Done()
	if !srv.cors(w, r) {
		return
	}
	query := r.URL.Query()
	transport := query.Get("transport")
	switch {
	case transport != transportPolling && transport != transportWebSocket:
		fail(w, http.StatusBadRequest, unknownTransport)
		return
	case query.Get("EIO") != "4":
		fail(w, http.StatusBadRequest, unsupportedVersion)
		return
	}
	var s *Session
	if sid := query.Get("sid"); sid != "" {
		if s = srv.session(sid); s == nil {
			fail(w, http.StatusBadRequest, unknownSession)
			return
		}
	}
	switch {
	case transport == transportWebSocket && (r.Method != http.MethodGet || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket")):
		fail(w, http.StatusBadRequest, badRequest)
	case s == nil && r.Method != http.MethodGet:
		fail(w, http.StatusBadRequest, badMethod)
	case s == nil:
		srv.handshake(w, r, transport)
	case transport == transportWebSocket:
		s.join(w, r)
	case r.Method == http.MethodGet:
		s.get(w, r)
	case r.Method == http.MethodPost:
		s.post(w, r)
	default:
		fail(w, http.StatusBadRequest, badMethod)
	}
}

func (srv *Server) enter() bool {
	srv.mu.RLock()
	defer srv.mu.RUnlock()
	if srv.closed {
		return false
	}
	srv.running.Add(1)
	return true
}

// session by its id, or nil: one whose time is over is gone, however late its timer.
func (srv *Server) session(id string) *Session {
	srv.mu.RLock()
	s := srv.sessions[id]
	srv.mu.RUnlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	expired := s.reason == nil && s.expiredLocked(time.Now())
	s.mu.Unlock()
	if expired {
		s.abort(ErrPingTimeout)
		return nil
	}
	return s
}

// handshake opens a session.
func (srv *Server) handshake(w http.ResponseWriter, r *http.Request, transport string) {
	s := &Session{
		id:     NewID(),
		server: srv,
		addr:   srv.options.RemoteAddr(r),
		header: r.Header,
		query:  r.URL.Query(),
		alive:  time.Now(),
	}
	if status := srv.admit(s); status != http.StatusOK {
		fail(w, status, forbidden)
		return
	}
	s.timer = time.AfterFunc(srv.options.PingInterval, s.beat)
	s.timer.Stop() // until the handler is there
	if transport == transportWebSocket {
		ws, err := srv.accept(w, r)
		if err != nil {
			srv.forget(s)
			return
		}
		s.socket = ws
		s.queue.push(control(srv.opening(s.id)))
	}
	handler := srv.open(s)
	s.mu.Lock()
	s.handler = handler
	ended := s.reason
	if ended == nil {
		s.resetLocked()
		s.flushLocked()
	}
	s.mu.Unlock()
	if ended != nil {
		handler.Closed(ended)
	}
	srv.publish(s)
	if transport == transportWebSocket {
		ws := s.socket
		srv.running.Go(func() { s.reading(ws, false) })
		return
	}
	if err := srv.respond(w, []byte(srv.opening(s.id, transportWebSocket))); err != nil {
		s.abort(errors.Join(ErrTransport, err))
	}
}

// opening is the first packet of a session.
func (srv *Server) opening(id string, upgrades ...string) string {
	if upgrades == nil {
		upgrades = []string{}
	}
	text, _ := json.Marshal(struct { //nolint:errchkjson // strings and numbers
		SID          string   `json:"sid"`
		Upgrades     []string `json:"upgrades"`
		PingInterval int64    `json:"pingInterval"`
		PingTimeout  int64    `json:"pingTimeout"`
		MaxPayload   int      `json:"maxPayload"`
	}{id, upgrades, srv.options.PingInterval.Milliseconds(), srv.options.PingTimeout.Milliseconds(), srv.options.MaxPayload})
	return string(packetOpen) + string(text)
}

// NewID makes a name nobody can guess: 20 characters that are safe in a query.
func NewID() string {
	var id [15]byte
	_, _ = rand.Read(id[:]) // it never fails
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// Close refuses new sessions, closes those there are as Session.Close does, and waits for every goroutine and handler call. When ctx is
// done first, what is left is cut off, waited for, and reported.
func (srv *Server) Close(ctx context.Context) error {
	srv.mu.Lock()
	srv.closed = true
	sessions := make([]*Session, 0, len(srv.sessions))
	for _, s := range srv.sessions {
		sessions = append(sessions, s)
	}
	srv.mu.Unlock()
	for _, s := range sessions {
		s.shut(ErrServerClosed)
	}
	done := make(chan struct{})
	go func() {
		srv.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	for _, s := range sessions {
		s.abort(ErrServerClosed)
	}
	<-done
	return fmt.Errorf("closing sessions: %w", ctx.Err())
}
