package engineio

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Handler is what a session's messages and end are told to. Message is called for one message at a time, in the order the client sent
// them, and holds up the next ones until it returns; an error closes the session at once, and is the reason. data is the handler's to
// keep. Closed is called once, with why; a last Message may still be under way then.
type Handler interface {
	Message(binary bool, data []byte) error
	Closed(reason error)
}

// Session of one client. Its methods may be called from any goroutine.
type Session struct {
	id      string
	server  *Server
	addr    string
	header  http.Header
	query   url.Values
	handler Handler
	settled bool // guarded by the server's mutex

	receiving sync.Mutex // held while the handler has a message

	mu       sync.Mutex
	reason   error // why it ended, nil while it lives
	ended    bool  // nothing is sent any more, and the server has forgotten it
	queue    queue
	room     chan struct{} // closed when the queue has emptied, nil while nobody waits
	poll     *poll
	posting  bool
	farewell chan struct{} // a close packet came by POST and no GET was hanging: the GET that must be under way closes it

	socket    *socket // the WebSocket, once that is the transport
	upgrading bool    // a WebSocket has come that may become it
	candidate *socket // that WebSocket, once it is accepted
	probed    bool
	flushing  bool

	alive  time.Time // created, or last pong
	pinged bool
	timer  *time.Timer
}

// ID is the session's name, known to the client alone: who has it can take the session over.
func (s *Session) ID() string { return s.id }

// RemoteAddr of the client, as Options.RemoteAddr had it.
func (s *Session) RemoteAddr() string { return s.addr }

// Header of the first request. It must not be changed.
func (s *Session) Header() http.Header { return s.header }

// Query of the first request. It must not be changed.
func (s *Session) Query() url.Values { return s.query }

// Transport in use: "polling" or "websocket".
func (s *Session) Transport() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.socket != nil {
		return transportWebSocket
	}
	return transportPolling
}

// Send queues messages, which stay together and in order, and does not wait. A full queue ends the session and returns ErrSlow; a
// session that has ended returns why it has.
func (s *Session) Send(messages ...*Message) error {
	s.mu.Lock()
	if s.reason != nil {
		defer s.mu.Unlock()
		return s.reason
	}
	err := s.pushLocked(messages...)
	s.mu.Unlock()
	if err != nil {
		s.abort(err)
	}
	return err
}

func (s *Session) pushLocked(messages ...*Message) error {
	o := &s.server.options
	for _, m := range messages {
		if n := len(s.queue.waiting); n >= o.MaxQueuePackets || n > 0 && s.queue.bytes+len(m.frame) > o.MaxQueueBytes {
			return ErrSlow
		}
		s.queue.push(m)
	}
	s.flushLocked()
	return nil
}

// flushLocked sets whatever can be sent on its way.
func (s *Session) flushLocked() {
	if len(s.queue.waiting) == 0 || s.ended {
		return
	}
	if s.socket != nil {
		if !s.flushing {
			s.flushing = true
			s.server.running.Go(s.flush)
		}
		return
	}
	if s.poll != nil && !s.poll.held {
		s.answerLocked(s.nextLocked())
	}
}

func (s *Session) takeLocked(limit int) []*Message {
	batch := s.queue.take(limit)
	if len(s.queue.waiting) == 0 && s.room != nil {
		close(s.room)
		s.room = nil
	}
	return batch
}

// Room waits until everything queued has been handed to the transport, or ctx is done, or the session has ended. Who has more to send
// than a queue holds calls it in between.
func (s *Session) Room(ctx context.Context) error {
	s.mu.Lock()
	if s.reason != nil || len(s.queue.waiting) == 0 {
		defer s.mu.Unlock()
		return s.reason
	}
	if s.room == nil {
		s.room = make(chan struct{})
	}
	room := s.room
	s.mu.Unlock()
	select {
	case <-room:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.reason
	case <-ctx.Done():
		return fmt.Errorf("waiting for a client to read: %w", ctx.Err())
	}
}

// Close ends the session after what is queued has been sent, or a few seconds have passed: the client sees its transport close, not an
// error, and may open another one. It does not wait.
func (s *Session) Close() { s.shut(ErrClosed) }

func (s *Session) shut(reason error) {
	s.mu.Lock()
	if !s.firstLocked(reason) {
		s.mu.Unlock()
		return
	}
	s.queue.push(s.server.packets.close)
	s.flushLocked()
	if !s.ended {
		s.timer.Reset(closeGrace)
	}
	s.mu.Unlock()
	s.told(reason)
}

// abort ends the session at once; what is queued is lost, which a client that comes back must be able to bear anyway.
func (s *Session) abort(reason error) {
	s.mu.Lock()
	first := s.firstLocked(reason)
	s.endLocked(s.only(s.server.packets.close))
	s.mu.Unlock()
	if first {
		s.told(reason)
	}
}

// endLocked lets go of everything. A poll that hangs gets last.
func (s *Session) endLocked(last answer) {
	if s.ended {
		return
	}
	s.ended = true
	s.timer.Stop()
	s.queue = queue{}
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	if s.poll != nil {
		s.answerLocked(last)
	}
	for _, ws := range []*socket{s.socket, s.candidate} {
		if ws != nil {
			s.server.running.Go(func() { ws.close(s.reason) })
		}
	}
	if s.farewell == nil {
		s.server.forget(s)
	}
}

// firstLocked sets the reason, if it is the first one: then told must follow, which the server's Close waits for.
func (s *Session) firstLocked(reason error) bool {
	if s.reason != nil {
		return false
	}
	s.reason = reason
	s.server.running.Add(1)
	return true
}

func (s *Session) told(reason error) {
	defer s.server.running.Done()
	s.server.ended(s, reason)
	s.mu.Lock()
	handler := s.handler
	s.mu.Unlock()
	if handler != nil { // else the server is still asking for it, and tells it
		handler.Closed(reason)
	}
}

// receive hands a packet of the client on. It returns why the session must end, or nil.
func (s *Session) receive(p packet) error {
	switch p.kind {
	case packetMessage:
		s.receiving.Lock()
		defer s.receiving.Unlock()
		s.mu.Lock()
		reason := s.reason
		s.mu.Unlock()
		if reason != nil {
			return nil // it arrived after the end
		}
		return s.handler.Message(p.binary, p.data)
	case packetPong:
		s.pong()
		return nil
	case packetClose:
		return ErrPeerClosed
	case packetUpgrade, packetNoop:
		return nil
	default:
		return fmt.Errorf("%w: a client does not send type %q", ErrMalformed, p.kind)
	}
}
