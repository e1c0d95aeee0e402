package embedded_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
)

const free = "127.0.0.1:0"

func TestWithoutAddressesNothingListens(t *testing.T) {
	s := start(t, embedded.Options{})
	require.Empty(t, s.NATSURL())
	require.Empty(t, s.WebSocketURL())
	require.Nil(t, s.Server().Addr())

	js := connect(t, s)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), "s", nil)
	require.NoError(t, err)
}

func TestFreePortsAreReadBack(t *testing.T) {
	s := start(t, embedded.Options{NATSAddr: free, WebSocketAddr: free})
	for _, url := range []string{s.NATSURL(), s.WebSocketURL()} {
		require.NotContains(t, url, ":0")
		nc, err := nats.Connect(url)
		require.NoError(t, err, url)
		require.NoError(t, nc.Flush())
		nc.Close()
	}
}

func TestWebSocketListensWithoutNATS(t *testing.T) {
	s := start(t, embedded.Options{WebSocketAddr: free})
	require.Empty(t, s.NATSURL())
	nc, err := nats.Connect(s.WebSocketURL())
	require.NoError(t, err)
	nc.Close()
}

func TestTakenAddressIsNamed(t *testing.T) {
	other, err := net.Listen("tcp", free)
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	taken := other.Addr().String()
	port := other.Addr().(*net.TCPAddr).Port

	for name, o := range map[string]embedded.Options{
		"NATSAddr":      {NATSAddr: taken},
		"WebSocketAddr": {WebSocketAddr: taken},
		"Cluster.Addr":  {NATSAddr: free, Cluster: &embedded.Cluster{Name: "c", Addr: taken}},
		// Taken between our look and the server's: the server only logs it.
		"server: Error listening on port": {NATSAddr: free, Configure: func(so *server.Options) { so.Port = port }},
		"server: Unable to listen for websocket": {WebSocketAddr: free, Configure: func(so *server.Options) {
			so.Websocket.Port = port
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o.StoreDir = t.TempDir()
			_, err := embedded.Start(context.Background(), o)
			require.ErrorIs(t, err, embedded.ErrAddressInUse)
			require.ErrorContains(t, err, name)
			require.ErrorContains(t, err, taken)
			require.ErrorContains(t, err, "choose another port")

			again := start(t, embedded.Options{StoreDir: o.StoreDir})
			require.False(t, again.Unclean(), "the start that failed left the store in use or unclean")
		})
	}
}

func TestDurabilityDecidesWhenTheServerSyncs(t *testing.T) {
	for d, want := range map[embedded.Durability]struct {
		stated   embedded.Durability
		always   bool
		interval time.Duration
	}{
		"":                {embedded.Strict, true, 2 * time.Minute},
		embedded.Strict:   {embedded.Strict, true, 2 * time.Minute},
		embedded.Balanced: {embedded.Balanced, false, time.Second},
	} {
		t.Run(string(d), func(t *testing.T) {
			s := start(t, embedded.Options{Durability: d})
			require.Equal(t, want.stated, s.Durability())
			js := s.Server().JetStreamConfig()
			require.Equal(t, want.always, js.SyncAlways)
			require.Equal(t, want.interval, js.SyncInterval)
		})
	}
}

func TestLimitsAreTheServersLimits(t *testing.T) {
	const kib = 1 << 10
	s := start(t, embedded.Options{MaxPayload: 8 * kib, MaxStore: 64 * kib, MaxMemory: 32 * kib})
	js := connect(t, s)
	require.EqualValues(t, 8*kib, js.Conn().MaxPayload())
	require.ErrorIs(t, js.Conn().Publish("s", make([]byte, 8*kib+1)), nats.ErrMaxPayload)

	for storage, limit := range map[jetstream.StorageType]int64{jetstream.FileStorage: 64 * kib, jetstream.MemoryStorage: 32 * kib} {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: storage.String(), Storage: storage, MaxBytes: limit + 1})
		require.ErrorContains(t, err, "insufficient", storage)
		_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: storage.String(), Storage: storage, MaxBytes: limit})
		require.NoError(t, err, storage)
	}
}

func TestAStreamCarriesMoreThanAThousandConsumers(t *testing.T) {
	js := connect(t, start(t, embedded.Options{}))
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	for range server.JSDefaultMaxConsumersPerStream + 1 {
		_, err := stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{MemoryStorage: true, InactiveThreshold: time.Minute})
		require.NoError(t, err)
	}
}

