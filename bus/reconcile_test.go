package bus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
)

const patience = 30 * time.Second

// listening has an in-process server listen on a free port.
func listening(o *embedded.Options) { o.NATSAddr = "127.0.0.1:0" }

func testConn(t testing.TB, s *embedded.Server) *nats.Conn {
	t.Helper()
	nc, err := s.Connect()
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// testBus opens a bus on a server of its own.
func testBus(t testing.TB, o bus.StreamOptions) *bus.Bus {
	t.Helper()
	return openOn(t, testConn(t, bustest.Server(t)), o)
}

func openOn(t testing.TB, nc *nats.Conn, o bus.StreamOptions) *bus.Bus {
	t.Helper()
	b, err := tryOpen(t, bus.Options{Conn: nc, Streams: o})
	require.NoError(t, err)
	return b
}

func tryOpen(t testing.TB, o bus.Options) (*bus.Bus, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b, err := bus.Open(ctx, o)
	if err == nil {
		t.Cleanup(func() { require.NoError(t, b.Close(context.WithoutCancel(t.Context()))) })
	}
	return b, err
}

func streamConfig(t testing.TB, b *bus.Bus, name string) jetstream.StreamConfig {
	t.Helper()
	s, err := b.JetStream().Stream(t.Context(), name)
	require.NoError(t, err)
	return s.CachedInfo().Config
}

func TestOpenCreatesEveryDeclaredStreamAsDesigned(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})

	events := streamConfig(t, b, bus.StreamEvents)
	require.Equal(t, []string{"cim.*.*.*"}, events.Subjects)
	require.Equal(t, jetstream.DiscardNew, events.Discard)
	require.Equal(t, 7*24*time.Hour, events.MaxAge)
	require.Equal(t, 10*time.Minute, events.Duplicates)
	require.EqualValues(t, 1<<20+4<<10, events.MaxMsgSize)
	require.Equal(t, jetstream.FileStorage, events.Storage)
	require.Nil(t, events.RePublish)

	deliveries := streamConfig(t, b, bus.StreamDeliveries)
	require.Equal(t, 72*time.Hour, deliveries.MaxAge)
	require.Equal(t, jetstream.DiscardOld, deliveries.Discard)
	require.EqualValues(t, 10_000, deliveries.MaxMsgsPerSubject)
	require.Equal(t, &jetstream.RePublish{Source: "cim-agent.>", Destination: "cim-live.>"}, deliveries.RePublish)

	require.Equal(t, 7*24*time.Hour, streamConfig(t, b, bus.StreamIndex).MaxAge)
	require.Equal(t, 30*24*time.Hour, streamConfig(t, b, bus.StreamDeadLetters).MaxAge)
	require.Equal(t, 30*24*time.Hour, streamConfig(t, b, bus.StreamConversations).MaxAge)
	require.Zero(t, streamConfig(t, b, bus.StreamMembers).MaxAge)
	for _, name := range []string{bus.StreamEvents, bus.StreamDeliveries, bus.StreamIndex, bus.StreamDeadLetters, bus.StreamReplays, bus.StreamMembers, bus.StreamConversations} {
		c := streamConfig(t, b, name)
		require.True(t, c.AllowDirect, name)
		require.Equal(t, jetstream.NoCompression, c.Compression, name)
		require.Equal(t, 1, c.Replicas, name)
		require.Positive(t, c.MaxConsumers, name)
	}
}

func TestBucketsOpenAsKeyValueAndTakeATTLPerMessage(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	for _, bucket := range []string{bus.BucketMembers, bus.BucketConversations} {
		kv, err := b.JetStream().KeyValue(t.Context(), bucket)
		require.NoError(t, err)
		_, err = kv.Put(t.Context(), "acme.ada.c1", []byte("1"))
		require.NoError(t, err)
		rev, err := kv.Put(t.Context(), "acme.ada.c1", []byte("2"))
		require.NoError(t, err)
		got, err := kv.Get(t.Context(), "acme.ada.c1")
		require.NoError(t, err)
		require.Equal(t, rev, got.Revision())
		_, err = b.JetStream().Publish(t.Context(), "$KV."+bucket+".acme.bob.c1", []byte("x"), jetstream.WithMsgTTL(time.Second))
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			_, err := kv.Get(t.Context(), "acme.bob.c1")
			return err != nil
		}, patience, 50*time.Millisecond, "a record with a TTL goes")
		_, err = kv.Get(t.Context(), "acme.ada.c1")
		require.NoError(t, err, "a record without one stays")
	}
}

