// Package embedded runs a NATS server with JetStream inside the process: the
// default of a bus, reached by in-process connections and, where asked for,
// over NATS and WebSocket listeners.
//
// What it adds to the server is what a host needs and the server leaves to its
// own program: a store folder that one process owns at a time and that knows
// whether its last run came to an end, a word for durability, errors instead
// of exits, and a shutdown that is waited for.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

var (
	// ErrStoreInUse: another server has the store folder open.
	ErrStoreInUse = errors.New("store folder is in use by another server")
	// ErrAddressInUse: another program listens on an address.
	ErrAddressInUse = errors.New("address is in use")
	// ErrNotReady: the server was not ready in time, or the context ended first.
	ErrNotReady = errors.New("server is not ready")
	// ErrFailed: the server stopped by itself, or lost its streams, or can
	// write one of them no more.
	ErrFailed = errors.New("server failed")
)

// watchInterval is how soon a server that gave its streams up is noticed: the
// server tells nobody.
const watchInterval = 500 * time.Millisecond

// Server is a running server. Its methods are safe for concurrent use.
type Server struct {
	opts   Options
	store  *store
	srv    *server.Server
	fatal  <-chan error
	failed chan struct{}

	mu    sync.Mutex
	err   error // why it failed
	holds int   // callers of HoldUnclean that have not released

	watcher  sync.WaitGroup
	stop     sync.Once
	stopping chan struct{}
	stopped  chan struct{} // closed when all is down; stopErr is then set
	stopErr  error
}

// Start starts a server and returns once it is ready. The errors to tell
// apart are ErrStoreInUse, ErrAddressInUse, ErrUnrecovered and ErrNotReady; after an error
// nothing runs and the folder is free. A store that is being recovered cannot
// be interrupted: when ctx ends meanwhile, Start returns after the recovery.
func Start(ctx context.Context, o Options) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("embedded server: %w", err)
	}
	s, err := start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("embedded server: %w", err)
	}
	return s, nil
}

func start(ctx context.Context, o Options) (*Server, error) {
	for _, l := range o.listeners() {
		if err := l.probe(); err != nil {
			return nil, err
		}
	}
	store, err := openStore(o.StoreDir)
	if err != nil {
		return nil, err
	}
	if store.unclean {
		if err := store.dropTornConsumerStates(); err != nil {
			return nil, errors.Join(err, store.close(false))
		}
	}
	srv, err := server.NewServer(o.server())
	if err != nil {
		return nil, errors.Join(err, store.close(!store.unclean))
	}
	logger := newServerLogger(o.Logger)
	srv.SetLoggerV2(logger, o.Logger.IsTrace(), false, false)

	s := &Server{
		opts: o, store: store, srv: srv, fatal: logger.fatal,
		failed: make(chan struct{}), stopping: make(chan struct{}), stopped: make(chan struct{}),
	}
	err = s.run(ctx)
	if err == nil {
		err = s.recovered()
	}
	if err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		// What an earlier run left unclean stays so until a server has run.
		return nil, errors.Join(err, store.close(!store.unclean))
	}
	streams := srv.JetStreamEnabled() // Configure may have done without
	s.watcher.Go(func() { s.watch(streams) })
	return s, nil
}

// run starts the server and waits until it is ready.
func (s *Server) run(ctx context.Context) error {
	late := fmt.Errorf("%w after %s: allow a longer ReadyTimeout", ErrNotReady, s.opts.ReadyTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.ReadyTimeout, late)
	defer cancel()
	if ctx.Err() == nil {
		s.srv.Start()
	}
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case err := <-s.fatal:
			return listenError("server", err)
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, ErrNotReady) {
				return fmt.Errorf("%w: %w", ErrNotReady, err)
			}
			return late
		default:
		}
		if s.srv.ReadyForConnections(time.Millisecond) {
			return nil
		}
		<-poll.C
	}
}