func TestLargestPayloadTravelsOverEveryTransport(t *testing.T) {
	s := start(t, embedded.Options{NATSAddr: free, WebSocketAddr: free})
	inProcess, err := s.Connect()
	require.NoError(t, err)
	defer inProcess.Close()
	payload := bytes.Repeat([]byte{'x'}, embedded.DefaultMaxPayload)

	for _, url := range []string{s.NATSURL(), s.WebSocketURL()} {
		nc, err := nats.Connect(url)
		require.NoError(t, err)
		defer nc.Close()
		require.EqualValues(t, embedded.DefaultMaxPayload, nc.MaxPayload())
		sub, err := nc.SubscribeSync("up")
		require.NoError(t, err)
		back, err := inProcess.SubscribeSync("up")
		require.NoError(t, err)
		require.NoError(t, inProcess.Flush())
		require.NoError(t, nc.Publish("up", payload))
		for _, sub := range []*nats.Subscription{sub, back} {
			m, err := sub.NextMsg(10 * time.Second)
			require.NoError(t, err, url)
			require.Len(t, m.Data, len(payload), url)
		}
	}
}

func TestWebSocketAdmitsOnlyItsOrigins(t *testing.T) {
	upgrade := func(t *testing.T, s *embedded.Server, origin string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http"+s.WebSocketURL()[len("ws"):], http.NoBody)
		require.NoError(t, err)
		for k, v := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Origin": origin,
			"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
		} {
			if v != "" {
				r.Header.Set(k, v)
			}
		}
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Do(r)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode
	}
	const desk, stranger = "https://desk.example.com", "https://stranger.example.com"

	same := start(t, embedded.Options{WebSocketAddr: free})
	listed := start(t, embedded.Options{WebSocketAddr: free, WebSocketOrigins: []string{desk}})
	for _, c := range []struct {
		name, origin string
		server       *embedded.Server
		want         int
	}{
		{"no browser", "", same, http.StatusSwitchingProtocols},
		{"own page", "http" + same.WebSocketURL()[len("ws"):], same, http.StatusSwitchingProtocols},
		{"any page", desk, same, http.StatusForbidden},
		{"no browser, list", "", listed, http.StatusSwitchingProtocols},
		{"listed page", desk, listed, http.StatusSwitchingProtocols},
		{"unlisted page", stranger, listed, http.StatusForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, upgrade(t, c.server, c.origin))
		})
	}
}

func TestStartThatIsLateOrCalledOffLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	_, err := embedded.Start(context.Background(), embedded.Options{StoreDir: dir, ReadyTimeout: time.Nanosecond})
	require.ErrorIs(t, err, embedded.ErrNotReady)
	require.ErrorContains(t, err, "ReadyTimeout")

	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = embedded.Start(canceled, embedded.Options{StoreDir: dir})
	require.ErrorIs(t, err, embedded.ErrNotReady)
	require.ErrorIs(t, err, context.Canceled)

	require.False(t, start(t, embedded.Options{StoreDir: dir}).Unclean())
}

func TestShutdownIsWaitedForByEveryCaller(t *testing.T) {
	s := start(t, embedded.Options{NATSAddr: free, WebSocketAddr: free})
	nc, err := nats.Connect(s.NATSURL())
	require.NoError(t, err)
	defer nc.Close()

	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ended); err != nil {
		require.ErrorIs(t, err, context.Canceled)
	}
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() { require.NoError(t, s.Shutdown(context.Background())) })
	}
	calls.Wait()
	require.False(t, s.Server().Running())
	require.NoError(t, s.Err(), "a shutdown is no failure")
	start(t, embedded.Options{StoreDir: s.StoreDir()})
}

func TestServerThatStopsByItselfIsToldByFailed(t *testing.T) {
	s := start(t, embedded.Options{})
	select {
	case <-s.Failed():
		require.Fail(t, "failed from the start")
	default:
	}
	require.NoError(t, s.Err())
	s.Server().Shutdown()
	requireFailed(t, s)
}

func TestServerWithoutJetStreamHasNotFailed(t *testing.T) {
	s := start(t, embedded.Options{Configure: func(so *server.Options) { so.JetStream = false }})
	_, err := connect(t, s).AccountInfo(t.Context())
	require.ErrorIs(t, err, jetstream.ErrJetStreamNotEnabled)
	require.NoError(t, s.Err())
}

func TestServersLogGoesToTheLoggerWithoutPayloads(t *testing.T) {
	const secret = "not-for-the-log"
	var log bustest.Buffer
	s := start(t, embedded.Options{NATSAddr: free, Logger: hclog.New(&hclog.LoggerOptions{
		Output: &log, Level: hclog.Trace,
	})})
	nc, err := nats.Connect(s.NATSURL())
	require.NoError(t, err)
	defer nc.Close()
	require.NoError(t, nc.Publish("s", []byte(secret)))
	require.NoError(t, nc.Flush())
	shutdown(t, s)

	require.Contains(t, log.String(), "[DEBUG] Server is ready")
	require.Contains(t, log.String(), "[TRACE]")
	require.NotContains(t, log.String(), secret)
}
