// Command server is what the published clients are tested against: an application with middleware, acks both ways, and
// connection-state recovery from a log in memory that outlives connections.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/cimbus/cimbus/handlers/socketio"
	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *addr); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, addr string) error {
	srv, err := socketio.New(socketio.Options{
		Path: "/prefix/socket.io/",
		Engine: engineio.Options{
			PingInterval: 500 * time.Millisecond, PingTimeout: 2 * time.Second, Origins: []string{"*"},
		},
	})
	if err != nil {
		return err
	}
	main := srv.Of("/")
	main.Use(func(_ context.Context, h *socketio.Handshake) error {
		var auth struct{ Refuse string }
		if err := json.Unmarshal(h.Auth, &auth); err != nil {
			return err
		}
		if auth.Refuse != "" {
			return &socketio.Refusal{Message: auth.Refuse, Data: map[string]any{"content": map[string]string{"msg": "no", "key": "k"}}}
		}
		return nil
	})
	main.On("echo", func(s *socketio.Socket, e *socketio.Event) {
		if e.WantsAck() {
			_ = e.Ack(e.Placeholders())
			return
		}
		_ = s.Emit("echo", e.Placeholders())
	})
	main.On("ask me", func(s *socketio.Socket, _ *socketio.Event) {
		ask, cancel := context.WithTimeout(s.Context(), 5*time.Second)
		reply, err := s.EmitWithAck(ask, "question", map[string]int{"of": 1}, []byte{1, 2, 3})
		cancel()
		if err != nil {
			_ = s.Emit("answered", map[string]string{"error": err.Error()})
			return
		}
		_ = s.Emit("answered", socketio.Placeholders{Args: reply.Args, Attachments: reply.Attachments})
	})
	main.On("transport", func(s *socketio.Socket, e *socketio.Event) { _ = e.Ack(s.Transport()) })
	main.On("drop me", func(s *socketio.Socket, _ *socketio.Event) {
		_ = s.Emit("last words", 1)
		s.CloseTransport()
	})
	main.On("dismiss me", func(s *socketio.Socket, _ *socketio.Event) { _ = s.Disconnect() })
	main.On("flood me", func(s *socketio.Socket, e *socketio.Event) {
		var n int
		_ = e.Decode(&n)
		for i := range n {
			if i%500 == 0 && s.Room(s.Context()) != nil {
				return
			}
			_ = s.Emit("flood", i)
		}
	})

	history := &history{}
	logged := srv.Of("/log")
	logged.Recover(history)
	logged.OnConnect(history.connected)
	logged.OnDisconnect(func(s *socketio.Socket, _ error) { history.left(s) })
	main.On("append", func(_ *socketio.Socket, e *socketio.Event) { _ = e.Ack(history.append()) })
	logged.On("drop me", func(s *socketio.Socket, _ *socketio.Event) { s.CloseTransport() })

	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	server := &http.Server{Handler: srv, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := srv.Close(grace); err != nil {
		return err
	}
	return server.Shutdown(grace)
}

// history is a log of numbers whose offsets are its positions.
type history struct {
	mu      sync.Mutex
	length  int
	ended   map[string]bool
	sockets map[*socketio.Socket]bool
}

func (h *history) Begin(context.Context, *socketio.Socket) (string, error) {
	return socketio.NewID(), nil
}

func (h *history) Resume(_ context.Context, _ *socketio.Socket, pid, offset string) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := strconv.Atoi(offset)
	return err == nil && !h.ended[pid], nil
}

func (h *history) End(_ context.Context, _ *socketio.Socket, pid string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended == nil {
		h.ended = make(map[string]bool)
	}
	h.ended[pid] = true
}

func (h *history) connected(s *socketio.Socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	from := 0
	if s.Recovered() {
		from, _ = strconv.Atoi(s.Offset())
	} else {
		from = h.length - 1 // one event, so that there is an offset
	}
	for i := max(from, 0); i < h.length; i++ {
		h.emit(s, i)
	}
	if h.sockets == nil {
		h.sockets = make(map[*socketio.Socket]bool)
	}
	h.sockets[s] = true
}

func (h *history) left(s *socketio.Socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sockets, s)
}

func (h *history) append() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.length++
	for s := range h.sockets {
		h.emit(s, h.length-1)
	}
	return h.length - 1
}

func (*history) emit(s *socketio.Socket, i int) {
	m, err := s.Namespace().Prepare(strconv.Itoa(i+1), "entry", i)
	if err == nil {
		_ = s.EmitPrepared(m)
	}
}
