package bus_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
)

// strictBus is a bus whose server syncs every message before it acknowledges it, reached over the network.
func strictBus(b *testing.B) *bus.Bus {
	b.Helper()
	s := bustest.Server(b, listening, func(o *embedded.Options) { o.Durability = embedded.Strict })
	nc, err := nats.Connect(s.NATSURL())
	require.NoError(b, err)
	b.Cleanup(nc.Close)
	return openOn(b, nc, bus.StreamOptions{})
}

// BenchmarkPublishStrict publishes a fixed number of events of 6 KB, each synced on its own, in turn by nats.go alone and by a
// Publisher, until the last one is acknowledged; "ratio" is how much of plain nats.go's rate the Publisher reaches. Both sides have the
// same stream on the same kind of server, and the same number of synced writes.
func BenchmarkPublishStrict(b *testing.B) {
	const events = 3000
	all := strictEvents(events)
	var plain, ours time.Duration
	for b.Loop() {
		plain += strictPlain(b, all)
		ours += strictOurs(b, all)
	}
	n := float64(events * b.N)
	b.ReportMetric(n/plain.Seconds(), "plain/s")
	b.ReportMetric(n/ours.Seconds(), "bus/s")
	b.ReportMetric(plain.Seconds()/ours.Seconds(), "ratio")
}

func strictEvents(n int) []bus.Event {
	events := make([]bus.Event, n)
	for i := range events {
		conversation, id := "c"+strconv.Itoa(i%benchConversations), "e"+strconv.Itoa(i)
		events[i] = bus.Event{Tenant: "acme", Channel: "WEB", Name: "CUSTOMER_MESSAGE", Conversation: conversation, ID: id, Body: benchBody(id, conversation)}
	}
	return events
}

func strictPlain(b *testing.B, events []bus.Event) time.Duration {
	b.Helper()
	target := strictBus(b)
	js, err := jetstream.New(target.Conn(), jetstream.WithPublishAsyncMaxPending(4096))
	require.NoError(b, err)
	began := time.Now()
	for _, e := range events {
		_, err := js.PublishMsgAsync(plainMessage(e), jetstream.WithStallWait(time.Minute))
		require.NoError(b, err)
	}
	<-js.PublishAsyncComplete()
	took := time.Since(began)
	stored(b, target, len(events))
	return took
}

func strictOurs(b *testing.B, events []bus.Event) time.Duration {
	b.Helper()
	target := strictBus(b)
	p, err := target.NewPublisher(bus.PublisherOptions{})
	require.NoError(b, err)
	began := time.Now()
	for _, e := range events {
		_, err := p.Publish(b.Context(), e)
		require.NoError(b, err)
	}
	require.NoError(b, p.Close(b.Context()))
	took := time.Since(began)
	stored(b, target, len(events))
	return took
}

// stored makes sure that a measurement did what it was measured for.
func stored(b *testing.B, target *bus.Bus, n int) {
	b.Helper()
	streams, err := target.Streams(b.Context())
	require.NoError(b, err)
	require.EqualValues(b, n, streams[0].Messages)
}
