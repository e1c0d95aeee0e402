package socketio_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/handlers/socketio"
	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

// connected is a server whose sockets come out of a channel, and one client of it.
func connected(t *testing.T, setup func(ns *socketio.Namespace)) (*socketio.Socket, *client) {
	t.Helper()
	sockets := make(chan *socketio.Socket, 1)
	_, url := start(t, socketio.Options{}, func(srv *socketio.Server) {
		srv.Of("/").OnConnect(func(s *socketio.Socket) { sockets <- s })
		if setup != nil {
			setup(srv.Of("/"))
		}
	})
	c := joined(t, url)
	return received(t, sockets), c
}

func TestEachSocketsHandlersRunInOrderAndDifferentSocketsAtTheSameTime(t *testing.T) {
	const n = 500
	got := make(chan int, n)
	gate := make(chan struct{})
	_, url := start(t, socketio.Options{MaxPending: 10}, func(srv *socketio.Server) {
		srv.Of("/").On("count", func(_ *socketio.Socket, e *socketio.Event) {
			<-gate
			var i int
			require.NoError(t, e.Decode(&i))
			got <- i
		})
		srv.Of("/").OnAny(func(_ *socketio.Socket, e *socketio.Event) { _ = e.Ack(e.Name) })
	})
	slow, quick := joined(t, url), joined(t, url)
	go func() {
		for i := range n {
			slow.send(fmt.Sprintf(`42["count",%d]`, i))
		}
	}()
	quick.send(`427["anything"]`)
	quick.want(`437["anything"]`)
	close(gate)
	for i := range n {
		require.Equal(t, i, received(t, got))
	}
}

func TestOnDisconnectFollowsTheLastEvent(t *testing.T) {
	log := make(chan string, 10)
	s, c := connected(t, func(ns *socketio.Namespace) {
		ns.On("event", func(s *socketio.Socket, _ *socketio.Event) {
			<-s.Context().Done() // it is still at work when the connection ends
			log <- "event"
		})
		ns.OnDisconnect(func(_ *socketio.Socket, reason error) { log <- reason.Error() })
	})
	c.send(`42["event"]`, `42["event"]`, "1")
	c.ends()
	require.Equal(t, "event", received(t, log))
	require.Equal(t, "event", received(t, log))
	require.Equal(t, engineio.ErrPeerClosed.Error(), received(t, log))
	require.ErrorIs(t, context.Cause(s.Context()), engineio.ErrPeerClosed)
}

func TestAnAckAnswersTheEmitItBelongsTo(t *testing.T) {
	s, c := connected(t, nil)
	type result struct {
		reply *socketio.Reply
		err   error
	}
	ask := func(name string) <-chan result {
		results := make(chan result, 1)
		go func() {
			reply, err := s.EmitWithAck(t.Context(), name, []byte("x"))
			results <- result{reply, err}
		}()
		return results
	}
	first := ask("first")
	c.want(`451-0["first",{"_placeholder":true,"num":0}]`, "binary x")
	second := ask("second")
	c.want(`451-1["second",{"_placeholder":true,"num":0}]`, "binary x")
	c.send(`4399["nobody asked"]`, `431["two"]`, `431["again"]`, `461-0[{"_placeholder":true,"num":0},{"a":1}]`, "binary y")
	r := received(t, second)
	require.NoError(t, r.err)
	require.Equal(t, []json.RawMessage{json.RawMessage(`"two"`)}, r.reply.Args)
	r = received(t, first)
	require.NoError(t, r.err)
	var data []byte
	var object struct{ A int }
	require.NoError(t, r.reply.Decode(&data, &object, &object))
	require.Equal(t, "y", string(data))
	require.Equal(t, 1, object.A)
	require.ErrorContains(t, r.reply.Decode(&object, &data), "argument 1: not binary")
	require.ErrorContains(t, r.reply.Decode(nil, new(int)), "argument 0")
}

