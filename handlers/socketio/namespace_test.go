package socketio_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/handlers/socketio"
	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

// echoing namespaces answer "message" with "message-back", and acks with their arguments.
func echoing(names ...string) func(*socketio.Server) {
	return func(srv *socketio.Server) {
		for _, name := range names {
			ns := srv.Of(name)
			ns.On("message", func(s *socketio.Socket, e *socketio.Event) { _ = s.Emit("message-back", e.Placeholders()) })
			ns.On("with-ack", func(_ *socketio.Socket, e *socketio.Event) { _ = e.Ack(e.Placeholders()) })
		}
	}
}

func TestEventsAndAcksGoBothWaysAsTheyCame(t *testing.T) {
	_, url := start(t, socketio.Options{}, echoing("/", "/custom"))
	c := joined(t, url)
	c.join("/custom,")
	const both = `{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}`
	for _, x := range []struct{ sent, back string }{
		{`42["message",1,"2",{"3":[true]}]`, `42["message-back",1,"2",{"3":[true]}]`},
		{`42["message", 1e400 , "<&>" , "\u00e9"]`, `42["message-back",1e400,"<&>","\u00e9"]`},
		{`42/custom,["message"]`, `42/custom,["message-back"]`},
		{`42456["with-ack",1,"2",{"3":[false]}]`, `43456[1,"2",{"3":[false]}]`},
		{`42/custom,0["with-ack"]`, `43/custom,0[]`},
		{`452-["message",` + both + `]`, `452-["message-back",` + both + `]`},
		{`452-/custom,789["with-ack",{"deep":[` + both + `]}]`, `462-/custom,789[{"deep":[` + both + `]}]`},
	} {
		c.send(x.sent)
		if strings.Contains(x.sent, "_placeholder") {
			c.send("binary \x01\x02", "binary ")
			c.want(x.back, "binary \x01\x02", "binary ")
			continue
		}
		c.want(x.back)
	}
}

func TestANamespaceThatIsNotThereIsInvalidAndNothingElse(t *testing.T) {
	_, url := start(t, socketio.Options{}, echoing("/"))
	c := dial(t, url)
	c.send("40/random")
	c.want(`44/random,{"message":"Invalid namespace"}`)
	c.join("")
}

func TestWhatBreaksTheProtocolEndsTheConnection(t *testing.T) {
	_, url := start(t, socketio.Options{}, echoing("/", "/custom"))
	for _, packets := range [][]string{
		{"4abc"}, {"42{}"}, {"42[]"}, {`42abc["message"]`}, {"40"}, {`42/custom,["message"]`}, {"41/custom"}, {`44{"message":"x"}`},
		{"binary x"}, {`451-["message",{"_placeholder":true,"num":0}]`, `42["message"]`}, {`451-["message",{"_placeholder":true,"num":7}]`},
		{`4511-["message"]`}, {`45["message"]`},
	} {
		c := joined(t, url)
		c.send(packets...)
		_, err := c.read()
		require.Equal(t, websocket.StatusUnsupportedData, websocket.CloseStatus(err), packets)
		first := dial(t, url)
		if packets[0] != "40" {
			first.send(packets...)
			require.Empty(t, first.ends(), packets)
		}
	}
}

func TestAClientThatLeavesANamespaceKeepsTheOthersAndMayComeBack(t *testing.T) {
	reasons := make(chan error, 10)
	srv, url := start(t, socketio.Options{}, func(srv *socketio.Server) {
		echoing("/", "/custom")(srv)
		srv.Of("/custom").OnDisconnect(func(_ *socketio.Socket, reason error) { reasons <- reason })
	})
	c := joined(t, url)
	for range 3 {
		c.join("/custom")
		require.Equal(t, 1, srv.Of("/custom").Sockets())
		c.send("41/custom", `42/custom,["message","too late"]`, `42["message","here"]`)
		c.want(`42["message-back","here"]`)
		require.ErrorIs(t, received(t, reasons), socketio.ErrClientDisconnect)
		require.Zero(t, srv.Of("/custom").Sockets())
	}
}

