package bus_test

import (
	"fmt"
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/subjects"
)

// What the benchmark of a large store looks for: one conversation of 200 among 5,000, of which 500 are going on at a time.
const (
	million = 1_000_000
	ofOne   = 200
	atATime = 500
)

func millionConversation(i int) int { return i/(ofOne*atATime)*atATime + i%atATime }

// BenchmarkAMillion is what operators wait for on a stream of 1,000,000 small events with their index entries and one delivery each,
// beside the plain way of finding the same. It takes about a minute to build the store.
func BenchmarkAMillion(b *testing.B) {
	began := time.Now()
	target := millionStore(b)
	b.Logf("built in %s", time.Since(began).Round(time.Second))

	// Each way counts what it has found. Of several runs the fastest counts: the others tell what else the machine had to do.
	timed := func(name string, want int, ways ...func() int) {
		b.Run(name, func(b *testing.B) {
			fastest := make([]time.Duration, len(ways))
			for range b.N {
				for turn := range 3 * len(ways) {
					i := turn % len(ways)
					start := time.Now()
					require.Equal(b, want, ways[i]())
					if took := time.Since(start); turn < len(ways) || took < fastest[i] {
						fastest[i] = took
					}
				}
			}
			b.ReportMetric(float64(fastest[0].Microseconds())/1000, "ms")
			b.ReportMetric(float64(fastest[1])/float64(fastest[0]), "ratio")
		})
	}
	plain := func(subject string, found func(jetstream.Msg) bool) func() int {
		return func() int {
			stream, err := target.JetStream().Stream(b.Context(), bus.StreamEvents)
			require.NoError(b, err)
			consumer, err := stream.OrderedConsumer(b.Context(), jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
			require.NoError(b, err)
			messages, err := consumer.Messages()
			require.NoError(b, err)
			defer messages.Stop()
			for n := 0; ; {
				m, err := messages.Next()
				require.NoError(b, err)
				if found(m) {
					n++
				}
				if meta, err := m.Metadata(); err != nil || meta.NumPending == 0 {
					require.NoError(b, err)
					return n
				}
			}
		}
	}
	all := bus.Span{Stream: bus.StreamEvents, First: 1, Last: million}
	find := func(s bus.EventSelection, back bool) func() int {
		return func() int {
			read := target.EventsIn
			if back {
				read = target.EventsBackIn
			}
			n := 0
			for _, err := range read(b.Context(), s, all) {
				require.NoError(b, err)
				n++
			}
			return n
		}
	}
	everything := plain("cim.>", func(jetstream.Msg) bool { return true })
	timed("scan", million, find(bus.EventSelection{}, false), everything)
	timed("scan newest first", million, find(bus.EventSelection{}, true), everything)
	text := bus.Content{Text: `"n":777777,`}
	timed("find a text", 1, find(bus.EventSelection{Where: func(e *bus.StoredEvent) bool { return text.In(e.Data) }}, false),
		plain("cim.>", func(m jetstream.Msg) bool { return text.In(m.Data()) }))
	value := bus.Content{Values: []bus.JSONValue{{Path: "data.n", Value: "777777"}}}
	timed("find a JSON value", 1, find(bus.EventSelection{Where: func(e *bus.StoredEvent) bool { return value.In(e.Data) }}, false), func() int { return everything() / million })
	timed("find a rare name", 1, find(bus.EventSelection{Events: []string{"RARE"}}, false), plain("cim.*.*.RARE", func(jetstream.Msg) bool { return true }))
	timed("find a conversation", ofOne, find(bus.EventSelection{Tenant: subjects.Is("acme"), Conversation: subjects.Is("c2777")}, false),
		plain("cim.acme.>", func(m jetstream.Msg) bool { return m.Headers().Get(bus.HeaderConversation) == "c2777" }))
	timed("history", ofOne, func() int {
		n := 0
		for _, err := range target.History(b.Context(), "acme", "c2777", 0, 0) {
			require.NoError(b, err)
			n++
		}
		return n
	}, plain("cim.acme.>", func(m jetstream.Msg) bool { return m.Headers().Get(bus.HeaderConversation) == "c2777" }))
	timed("history with bodies, newest first", ofOne, func() int {
		n := 0
		sequences := func(next func(uint64) bool) {
			for e, err := range target.HistoryBack(b.Context(), "acme", "c2777", 0, 0) {
				require.NoError(b, err)
				if !next(e.Sequence) {
					return
				}
			}
		}
		for _, err := range target.MessagesAt(b.Context(), bus.StreamEvents, sequences) {
			require.NoError(b, err)
			n++
		}
		return n
	}, plain("cim.acme.>", func(m jetstream.Msg) bool { return m.Headers().Get(bus.HeaderConversation) == "c2777" }))

	trace := func(s bus.EventSelection, span bus.Span) func() int {
		return func() int {
			n := 0
			for j, err := range target.JourneysOf(b.Context(), s, span) {
				require.NoError(b, err)
				require.Len(b, j.Steps, 4)
				n++
			}
			return n
		}
	}
	id := bus.EventSelection{Tenant: subjects.Is("acme"), ID: "m777777"}
	plainID := plain("cim.acme.>", func(m jetstream.Msg) bool { return m.Headers().Get(bus.HeaderEventID) == "m777777" })
	timed("trace an id", 1, trace(id, all), plainID)
	id.From.Sequence = million / 7 * 5
	timed("trace an id of a seventh of the time", 1, trace(id, bus.Span{Stream: bus.StreamEvents, First: million / 7 * 5, Last: million / 7 * 6}), plainID)
	timed("trace a sequence", 1, func() int {
		n := 0
		for j, err := range target.Journeys(b.Context(), 777777) {
			require.NoError(b, err)
			require.Len(b, j.Steps, 4)
			n++
		}
		return n
	}, plainID)
}

// millionStore builds the store.
func millionStore(b *testing.B) *bus.Bus {
	b.Helper()
	s := bustest.Server(b, listening, func(o *embedded.Options) { o.Durability = embedded.Balanced })
	nc, err := nats.Connect(s.NATSURL())
	require.NoError(b, err)
	b.Cleanup(nc.Close)
	target := openOn(b, nc, bus.StreamOptions{})
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(8192))
	require.NoError(b, err)
	// Live copies, of which nobody hears, are not what is measured.
	deliveries, err := js.Stream(b.Context(), bus.StreamDeliveries)
	require.NoError(b, err)
	config := deliveries.CachedInfo().Config
	config.RePublish = nil
	_, err = js.UpdateStream(b.Context(), config)
	require.NoError(b, err)

	publish := func(m *nats.Msg) {
		_, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute))
		require.NoError(b, err)
	}
	for i := range million {
		id, conversation, n := "m"+strconv.Itoa(i+1), "c"+strconv.Itoa(millionConversation(i)), strconv.Itoa(i+1)
		name := "CUSTOMER_MESSAGE"
		if i == million/2 {
			name = "RARE"
		}
		subject := "cim.acme.web." + name
		publish(&nats.Msg{
			Subject: subject,
			Header: nats.Header{
				"Nats-Msg-Id": {"acme:" + name + ":" + id}, "Nats-Expected-Stream": {bus.StreamEvents}, bus.HeaderConversation: {conversation},
				bus.HeaderChannel: {"WEB"}, bus.HeaderEventID: {id}, bus.HeaderEventName: {name},
			},
			Data: fmt.Appendf(nil, `{"id":%q,"name":%q,"conversationId":%q,"data":{"n":%d,"body":{"text":"made up, and not long"}}}`, id, name, conversation, i+1),
		})
		derived := nats.Header{
			bus.HeaderSequence: {n}, bus.HeaderConversation: {conversation}, bus.HeaderChannel: {"WEB"}, bus.HeaderEventID: {id}, bus.HeaderEventName: {name},
			bus.HeaderSourceSubject: {subject}, bus.HeaderSourceTime: {time.Now().UTC().Format(time.RFC3339Nano)},
		}
		publish(&nats.Msg{Subject: "cim-agent.acme.agent" + strconv.Itoa(i%100) + ".onCimEvent." + conversation, Header: derived, Data: []byte("{}")})
		index := nats.Header{bus.HeaderOutcome: {bus.OutcomeDelivered}}
		maps.Copy(index, derived)
		publish(&nats.Msg{Subject: "cim-index.acme." + conversation, Header: index})
	}
	<-js.PublishAsyncComplete()
	// A worker's consumer that is done with all of them.
	_, err = js.CreateConsumer(b.Context(), bus.StreamEvents, jetstream.ConsumerConfig{
		Durable: bus.HandlerConsumer(bus.TypeEvent), DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: million + 1,
		AckPolicy: jetstream.AckExplicitPolicy,
	})
	require.NoError(b, err)
	for _, name := range []string{bus.StreamEvents, bus.StreamIndex, bus.StreamDeliveries} {
		stream, err := js.Stream(b.Context(), name)
		require.NoError(b, err)
		require.Equal(b, uint64(million), stream.CachedInfo().State.Msgs, name)
	}
	return target
}