func TestOpeningAgainChangesNothing(t *testing.T) {
	nc := testConn(t, bustest.Server(t))
	openOn(t, nc, bus.StreamOptions{})
	var log bytes.Buffer
	b, err := tryOpen(t, bus.Options{Conn: nc, Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Info})})
	require.NoError(t, err)
	plan, err := b.PlanStreams(t.Context())
	require.NoError(t, err)
	require.False(t, plan.Changes(), plan.String())
	require.Empty(t, log.String())
}

func TestBudgetsAreSharesOfTheStoreOfTheServerInThisProcess(t *testing.T) {
	b, err := tryOpen(t, bus.Options{Embedded: embedded.Options{StoreDir: t.TempDir(), MaxStore: 1000 << 20, Durability: embedded.Balanced}})
	require.NoError(t, err)
	total := int64(0)
	for name, share := range map[string]int64{
		bus.StreamEvents: 50, bus.StreamDeliveries: 35, bus.StreamIndex: 5, bus.StreamDeadLetters: 5,
		bus.StreamReplays: 1, bus.StreamMembers: 2, bus.StreamConversations: 2,
	} {
		got := streamConfig(t, b, name).MaxBytes
		require.Equal(t, 10<<20*share, got, name)
		total += got
	}
	require.EqualValues(t, 1000<<20, total)
}

func TestAnUnlimitedAccountMeansNoByteLimits(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	require.EqualValues(t, -1, streamConfig(t, b, bus.StreamEvents).MaxBytes)
}

func TestEventsAreHalfOfAServersPayloadLimitAtMost(t *testing.T) {
	s := bustest.Server(t, func(o *embedded.Options) { o.MaxPayload = 1 << 20 })
	b := openOn(t, testConn(t, s), bus.StreamOptions{})
	require.EqualValues(t, (1<<20-16<<10)/2, streamConfig(t, b, bus.StreamEvents).MaxMsgSize)
}

func TestTheDuplicateWindowCanBeSetToNearlyNothing(t *testing.T) {
	for _, window := range []time.Duration{time.Nanosecond, -1} {
		b := testBus(t, bus.StreamOptions{DuplicateWindow: window})
		require.Equal(t, bus.MinDuplicateWindow, streamConfig(t, b, bus.StreamEvents).Duplicates)
	}
}

func TestHarmlessDifferencesAreAppliedAndLoggedOneLineEach(t *testing.T) {
	nc := testConn(t, bustest.Server(t))
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: bus.StreamDeliveries, Subjects: []string{"cim-agent.acme.>"}, MaxAge: time.Hour,
		Metadata: map[string]string{"owner": "operations"},
	})
	require.NoError(t, err)
	var log bytes.Buffer
	b, err := tryOpen(t, bus.Options{Conn: nc, Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Info})})
	require.NoError(t, err)
	c := streamConfig(t, b, bus.StreamDeliveries)
	require.Equal(t, []string{"cim-agent.>"}, c.Subjects)
	require.Equal(t, 72*time.Hour, c.MaxAge)
	require.NotNil(t, c.RePublish)
	require.Equal(t, "operations", c.Metadata["owner"], "what is not declared stays")
	for _, field := range []string{"subjects", "max age", "republish", "direct reads"} {
		require.Equal(t, 1, strings.Count(log.String(), "field="+quoted(field)), "%s in %s", field, log.String())
	}
}

func quoted(s string) string {
	if strings.Contains(s, " ") {
		return `"` + s + `"`
	}
	return s
}

func TestDestructiveDifferencesAreRefusedUntilForced(t *testing.T) {
	nc := testConn(t, bustest.Server(t))
	first := openOn(t, nc, bus.StreamOptions{})
	for range 20 {
		_, err := first.JetStream().Publish(t.Context(), "cim-agent.acme.ada.onCimEvent.c1", bytes.Repeat([]byte("x"), 1000))
		require.NoError(t, err)
	}
	tests := map[string]struct {
		options bus.StreamOptions
		names   string
	}{
		"fewer per subject than one holds": {bus.StreamOptions{DeliveriesPerSubject: 5}, "a subject holds 20 messages"},
		"fewer bytes than are stored":      {bus.StreamOptions{MaxBytes: 20_000}, "the oldest would be deleted"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := streamConfig(t, first, bus.StreamDeliveries)
			_, err := tryOpen(t, bus.Options{Conn: nc, Streams: test.options})
			var refused *bus.PlanError
			require.ErrorAs(t, err, &refused)
			require.ErrorContains(t, err, bus.StreamDeliveries)
			require.ErrorContains(t, err, test.names)
			require.ErrorContains(t, err, "cimbus streams apply --force")
			require.Equal(t, before, streamConfig(t, first, bus.StreamDeliveries), "nothing was changed")
		})
	}

	b, err := tryOpen(t, bus.Options{Conn: nc, Streams: bus.StreamOptions{DeliveriesPerSubject: 5}, LeaveStreams: true})
	require.NoError(t, err)
	plan, err := b.PlanStreams(t.Context())
	require.NoError(t, err)
	require.Len(t, plan.Refused(), 1)
	require.NoError(t, b.ApplyStreams(t.Context(), plan, true))
	require.EqualValues(t, 5, streamConfig(t, b, bus.StreamDeliveries).MaxMsgsPerSubject)
	info, err := b.JetStream().Stream(t.Context(), bus.StreamDeliveries)
	require.NoError(t, err)
	require.EqualValues(t, 5, info.CachedInfo().State.Msgs)
}

