package engineio_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

// echo gives each message back in its kind, and remembers why it ended.
type echo struct {
	session *engineio.Session
	closed  chan error
	taken   atomic.Int64
}

func (e *echo) Message(binary bool, data []byte) error {
	e.taken.Add(1)
	m := engineio.Text(data)
	if binary {
		m = engineio.Binary(data)
	}
	_ = e.session.Send(m)
	return nil
}

func (e *echo) Closed(reason error) { e.closed <- reason }

// world is a server on the loopback with its sessions.
type world struct {
	t      *testing.T
	server *engineio.Server
	url    string
	client *http.Client

	mu       sync.Mutex
	sessions map[string]*echo
}

// start runs an echo. Its heartbeat is not a test's matter unless options say so.
func start(t *testing.T, o engineio.Options) *world {
	t.Helper()
	w := &world{t: t, sessions: make(map[string]*echo)}
	if o.Origins == nil {
		o.Origins = []string{"*"}
	}
	server, err := engineio.New(o, func(s *engineio.Session) engineio.Handler {
		e := &echo{session: s, closed: make(chan error, 1)}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.sessions[s.ID()] = e
		return e
	})
	require.NoError(t, err)
	w.server = server
	web := httptest.NewServer(server)
	w.url = web.URL + "/engine.io/"
	w.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10}}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = server.Close(ctx) // cut off, if the test left one hanging
		w.client.CloseIdleConnections()
		web.Close()
	})
	return w
}

func (w *world) session(sid string) *echo {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sessions[sid]
}

// why waits for the reason a session ended with.
func (w *world) why(sid string) error {
	select {
	case reason := <-w.session(sid).closed:
		return reason
	case <-time.After(20 * time.Second):
		w.t.Error("the session has not ended")
		return nil
	}
}

func (w *world) do(method, query, body string, headers ...string) (int, string, http.Header) {
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+"?"+query, strings.NewReader(body))
	if err != nil {
		w.t.Error(err)
		return 0, "", nil
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := w.client.Do(r)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error(), nil
	}
	return response.StatusCode, string(text), response.Header
}

type opening struct {
	SID          string   `json:"sid"`
	Upgrades     []string `json:"upgrades"`
	PingInterval int      `json:"pingInterval"`
	PingTimeout  int      `json:"pingTimeout"`
	MaxPayload   int      `json:"maxPayload"`
}

// poll opens a polling session and returns its id.
func (w *world) poll() string {
	w.t.Helper()
	status, text, _ := w.do(http.MethodGet, "EIO=4&transport=polling", "")
	require.Equal(w.t, http.StatusOK, status, text)
	return parseOpening(w.t, text).SID
}

func parseOpening(t *testing.T, text string) opening {
	t.Helper()
	require.True(t, strings.HasPrefix(text, "0{"), text)
	var o opening
	decoder := json.NewDecoder(strings.NewReader(text[1:]))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&o))
	return o
}

func polling(sid string) string { return "EIO=4&transport=polling&sid=" + url.QueryEscape(sid) }

func (w *world) get(sid string) (int, string) {
	status, text, _ := w.do(http.MethodGet, polling(sid), "")
	return status, text
}

func (w *world) post(sid, body string) (int, string) {
	status, text, _ := w.do(http.MethodPost, polling(sid), body)
	return status, text
}

// frames is a WebSocket, a string a frame.
type frames struct {
	t    *testing.T
	conn *websocket.Conn
}

func (w *world) dial(query string) *frames {
	w.t.Helper()
	conn, response, err := websocket.Dial(w.t.Context(), strings.Replace(w.url, "http", "ws", 1)+"?"+query, nil)
	require.NoError(w.t, err)
	if response.Body != nil {
		response.Body.Close()
	}
	conn.SetReadLimit(64 << 20)
	w.t.Cleanup(func() { conn.CloseNow() })
	return &frames{t: w.t, conn: conn}
}

func websocketOf(sid string) string { return "EIO=4&transport=websocket&sid=" + url.QueryEscape(sid) }

func (f *frames) send(text string) {
	f.t.Helper()
	require.NoError(f.t, f.conn.Write(f.t.Context(), websocket.MessageText, []byte(text)))
}

func (f *frames) sendBinary(data string) {
	f.t.Helper()
	require.NoError(f.t, f.conn.Write(f.t.Context(), websocket.MessageBinary, []byte(data)))
}

// next frame; a binary one begins with "binary ".
func (f *frames) next() (string, error) {
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	kind, data, err := f.conn.Read(ctx)
	if kind == websocket.MessageBinary {
		return "binary " + string(data), err
	}
	return string(data), err
}

func (f *frames) want(texts ...string) {
	f.t.Helper()
	for _, text := range texts {
		got, err := f.next()
		require.NoError(f.t, err)
		require.Equal(f.t, text, got)
	}
}

// ends reads until the WebSocket is closed, and returns the status.
func (f *frames) ends() websocket.StatusCode {
	for {
		if _, err := f.next(); err != nil {
			require.NoError(f.t, f.t.Context().Err())
			return websocket.CloseStatus(err)
		}
	}
}
