package socketio

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

// Socket is one client in one namespace. Its methods may be called from any goroutine.
type Socket struct {
	id         string
	connection *connection
	namespace  *Namespace
	handshake  *Handshake
	mailbox    mailbox
	acks       acks

	// Settled in the handshake, before OnConnect.
	pid       string
	offset    string
	recovered bool

	state    atomic.Int32
	welcomed bool // OnConnect was called; only the mailbox touches it
}

// States of a socket. Each follows the one before, or is skipped.
const (
	statePending int32 = iota
	stateConnected
	stateOver
)

func newSocket(c *connection, ns *Namespace, h *Handshake) *Socket {
	s := &Socket{id: engineio.NewID(), connection: c, namespace: ns, handshake: h}
	s.mailbox.socket = s
	return s
}

// ID of the socket: new on each connect, known to the client.
func (s *Socket) ID() string { return s.id }

// Namespace it is in.
func (s *Socket) Namespace() *Namespace { return s.namespace }

// Handshake it came with; its Data is the application's.
func (s *Socket) Handshake() *Handshake { return s.handshake }

// Recovered tells whether a Recoverer has let the client's session go on: then Offset is where, empty if the client has seen no event.
func (s *Socket) Recovered() bool { return s.recovered }

// Offset is the last one the client has seen, of a recovered session.
func (s *Socket) Offset() string { return s.offset }

// Context ends when the client's connection does.
func (s *Socket) Context() context.Context { return s.connection.ctx }

// Transport in use: "polling" or "websocket".
func (s *Socket) Transport() string { return s.connection.session.Transport() }

// Emit sends an event. A []byte argument is binary data, a json.RawMessage is compacted, a Verbatim is sent as it is, Placeholders are a
// whole list of arguments; anything else is for encoding/json. It does not wait: nil means queued. With recovery on do not end an
// event in a bare string that is no offset: the client would take it for one.
func (s *Socket) Emit(event string, args ...any) error {
	parts, err := encodeEvent(s.namespace.name, event, "", nil, args)
	if err != nil {
		return err
	}
	return s.send(parts)
}

// EmitPrepared sends a message of the socket's own namespace.
func (s *Socket) EmitPrepared(m *Message) error {
	if m.namespace != s.namespace.name {
		return fmt.Errorf("a message of namespace %s sent to a socket of %s: prepare it there", m.namespace, s.namespace.name)
	}
	return s.send(m.parts)
}

// EmitWithAck sends an event as Emit does and waits for the client's answer, or ctx, or the end of the socket. An answer that comes later
// is dropped. In an event's handler it holds up the socket's next events.
func (s *Socket) EmitWithAck(ctx context.Context, event string, args ...any) (*Reply, error) {
	id, reply, ok := s.acks.expect()
	if !ok {
		return nil, ErrDisconnected
	}
	parts, err := encodeEvent(s.namespace.name, event, "", &id, args)
	if err == nil {
		err = s.send(parts)
	}
	if err != nil {
		s.acks.cancel(id)
		return nil, err
	}
	select {
	case r, ok := <-reply:
		if !ok {
			return nil, ErrDisconnected
		}
		return r, nil
	case <-ctx.Done():
		s.acks.cancel(id)
		return nil, fmt.Errorf("waiting for the ack of %s: %w", event, ctx.Err())
	}
}

// Room waits until what was emitted has been handed to the transport. Who has more to send than a queue holds, such as the gap of a
// recovered session, calls it in between.
func (s *Socket) Room(ctx context.Context) error { return s.connection.session.Room(ctx) }

// Disconnect sends DISCONNECT: the client takes it as final and does not come back by itself. To have it come back, CloseTransport.
func (s *Socket) Disconnect() error {
	if s.state.Load() != stateConnected {
		return ErrDisconnected
	}
	packet, err := encodeControl(packetDisconnect, s.namespace.name, nil)
	if err != nil {
		return err
	}
	err = s.send([]*engineio.Message{packet})
	s.leave(ErrServerDisconnect)
	return err
}

// CloseTransport closes the client's connection, with all its namespaces, once what is queued is sent. The client comes back by itself.
func (s *Socket) CloseTransport() { s.connection.session.Close() }