func TestDisconnectIsSentOnlyWhenItIsAskedFor(t *testing.T) {
	sockets := make(chan *socketio.Socket, 10)
	_, url := start(t, socketio.Options{}, func(srv *socketio.Server) {
		echoing("/")(srv)
		srv.Of("/").OnConnect(func(s *socketio.Socket) { sockets <- s })
	})
	c := joined(t, url)
	s := received(t, sockets)
	require.NoError(t, s.Emit("last"))
	require.NoError(t, s.Disconnect())
	require.ErrorIs(t, s.Emit("later"), socketio.ErrDisconnected)
	require.ErrorIs(t, s.Disconnect(), socketio.ErrDisconnected)
	c.send(`42["message"]`) // it has not heard yet
	c.want(`42["last"]`, "41")
	c.join("")
	s = received(t, sockets)
	require.NoError(t, s.Emit("last"))
	s.CloseTransport()
	require.Equal(t, []string{`42["last"]`}, c.ends())
	require.ErrorIs(t, s.Emit("later"), socketio.ErrDisconnected)
}

func TestMiddlewareRunsInOrderAndRefusesWithData(t *testing.T) {
	var order []string
	_, url := start(t, socketio.Options{}, func(srv *socketio.Server) {
		ns := srv.Of("/")
		ns.Use(func(_ context.Context, h *socketio.Handshake) error {
			order = append(order, "first")
			require.Equal(t, "ada", h.Query.Get("username"))
			require.NotEmpty(t, h.Header.Get("User-Agent"))
			require.Equal(t, "127.0.0.1", h.RemoteAddr)
			require.Equal(t, "/", h.Namespace)
			switch string(h.Auth) {
			case `{"why":"refused"}`:
				return &socketio.Refusal{Message: "login-failed", Data: map[string]any{"content": map[string]string{"msg": "<no>", "key": "k"}}}
			case `{"why":"plain"}`:
				return &socketio.Refusal{Message: "no"}
			case `{"why":"broken"}`:
				return errors.New("the database password is hunter2")
			case `{"why":"unencodable"}`:
				return &socketio.Refusal{Message: "no", Data: func() {}}
			}
			h.Data = "ada"
			return nil
		})
		ns.Use(func(context.Context, *socketio.Handshake) error {
			order = append(order, "second")
			return nil
		})
		ns.OnConnect(func(s *socketio.Socket) { _ = s.Emit("hello", s.Handshake().Data) })
	})
	c := dial(t, url)
	for auth, answer := range map[string]string{
		`{"why":"refused"}`: `44{"message":"login-failed","data":{"content":{"key":"k","msg":"<no>"}}}`,
		`{"why":"plain"}`:   `44{"message":"no"}`,
		`{"why":"broken"}`:  `44{"message":"Internal server error"}`,
	} {
		order = nil
		c.send("40"+auth, `42["early"]`)
		c.want(answer)
		require.Equal(t, []string{"first"}, order)
	}
	order = nil
	c.join("")
	c.want(`42["hello","ada"]`)
	require.Equal(t, []string{"first", "second"}, order)
	broken := dial(t, url)
	broken.send(`40{"why":"unencodable"}`)
	broken.ends()
}

func TestAClientThatConnectsToNothingInTimeIsClosed(t *testing.T) {
	_, url := start(t, socketio.Options{ConnectTimeout: 30 * time.Millisecond}, echoing("/"))
	c := dial(t, url)
	c.send("40/random")
	require.Len(t, c.ends(), 1)
	in := dial(t, url)
	in.join("")
	<-time.After(60 * time.Millisecond)
	in.send(`42["message"]`)
	in.want(`42["message-back"]`)
}

func TestOnlyThePathIsServedWithOrWithoutItsLastSlash(t *testing.T) {
	_, url := start(t, socketio.Options{Path: "/agent-manager/socket.io/"}, echoing("/"))
	for path, status := range map[string]int{
		"/agent-manager/socket.io/": 200, "/agent-manager/socket.io": 200, "/socket.io/": 404, "/agent-manager/": 404, "/agent-manager/socket.io/x": 404,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path+"?EIO=4&transport=polling", http.NoBody)
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, status, response.StatusCode, path)
	}
	http.DefaultClient.CloseIdleConnections()
	_, err := socketio.New(socketio.Options{Path: "x", MaxPending: -1, ConnectTimeout: -1, Engine: engineio.Options{MaxPayload: -1}})
	for _, name := range []string{"Path", "MaxPending", "ConnectTimeout", "option Engine: option MaxPayload"} {
		require.ErrorContains(t, err, name)
	}
}
