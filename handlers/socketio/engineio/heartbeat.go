package engineio

import "time"

// closeGrace is how long a session may take to send what was queued before its Close, and how long a close packet by POST waits for the
// GET that was sent in the same instant on another connection.
const (
	closeGrace    = 2 * time.Second
	farewellGrace = time.Second
)

// beat is called by the session's one timer: to ping, to find that no pong came, or to end what Close began.
func (s *Session) beat() {
	s.mu.Lock()
	o := &s.server.options
	switch now := time.Now(); {
	case s.ended:
		s.mu.Unlock()
	case s.reason != nil:
		s.mu.Unlock()
		s.abort(s.reason)
	case s.expiredLocked(now):
		s.mu.Unlock()
		s.abort(ErrPingTimeout)
	case s.pinged || now.Before(s.alive.Add(o.PingInterval)):
		s.resetLocked()
		s.mu.Unlock()
	default:
		s.pinged = true
		err := s.pushLocked(s.server.packets.ping)
		if err == nil {
			s.resetLocked()
		}
		s.mu.Unlock()
		if err != nil {
			s.abort(err)
		}
	}
}

// resetLocked sets the timer to what is next. All of it counts from the session's creation or its last pong, so that a late timer does
// not add up.
func (s *Session) resetLocked() {
	next := s.alive.Add(s.server.options.PingInterval)
	if s.pinged {
		next = next.Add(s.server.options.PingTimeout)
	}
	s.timer.Reset(time.Until(next))
}

// expiredLocked also holds where the timer is late on a busy machine: what is over is over.
func (s *Session) expiredLocked(now time.Time) bool {
	return !now.Before(s.alive.Add(s.server.options.PingInterval + s.server.options.PingTimeout))
}

func (s *Session) pong() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason != nil {
		return
	}
	s.alive = time.Now()
	s.pinged = false
	s.resetLocked()
}
