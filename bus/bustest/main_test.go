package bustest_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// streams opens JetStream on a connection that is closed with the test.
func streams(t *testing.T, nc *nats.Conn, err error) jetstream.JetStream {
	t.Helper()
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(20*time.Second))
	require.NoError(t, err)
	return js
}
