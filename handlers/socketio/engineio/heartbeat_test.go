package engineio_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

// bubble is a server without a network, in made-up time: requests are calls.
type bubble struct {
	t      *testing.T
	server *engineio.Server
	last   *echo
}

func inBubble(t *testing.T, test func(t *testing.T, b *bubble)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t}
		var err error
		b.server, err = engineio.New(engineio.Options{}, func(s *engineio.Session) engineio.Handler {
			b.last = &echo{session: s, closed: make(chan error, 1)}
			return b.last
		})
		require.NoError(t, err)
		test(t, b)
		require.NoError(t, b.server.Close(t.Context()))
	})
}

func (b *bubble) do(method, query, body string) (int, string) {
	w := httptest.NewRecorder()
	b.server.ServeHTTP(w, httptest.NewRequestWithContext(b.t.Context(), method, "/engine.io/?"+query, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

func (b *bubble) open() string {
	status, text := b.do("GET", "EIO=4&transport=polling", "")
	require.Equal(b.t, 200, status)
	return parseOpening(b.t, text).SID
}

func TestAPollingSessionIsPingedEveryIntervalAndLivesAsLongAsItAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		sid := b.open()
		for range 10 {
			began := time.Now()
			status, text := b.do("GET", polling(sid), "")
			require.Equal(t, 200, status)
			require.Equal(t, "2", text)
			require.Equal(t, 25*time.Second, time.Since(began))
			status, _ = b.do("POST", polling(sid), "3")
			require.Equal(t, 200, status)
		}
	})
}

func TestAnUnansweredSessionIsGoneExactlyAnIntervalAndATimeoutAfterItsCreation(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		for _, wait := range []time.Duration{45*time.Second - 1, 45 * time.Second} {
			sid := b.open()
			time.Sleep(wait)
			status, text := b.do("GET", polling(sid), "")
			if wait < 45*time.Second {
				require.Equal(t, 200, status)
				require.Equal(t, "2", text)
				synctest.Wait()
				time.Sleep(time.Nanosecond)
			} else {
				require.Equal(t, 400, status)
			}
			synctest.Wait()
			require.ErrorIs(t, <-b.last.closed, engineio.ErrPingTimeout)
			require.Zero(t, b.server.Stats().Sessions)
		}
	})
}

func TestAPingThatWasAnsweredLateCountsFromTheAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		sid := b.open()
		_, text := b.do("GET", polling(sid), "")
		require.Equal(t, "2", text)
		time.Sleep(19 * time.Second)
		status, _ := b.do("POST", polling(sid), "3")
		require.Equal(t, 200, status)
		began := time.Now()
		_, text = b.do("GET", polling(sid), "")
		require.Equal(t, "2", text)
		require.Equal(t, 25*time.Second, time.Since(began))
	})
}

func TestAHangingPollOfASessionThatIsOverGetsAClosePacket(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		sid := b.open()
		_, text := b.do("GET", polling(sid), "")
		require.Equal(t, "2", text)
		began := time.Now()
		status, text := b.do("GET", polling(sid), "")
		require.Equal(t, 200, status)
		require.Equal(t, "1", text)
		require.Equal(t, 20*time.Second, time.Since(began))
	})
}

func TestClosingASessionWhosePollNeverComesTakesAMoment(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.open()
		began := time.Now()
		b.last.session.Close()
		require.Equal(t, 1, b.server.Stats().Sessions)
		require.NoError(t, b.server.Close(t.Context()))
		require.Equal(t, 2*time.Second, time.Since(began))
	})
}

func TestClosingTheServerCutsOffWhatIsLeftWhenItsTimeIsUp(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.open()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, b.server.Close(ctx), context.DeadlineExceeded)
		require.Zero(t, b.server.Stats().Sessions)
		status, _ := b.do(http.MethodGet, "EIO=4&transport=polling", "")
		require.Equal(t, http.StatusServiceUnavailable, status)
	})
}
