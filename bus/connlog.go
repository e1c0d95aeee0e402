package bus

import (
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
)

const (
	// connErrorEvery is how often one cause is logged.
	connErrorEvery = 10 * time.Second
	// maxConnErrors is how many causes are told apart: the text of a refused subscription has its subject in it.
	maxConnErrors = 32
)

// LogConnErrors is a handler for nats.ErrorHandler that logs what a connection reports at level warn: every cause, which is the error's
// text, once within ten seconds. "withheld" of the next line of a cause is how often it came up meanwhile. It may serve several
// connections.
func LogConnErrors(log hclog.Logger) nats.ErrHandler {
	l := connErrors{log: log, causes: map[string]connError{}}
	return l.handle
}

type connErrors struct {
	log hclog.Logger

	mu     sync.Mutex
	causes map[string]connError
}

// connError is what is known of one cause.
type connError struct {
	logged   time.Time
	withheld int
}

func (l *connErrors) handle(_ *nats.Conn, sub *nats.Subscription, err error) {
	withheld, due := l.due(err.Error(), time.Now())
	if !due {
		return
	}
	fields := []any{"error", err}
	if sub != nil {
		fields = append(fields, "subject", sub.Subject)
	}
	if withheld > 0 {
		fields = append(fields, "withheld", withheld)
	}
	l.log.Warn("NATS reported an error", fields...)
}

// connState logs that a connection was lost and is back, of a connection that flaps no more than both once within ten seconds.
type connState struct {
	log    hclog.Logger
	errors connErrors

	mu   sync.Mutex
	told bool // that it was lost, and not yet that it is back
}

// LogConnState has a connection log that it was lost and that it is back, one that flaps no more than both once within ten seconds. Both
// are warnings: who hears of one hears of the other.
func LogConnState(log hclog.Logger) nats.Option {
	state := newConnState(log)
	return func(o *nats.Options) error {
		o.DisconnectedErrCB, o.ReconnectErrCB, o.ReconnectedCB = state.lost, state.lost, state.back
		return nil
	}
}

func newConnState(log hclog.Logger) *connState {
	return &connState{log: log, errors: connErrors{causes: map[string]connError{}}}
}

// lost is called when the connection breaks and at every try to make it again that fails: a break that was not told is told while it lasts.
func (s *connState) lost(_ *nats.Conn, err error) {
	if err == nil {
		return // closed by its owner
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told {
		return
	}
	withheld, due := s.errors.due("", time.Now())
	if !due {
		return
	}
	s.told = true
	fields := []any{"error", err}
	if withheld > 0 {
		fields = append(fields, "withheld", withheld)
	}
	s.log.Warn("connection to NATS lost, reconnecting", fields...)
}

func (s *connState) back(nc *nats.Conn) {
	s.mu.Lock()
	told := s.told
	s.told = false
	s.mu.Unlock()
	if told {
		s.log.Warn("connection to NATS is back", "server", nc.ConnectedServerName())
	}
}

// due reports whether a cause is to be logged now, and how often it was not since it last was.
func (l *connErrors) due(cause string, now time.Time) (withheld int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.causes[cause]; !known && len(l.causes) >= maxConnErrors {
		maps.DeleteFunc(l.causes, func(_ string, c connError) bool { return now.Sub(c.logged) >= connErrorEvery })
		if len(l.causes) >= maxConnErrors {
			cause = "" // what is one too many shares a line
		}
	}
	c, known := l.causes[cause]
	if known && now.Sub(c.logged) < connErrorEvery {
		c.withheld++
		l.causes[cause] = c
		return 0, false
	}
	l.causes[cause] = connError{logged: now}
	return c.withheld, true
}