func (s *Socket) send(parts []*engineio.Message) error {
	if s.state.Load() != stateConnected {
		return ErrDisconnected
	}
	return s.connection.session.Send(parts...)
}

// leave ends the socket; its handlers hear of it after their last event. A Recoverer hears of a client's own disconnect before anything
// else that the client sends: the next thing may be a CONNECT with the same pid.
func (s *Socket) leave(reason error) {
	before := s.state.Swap(stateOver)
	if before == stateConnected && s.pid != "" && errors.Is(reason, ErrClientDisconnect) {
		s.guard(func() {
			if r := s.namespace.plan.Load().recoverer; r != nil {
				// The client may be gone before it is written down, which must be.
				ctx, cancel := context.WithTimeout(context.WithoutCancel(s.connection.ctx), s.connection.server.options.ConnectTimeout)
				defer cancel()
				r.End(ctx, s, s.pid)
			}
		})
	}
	if s.mailbox.end(reason) {
		s.acks.close()
		s.connection.forget(s)
	}
}

// guard calls the application. A panic costs its own client the connection, nobody else.
func (s *Socket) guard(call func()) {
	defer func() {
		if r := recover(); r != nil {
			s.log().Error("a handler panicked", "namespace", s.namespace.name, "panic", r, "stack", string(debug.Stack()))
			s.connection.session.Close()
		}
	}()
	call()
}

func (s *Socket) log() hclog.Logger { return s.connection.server.options.Logger }

// handle is the mailbox's: the handshake, or an event.
func (s *Socket) handle(e *Event) {
	p := s.namespace.plan.Load()
	handler := p.anything
	switch {
	case e == nil:
		s.guard(func() { s.connect(p) })
		return
	case !s.welcomed: // refused
		return
	case p.handlers[e.Name] != nil:
		handler = p.handlers[e.Name]
	case handler == nil:
		return
	}
	s.guard(func() { handler(s, e) })
}

// connect is the handshake: middleware, recovery, the answer, OnConnect.
func (s *Socket) connect(p *plan) {
	ctx, cancel := context.WithTimeout(s.connection.ctx, s.connection.server.options.ConnectTimeout)
	defer cancel()
	for _, m := range p.middleware {
		if err := m(ctx, s.handshake); err != nil {
			s.refuse(err)
			return
		}
	}
	if err := s.resume(ctx, p.recoverer); err != nil {
		s.log().Warn("recovery failed", "namespace", s.namespace.name, "error", err)
		s.CloseTransport()
		return
	}
	if !s.state.CompareAndSwap(statePending, stateConnected) {
		return // it has left in the meantime
	}
	answer, err := encodeControl(packetConnect, s.namespace.name, struct {
		SID string `json:"sid"`
		PID string `json:"pid,omitempty"`
	}{s.id, s.pid})
	if err != nil || s.connection.session.Send(answer) != nil {
		return // the connection is over
	}
	s.connection.timer.Stop()
	s.connection.session.Settle()
	s.namespace.sockets.Add(1)
	s.welcomed = true
	if p.onConnect != nil {
		p.onConnect(s)
	}
}

// refuse tells the client why it may not connect.
func (s *Socket) refuse(err error) {
	body := struct {
		Message string `json:"message"`
		Data    any    `json:"data,omitempty"`
	}{Message: "Internal server error"}
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		body.Message, body.Data = refusal.Message, refusal.Data
	} else {
		s.log().Warn("middleware failed", "namespace", s.namespace.name, "error", err)
	}
	// The client may try again at once.
	s.connection.forget(s)
	packet, err := encodeControl(packetConnectError, s.namespace.name, body)
	if err != nil {
		s.log().Error("a refusal cannot be encoded", "namespace", s.namespace.name, "error", err)
		s.CloseTransport()
		return
	}
	_ = s.connection.session.Send(packet) // else the connection is over
	s.leave(ErrDisconnected)
}

// finish is the mailbox's last call.
func (s *Socket) finish(reason error) {
	if !s.welcomed {
		return
	}
	s.namespace.sockets.Add(-1)
	if f := s.namespace.plan.Load().onDisconnect; f != nil {
		s.guard(func() { f(s, reason) })
	}
}
