package bus_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// scannedEvents is more than the requests under way can bring: what happens in mid-scan happens to a scan that has to ask again.
const scannedEvents = 12_000

// scanMany stores n events.
func scanMany(t testing.TB, b *bus.Bus, n, size int) {
	t.Helper()
	js, err := jetstream.New(b.Conn(), jetstream.WithPublishAsyncMaxPending(1024))
	require.NoError(t, err)
	body := make([]byte, size)
	for range n {
		_, err := js.PublishMsgAsync(&nats.Msg{Subject: "cim.acme.web.X", Data: body}, jetstream.WithStallWait(time.Minute))
		require.NoError(t, err)
	}
	<-js.PublishAsyncComplete()
	s, err := js.Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	require.Equal(t, uint64(n), s.CachedInfo().State.LastSeq)
}

// scanThrough reads a stream from end to end, and does what is given where it says, at a sequence.
func scanThrough(t *testing.T, b *bus.Bus, s bus.Scan, n uint64, at map[uint64]func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	next := uint64(1)
	for m, err := range b.Scan(ctx, s) {
		require.NoError(t, err, "behind %d", next-1)
		require.Equal(t, next, m.Sequence)
		if do := at[next]; do != nil {
			do()
		}
		if next++; s.Follow && next > n {
			break
		}
	}
	require.Equal(t, n+1, next)
}

// scanConsumers are the names of the consumers that scans have.
func scanConsumers(t testing.TB, b *bus.Bus, stream string) []string {
	t.Helper()
	s, err := b.JetStream().Stream(t.Context(), stream)
	require.NoError(t, err)
	var names []string
	list := s.ConsumerNames(t.Context())
	for name := range list.Name() {
		if strings.HasPrefix(name, "cimbus-scan-") {
			names = append(names, name)
		}
	}
	require.NoError(t, list.Err())
	return names
}

func TestAScanMissesAndRepeatsNothingWhenItsConsumerIsDeleted(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	scanMany(t, r.bus, scannedEvents, 100)
	deleteIt := func() {
		for _, name := range scanConsumers(t, r.bus, bus.StreamEvents) {
			require.NoError(t, r.js.DeleteConsumer(t.Context(), bus.StreamEvents, name))
		}
	}
	scanThrough(t, r.bus, bus.Scan{Stream: bus.StreamEvents}, scannedEvents, map[uint64]func(){1: deleteIt, 5000: deleteIt, scannedEvents - 1: deleteIt})
	require.Empty(t, scanConsumers(t, r.bus, bus.StreamEvents), "none is left behind")
}

func TestAScanMissesAndRepeatsNothingWhenItsConnectionIsCut(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{}, listening)
	scanMany(t, r.bus, scannedEvents, 2000)
	proxy := bustest.NewProxy(t, r.server.NATSURL())
	b := openOn(t, r.dial(proxy.URL(), "bus"), bus.StreamOptions{})
	cut := func() { proxy.Cut() }
	scanThrough(t, b, bus.Scan{Stream: bus.StreamEvents}, scannedEvents, map[uint64]func(){1: cut, 3000: cut, 3001: cut, 9000: cut, scannedEvents: cut})
}

func TestAScanGoesOnWhereItWasWhenTheServerIsKilledAndComesBack(t *testing.T) {
	server := bustest.Process(t)
	nc, err := nats.Connect(server.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	b := openOn(t, nc, bus.StreamOptions{})
	scanMany(t, b, scannedEvents, 100)
	again := func() {
		server.Kill()
		server.Restart()
	}
	scanThrough(t, b, bus.Scan{Stream: bus.StreamEvents}, scannedEvents, map[uint64]func(){4000: again})
}

func TestAScanOfAClusterMissesAndRepeatsNothingWhenLeadersStepDownAndANodeEnds(t *testing.T) {
	nodes := bustest.Cluster(t, 3)
	nc, err := nodes.Connect(nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	b := openOn(t, nc, bus.StreamOptions{})
	scanMany(t, b, scannedEvents, 100)
	stepDown := func() {
		bustest.Eventually(t, time.Minute, func() error {
			_, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+bus.StreamEvents, nil, time.Second)
			return err
		})
	}
	end := func() {
		names := scanConsumers(t, b, bus.StreamEvents)
		require.Len(t, names, 1)
		node := nodes.ConsumerLeader(bus.StreamEvents, names[0])
		require.NotEqual(t, -1, node)
		nodes.Stop(node)
	}
	scanThrough(t, b, bus.Scan{Stream: bus.StreamEvents}, scannedEvents, map[uint64]func(){1000: stepDown, 5000: end, 9000: stepDown})
}

func TestAFollowingScanGetsWhatComesLaterThroughCutsAndDeletions(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{}, listening)
	proxy := bustest.NewProxy(t, r.server.NATSURL())
	b := openOn(t, r.dial(proxy.URL(), "bus"), bus.StreamOptions{})
	const n = 300
	r.event("c", "e1")
	at := map[uint64]func(){}
	for i := uint64(1); i < n; i++ {
		at[i] = func() {
			switch i {
			case 50, 51:
				proxy.Cut()
			case 100:
				for _, name := range scanConsumers(t, r.bus, bus.StreamEvents) {
					require.NoError(t, r.js.DeleteConsumer(t.Context(), bus.StreamEvents, name))
				}
			}
			r.event("c", fmt.Sprintf("e%d", i+1))
		}
	}
	scanThrough(t, b, bus.Scan{Stream: bus.StreamEvents, Follow: true}, n, at)
}

