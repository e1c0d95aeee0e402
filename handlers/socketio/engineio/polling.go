package engineio

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// holdForUpgrade is how long a poll that arrives in the middle of an upgrade waits for the "5" that may be under way: with it the poll is
// refused, without it released.
const holdForUpgrade = 100 * time.Millisecond

// poll is a GET that hangs.
type poll struct {
	held   bool // it came during an upgrade
	answer chan answer
}

// answer to a poll: a batch of packets, or an error.
type answer struct {
	status  int
	batch   []*Message
	overlap bool // another poll hangs
}

// answerLocked ends the poll that hangs; its channel has room for the one answer it will get.
func (s *Session) answerLocked(a answer) {
	s.poll.answer <- a
	s.poll = nil
}

func (*Session) only(m *Message) answer { return answer{status: http.StatusOK, batch: []*Message{m}} }

// nextLocked is the next payload. A close packet goes alone: socket.io-client hands on what came before it in the same payload only after
// it has taken the connection for closed, which keeps the last events from it until it is back.
func (s *Session) nextLocked() answer {
	batch := s.takeLocked(s.server.options.MaxPayload)
	if last := len(batch) - 1; last > 0 && batch[last] == s.server.packets.close {
		s.queue.push(batch[last])
		batch = batch[:last]
	}
	return answer{status: http.StatusOK, batch: batch}
}

// get serves a poll.
func (s *Session) get(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	p, a := s.pollLocked()
	s.mu.Unlock()
	switch {
	case p != nil:
		a = s.hang(w, r, p)
	case a.overlap:
		s.abort(ErrOverlap)
	}
	switch {
	case a.status == 0: // the client is gone
	case a.status != http.StatusOK:
		fail(w, a.status, badRequest)
	default:
		buffer := s.server.takeBuffer()
		defer s.server.giveBuffer(buffer)
		*buffer = appendPayload(*buffer, a.batch)
		if err := s.server.respond(w, *buffer); err != nil {
			s.abort(errors.Join(ErrTransport, err))
			return
		}
		if a.batch[len(a.batch)-1] == s.server.packets.close {
			s.abort(ErrClosed)
		}
	}
}

// pollLocked answers a poll, or lets it hang.
func (s *Session) pollLocked() (*poll, answer) {
	refused := answer{status: http.StatusBadRequest}
	switch {
	case s.farewell != nil:
		close(s.farewell)
		s.farewell = nil
		s.server.forget(s)
		return nil, s.only(s.server.packets.noop)
	case s.ended, s.socket != nil:
		return nil, refused
	case s.poll != nil:
		return nil, answer{status: http.StatusBadRequest, overlap: true}
	case !s.upgrading && len(s.queue.waiting) > 0:
		return nil, s.nextLocked()
	}
	s.poll = &poll{held: s.upgrading, answer: make(chan answer, 1)}
	return s.poll, answer{}
}

func (s *Session) hang(w http.ResponseWriter, r *http.Request, p *poll) answer {
	// A deadline for reading requests would take the client for gone.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	var release <-chan time.Time
	if p.held {
		timer := time.NewTimer(holdForUpgrade)
		defer timer.Stop()
		release = timer.C
	}
	select {
	case a := <-p.answer:
		return a
	case <-release:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.poll != p {
			return <-p.answer
		}
		s.poll = nil
		if len(s.queue.waiting) > 0 {
			return s.nextLocked()
		}
		return s.only(s.server.packets.noop)
	case <-r.Context().Done():
		// What it was to be told may be lost with it: the session cannot go on without a hole.
		s.mu.Lock()
		if s.poll == p {
			s.poll = nil
		}
		s.mu.Unlock()
		s.abort(ErrTransport)
		return answer{}
	}
}

// post takes a payload from the client.
func (s *Session) post(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	refused, overlap := s.reason != nil || s.socket != nil, s.posting
	s.posting = s.posting || !refused
	s.mu.Unlock()
	if refused || overlap {
		if overlap {
			s.abort(ErrOverlap)
		}
		fail(w, http.StatusBadRequest, badRequest)
		return
	}
	err := s.body(w, r)
	s.mu.Lock()
	s.posting = false
	s.mu.Unlock()
	switch {
	case errors.Is(err, ErrPeerClosed):
		s.sayGoodbye()
	case errors.Is(err, ErrTooLarge):
		s.abort(err)
		fail(w, http.StatusRequestEntityTooLarge, badRequest)
		return
	case err != nil:
		s.abort(err)
		fail(w, http.StatusBadRequest, badRequest)
		return
	}
	// An error here is a client that is gone; its poll finds out.
	_ = s.server.respond(w, []byte("ok"))
}

func (s *Session) body(w http.ResponseWriter, r *http.Request) error {
	o := &s.server.options
	// What cannot set a deadline, such as a recorder in a test, needs none.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(o.ReadTimeout))
	buffer := s.server.takeBuffer()
	defer s.server.giveBuffer(buffer)
	body := bytes.NewBuffer(*buffer)
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, int64(o.MaxPayload)))
	*buffer = body.Bytes()[:0]
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return ErrTooLarge
	case err != nil:
		return errors.Join(ErrTransport, err)
	}
	return parsePayload(body.Bytes(), func(p packet) error {
		if p.kind == packetMessage && !p.binary {
			p.data = bytes.Clone(p.data)
		}
		return s.receive(p)
	})
}

// sayGoodbye ends a session whose client said so by POST. The GET that hangs gets a noop. A client always has one under way, but it may
// arrive after the POST: for a moment the session waits for it.
func (s *Session) sayGoodbye() {
	s.mu.Lock()
	first := s.firstLocked(ErrPeerClosed)
	var farewell chan struct{}
	if s.poll == nil && !s.ended {
		farewell = make(chan struct{})
		s.farewell = farewell
	}
	s.endLocked(s.only(s.server.packets.noop))
	s.mu.Unlock()
	if first {
		s.told(ErrPeerClosed)
	}
	if farewell == nil {
		return
	}
	timer := time.NewTimer(farewellGrace)
	defer timer.Stop()
	select {
	case <-farewell:
	case <-timer.C:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.farewell != nil {
			s.farewell = nil
			s.server.forget(s)
		}
	}
}

// respond writes a whole body with a deadline, and tells whether the connection took it.
func (srv *Server) respond(w http.ResponseWriter, body []byte) error {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(srv.options.WriteTimeout))
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	if _, err := w.Write(body); err != nil {
		return err
	}
	if err := rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	// The connection serves other requests after this one.
	_ = rc.SetWriteDeadline(time.Time{})
	return nil
}
