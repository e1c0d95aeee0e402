package socketio

import (
	"errors"
	"fmt"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

var (
	// ErrDisconnected: the socket has left its namespace, or its connection is over.
	ErrDisconnected = errors.New("the socket is disconnected")
	// ErrClientDisconnect: the client left the namespace by itself.
	ErrClientDisconnect = errors.New("the client disconnected")
	// ErrServerDisconnect: Socket.Disconnect was called.
	ErrServerDisconnect = errors.New("the server disconnected the socket")
	// ErrMalformed: the client sent what is not Socket.IO. It is an engineio.ErrMalformed, too.
	ErrMalformed = fmt.Errorf("%w of Socket.IO", engineio.ErrMalformed)
)

// A Refusal is what middleware returns to refuse a client and tell it why: CONNECT_ERROR with the message and, unless it is nil, the data.
// Any other error is told to the log, and to the client only that there was one.
type Refusal struct {
	Message string
	Data    any // what encoding/json takes
}

// Error is the message.
func (r *Refusal) Error() string { return r.Message }
