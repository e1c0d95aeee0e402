package engineio_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

// hangs waits for the session's poll.
func hangs(t *testing.T, s *engineio.Session) {
	t.Helper()
	require.Eventually(t, s.Hanging, 20*time.Second, time.Millisecond)
}

func TestMessagesKeepTheirOrderAndKindOverPolling(t *testing.T) {
	w := start(t, engineio.Options{})
	for _, payload := range []string{"4hello", "4test1\x1e4test2\x1e4test3", "4hello\x1ebAQIDBA==", "b\x1e4", "4ü\u2028😀"} {
		sid := w.poll()
		status, text := w.post(sid, payload)
		require.Equal(t, 200, status)
		require.Equal(t, "ok", text)
		status, text = w.get(sid)
		require.Equal(t, 200, status)
		require.Equal(t, payload, text)
	}
}

func TestMessagesKeepTheirOrderAndKindOverWebSocket(t *testing.T) {
	w := start(t, engineio.Options{})
	ws := w.dial("EIO=4&transport=websocket")
	_, err := ws.next()
	require.NoError(t, err)
	for _, size := range []int{0, 125, 126, 65535, 65536, 900_000} {
		data := strings.Repeat("x", size)
		ws.send("4" + data)
		ws.sendBinary(data)
		ws.want("4"+data, "binary "+data)
	}
}

func TestWhatDoesNotParseEndsTheSession(t *testing.T) {
	w := start(t, engineio.Options{})
	for _, bad := range []string{"", "abc", "7", "4a\x1e", "\x1e4a", "4a\x1eb!", "b=", "2", "0{}", "4\xff"} {
		sid := w.poll()
		status, _ := w.post(sid, bad)
		require.Equal(t, 400, status, "%q", bad)
		require.ErrorIs(t, w.why(sid), engineio.ErrMalformed, "%q", bad)
		status, _ = w.get(sid)
		require.Equal(t, 400, status, "%q", bad)
	}
	for _, bad := range []string{"", "abc", "7", "2", "0{}", "b", "4\xff"} {
		ws := w.dial("EIO=4&transport=websocket")
		text, err := ws.next()
		require.NoError(t, err)
		ws.send(bad)
		require.Equal(t, websocket.StatusUnsupportedData, ws.ends(), "%q", bad)
		require.ErrorIs(t, w.why(parseOpening(t, text).SID), engineio.ErrMalformed, "%q", bad)
	}
}

func TestABodyThatDoesNotParseIsNotTakenInPart(t *testing.T) {
	w := start(t, engineio.Options{})
	sid := w.poll()
	status, _ := w.post(sid, "4one\x1ex")
	require.Equal(t, 400, status)
	require.Zero(t, w.session(sid).taken.Load())
}

func TestWhatIsTooLargeEndsTheSession(t *testing.T) {
	w := start(t, engineio.Options{MaxPayload: 1000})
	sid := w.poll()
	status, _ := w.post(sid, "4"+strings.Repeat("x", 999))
	require.Equal(t, 200, status)
	status, _ = w.post(sid, "4"+strings.Repeat("x", 1000))
	require.Equal(t, http.StatusRequestEntityTooLarge, status)
	require.ErrorIs(t, w.why(sid), engineio.ErrTooLarge)

	ws := w.dial("EIO=4&transport=websocket")
	text, err := ws.next()
	require.NoError(t, err)
	ws.send("4" + strings.Repeat("x", 999))
	ws.want("4" + strings.Repeat("x", 999))
	ws.send("4" + strings.Repeat("x", 1000))
	require.Equal(t, websocket.StatusMessageTooBig, ws.ends())
	require.ErrorIs(t, w.why(parseOpening(t, text).SID), engineio.ErrTooLarge)
}

func TestABodyThatDoesNotArriveInTimeEndsTheSession(t *testing.T) {
	w := start(t, engineio.Options{ReadTimeout: 50 * time.Millisecond})
	sid := w.poll()
	body, never := io.Pipe()
	defer never.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"?"+polling(sid), body)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if response, err := w.client.Do(r); err == nil {
			response.Body.Close()
		}
	}()
	require.ErrorIs(t, w.why(sid), engineio.ErrTransport)
	never.Close()
	<-done
}

