package socketio

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNoMoreEventsWaitThanMaxPending(t *testing.T) {
	srv, err := New(Options{MaxPending: 2})
	require.NoError(t, err)
	gate := make(chan struct{})
	ns := srv.Of("/")
	ns.On("event", func(*Socket, *Event) { <-gate })
	s := newSocket(&connection{server: srv, ctx: t.Context(), sockets: make(map[string]*Socket)}, ns, &Handshake{})
	s.welcomed = true
	taken := 0
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err = s.mailbox.put(ctx, &Event{Name: "event"})
		cancel()
		if err != nil {
			break
		}
		taken++
	}
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.LessOrEqual(t, taken, 3, "one at work, two waiting")
	close(gate)
	require.NoError(t, s.mailbox.put(t.Context(), &Event{Name: "event"}))
	s.leave(ErrServerDisconnect)
	require.NoError(t, s.mailbox.put(t.Context(), &Event{Name: "event"}), "and is not taken")
	require.NoError(t, srv.Close(t.Context()))
}
