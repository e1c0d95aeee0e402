package socketio_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/handlers/socketio"
)

// recoverer lets everybody go on who knows the pid and has not ended it.
type recoverer struct {
	pid   string
	calls []string
	fail  error
	slow  bool
}

func (r *recoverer) Begin(context.Context, *socketio.Socket) (string, error) {
	r.calls = append(r.calls, "begin")
	return r.pid, r.fail
}

func (r *recoverer) Resume(_ context.Context, _ *socketio.Socket, pid, offset string) (bool, error) {
	r.calls = append(r.calls, "resume "+pid+" "+offset)
	return pid == r.pid, r.fail
}

func (r *recoverer) End(ctx context.Context, s *socketio.Socket, pid string) {
	if r.slow { // the client goes while it is written down
		s.CloseTransport()
		<-s.Context().Done()
	}
	if ctx.Err() != nil {
		return
	}
	r.calls = append(r.calls, "end "+pid)
	r.pid = "another"
}

func pidOf(t *testing.T, body string) string {
	t.Helper()
	var answer struct{ SID, PID string }
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	require.NotEmpty(t, answer.SID)
	return answer.PID
}

func TestASessionGoesOnWhenTheApplicationSaysSo(t *testing.T) {
	r := &recoverer{pid: "p1"}
	_, url := start(t, socketio.Options{}, func(srv *socketio.Server) {
		srv.Of("/").Recover(r)
		srv.Of("/").OnConnect(func(s *socketio.Socket) {
			m, err := s.Namespace().Prepare("8", "event", s.Recovered(), s.Offset())
			require.NoError(t, err)
			require.NoError(t, s.EmitPrepared(m))
		})
	})
	first := dial(t, url)
	require.Equal(t, "p1", pidOf(t, first.join("")))
	first.want(`42["event",false,"","8"]`)
	first.send("1") // its transport, not its user
	first.ends()

	second := dial(t, url)
	require.Equal(t, "p1", pidOf(t, second.join(`{"pid":"p1","offset":"7"}`)))
	second.want(`42["event",true,"7","8"]`)

	stranger := dial(t, url)
	require.Equal(t, "p1", pidOf(t, stranger.join(`{"pid":"guessed","offset":"7"}`)))
	stranger.want(`42["event",false,"","8"]`)
	unseen := dial(t, url)
	require.Equal(t, "p1", pidOf(t, unseen.join(`{"pid":"p1"}`)))
	unseen.want(`42["event",true,"","8"]`)
	odd := dial(t, url)
	odd.join(`{"pid":7,"offset":{}}`)
	odd.want(`42["event",false,"","8"]`)
	require.Equal(t, []string{"begin", "resume p1 7", "resume guessed 7", "begin", "resume p1 ", "begin"}, r.calls)
}

func TestASessionItsUserHasEndedIsKnownToBeBeforeItComesBack(t *testing.T) {
	r := &recoverer{pid: "p1"}
	hold := make(chan struct{})
	_, url := start(t, socketio.Options{}, func(srv *socketio.Server) {
		srv.Of("/").Recover(r)
		srv.Of("/").On("work", func(*socketio.Socket, *socketio.Event) { <-hold })
	})
	c := joined(t, url)
	c.send(`42["work"]`, "41", `40{"pid":"p1","offset":"7"}`) // a handler is at work all the while
	require.Equal(t, "another", pidOf(t, c.next()[2:]))
	close(hold)
	require.Equal(t, []string{"begin", "end p1", "resume p1 7", "begin"}, r.calls)
}

func TestASessionIsEndedThoughItsConnectionIsGoneMeanwhile(t *testing.T) {
	r := &recoverer{pid: "p1", slow: true}
	srv, url := start(t, socketio.Options{}, func(srv *socketio.Server) { srv.Of("/").Recover(r) })
	c := joined(t, url)
	c.send("41")
	c.ends()
	require.NoError(t, srv.Close(t.Context()))
	require.Equal(t, []string{"begin", "end p1"}, r.calls)
}

func TestARecoveryThatFailsClosesTheTransportSoThatTheClientTriesAgain(t *testing.T) {
	r := &recoverer{pid: "p1", fail: errors.New("the store is away")}
	_, url := start(t, socketio.Options{}, func(srv *socketio.Server) { srv.Of("/").Recover(r) })
	for _, auth := range []string{"", `{"pid":"p1","offset":"7"}`} {
		c := dial(t, url)
		c.send("40" + auth)
		require.Empty(t, c.ends())
	}
}

func TestWithoutRecoveryThereIsNoPid(t *testing.T) {
	_, url := start(t, socketio.Options{}, echoing("/"))
	c := dial(t, url)
	body := c.join(`{"pid":"p1","offset":"7"}`)
	require.NotContains(t, body, "pid")
}
