package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheEchoPrintsItsAddressServesBothPathsAndEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, to := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"--addr", "127.0.0.1:0"}, to, io.Discard) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{}}
	for path, status := range map[string]int{"/engine.io/": 200, "/socket.io/": 200, "/other/": 404} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+line[:len(line)-1]+path+"?EIO=4&transport=polling", http.NoBody)
		require.NoError(t, err)
		response, err := client.Do(r)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, status, response.StatusCode)
		if status == http.StatusOK {
			require.Contains(t, string(body), `"pingInterval":300,"pingTimeout":200,"maxPayload":1000000}`)
		}
	}
	client.CloseIdleConnections()
	cancel()
	require.NoError(t, <-ended)
}

func TestABadFlagIsReported(t *testing.T) {
	require.Error(t, run(t.Context(), []string{"--nonsense"}, io.Discard, io.Discard))
	require.NoError(t, run(t.Context(), []string{"--help"}, io.Discard, io.Discard))
	require.Error(t, run(t.Context(), []string{"--addr", "nowhere"}, io.Discard, io.Discard))
}
