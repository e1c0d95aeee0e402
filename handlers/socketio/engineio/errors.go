package engineio

import "errors"

// Why a session ended; given to Handler.Closed, and returned by Send ever after.
var (
	// ErrClosed: this side closed the session.
	ErrClosed = errors.New("the session is closed")
	// ErrServerClosed: the server was closed.
	ErrServerClosed = errors.New("the server is closed")
	// ErrPeerClosed: the client closed it, by a packet or by its transport.
	ErrPeerClosed = errors.New("the client closed the session")
	// ErrPingTimeout: no pong came in time.
	ErrPingTimeout = errors.New("no pong within the ping timeout")
	// ErrSlow: the client reads slower than it is sent to, and its queue is full.
	ErrSlow = errors.New("the send queue is full: the client reads too slowly")
	// ErrMalformed: the client sent what is not Engine.IO.
	ErrMalformed = errors.New("malformed packet")
	// ErrTooLarge: the client sent more than MaxPayload at once.
	ErrTooLarge = errors.New("the payload exceeds the maximum")
	// ErrOverlap: two polls, or two posts, at once.
	ErrOverlap = errors.New("overlapping requests of one session")
	// ErrTransport: reading or writing failed.
	ErrTransport = errors.New("transport error")
)
