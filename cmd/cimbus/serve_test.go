package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
)

// get asks the daemon's HTTP server.
func (s served) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := http.Get(s.HTTP + path)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

// settled waits until the one event of joined is counted, which comes after its delivery.
func (s served) settled(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, body := s.get(t, "/metrics")
		return strings.Contains(body, `cimbus_events_handled_total{handler="onCimEvent",outcome="delivered",tenant="acme"} 1`)
	}, patience, 2*time.Millisecond)
}

func TestTheReadyLineIsTheOnlyOneAndInItsOrder(t *testing.T) {
	store := t.TempDir()
	d := serve(t, "--store", store, "--websocket-addr", "127.0.0.1:0", "--durability", "strict")
	require.Regexp(t, `^\{"ready":true,"nats":"nats://127\.0\.0\.1:\d+","websocket":"ws://127\.0\.0\.1:\d+","http":"http://127\.0\.0\.1:\d+","store":"`+store+`","durability":"strict"\}\n$`, d.stdout.String())
	line := d.stdout.String()
	d.interrupt()
	require.Zero(t, d.wait(), d.stderr.String())
	require.Equal(t, line, d.stdout.String())
}

func TestWhatIsOffIsEmpty(t *testing.T) {
	d := serve(t, "--nats-addr", "", "--http-addr", "")
	require.Empty(t, d.NATS+d.WebSocket+d.HTTP)
	require.Equal(t, "balanced", d.Durability)
}

func TestReadinessNamesEveryCheckWithItsReason(t *testing.T) {
	d := joined(t)
	d.settled(t)
	var code int
	var body string
	require.Eventually(t, func() bool { // what is at hand is counted now and then
		code, body = d.get(t, "/readyz")
		return strings.Contains(body, " 0 at hand")
	}, patience, 2*time.Millisecond)
	require.Equal(t, http.StatusOK, code)
	// What the last look saw, and how full this disk is.
	for reason, check := range map[string]string{`every event was done at the last look|\d+ events not done, the oldest is .+ old`: "lag", `[0-9.]+ \w+ of [0-9.]+ \w+ are free`: "disk"} {
		told := regexp.MustCompile(`("check":"` + check + `","ok":true,"reason":)"(` + reason + `)"`)
		require.Regexp(t, told, body)
		body = told.ReplaceAllString(body, `$1"-"`)
	}
	require.JSONEq(t, `{"ready":true,"checks":[
		{"check":"server","ok":true,"reason":"runs in this process"},
		{"check":"streams","ok":true,"reason":"all 7 are there"},
		{"check":"worker","ok":true,"reason":"acts: 1 events handled, 0 at hand"},
		{"check":"lag","ok":true,"reason":"-"},
		{"check":"room","ok":true,"reason":"there is room for more"},
		{"check":"disk","ok":true,"reason":"-"},
		{"check":"losses","ok":true,"reason":"none known"},
		{"check":"durability","ok":true,"reason":"balanced: a power cut can cost the last second"}]}`, body)
	code, body = d.get(t, "/healthz")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, `{"healthy":true,"checks":[{"check":"server","ok":true,"reason":"runs in this process"}]}`+"\n", body)
	code, _ = d.get(t, "/nothing")
	require.Equal(t, http.StatusNotFound, code)
}

