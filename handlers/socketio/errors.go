package socketio

import "errors"

var (
	// ErrDisconnected: the socket has left its namespace, or its connection is over.
	ErrDisconnected = errors.New("the socket is disconnected")
	// ErrClientDisconnect: the client left the namespace by itself.
	ErrClientDisconnect = errors.New("the client disconnected")
	// ErrServerDisconnect: Socket.Disconnect was called.
	ErrServerDisconnect = errors.New("the server disconnected the socket")
	// ErrConnectTimeout: the client connected to no namespace in time.
	ErrConnectTimeout = errors.New("no namespace was connected to in time")
	// ErrMalformed: the client sent what is not Socket.IO.
	ErrMalformed = errors.New("malformed Socket.IO packet")
)

// A Refusal is what middleware returns to refuse a client and tell it why: CONNECT_ERROR with the message and, unless it is nil, the data.
// Any other error is told to the log, and to the client only that there was one.
type Refusal struct {
	Message string
	Data    any // what encoding/json takes
}

// Error is the message.
func (r *Refusal) Error() string { return r.Message }
