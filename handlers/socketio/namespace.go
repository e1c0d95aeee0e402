package socketio

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
)

// Middleware decides whether a client may connect. It returns nil, a Refusal, or an error that the client is not told.
type Middleware func(ctx context.Context, h *Handshake) error

// Handler of an event.
type Handler func(s *Socket, e *Event)

// Namespace is one of the server's channels: its middleware, and what its sockets' events do. Set it up before clients come; what is
// added later is for the next connection or event.
type Namespace struct {
	name    string
	plan    atomic.Pointer[plan]
	sockets atomic.Int64
}

// plan is what was set up; it is replaced, never changed.
type plan struct {
	middleware   []Middleware
	recoverer    Recoverer
	onConnect    func(*Socket)
	onDisconnect func(*Socket, error)
	handlers     map[string]Handler
	anything     Handler
}

func (ns *Namespace) change(apply func(*plan)) {
	for {
		old := ns.plan.Load()
		next := *old
		apply(&next)
		if ns.plan.CompareAndSwap(old, &next) {
			return
		}
	}
}

// Name of the namespace, with its slash.
func (ns *Namespace) Name() string { return ns.name }

// Sockets is how many are connected now.
func (ns *Namespace) Sockets() int { return int(ns.sockets.Load()) }

// Use adds middleware, which runs in the order it was added, on every CONNECT, those of recovering clients included.
func (ns *Namespace) Use(m Middleware) {
	ns.change(func(p *plan) { p.middleware = append(slices.Clip(p.middleware), m) })
}

// Recover switches connection-state recovery on.
func (ns *Namespace) Recover(r Recoverer) {
	ns.change(func(p *plan) { p.recoverer = r })
}

// OnConnect is called once for each socket, right after its CONNECT has been sent and before any of its events.
func (ns *Namespace) OnConnect(f func(*Socket)) {
	ns.change(func(p *plan) { p.onConnect = f })
}

// OnDisconnect is called once for each socket that OnConnect was called for, after the last of its events, with why:
// ErrClientDisconnect, ErrServerDisconnect, or one of engineio's.
func (ns *Namespace) OnDisconnect(f func(s *Socket, reason error)) {
	ns.change(func(p *plan) { p.onDisconnect = f })
}

// On sets what an event does, instead of what it did before.
func (ns *Namespace) On(event string, h Handler) {
	ns.change(func(p *plan) {
		p.handlers = maps.Clone(p.handlers)
		if p.handlers == nil {
			p.handlers = make(map[string]Handler)
		}
		p.handlers[event] = h
	})
}

// OnAny sets what the events without an On of their own do.
func (ns *Namespace) OnAny(h Handler) {
	ns.change(func(p *plan) { p.anything = h })
}

// Prepare encodes an event for any number of the namespace's sockets; see Socket.Emit for its arguments. An offset, if not empty, becomes
// its last argument: with recovery on, a client that loses its connection later presents the last one it got.
func (ns *Namespace) Prepare(offset, event string, args ...any) (*Message, error) {
	parts, err := encodeEvent(ns.name, event, offset, nil, args)
	if err != nil {
		return nil, err
	}
	return &Message{namespace: ns.name, parts: parts}, nil
}
