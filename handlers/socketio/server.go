package socketio

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

// Server is an http.Handler that serves Options.Path and answers anything else with 404.
type Server struct {
	options Options
	path    string
	engine  *engineio.Server
	ctx     context.Context // ended by Close, for what handlers were given
	cancel  context.CancelFunc
	running sync.WaitGroup // connections, and goroutines with something to do for a socket

	mu         sync.RWMutex
	namespaces map[string]*Namespace
}

// New makes a server without namespaces; add them with Of.
func New(o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("socket.io options: %w", err)
	}
	srv := &Server{options: o.withDefaults(), namespaces: make(map[string]*Namespace)}
	srv.path = strings.TrimSuffix(srv.options.Path, "/")
	srv.ctx, srv.cancel = context.WithCancel(context.Background())
	var err error
	srv.engine, err = engineio.New(srv.options.Engine, srv.open)
	return srv, err
}

// ServeHTTP serves one request of the transport.
func (srv *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.TrimSuffix(r.URL.Path, "/") != srv.path {
		http.NotFound(w, r)
		return
	}
	srv.engine.ServeHTTP(w, r)
}

// Of is the namespace of that name, which it makes when it is asked for the first time. "/" is the one clients use if they name none.
func (srv *Server) Of(name string) *Namespace {
	if !strings.HasPrefix(name, "/") {
		name = "/" + name
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	ns := srv.namespaces[name]
	if ns == nil {
		ns = &Namespace{name: name}
		ns.plan.Store(&plan{})
		srv.namespaces[name] = ns
	}
	return ns
}

func (srv *Server) namespace(name string) *Namespace {
	srv.mu.RLock()
	defer srv.mu.RUnlock()
	return srv.namespaces[name]
}

// Stats of the transport.
func (srv *Server) Stats() engineio.Stats { return srv.engine.Stats() }

// Close refuses new connections, closes the transports of those there are once what is queued is sent, so that clients come back, here or
// elsewhere, and waits until the last handler has returned. When ctx is done first, transports are cut off and the handlers' contexts
// end; they are waited for all the same. It may be called again.
func (srv *Server) Close(ctx context.Context) error {
	err := srv.engine.Close(ctx)
	srv.cancel()
	srv.running.Wait()
	return err
}