func TestSmallerLimitsThatDeleteNothingAreHarmless(t *testing.T) {
	nc := testConn(t, bustest.Server(t))
	openOn(t, nc, bus.StreamOptions{})
	b := openOn(t, nc, bus.StreamOptions{MaxBytes: 1 << 30, EventsMaxAge: time.Hour, DeliveriesPerSubject: 5})
	require.Equal(t, time.Hour, streamConfig(t, b, bus.StreamEvents).MaxAge)
	require.EqualValues(t, 1<<30/100*50, streamConfig(t, b, bus.StreamEvents).MaxBytes)
}

func TestBudgetsFollowAStoreThatGrowsOrShrinks(t *testing.T) {
	dir := t.TempDir()
	open := func(store, maxBytes int64) error {
		b, err := bus.Open(t.Context(), bus.Options{
			Embedded: embedded.Options{StoreDir: dir, MaxStore: store, Durability: embedded.Balanced},
			Streams:  bus.StreamOptions{MaxBytes: maxBytes},
		})
		if err != nil {
			return err
		}
		want := store
		if maxBytes > 0 {
			want = maxBytes
		}
		require.Equal(t, want/100*50, streamConfig(t, b, bus.StreamEvents).MaxBytes)
		return b.Close(t.Context())
	}
	require.NoError(t, open(1<<30, 0))
	require.NoError(t, open(4<<30, 0), "a larger store")
	require.ErrorContains(t, open(1<<30, 0), "then lower its storage", "the server takes no change while more is reserved than it has")
	require.NoError(t, open(4<<30, 1<<30))
	require.NoError(t, open(1<<30, 0), "the remedy works")
}

func TestWhatTheServerCannotChangeIsNotOfferedToForce(t *testing.T) {
	nc := testConn(t, bustest.Server(t))
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: bus.StreamEvents, Subjects: []string{"cim.*.*.*"}, Storage: jetstream.MemoryStorage, Retention: jetstream.WorkQueuePolicy,
	})
	require.NoError(t, err)
	b, err := tryOpen(t, bus.Options{Conn: nc, LeaveStreams: true})
	require.NoError(t, err)
	plan, err := b.PlanStreams(t.Context())
	require.NoError(t, err)
	require.True(t, plan.Impossible())
	err = b.ApplyStreams(t.Context(), plan, true)
	var refused *bus.PlanError
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "storage: Memory → File")
	require.ErrorContains(t, err, "retention: WorkQueue → Limits")
	require.NotContains(t, err.Error(), "--force")
	require.Equal(t, jetstream.MemoryStorage, streamConfig(t, b, bus.StreamEvents).Storage)
	_, err = js.Stream(t.Context(), bus.StreamIndex)
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound, "nothing was created either")
}

func TestASubjectTakenByAnotherStreamIsNamedBeforeAnythingIsCreated(t *testing.T) {
	nc := testConn(t, bustest.Server(t))
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ARCHIVE", Subjects: []string{"cim.>"}})
	require.NoError(t, err)
	_, err = tryOpen(t, bus.Options{Conn: nc})
	require.ErrorContains(t, err, "ARCHIVE")
	_, err = js.Stream(t.Context(), bus.StreamDeliveries)
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}

func TestBudgetsThatDoNotFitTheStoreSayWhatToDo(t *testing.T) {
	s := bustest.Server(t, func(o *embedded.Options) { o.MaxStore = 10 << 20 })
	_, err := tryOpen(t, bus.Options{Conn: testConn(t, s), Streams: bus.StreamOptions{MaxBytes: 1 << 30}})
	require.ErrorContains(t, err, "lower the streams' max bytes")
}

func TestBadStreamOptionsAreAllReportedAtOnce(t *testing.T) {
	_, err := tryOpen(t, bus.Options{Conn: testConn(t, bustest.Server(t)), Streams: bus.StreamOptions{MaxBytes: -2, EventsMaxAge: -1, Replicas: 9, DeliveriesPerSubject: -1, MaxEventBytes: -1}})
	for _, setting := range []string{"max bytes", "events max age", "replicas", "deliveries per subject", "max event bytes"} {
		require.ErrorContains(t, err, setting)
	}
}