// listenError says what the system answered to listening, and the remedy.
func listenError(who string, err error) error {
	if errors.Is(err, errAddrInUse) {
		return fmt.Errorf("%w: %s: %w: stop the program that listens there, or choose another port (0 is a free one)",
			ErrAddressInUse, who, err)
	}
	return fmt.Errorf("%s: %w", who, err)
}

// watch notices a server that is no longer of use, until Shutdown.
func (s *Server) watch(streams bool) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.stopping:
			return
		case err := <-s.fatal:
			s.fail(err)
			return
		case <-tick.C:
		}
		switch {
		case !s.srv.Running():
			s.fail(errors.New("stopped by itself"))
			return
		case streams && !s.srv.JetStreamEnabled():
			s.fail(errors.New("gave up its streams, for want of disk space or of permission to write"))
			return
		}
		if err := s.writeError(); streams && err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *Server) fail(cause error) {
	s.mu.Lock()
	s.err = fmt.Errorf("embedded server: %w: %w", ErrFailed, cause)
	s.mu.Unlock()
	s.opts.Logger.Error("embedded server failed", "error", cause)
	close(s.failed)
}

// Failed is closed when the server is no longer of use: it stopped by itself
// gave up its streams, or can write one of them no more. Err then says why;
// Shutdown is still due.
func (s *Server) Failed() <-chan struct{} { return s.failed }

// Err is why the server failed, an ErrFailed, or nil as long as it has not.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Shutdown stops the server, waits until it has stopped, and releases the
// store, marked as clean. It may be called at any time and more than once:
// every call waits for the one shutdown and returns its error. When ctx ends
// first its error is returned and the shutdown goes on. Connections of Connect
// are the caller's to drain before.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop.Do(func() {
		close(s.stopping)
		go s.shutdown()
	})
	select {
	case <-s.stopped:
		return s.stopErr
	case <-ctx.Done():
		return fmt.Errorf("embedded server: still shutting down: %w", ctx.Err())
	}
}

func (s *Server) shutdown() {
	defer close(s.stopped)
	s.watcher.Wait()
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	s.mu.Lock()
	clean := s.err == nil && s.holds == 0
	s.mu.Unlock()
	if err := s.store.close(clean); err != nil {
		s.stopErr = fmt.Errorf("embedded server: %w", err)
	}
}

// Unclean tells that the previous run on this store did not end by Shutdown:
// its process was killed, the power went, or the server failed. The streams
// may then disagree by what Durability admits. A new store is clean.
func (s *Server) Unclean() bool { return s.store.unclean }

// HoldUnclean makes Shutdown leave the store marked as unclean until release
// is called. Who has to make good what an unclean stop may have cost holds it
// meanwhile, so that being stopped half-way does not hide that it is due.
func (s *Server) HoldUnclean() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.holds--
	})
}

// Connect opens an in-process connection, which needs no listener. It
// reconnects for ever; opts come last and may say otherwise. The caller closes
// it.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	all := append([]nats.Option{
		nats.Name(s.opts.ServerName), nats.MaxReconnects(-1), nats.InProcessServer(s.srv),
	}, opts...)
	nc, err := nats.Connect("", all...)
	if err != nil {
		return nil, fmt.Errorf("embedded server: connect in process: %w", err)
	}
	return nc, nil
}

// NATSURL is where clients connect over NATS, the real port filled in; "" = off.
func (s *Server) NATSURL() string {
	if s.opts.NATSAddr == "" {
		return ""
	}
	return s.srv.ClientURL()
}

// WebSocketURL is where clients connect over WebSocket, the real port filled
// in; "" = off.
func (s *Server) WebSocketURL() string {
	if s.opts.WebSocketAddr == "" {
		return ""
	}
	return s.srv.WebsocketURL()
}

// StoreDir is the absolute path of the store folder.
func (s *Server) StoreDir() string { return s.opts.StoreDir }

// Durability is what an acknowledgement of this server is worth.
func (s *Server) Durability() Durability { return s.opts.Durability }

// Server is the NATS server itself, for its monitoring (Varz, Jsz) and for
// ending connections. Stop it only by Shutdown.
func (s *Server) Server() *server.Server { return s.srv }