func TestASessionEndsWithItsWebSocket(t *testing.T) {
	w := start(t, engineio.Options{})
	for _, end := range []func(*websocket.Conn) error{
		(*websocket.Conn).CloseNow,
		func(c *websocket.Conn) error { return c.Close(websocket.StatusGoingAway, "a page is left") },
		func(c *websocket.Conn) error { return c.Write(t.Context(), websocket.MessageText, []byte("1")) },
	} {
		ws := w.dial("EIO=4&transport=websocket")
		text, err := ws.next()
		require.NoError(t, err)
		require.NoError(t, end(ws.conn))
		require.ErrorIs(t, w.why(parseOpening(t, text).SID), engineio.ErrPeerClosed)
	}
}

func TestTwoPollsAtOnceEndTheSession(t *testing.T) {
	w := start(t, engineio.Options{})
	sid := w.poll()
	type answer struct {
		status int
		text   string
	}
	answers := make(chan answer, 2)
	for range 2 {
		go func() {
			status, text := w.get(sid)
			answers <- answer{status, text}
		}()
	}
	got := []answer{<-answers, <-answers}
	if got[0].status != 200 {
		got[0], got[1] = got[1], got[0]
	}
	require.Equal(t, answer{200, "1"}, got[0])
	require.Equal(t, 400, got[1].status)
	status, _ := w.get(sid)
	require.Equal(t, 400, status)
	require.ErrorIs(t, w.why(sid), engineio.ErrOverlap)
}

// Both orders of arrival happen: sixty rounds make both likely, and each is also forced.
func TestACloseByPostAnswersThePollOfTheSameInstantWithANoop(t *testing.T) {
	w := start(t, engineio.Options{})
	for round := range 60 {
		sid := w.poll()
		var wg sync.WaitGroup
		var status, posted int
		var text string
		get := func() { status, text = w.get(sid) }
		post := func() { posted, _ = w.post(sid, "1") }
		wg.Go(get)
		if round%3 == 1 {
			hangs(t, w.session(sid).session)
		}
		wg.Go(post)
		wg.Wait()
		require.Equal(t, 200, status, text)
		require.Equal(t, "6", text)
		require.Equal(t, 200, posted)
		status, _ = w.get(sid)
		require.Equal(t, 400, status)
		require.ErrorIs(t, w.why(sid), engineio.ErrPeerClosed)
	}
}

func TestACloseByPostThatNoPollFollowsIsFinalWhenItIsAnswered(t *testing.T) {
	w := start(t, engineio.Options{})
	sid := w.poll()
	status, text := w.post(sid, "1")
	require.Equal(t, 200, status)
	require.Equal(t, "ok", text)
	status, _ = w.get(sid)
	require.Equal(t, 400, status)
	require.Zero(t, w.server.Stats().Sessions)
}

func TestACancelledPollEndsTheSession(t *testing.T) {
	w := start(t, engineio.Options{})
	sid := w.poll()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"?"+polling(sid), http.NoBody)
	require.NoError(t, err)
	gone := make(chan error, 1)
	go func() {
		response, err := w.client.Do(r)
		if err == nil {
			response.Body.Close()
		}
		gone <- err
	}()
	hangs(t, w.session(sid).session)
	cancel()
	require.Error(t, <-gone)
	status, _ := w.get(sid)
	require.Equal(t, 400, status)
}

func TestASlowClientLosesItsTransportAndNobodyWaitsForIt(t *testing.T) {
	w := start(t, engineio.Options{MaxQueuePackets: 10, MaxQueueBytes: 1 << 20})
	sid := w.poll()
	s := w.session(sid).session
	for range 10 {
		require.NoError(t, s.Send(engineio.Text([]byte("x"))))
	}
	require.ErrorIs(t, s.Send(engineio.Text([]byte("x"))), engineio.ErrSlow)
	require.ErrorIs(t, w.why(sid), engineio.ErrSlow)
	require.ErrorIs(t, s.Send(engineio.Text([]byte("x"))), engineio.ErrSlow, "and ever after")

	ws := w.dial("EIO=4&transport=websocket")
	text, err := ws.next()
	require.NoError(t, err)
	sid = parseOpening(t, text).SID
	big := engineio.Text([]byte(strings.Repeat("x", 400_000)))
	require.Eventually(t, func() bool { return w.session(sid).session.Send(big) != nil }, 20*time.Second, time.Microsecond)
	require.ErrorIs(t, w.why(sid), engineio.ErrSlow)
	require.EqualValues(t, 2, w.server.Stats().Overflows)
}

