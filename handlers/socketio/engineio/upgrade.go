package engineio

import (
	"net/http"
	"time"
)

const (
	probe       = "probe"
	probeAnswer = "3probe"
)

// join takes a WebSocket with the id of a session: the first one is to become its transport, any other is accepted and closed.
func (s *Session) join(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	taken := s.reason != nil || s.socket != nil || s.upgrading
	// Before the client hears that it is accepted: its next poll must find the upgrade under way.
	s.upgrading = s.upgrading || !taken
	s.mu.Unlock()
	ws, err := s.server.accept(w, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.upgrading = s.upgrading && taken
	case taken, s.reason != nil:
		close(ws.read)
		s.server.running.Go(func() { ws.close(ErrClosed) })
	default:
		s.candidate = ws
		s.server.running.Go(func() { s.reading(ws, true) })
	}
}

// upgrade is the client's probe and its decision; it returns whether the WebSocket is the transport now.
func (s *Session) upgrade(ws *socket) bool {
	deadline := time.AfterFunc(s.server.options.UpgradeTimeout, func() {
		_ = ws.conn.CloseNow()
	})
	defer deadline.Stop()
	for {
		p, err := s.next(ws)
		switch {
		case err == nil && p.kind == packetPing && string(p.data) == probe:
			if _, err = ws.wire.Write(control(probeAnswer).frame); err == nil {
				s.release()
				continue
			}
		case err == nil && p.kind == packetUpgrade && s.switchTo(ws):
			return true
		}
		s.mu.Lock()
		if s.candidate == ws {
			s.candidate, s.upgrading, s.probed = nil, false, false
		}
		s.mu.Unlock()
		_ = ws.conn.CloseNow()
		return false
	}
}

// release answers the poll that hangs since before the upgrade: the client waits for that before it sends "5".
func (s *Session) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probed = true
	if s.poll != nil && !s.poll.held {
		s.answerLocked(s.only(s.server.packets.noop))
	}
}

// switchTo makes the WebSocket the transport. What was queued since the last poll goes over it.
func (s *Session) switchTo(ws *socket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.candidate != ws || !s.probed {
		return false
	}
	s.socket, s.candidate = ws, nil
	if s.poll != nil {
		s.answerLocked(answer{status: http.StatusBadRequest})
	}
	s.server.upgraded()
	s.flushLocked()
	return true
}
