package embedded

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// serverLogger gives the server's log to hclog. Everyday lines step down one
// level: what the server calls a notice is a banner of twenty lines a start.
type serverLogger struct {
	log hclog.Logger
	// fatal receives the first fatal error. A server on its own would exit; an
	// embedded one goes on without what failed.
	fatal chan error
}

func newServerLogger(log hclog.Logger) *serverLogger {
	return &serverLogger{log: log, fatal: make(chan error, 1)}
}

func (l *serverLogger) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }

// Warnf steps the cry about a WebSocket without TLS down with the notices: the
// address was the caller's choice, and on loopback it is nothing to warn of.
func (l *serverLogger) Warnf(format string, v ...any) {
	if strings.HasPrefix(format, "Websocket not configured with TLS") {
		l.Noticef("WebSocket without TLS")
		return
	}
	l.log.Warn(fmt.Sprintf(format, v...))
}

func (l *serverLogger) Errorf(format string, v ...any) { l.log.Error(fmt.Sprintf(format, v...)) }
func (l *serverLogger) Debugf(format string, v ...any) { l.log.Trace(fmt.Sprintf(format, v...)) }

// Tracef is never asked for: Start leaves the server's protocol trace off.
func (l *serverLogger) Tracef(string, ...any) {}

func (l *serverLogger) Fatalf(format string, v ...any) {
	message := fmt.Sprintf(format, v...)
	l.log.Error(message)
	err := errors.New(message)
	for _, arg := range v {
		if cause, ok := arg.(error); ok {
			err = &fatalError{message: message, cause: cause}
		}
	}
	select {
	case l.fatal <- err:
	default: // the first one is the cause
	}
}

// fatalError keeps the server's words and the error that was among them.
type fatalError struct {
	message string
	cause   error
}

func (e *fatalError) Error() string { return e.message }
func (e *fatalError) Unwrap() error { return e.cause }
