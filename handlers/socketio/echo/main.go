// Command echo is the server that the conformance suites of Engine.IO 4 and Socket.IO 5 are run against: a bare Engine.IO echo on
// /engine.io/, and on /socket.io/ the namespaces / and /custom, whose events auth, message-back and acks give back what came.
//
//	go run ./handlers/socketio/echo --addr 127.0.0.1:3000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cimbus/cimbus/handlers/socketio"
	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("echo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:3000", "`address` to listen on; port 0 takes a free one")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	engine, sockets, err := servers()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/engine.io/", engine)
	mux.Handle("/socket.io/", sockets)
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", *addr)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(stdout, listener.Addr()); err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = errors.Join(engine.Close(grace), sockets.Close(grace), server.Shutdown(grace))
	if serving := <-served; !errors.Is(serving, http.ErrServerClosed) {
		return errors.Join(err, serving)
	}
	return err
}

// servers are what the suites expect.
func servers() (*engineio.Server, *socketio.Server, error) {
	options := engineio.Options{
		PingInterval: 300 * time.Millisecond,
		PingTimeout:  200 * time.Millisecond,
		MaxPayload:   1_000_000,
		Origins:      []string{"*"},
	}
	engine, err := engineio.New(options, func(s *engineio.Session) engineio.Handler { return bare{s} })
	if err != nil {
		return nil, nil, err
	}
	sockets, err := socketio.New(socketio.Options{Engine: options})
	if err != nil {
		return nil, nil, err
	}
	for _, name := range []string{"/", "/custom"} {
		ns := sockets.Of(name)
		ns.OnConnect(welcome)
		ns.On("message", func(s *socketio.Socket, e *socketio.Event) {
			_ = s.Emit("message-back", e.Placeholders()) // else the client has left
		})
		ns.On("message-with-ack", func(_ *socketio.Socket, e *socketio.Event) {
			_ = e.Ack(e.Placeholders()) // else the client has left
		})
	}
	return engine, sockets, nil
}

// apart keeps two frames out of one segment. The published Socket.IO suite listens for one frame at a time, anew for each: the second of
// two that its WebSocket library reads at once is lost to it.
const apart = 20 * time.Millisecond

// welcome gives the client its auth back.
func welcome(s *socketio.Socket) {
	timer := time.NewTimer(apart)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.Context().Done():
	}
	_ = s.Emit("auth", s.Handshake().Auth) // else the client has left
}

// bare echoes Engine.IO messages.
type bare struct{ session *engineio.Session }

// Message sends it back in its kind.
func (b bare) Message(binary bool, data []byte) error {
	m := engineio.Text(data)
	if binary {
		m = engineio.Binary(data)
	}
	_ = b.session.Send(m) // else the session is over
	return nil
}

// Closed has nothing to let go of.
func (bare) Closed(error) {}