func TestAnAckThatDoesNotComeEndsWithItsContextOrItsSocket(t *testing.T) {
	s, c := connected(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := s.EmitWithAck(ctx, "late")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	c.want(`420["late"]`)
	c.send(`430["too late"]`)
	failed := make(chan error, 1)
	go func() {
		_, err := s.EmitWithAck(t.Context(), "never")
		failed <- err
	}()
	c.want(`421["never"]`)
	c.send("41")
	require.ErrorIs(t, received(t, failed), socketio.ErrDisconnected)
	_, err = s.EmitWithAck(t.Context(), "after")
	require.ErrorIs(t, err, socketio.ErrDisconnected)
	_, err = s.EmitWithAck(t.Context(), "bad", func() {})
	require.Error(t, err)
}

func TestAHandlerMayAskItsOwnClientAndAckOnce(t *testing.T) {
	_, c := connected(t, func(ns *socketio.Namespace) {
		ns.On("ask", func(s *socketio.Socket, e *socketio.Event) {
			reply, err := s.EmitWithAck(s.Context(), "question")
			require.NoError(t, err)
			require.True(t, e.WantsAck())
			require.ErrorContains(t, e.Ack(func() {}), "ack of ask")
			require.NoError(t, e.Ack(reply.Args[0]))
			require.NoError(t, e.Ack("twice"))
		})
	})
	c.send(`425["ask"]`)
	c.want(`420["question"]`)
	c.send(`430["answer"]`, `426["ask"]`)
	c.want(`435["answer"]`, `421["question"]`)
	c.send(`431["again"]`)
	c.want(`436["again"]`)
}

func TestAPreparedMessageIsTheSameForAllSocketsOfItsNamespace(t *testing.T) {
	sockets := make(chan *socketio.Socket, 2)
	srv, url := start(t, socketio.Options{}, func(srv *socketio.Server) {
		for _, name := range []string{"/", "/custom"} {
			srv.Of(name).OnConnect(func(s *socketio.Socket) { sockets <- s })
		}
	})
	m, err := srv.Of("/custom").Prepare("off-7", "event", socketio.Verbatim(`{"a":1}`), []byte("x"))
	require.NoError(t, err)
	require.Positive(t, m.Size())
	for range 2 {
		c := dial(t, url)
		c.join("/custom")
		require.NoError(t, received(t, sockets).EmitPrepared(m))
		c.want(`451-/custom,["event",{"a":1},{"_placeholder":true,"num":0},"off-7"]`, "binary x")
	}
	joined(t, url)
	require.ErrorContains(t, received(t, sockets).EmitPrepared(m), "prepare it there")
	_, err = srv.Of("/").Prepare("", "event", json.RawMessage("{"))
	require.ErrorContains(t, err, "event event: an argument is not JSON")
}

func TestAHandlerThatPanicsCostsItsOwnClientTheConnectionAndNobodyElse(t *testing.T) {
	_, url := start(t, socketio.Options{}, func(srv *socketio.Server) {
		echoing("/")(srv)
		srv.Of("/").On("panic", func(*socketio.Socket, *socketio.Event) { panic("at the disco") })
	})
	other, c := joined(t, url), joined(t, url)
	c.send(`42["panic"]`)
	require.Empty(t, c.ends())
	other.send(`42["message"]`)
	other.want(`42["message-back"]`)
}

// A flood is held back by TCP: a handful of events wait for the handlers, however many were sent.
func TestAFloodWaitsAtItsSenderAndOthersNoticeNothing(t *testing.T) {
	const pending = 4
	var handled atomic.Int64
	gate := make(chan struct{})
	_, url := start(t, socketio.Options{MaxPending: pending}, func(srv *socketio.Server) {
		echoing("/")(srv)
		srv.Of("/").On("flood", func(*socketio.Socket, *socketio.Event) {
			<-gate
			handled.Add(1)
		})
	})
	c, other := joined(t, url), joined(t, url)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range 1000 {
			c.send(`42["flood"]`)
		}
	}()
	for range 20 {
		other.send(`42["message"]`)
		other.want(`42["message-back"]`)
	}
	require.Zero(t, handled.Load())
	close(gate)
	received(t, sent)
	require.Eventually(t, func() bool { return handled.Load() == 1000 }, patience, time.Millisecond)
}

func TestCloseWaitsForTheLastHandler(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	srv, url := start(t, socketio.Options{}, func(srv *socketio.Server) {
		srv.Of("/").On("work", func(*socketio.Socket, *socketio.Event) {
			close(began)
			<-release
		})
	})
	c := joined(t, url)
	c.send(`42["work"]`)
	received(t, began)
	closed := make(chan error, 1)
	go func() { closed <- srv.Close(t.Context()) }()
	require.Empty(t, c.ends(), "no DISCONNECT")
	select {
	case <-closed:
		require.Fail(t, "a handler is at work")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	require.NoError(t, received(t, closed))
	require.NoError(t, srv.Close(t.Context()))
}