func TestNotReadyIsAnswered503(t *testing.T) {
	s := &httpServer{}
	s.notReady("starting")
	for path, handler := range map[string]http.HandlerFunc{"/readyz": s.readyz, "/healthz": s.healthz} {
		w := httptest.NewRecorder()
		handler(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		var got struct {
			Ready, Healthy bool
			Checks         []check
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
		if path == "/readyz" {
			require.Equal(t, http.StatusServiceUnavailable, w.Code)
			require.Equal(t, []check{{"daemon", false, "starting"}}, got.Checks)
		} else {
			require.Equal(t, http.StatusOK, w.Code, "a process that starts is worth keeping")
			require.True(t, got.Healthy)
		}
	}
}

func TestALostStreamMakesTheDaemonNotReady(t *testing.T) {
	url := jetStream(t, nil)
	r := start(t, "serve", "--nats-url", url, "--http-addr", "127.0.0.1:0")
	r.saw(&r.stdout, "\n")
	d := served{r, lines[announcement](t, r.stdout.String())[0]}
	code, body := d.get(t, "/readyz")
	require.Equal(t, http.StatusOK, code, body)
	require.Contains(t, body, `"reason":"external: decided by the server"`)
	deleteStream(t, url, "CIM_INDEX")
	code, body = d.get(t, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, body, `{"ready":false,`)
	require.Contains(t, body, `{"check":"streams","ok":false,"reason":"CIM_INDEX is missing: run cimbus streams apply"}`)
}

func TestMetricsCountWhatTheDaemonDid(t *testing.T) {
	d := joined(t)
	d.settled(t)
	code, body := d.get(t, "/metrics")
	require.Equal(t, http.StatusOK, code)
	for _, want := range []string{
		`cimbus_events_handled_total{handler="onCimEvent",outcome="delivered",tenant="acme"} 1`, `cimbus_redeliveries_total{handler="onCimEvent"} 0`,
		`cimbus_retries_total{handler="onCimEvent",tenant="acme"} 0`, `cimbus_events_lost_total{handler="onCimEvent"} 0`, `cimbus_build_info{`, "cimbus_control_dropped_total 0", "go_goroutines ",
		`cimbus_stream_bytes{stream="CIM_EVENTS"} `, `cimbus_stream_limit_bytes{stream="CIM_EVENTS"} 5.3`, `cimbus_stream_lost_messages{stream="CIM_INDEX"} 0`, "cimbus_disk_free_bytes ", "process_start_time_seconds ",
	} {
		require.Contains(t, body, want)
	}
}

func TestADaemonThatCannotStartSaysWhatWhereAndWhy(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	running := serve(t)
	file := write(t, "file", "")
	for name, c := range map[string]struct {
		args      []string
		complaint []string
	}{
		"a taken NATS port":      {[]string{"--nats-addr", taken.Addr().String()}, []string{"address is in use", taken.Addr().String(), "stop the program", "--nats-addr"}},
		"a taken WebSocket port": {[]string{"--websocket-addr", taken.Addr().String()}, []string{"address is in use", taken.Addr().String(), "--websocket-addr"}},
		"a taken HTTP port":      {[]string{"--http-addr", taken.Addr().String()}, []string{"address already in use", taken.Addr().String(), "choose another port with --http-addr"}},
		"a store in use":         {[]string{"--store", running.Store}, []string{"store folder is in use by another server: " + running.Store, "stop the other process", "--store"}},
		"a store that is a file": {[]string{"--store", file}, []string{file, "not a directory"}},
		"an unreachable server":  {[]string{"--nats-url", "nats://ann:secret@127.0.0.1:1"}, []string{"no NATS server reachable at nats://127.0.0.1:1: check the address"}},
		"a missing config file":  {[]string{"--config", "/no/such.yaml"}, []string{"/no/such.yaml", "cannot be read"}},
		"an unknown key":         {[]string{"--config", write(t, "c.yaml", "stoar: x\n")}, []string{"stoar", "is not a setting; did you mean store?"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"serve", "--store", t.TempDir(), "--nats-addr", "", "--websocket-addr", "", "--http-addr", ""}, c.args...)
			got := invoke(t, "", args...)
			require.Equal(t, exitFailed, got.code)
			require.Empty(t, got.stdout)
			complaint := lastLine(got.stderr)
			require.True(t, strings.HasPrefix(complaint, "cimbus serve: "), got.stderr)
			for _, want := range c.complaint {
				require.Contains(t, complaint, want)
			}
			require.NotContains(t, got.stderr, "secret")
		})
	}
}

func lastLine(text string) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return all[len(all)-1]
}

func TestADaemonGoesOnWhereTheLastOneEnded(t *testing.T) {
	store := t.TempDir()
	first := serve(t, "--store", store)
	first.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann")
	position := first.receive(t, "0", 1)[0].Position
	first.interrupt()
	require.Zero(t, first.wait(), first.stderr.String())

	second := serve(t, "--store", store)
	second.do(t, message("1"), "publish", "--tenant", "acme")
	require.Equal(t, uint64(2), *second.receive(t, position, 1)[0].Sequence)
}

func TestALimitOfEventsInWorkBelowTheWindowIsHeeded(t *testing.T) {
	file := write(t, "c.yaml", "workers: {max_ack_pending: 16}\n")
	d := serve(t, "--config", file)
	d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", "c1", "--agent", "ann")
	d.receive(t, "0", 1)
	nc, err := nats.Connect(d.NATS)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	consumers := stream.ListConsumers(t.Context())
	var limits []int
	for c := range consumers.Info() {
		limits = append(limits, c.Config.MaxAckPending)
	}
	require.NoError(t, consumers.Err())
	require.Equal(t, []int{16}, limits)
}