// Nothing is queued any more when the connection takes no more bytes: the write itself must end.
func TestAClientThatDoesNotReadIsGivenUpAfterTheWriteTimeout(t *testing.T) {
	w := start(t, engineio.Options{WriteTimeout: 100 * time.Millisecond, MaxQueueBytes: 1 << 30, MaxQueuePackets: 1000})
	ws := w.dial("EIO=4&transport=websocket")
	text, err := ws.next()
	require.NoError(t, err)
	sid := parseOpening(t, text).SID
	big := engineio.Text([]byte(strings.Repeat("x", 1<<20)))
	for range 64 {
		require.NoError(t, w.session(sid).session.Send(big))
	}
	require.ErrorIs(t, w.why(sid), engineio.ErrTransport)
}

func TestRoomLetsASenderWaitInsteadOfOverflowing(t *testing.T) {
	w := start(t, engineio.Options{MaxQueuePackets: 10})
	ws := w.dial("EIO=4&transport=websocket")
	text, err := ws.next()
	require.NoError(t, err)
	s := w.session(parseOpening(t, text).SID).session
	go func() {
		for i := range 1000 {
			if i%10 == 0 && s.Room(t.Context()) != nil {
				return
			}
			_ = s.Send(engineio.Text([]byte{byte('0' + i%10)}))
		}
	}()
	for i := range 1000 {
		ws.want("4" + string(byte('0'+i%10)))
	}
	sid := w.poll()
	s = w.session(sid).session
	require.NoError(t, s.Send(engineio.Text([]byte("x"))))
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Room(ctx), context.DeadlineExceeded)
	s.Close()
	require.ErrorIs(t, s.Room(t.Context()), engineio.ErrClosed)
}

func TestCloseSendsWhatIsQueuedFirst(t *testing.T) {
	w := start(t, engineio.Options{})
	ws := w.dial("EIO=4&transport=websocket")
	text, err := ws.next()
	require.NoError(t, err)
	s := w.session(parseOpening(t, text).SID).session
	for range 500 {
		require.NoError(t, s.Send(engineio.Text([]byte("last"))))
	}
	s.Close()
	require.ErrorIs(t, s.Send(engineio.Text([]byte("no more"))), engineio.ErrClosed)
	for range 500 {
		ws.want("4last")
	}
	require.Equal(t, websocket.StatusNormalClosure, ws.ends())

	sid := w.poll()
	s = w.session(sid).session
	require.NoError(t, s.Send(engineio.Text([]byte("last"))))
	s.Close()
	status, text := w.get(sid)
	require.Equal(t, 200, status)
	require.Equal(t, "4last", text, "without the close packet: a client would take it first")
	status, text = w.get(sid)
	require.Equal(t, 200, status)
	require.Equal(t, "1", text)
	status, _ = w.get(sid)
	require.Equal(t, 400, status)
}

func TestClosingTheServerEndsEverySessionAndRefusesNewOnes(t *testing.T) {
	w := start(t, engineio.Options{})
	hanging := w.poll()
	polled := make(chan string, 1)
	go func() {
		_, text := w.get(hanging)
		polled <- text
	}()
	hangs(t, w.session(hanging).session)
	absent := w.poll() // its next poll never comes
	ws := w.dial("EIO=4&transport=websocket")
	text, err := ws.next()
	require.NoError(t, err)
	over := parseOpening(t, text).SID
	closed := make(chan error, 1)
	go func() { closed <- w.server.Close(t.Context()) }()
	require.Equal(t, "1", <-polled)
	require.Equal(t, websocket.StatusGoingAway, ws.ends())
	require.NoError(t, <-closed)
	for _, sid := range []string{hanging, absent, over} {
		require.ErrorIs(t, w.why(sid), engineio.ErrServerClosed)
	}
	require.Zero(t, w.server.Stats().Sessions)
	status, _, _ := w.do(http.MethodGet, "EIO=4&transport=polling", "")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.NoError(t, w.server.Close(t.Context()), "again")
}
