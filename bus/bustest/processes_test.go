//go:build unix

package bustest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus/bustest"
)

func TestNodeThatIsCutOffStoresNothingWhileTheOthersGoOnAndItCatchesUp(t *testing.T) {
	c := bustest.Processes(t, 3)
	require.Equal(t, 3, c.Len())
	nodes := make([]jetstream.JetStream, c.Len())
	for i := range nodes {
		nc, err := nats.Connect(c.Node(i).URL(), nats.IgnoreDiscoveredServers(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
		nodes[i] = streams(t, nc, err)
	}
	bustest.Eventually(t, 30*time.Second, func() error {
		_, err := nodes[0].CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
		return err
	})
	published := 0
	publish := func(node int) {
		t.Helper()
		bustest.Eventually(t, 30*time.Second, func() error {
			_, err := nodes[node].Publish(t.Context(), "s", nil, jetstream.WithMsgID(fmt.Sprint(published)))
			return err
		})
		published++
	}
	for _, fault := range []struct {
		begin, end func(node int)
		reachable  bool
	}{
		{c.CutOff, c.Rejoin, true},
		{func(i int) { c.Node(i).Freeze() }, func(i int) { c.Node(i).Thaw() }, false},
		{func(i int) { c.Node(i).Kill() }, func(i int) { c.Node(i).Restart() }, false},
	} {
		const out, other = 1, 2
		publish(out)
		fault.begin(out)
		publish(other)
		if fault.reachable {
			_, err := nodes[out].Publish(t.Context(), "s", nil, jetstream.WithMsgID("never"), jetstream.WithRetryAttempts(0))
			require.Error(t, err)
		}
		fault.end(out)
		publish(out)
	}
	c.WaitCurrent()
	for _, js := range nodes {
		stream, err := js.Stream(t.Context(), "S")
		require.NoError(t, err)
		require.EqualValues(t, published, stream.CachedInfo().State.LastSeq)
	}
}