func TestTwoBusesMayOpenAtOnce(t *testing.T) {
	s := bustest.Server(t)
	errs := make(chan error)
	for range 4 {
		nc := testConn(t, s)
		go func() {
			b, err := bus.Open(t.Context(), bus.Options{Conn: nc})
			if err == nil {
				err = b.Close(t.Context())
			}
			errs <- err
		}()
	}
	for range 4 {
		require.NoError(t, <-errs)
	}
}

func TestStreamsTellWhatTheyHoldAndHowFarTheirConsumersAre(t *testing.T) {
	b := testBus(t, bus.StreamOptions{MaxBytes: 1 << 30})
	for i := range 5 {
		_, err := b.Publish(t.Context(), event(t, string(rune('a'+i)), "c1"))
		require.NoError(t, err)
	}
	consumer, err := b.JetStream().CreateConsumer(t.Context(), bus.StreamEvents, jetstream.ConsumerConfig{Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	fetched, err := consumer.Fetch(2)
	require.NoError(t, err)
	acked := false
	for m := range fetched.Messages() {
		if !acked {
			require.NoError(t, m.DoubleAck(t.Context()))
			acked = true
		}
	}
	require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamDeadLetters))

	streams, err := b.Streams(t.Context())
	require.NoError(t, err)
	require.Len(t, streams, 7)
	events := streams[0]
	require.Equal(t, bus.StreamEvents, events.Stream)
	require.True(t, events.Exists)
	require.EqualValues(t, 5, events.Messages)
	require.EqualValues(t, 1, events.Subjects)
	require.EqualValues(t, 1, events.FirstSequence)
	require.EqualValues(t, 5, events.LastSequence)
	require.NotNil(t, events.LastTime)
	require.EqualValues(t, 1<<30/100*50, events.MaxBytes)
	require.Len(t, events.Consumers, 1)
	worker := events.Consumers[0]
	require.Equal(t, "worker", worker.Name)
	require.True(t, worker.Durable)
	require.EqualValues(t, 1, worker.AckFloor)
	require.EqualValues(t, 3, worker.Pending)
	require.Equal(t, 1, worker.AckPending)
	require.EqualValues(t, 4, worker.Lag)
	for _, s := range streams {
		require.Equal(t, s.Stream != bus.StreamDeadLetters, s.Exists, s.Stream)
	}
}

func TestAClusterKeepsThreeReplicasAndOpensWhileItElects(t *testing.T) {
	c := bustest.Cluster(t, 3)
	nc, err := c.Connect(nats.MaxReconnects(-1))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	b := openOn(t, nc, bus.StreamOptions{})
	streams, err := b.Streams(t.Context())
	require.NoError(t, err)
	for _, s := range streams {
		require.Equal(t, 3, s.Replicas, s.Stream)
		require.Len(t, s.Peers, 2, s.Stream)
	}
	// Whoever leads goes; the next bus opens all the same, and finds nothing to change.
	c.Stop(c.Leader())
	plan, err := openOn(t, nc, bus.StreamOptions{}).PlanStreams(t.Context())
	require.NoError(t, err)
	require.False(t, plan.Changes(), plan.String())
	_, err = tryOpen(t, bus.Options{Conn: nc, Streams: bus.StreamOptions{Replicas: 1}})
	require.ErrorContains(t, err, "copies would be given up")
}

func TestASingleServerRefusesReplicasWithTheRemedy(t *testing.T) {
	_, err := tryOpen(t, bus.Options{Conn: testConn(t, bustest.Server(t)), Streams: bus.StreamOptions{Replicas: 3}})
	require.ErrorContains(t, err, "set the streams' replicas to 1")
}

func TestAPlanReadsAsTextAndAsJSON(t *testing.T) {
	nc := testConn(t, bustest.Server(t))
	openOn(t, nc, bus.StreamOptions{EventsMaxAge: time.Hour})
	b, err := tryOpen(t, bus.Options{Conn: nc, LeaveStreams: true})
	require.NoError(t, err)
	require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamIndex))
	plan, err := b.PlanStreams(t.Context())
	require.NoError(t, err)
	require.True(t, plan.Changes())
	require.Contains(t, plan.String(), "CIM_EVENTS: update\n  max age: 1h0m0s → 168h0m0s\n")
	require.Contains(t, plan.String(), "CIM_INDEX: create\n")
	out, err := json.Marshal(plan)
	require.NoError(t, err)
	require.Contains(t, string(out), `{"stream":"CIM_EVENTS","action":"update","differences":[{"field":"max age","have":"1h0m0s","want":"168h0m0s","destructive":false,"impossible":false}]}`)
}
