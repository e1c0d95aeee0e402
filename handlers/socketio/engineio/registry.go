package engineio

import (
	"errors"
	"net/http"
)

// tally of one address.
type tally struct{ sessions, halfOpen int }

// admit counts a session in, if the limits allow it, and returns the status to answer with.
func (srv *Server) admit(s *Session) int {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	switch {
	case srv.stats.Sessions >= srv.options.MaxSessions:
		srv.stats.Refused++
		return http.StatusServiceUnavailable
	case srv.perAddr[s.addr].sessions >= srv.options.MaxSessionsPerAddress,
		srv.perAddr[s.addr].halfOpen >= srv.options.MaxHalfOpenPerAddress:
		srv.stats.Refused++
		return http.StatusTooManyRequests
	}
	srv.stats.Sessions++
	srv.stats.Opened++
	srv.countLocked(s.addr, 1, 1)
	srv.running.Add(1)
	return http.StatusOK
}

// publish makes an admitted session known by its id, unless it is over already; if the server was closed in between it ends now.
func (srv *Server) publish(s *Session) {
	s.mu.Lock()
	srv.mu.Lock()
	closed := srv.closed
	if !s.ended {
		srv.sessions[s.id] = s
		if s.socket != nil {
			srv.stats.WebSocket++
		}
	}
	srv.mu.Unlock()
	s.mu.Unlock()
	if closed {
		s.shut(ErrServerClosed)
	}
}

// forget ends what admit began.
func (srv *Server) forget(s *Session) {
	srv.mu.Lock()
	if _, published := srv.sessions[s.id]; published && s.socket != nil {
		srv.stats.WebSocket--
	}
	delete(srv.sessions, s.id)
	srv.stats.Sessions--
	if s.settled {
		srv.countLocked(s.addr, -1, 0)
	} else {
		srv.countLocked(s.addr, -1, -1)
	}
	srv.mu.Unlock()
	srv.running.Done()
}

// Settle says that the session is more than a handshake: it no longer counts for MaxHalfOpenPerAddress.
func (s *Session) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	srv := s.server
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if !s.settled && s.reason == nil {
		s.settled = true
		srv.countLocked(s.addr, 0, -1)
	}
}

func (srv *Server) countLocked(addr string, sessions, halfOpen int) {
	t := srv.perAddr[addr]
	t.sessions += sessions
	t.halfOpen += halfOpen
	if t.sessions == 0 {
		delete(srv.perAddr, addr)
	} else {
		srv.perAddr[addr] = t
	}
}

func (srv *Server) upgraded() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.stats.Upgraded++
	srv.stats.WebSocket++
}

func (srv *Server) refused() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.stats.Refused++
}

func (srv *Server) ended(s *Session, reason error) {
	srv.mu.Lock()
	switch {
	case errors.Is(reason, ErrPingTimeout):
		srv.stats.PingTimeouts++
	case errors.Is(reason, ErrSlow):
		srv.stats.Overflows++
	}
	srv.mu.Unlock()
	srv.options.Logger.Debug("a session has ended", "addr", s.addr, "reason", reason)
}

// Stats of now.
func (srv *Server) Stats() Stats {
	srv.mu.RLock()
	defer srv.mu.RUnlock()
	stats := srv.stats
	stats.Polling = stats.Sessions - stats.WebSocket
	return stats
}
