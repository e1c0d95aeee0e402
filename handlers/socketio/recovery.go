package socketio

import (
	"context"
	"encoding/json"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

// A Recoverer is an application's side of connection-state recovery. This package keeps nothing of a session that is gone: the application
// finds what was missed in its own log by the offset, so that a recovery works for as long as that log lasts, after a restart and on
// another node. Its methods may be called at the same time for different sockets.
//
// All of it happens after the middleware has accepted the client again.
type Recoverer interface {
	// Begin names a session that is new: the pid that the client alone knows and presents when it comes back, such as a NewID. Empty, it
	// cannot be recovered. An error closes the transport: the client tries again.
	Begin(ctx context.Context, s *Socket) (pid string, err error)
	// Resume decides whether the session of that pid goes on. If so OnConnect follows, where Socket.Recovered is true, and emits what
	// came after the offset, each event with its own, before anything newer. offset is empty where the client has seen none. If not,
	// Begin follows. pid and offset are what a client claims: check that they are the agent's own. An error closes the transport.
	Resume(ctx context.Context, s *Socket, pid, offset string) (bool, error)
	// End says that the client has left by its own disconnect: it may present the pid later all the same, and must not be recovered then.
	// Nothing else of the client is read before it returns. ctx outlives the connection, by Options.ConnectTimeout.
	End(ctx context.Context, s *Socket, pid string)
}

// NewID makes a name nobody can guess, for a pid.
func NewID() string { return engineio.NewID() }

// claim is what a client that comes back says in its auth, beside what the application put there.
type claim struct {
	PID    string `json:"pid"`
	Offset string `json:"offset"`
}

// claimOf reads leniently: an application may use the same words for something else.
func claimOf(auth json.RawMessage) claim {
	var fields struct {
		PID    any `json:"pid"`
		Offset any `json:"offset"`
	}
	if json.Unmarshal(auth, &fields) != nil {
		return claim{}
	}
	pid, _ := fields.PID.(string)
	offset, _ := fields.Offset.(string)
	return claim{PID: pid, Offset: offset}
}

// resume settles the socket's pid: the one the client presented, a new one, or none.
func (s *Socket) resume(ctx context.Context, r Recoverer) error {
	if r == nil {
		return nil
	}
	if c := claimOf(s.handshake.Auth); c.PID != "" {
		ok, err := r.Resume(ctx, s, c.PID, c.Offset)
		if err != nil {
			return err
		}
		if ok {
			s.pid, s.offset, s.recovered = c.PID, c.Offset, true
			return nil
		}
	}
	pid, err := r.Begin(ctx, s)
	s.pid = pid
	return err
}
