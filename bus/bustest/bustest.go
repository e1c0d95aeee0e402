// Package bustest has what tests of a bus need: servers to run against (one
// in the process, a cluster of several, one in a process of its own, a proxy
// that cuts connections), and the accounting checker, which says of a bus that
// has been through anything whether it kept its promise.
//
// Everything started here ends with its test.
package bustest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/embedded"
)

// shutdownTimeout bounds the end of a test, not what it shows.
const shutdownTimeout = 30 * time.Second

// Server starts a server in the process, on a folder of its own: balanced,
// without listeners. The options have the last word.
func Server(t testing.TB, opts ...func(*embedded.Options)) *embedded.Server {
	t.Helper()
	o := embedded.Options{StoreDir: t.TempDir(), Durability: embedded.Balanced}
	for _, opt := range opts {
		opt(&o)
	}
	s, err := embedded.Start(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { shutdown(t, s) })
	return s
}

func shutdown(t testing.TB, s *embedded.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	require.NoError(t, s.Shutdown(ctx))
}

// Eventually calls check every few milliseconds until it returns nil; after
// timeout it fails the test with check's last error.
func Eventually(t testing.TB, timeout time.Duration, check func() error) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			require.FailNow(t, "not in time", "after %s still: %v", timeout, err)
		case <-poll.C:
		}
	}
}
