package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

// connection is one client's transport with its namespaces; the engineio.Handler of its session.
type connection struct {
	server  *Server
	session *engineio.Session
	ctx     context.Context // ends with the connection
	cancel  context.CancelCauseFunc
	timer   *time.Timer // for a client that connects to nothing

	assembly *assembly // the packet whose attachments are arriving; only Message touches it

	mu      sync.Mutex
	over    error
	sockets map[string]*Socket // nil where one was, for what the client sent before it knew
}

// open is called by the transport for each new session.
func (srv *Server) open(session *engineio.Session) engineio.Handler {
	c := &connection{server: srv, session: session, sockets: make(map[string]*Socket, 1)}
	c.ctx, c.cancel = context.WithCancelCause(srv.ctx)
	srv.running.Add(1)
	c.timer = time.AfterFunc(srv.options.ConnectTimeout, c.nobody)
	return c
}

// nobody ends a connection without a namespace.
func (c *connection) nobody() {
	c.mu.Lock()
	connected := false
	for _, s := range c.sockets {
		connected = connected || s != nil && s.state.Load() == stateConnected
	}
	c.mu.Unlock()
	if !connected {
		c.server.options.Logger.Debug("a client connected to no namespace", "addr", c.session.RemoteAddr())
		c.session.Close()
	}
}

// Message is the transport's: one text or attachment of the client, in order.
func (c *connection) Message(binary bool, data []byte) error {
	switch {
	case binary && c.assembly == nil:
		return fmt.Errorf("%w: an attachment of no packet", ErrMalformed)
	case !binary && c.assembly != nil:
		return fmt.Errorf("%w: a packet among another one's attachments", ErrMalformed)
	case binary:
		if !c.assembly.add(data) {
			return nil
		}
		whole := c.assembly
		c.assembly = nil
		return c.receive(whole.packet, whole.got)
	}
	p, err := parsePacket(data, c.server.options.MaxAttachments)
	if err != nil {
		return err
	}
	if p.attachments > 0 {
		c.assembly = &assembly{packet: p}
		return nil
	}
	return c.receive(p, nil)
}

func (c *connection) receive(p packet, attachments [][]byte) error {
	if p.kind == packetConnect {
		return c.connect(p)
	}
	c.mu.Lock()
	s, known := c.sockets[p.namespace]
	c.mu.Unlock()
	switch {
	case !known:
		return fmt.Errorf("%w: a packet to a namespace without a CONNECT", ErrMalformed)
	case s == nil:
		return nil // the client had not heard yet
	}
	switch p.kind {
	case packetDisconnect:
		s.leave(ErrClientDisconnect)
		return nil
	case packetAck, packetBinaryAck:
		s.acks.settle(p.id, &Reply{Args: p.args, Attachments: attachments})
		return nil
	default:
		event := &Event{Name: p.name, Args: p.args, Attachments: attachments, socket: s, id: p.id, wants: p.hasID}
		return sent(s.mailbox.put(c.ctx, event))
	}
}

// connect begins a handshake; the socket's goroutine goes on with it.
func (c *connection) connect(p packet) error {
	ns := c.server.namespace(p.namespace)
	if ns == nil {
		return c.refuse(p.namespace)
	}
	auth := p.auth
	if auth == nil {
		auth = json.RawMessage("{}")
	}
	s := newSocket(c, ns, &Handshake{
		Namespace:  ns.name,
		Auth:       auth,
		Header:     c.session.Header(),
		Query:      c.session.Query(),
		RemoteAddr: c.session.RemoteAddr(),
		Time:       time.Now(),
	})
	switch taken, over := c.add(s); {
	case over:
		return nil
	case taken:
		return fmt.Errorf("%w: a second CONNECT to a namespace", ErrMalformed)
	}
	return sent(s.mailbox.put(c.ctx, nil))
}

// refuse answers a CONNECT to a namespace that is not there.
func (c *connection) refuse(namespace string) error {
	text, err := encodeControl(packetConnectError, namespace, struct {
		Message string `json:"message"`
	}{"Invalid namespace"})
	if err != nil {
		return err
	}
	return sent(c.session.Send(text))
}

// add makes the socket its namespace's, unless there is one or the connection is over.
func (c *connection) add(s *Socket) (taken, over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken, over = c.sockets[s.namespace.name] != nil, c.over != nil
	if !taken && !over {
		c.sockets[s.namespace.name] = s
	}
	return taken, over
}

// Closed is the transport's: it is over.
func (c *connection) Closed(reason error) {
	defer c.server.running.Done()
	c.timer.Stop()
	c.mu.Lock()
	c.over = reason
	sockets := make([]*Socket, 0, len(c.sockets))
	for _, s := range c.sockets {
		if s != nil {
			sockets = append(sockets, s)
		}
	}
	c.mu.Unlock()
	for _, s := range sockets {
		s.leave(reason)
	}
	c.cancel(reason)
}

// forget a socket that has left, or was refused.
func (c *connection) forget(s *Socket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sockets[s.namespace.name] == s {
		c.sockets[s.namespace.name] = nil
	}
}

// sent keeps what the transport or the connection's end has already told from being told as the client's fault.
func sent(err error) error {
	if errors.Is(err, ErrMalformed) {
		return err
	}
	return nil
}
