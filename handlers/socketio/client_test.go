package socketio_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/handlers/socketio"
)

const patience = 20 * time.Second

// start serves what setup makes of a server, until the test ends.
func start(t *testing.T, o socketio.Options, setup func(*socketio.Server)) (*socketio.Server, string) {
	t.Helper()
	srv, err := socketio.New(o)
	require.NoError(t, err)
	setup(srv)
	web := httptest.NewServer(srv)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = srv.Close(ctx)
		web.Close()
	})
	return srv, web.URL
}

// client is a WebSocket past its Engine.IO handshake.
type client struct {
	t    *testing.T
	conn *websocket.Conn
}

func dial(t *testing.T, url string) *client {
	t.Helper()
	conn, response, err := websocket.Dial(t.Context(), strings.Replace(url, "http", "ws", 1)+"/socket.io/?EIO=4&transport=websocket&username=ada", nil)
	require.NoError(t, err)
	if response.Body != nil {
		response.Body.Close()
	}
	conn.SetReadLimit(64 << 20)
	t.Cleanup(func() { conn.CloseNow() })
	c := &client{t: t, conn: conn}
	require.True(t, strings.HasPrefix(c.next(), "0{"))
	return c
}

// join connects to a namespace, and returns the answer's body.
func (c *client) join(packet string) string {
	c.t.Helper()
	c.send("40" + packet)
	head := "40"
	if name, _, ok := strings.Cut(packet, "{"); (ok || name == packet) && name != "" {
		head += strings.TrimSuffix(name, ",") + ","
	}
	answer := c.next()
	require.True(c.t, strings.HasPrefix(answer, head+"{"), answer)
	return answer[len(head):]
}

func joined(t *testing.T, url string) *client {
	t.Helper()
	c := dial(t, url)
	c.join("")
	return c
}

func (c *client) send(packets ...string) {
	c.t.Helper()
	for _, packet := range packets {
		kind := websocket.MessageText
		if data, ok := strings.CutPrefix(packet, "binary "); ok {
			kind, packet = websocket.MessageBinary, data
		}
		require.NoError(c.t, c.conn.Write(c.t.Context(), kind, []byte(packet)))
	}
}

func (c *client) read() (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	kind, data, err := c.conn.Read(ctx)
	if kind == websocket.MessageBinary {
		return "binary " + string(data), err
	}
	return string(data), err
}

func (c *client) next() string {
	c.t.Helper()
	packet, err := c.read()
	require.NoError(c.t, err)
	return packet
}

func (c *client) want(packets ...string) {
	c.t.Helper()
	for _, packet := range packets {
		require.Equal(c.t, packet, c.next())
	}
}

// ends reads until the connection is closed, and returns what came before.
func (c *client) ends() []string {
	c.t.Helper()
	var got []string
	for {
		packet, err := c.read()
		if err != nil {
			require.NotErrorIs(c.t, err, context.DeadlineExceeded)
			return got
		}
		got = append(got, packet)
	}
}

// received from a channel, or the test fails.
func received[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing came")
		panic("unreachable")
	}
}
