package socketio

import (
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// Handshake of a client with a namespace.
type Handshake struct {
	// Namespace the client connects to.
	Namespace string
	// Auth is the client's auth object, compact; "{}" if it gave none. One that comes back has its pid and offset in it.
	Auth json.RawMessage
	// Header and Query are those of the connection's first request. They must not be changed.
	Header http.Header
	Query  url.Values
	// RemoteAddr is the client's address, as engineio.Options.RemoteAddr has it.
	RemoteAddr string
	// Time of the CONNECT.
	Time time.Time
	// Data is what middleware found out about the client; it becomes the socket's.
	Data any
}
