package embedded

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// ErrUnrecovered: a stream of the store cannot be read any more. Start refuses
// such a store rather than let the stream be made again, empty, under its name.
var ErrUnrecovered = errors.New("a stream could not be recovered")

// streamTroubles are the streams the server itself reports as of no more use, in
// the words it has for them. A node of a cluster is not asked: others keep its
// streams, and a node behind the others reports them too.
func (s *Server) streamTroubles() []string {
	if s.opts.Cluster != nil {
		return nil
	}
	var troubles []string
	for _, e := range s.srv.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if e.Type == server.HealthzErrorStream {
			troubles = append(troubles, e.Error)
		}
	}
	return troubles
}

// recovered reports streams whose folder is there and which the server could
// not open. It is asked before anything else can make or delete streams.
func (s *Server) recovered() error {
	troubles := s.streamTroubles()
	if len(troubles) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s: restore %s from a copy, or, to go on without what that stream held, move its folder away from there",
		ErrUnrecovered, strings.Join(troubles, "; "), s.store.streams())
}

// writeError is the failure to write a stream that the server will not get over
// by itself. It keeps the first one until it is started again and answers no
// publish to that stream any more, whether there is room again or not.
func (s *Server) writeError() error {
	for _, t := range s.streamTroubles() {
		if strings.Contains(t, "write error") {
			return fmt.Errorf("%s: it takes no more until the server is started again; nothing it acknowledged is lost", t)
		}
	}
	return nil
}