func TestAScanThatIsNotReadTakesNoMoreThanItAskedFor(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{}, listening)
	const size, n = 4 << 10, 12_000 // 48 MiB, six requests
	scanMany(t, r.bus, n, size)
	nc := r.dial(r.server.NATSURL(), "bus")
	b := openOn(t, nc, bus.StreamOptions{})
	before, read := nc.Stats().InBytes, uint64(0)
	for m, err := range b.Scan(t.Context(), bus.Scan{Stream: bus.StreamEvents}) {
		require.NoError(t, err)
		read += uint64(len(m.Data))
		if m.Sequence%200 == 0 {
			require.NoError(t, nc.Flush(), "what the server has on its way is here now")
		}
		waiting := nc.Stats().InBytes - before
		require.Less(t, waiting-min(read, waiting), uint64(3*8<<20), "two requests of 8 MiB, and what is around them")
	}
	require.Equal(t, uint64(n*size), read)
}

func TestAScanOfAStreamThatWasMadeAnewEndsWithAnError(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	scanMany(t, r.bus, scannedEvents, 10)
	stream, err := r.js.Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	config := stream.CachedInfo().Config
	read := 0
	var last error
	for _, err := range r.bus.Scan(r.within(time.Minute), bus.Scan{Stream: bus.StreamEvents}) {
		if last = err; err != nil {
			break
		}
		if read++; read == 100 {
			require.NoError(t, r.js.DeleteStream(t.Context(), bus.StreamEvents))
			_, err := r.js.CreateStream(t.Context(), config)
			require.NoError(t, err)
			scanMany(t, r.bus, scannedEvents, 10)
		}
	}
	require.ErrorContains(t, last, "scan of stream CIM_EVENTS: it was deleted and made anew meanwhile")
}

func TestAScanEndsWithItsContext(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	scanMany(t, r.bus, 10, 10)
	for _, follow := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		var last error
		for _, err := range r.bus.Scan(ctx, bus.Scan{Stream: bus.StreamEvents, Follow: follow}) {
			last = err
			cancel()
		}
		if follow {
			require.ErrorIs(t, last, context.Canceled)
		}
		cancel()
	}
	require.Empty(t, scanConsumers(t, r.bus, bus.StreamEvents))
}

func TestAScanEndsWithItsContextThoughMoreHasComeAlready(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	scanMany(t, r.bus, 1000, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, failed := 0, error(nil)
	for m, err := range r.bus.Scan(ctx, bus.Scan{Stream: bus.StreamEvents}) {
		if failed = err; err != nil {
			break
		}
		if read++; m.Sequence == 1 {
			// All that was asked for has come once the consumer has nothing left to send.
			bustest.Eventually(t, 20*time.Second, func() error {
				for _, name := range scanConsumers(t, r.bus, bus.StreamEvents) {
					c, err := r.js.Consumer(t.Context(), bus.StreamEvents, name)
					if err != nil || c.CachedInfo().NumPending > 0 {
						return fmt.Errorf("consumer %s is not done: %w", name, err)
					}
				}
				return nil
			})
			require.NoError(t, r.bus.Conn().Flush())
			cancel()
		}
	}
	require.ErrorIs(t, failed, context.Canceled)
	require.Equal(t, 1, read, "what was read ahead is of no use any more")
}

func TestSingleMessagesAreReadInTheOrderGivenAndWhatIsGoneIsLeftOut(t *testing.T) {
	r := newRoad(t, bus.StreamOptions{})
	scanMany(t, r.bus, 100, 10)
	stream, err := r.js.Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	for s := uint64(40); s < 60; s++ {
		require.NoError(t, stream.DeleteMsg(t.Context(), s))
	}
	var asked, want []uint64
	for i := range uint64(130) {
		s := (i*37)%130 + 1
		asked = append(asked, s)
		if s <= 100 && (s < 40 || s >= 60) {
			want = append(want, s)
		}
	}
	got := func(ctx context.Context, most int) (sequences []uint64, failed error) {
		for m, err := range r.bus.MessagesAt(ctx, bus.StreamEvents, slices.Values(asked)) {
			if err != nil {
				return sequences, err
			}
			if sequences = append(sequences, m.Sequence); len(sequences) == most {
				break
			}
		}
		return sequences, nil
	}
	all, err := got(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, want, all)
	some, err := got(t.Context(), 5)
	require.NoError(t, err)
	require.Equal(t, want[:5], some, "breaking off is fine")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = got(ended, 0)
	require.ErrorIs(t, err, context.Canceled)
}
