package engineio_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

func TestAHandshakeTellsExactlyWhatAClientMustKnow(t *testing.T) {
	w := start(t, engineio.Options{PingInterval: 300 * time.Millisecond, PingTimeout: 200 * time.Millisecond})
	status, text, header := w.do(http.MethodGet, "EIO=4&transport=polling", "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "text/plain; charset=UTF-8", header.Get("Content-Type"))
	o := parseOpening(t, text)
	require.Equal(t, opening{o.SID, []string{"websocket"}, 300, 200, 1_000_000}, o)

	over := w.dial("EIO=4&transport=websocket")
	text, err := over.next()
	require.NoError(t, err)
	o = parseOpening(t, text)
	require.Equal(t, opening{o.SID, []string{}, 300, 200, 1_000_000}, o)
}

func TestWhatIsNoHandshakeIsRefused(t *testing.T) {
	w := start(t, engineio.Options{})
	for _, c := range []struct{ method, query string }{
		{"GET", "transport=polling"},
		{"GET", "EIO=3&transport=polling"},
		{"GET", "EIO=abc&transport=polling"},
		{"GET", "EIO=4"},
		{"GET", "EIO=4&transport=abc"},
		{"GET", "EIO=4&transport=websocket"},
		{"GET", "EIO=4&transport=polling&sid=unknown"},
		{"POST", "EIO=4&transport=polling"},
		{"POST", "EIO=4&transport=polling&sid=unknown"},
		{"PUT", "EIO=4&transport=polling"},
		{"DELETE", "EIO=4&transport=polling"},
		{"PUT", polling(w.poll())},
	} {
		status, text, _ := w.do(c.method, c.query, "")
		require.Equal(t, http.StatusBadRequest, status, c)
		require.Contains(t, text, `"message":`, c)
	}
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	for _, query := range []string{"transport=websocket", "EIO=4&transport=abc", "EIO=4&transport=websocket&sid=unknown"} {
		status, _, _ := w.do("GET", query, "", upgrade...)
		require.Equal(t, http.StatusBadRequest, status, query)
	}
}

func TestOnlyAllowedOriginsConnectAndMaySendCredentials(t *testing.T) {
	w := start(t, engineio.Options{Origins: []string{"https://desk.example.com", "https://*.example.org"}})
	own := w.url[:len(w.url)-len("/engine.io/")]
	for origin, allowed := range map[string]bool{
		"https://desk.example.com":    true,
		"HTTPS://DESK.EXAMPLE.COM":    true,
		"https://a.example.org":       true,
		own:                           true,
		"https://example.org":         false,
		"https://desk.example.com.ru": false,
		"http://desk.example.com":     false,
		"https://a.example.org/x":     false,
		"null":                        false,
		"http://1.example.com":        false,
	} {
		for _, method := range []string{"GET", "OPTIONS"} {
			status, _, header := w.do(method, "EIO=4&transport=polling", "", "Origin", origin, "Access-Control-Request-Headers", "x-trace")
			switch {
			case !allowed:
				require.Equal(t, http.StatusForbidden, status, origin)
				require.Empty(t, header.Get("Access-Control-Allow-Origin"))
			default:
				require.Equal(t, map[string]int{"GET": 200, "OPTIONS": 204}[method], status, origin)
				require.Equal(t, origin, header.Get("Access-Control-Allow-Origin"))
				require.Equal(t, "true", header.Get("Access-Control-Allow-Credentials"))
				require.Equal(t, "Origin", header.Get("Vary"))
			}
			if allowed && method == "OPTIONS" {
				require.Equal(t, "x-trace", header.Get("Access-Control-Allow-Headers"))
			}
		}
	}
	status, _, _ := w.do("GET", "EIO=4&transport=polling", "")
	require.Equal(t, http.StatusOK, status, "no browser")
}

func TestSessionsAreLimitedInAllAndPerAddressAndRoomIsMadeByThoseThatEnd(t *testing.T) {
	addr := func(r *http.Request) string { return r.Header.Get("X-Forwarded-For") }
	w := start(t, engineio.Options{MaxSessions: 3, MaxSessionsPerAddress: 2, RemoteAddr: addr})
	open := func(from string) (int, string) {
		status, text, _ := w.do(http.MethodGet, "EIO=4&transport=polling", "", "X-Forwarded-For", from)
		return status, text
	}
	status, text := open("a")
	require.Equal(t, 200, status)
	first := parseOpening(t, text).SID
	require.Equal(t, "a", w.session(first).session.RemoteAddr())
	for _, c := range []struct {
		from   string
		status int
	}{{"a", 200}, {"a", 429}, {"b", 200}, {"b", 503}} {
		status, _ := open(c.from)
		require.Equal(t, c.status, status, c)
	}
	require.Equal(t, engineio.Stats{Sessions: 3, Polling: 3, Opened: 3, Refused: 2}, w.server.Stats())
	w.session(first).session.Close()
	status, text = w.get(first)
	require.Equal(t, 200, status)
	require.Equal(t, "1", text)
	require.ErrorIs(t, w.why(first), engineio.ErrClosed)
	status, _ = open("a")
	require.Equal(t, 200, status)
}

func TestASessionMayMoveItsAddressAndCountsWhereItBegan(t *testing.T) {
	addr := func(r *http.Request) string { return r.Header.Get("X-Forwarded-For") }
	w := start(t, engineio.Options{MaxSessionsPerAddress: 1, RemoteAddr: addr})
	_, text, _ := w.do(http.MethodGet, "EIO=4&transport=polling", "", "X-Forwarded-For", "a")
	sid := parseOpening(t, text).SID
	status, _, _ := w.do(http.MethodPost, polling(sid), "4x", "X-Forwarded-For", "b")
	require.Equal(t, 200, status)
	status, text, _ = w.do(http.MethodGet, polling(sid), "", "X-Forwarded-For", "c")
	require.Equal(t, 200, status)
	require.Equal(t, "4x", text)
	for from, want := range map[string]int{"a": 429, "b": 200} {
		status, _, _ = w.do(http.MethodGet, "EIO=4&transport=polling", "", "X-Forwarded-For", from)
		require.Equal(t, want, status, from)
	}
}

func TestHalfOpenSessionsAreLimitedPerAddressUntilTheySettle(t *testing.T) {
	w := start(t, engineio.Options{MaxHalfOpenPerAddress: 2})
	open := func() int {
		status, _, _ := w.do(http.MethodGet, "EIO=4&transport=polling", "")
		return status
	}
	first, second := w.poll(), w.poll()
	require.Equal(t, 429, open())
	w.session(first).session.Settle()
	w.session(first).session.Settle()
	third := w.poll()
	require.Equal(t, 429, open())
	for _, sid := range []string{first, second, third} {
		status, _ := w.post(sid, "abc")
		require.Equal(t, 400, status)
		w.session(sid).session.Settle()
	}
	w.poll()
	w.poll()
	require.Equal(t, 429, open())
}

func TestOptionsThatCannotWorkAreNamedAllAtOnce(t *testing.T) {
	_, err := engineio.New(engineio.Options{PingInterval: -1, MaxPayload: -1, Origins: []string{"[", ""}}, func(*engineio.Session) engineio.Handler { return nil })
	require.ErrorContains(t, err, "PingInterval: -1ns: give")
	require.ErrorContains(t, err, "MaxPayload: -1: give")
	require.ErrorContains(t, err, `Origins: "[": give`)
	require.ErrorContains(t, err, `Origins: "": give`)
	_, err = engineio.New(engineio.Options{}, nil)
	require.ErrorContains(t, err, "open: give")
}
