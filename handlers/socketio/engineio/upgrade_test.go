package engineio_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cimbus/cimbus/handlers/socketio/engineio"
)

func TestAnUpgradeReleasesThePollByANoopAndThenAllGoesOverTheWebSocket(t *testing.T) {
	w := start(t, engineio.Options{})
	sid := w.poll()
	polled := make(chan string, 1)
	go func() {
		_, text := w.get(sid)
		polled <- text
	}()
	hangs(t, w.session(sid).session)
	ws := w.dial(websocketOf(sid))
	ws.send("2probe")
	ws.want("3probe")
	require.Equal(t, "6", <-polled)
	s := w.session(sid).session
	require.NoError(t, s.Send(engineio.Text([]byte("between"))))
	require.Equal(t, "polling", s.Transport())
	ws.send("5")
	ws.want("4between")
	ws.send("4hello")
	ws.want("4hello")
	require.Equal(t, "websocket", s.Transport())
	require.Equal(t, engineio.Stats{Sessions: 1, WebSocket: 1, Opened: 1, Upgraded: 1}, w.server.Stats())
}

func TestAPollThatComesDuringAnUpgradeIsReleased(t *testing.T) {
	w := start(t, engineio.Options{})
	sid := w.poll()
	ws := w.dial(websocketOf(sid))
	ws.send("2probe")
	ws.want("3probe")
	status, text := w.get(sid)
	require.Equal(t, 200, status)
	require.Equal(t, "6", text)
	require.NoError(t, w.session(sid).session.Send(engineio.Text([]byte("x"))))
	status, text = w.get(sid)
	require.Equal(t, 200, status)
	require.Equal(t, "4x", text)
}

func TestAfterAnUpgradeInOneBreathPollsAndPostsAreRefusedAndASecondWebSocketIsClosed(t *testing.T) {
	w := start(t, engineio.Options{})
	for range 20 {
		sid := w.poll()
		ws := w.dial(websocketOf(sid))
		ws.send("2probe")
		ws.send("5")
		status, _ := w.get(sid)
		require.Equal(t, 400, status)
		status, _ = w.post(sid, "4x")
		require.Equal(t, 400, status)
		w.dial(websocketOf(sid)).ends()
		ws.want("3probe")
		ws.send("4hello")
		ws.want("4hello")
	}
}

func TestAnUpgradeThatFailsLeavesTheSessionPolling(t *testing.T) {
	w := start(t, engineio.Options{UpgradeTimeout: 50 * time.Millisecond})
	sid := w.poll()
	for _, wrong := range [][]string{{"5"}, {"4x"}, {"2prob"}, {"2probe", "4x"}, {"2probe", "1"}, {}} {
		ws := w.dial(websocketOf(sid))
		for _, packet := range wrong {
			ws.send(packet)
		}
		ws.ends()
		status, _ := w.post(sid, "4still")
		require.Equal(t, 200, status)
		require.Eventually(t, func() bool {
			status, text := w.get(sid)
			require.Equal(t, 200, status)
			return text == "4still"
		}, 5*time.Second, time.Millisecond, "%q", wrong)
	}
}

func TestASessionThatEndsDuringAnUpgradeTakesBothTransportsWithIt(t *testing.T) {
	w := start(t, engineio.Options{})
	sid := w.poll()
	ws := w.dial(websocketOf(sid))
	ws.send("2probe")
	ws.want("3probe")
	w.session(sid).session.Close()
	status, text := w.get(sid)
	require.Equal(t, 200, status)
	require.Equal(t, "1", text)
	ws.ends()
}

// The client here does what engine.io-client does: it polls, posts, and upgrades in between; both directions number their messages.
func TestNothingIsLostRepeatedOrReorderedAroundAnUpgrade(t *testing.T) {
	w := start(t, engineio.Options{})
	rapid.Check(t, func(rt *rapid.T) {
		before := rapid.IntRange(0, 40).Draw(rt, "before")
		during := rapid.IntRange(0, 40).Draw(rt, "during")
		after := rapid.IntRange(0, 40).Draw(rt, "after")
		batch := rapid.IntRange(1, 7).Draw(rt, "batch")
		sid := w.poll()
		s := w.session(sid).session
		total := before + during + after

		// The server sends all the time, at its own pace.
		var wg sync.WaitGroup
		upgrading := make(chan struct{})
		wg.Go(func() {
			for i := range total {
				if i == before {
					<-upgrading
				}
				_ = s.Send(engineio.Text(fmt.Appendf(nil, "s%d", i)))
			}
		})

		var mu sync.Mutex
		var got []string
		take := func(packets ...string) {
			mu.Lock()
			defer mu.Unlock()
			for _, p := range packets {
				if strings.HasPrefix(p, "4") {
					got = append(got, p[1:])
				}
			}
		}
		paused := make(chan struct{})
		stop := make(chan struct{})
		go func() { // polls until it is told to stop, the last poll included
			defer close(paused)
			for {
				select {
				case <-stop:
					return
				default:
				}
				status, text := w.get(sid)
				if status != 200 {
					return
				}
				take(strings.Split(text, "\x1e")...)
			}
		}()
		send := func(from, to int) {
			for from < to {
				var packets []string
				for ; from < to && len(packets) < batch; from++ {
					packets = append(packets, fmt.Sprintf("4c%d", from))
				}
				status, text := w.post(sid, strings.Join(packets, "\x1e"))
				if status != 200 {
					rt.Errorf("post: %d %s", status, text)
					return
				}
			}
		}
		send(0, before)
		close(upgrading)
		ws := w.dial(websocketOf(sid))
		ws.send("2probe")
		send(before, before+during)
		close(stop)
		ws.want("3probe")
		<-paused
		ws.send("5")
		for i := before + during; i < total; i++ {
			ws.send(fmt.Sprintf("4c%d", i))
		}
		for {
			mu.Lock()
			n := len(got)
			mu.Unlock()
			if n == 2*total {
				break
			}
			frame, err := ws.next()
			if err != nil {
				rt.Fatalf("after %d of %d: %v", n, 2*total, err)
			}
			take(frame)
		}
		wg.Wait()
		for _, side := range []string{"s", "c"} {
			var want []string
			for i := range total {
				want = append(want, fmt.Sprint(side, i))
			}
			have := slices.DeleteFunc(slices.Clone(got), func(m string) bool { return m[:1] != side })
			if !slices.Equal(want, have) {
				rt.Fatalf("%s: want %v, got %v", side, want, have)
			}
		}
		s.Close()
		ws.ends()
	})
}
