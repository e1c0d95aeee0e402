package handlers_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

const (
	roadConversations = 500
	roadWait          = 2 * time.Minute
)

// roadEvent is an event of about 6 KB.
func roadEvent(id, conversation string) []byte {
	return fmt.Appendf(nil, `{"id":%q,"name":"CUSTOMER_MESSAGE","type":"MESSAGE","timestamp":1750072293640,"conversationId":%q,`+
		`"channelSession":{"id":"s1","state":{"name":"STARTED"},"channel":{"channelType":{"name":"WEB"},"attributes":[%s]}},`+
		`"data":{"header":{"sender":"made up"},"body":{"text":%q}}}`,
		id, conversation, strings.TrimSuffix(strings.Repeat(`{"key":"colour","value":"blue","n":12},`, 60), ","), strings.Repeat("lorem ipsum ", 270))
}

// roadMessage carries the headers that the bus's publisher sets.
func roadMessage(name, id, conversation string, body []byte) *nats.Msg {
	return &nats.Msg{
		Subject: "cim." + tenant + ".web." + name,
		Header: nats.Header{
			jetstream.MsgIDHeader: {tenant + ":" + name + ":" + id}, bus.HeaderConversation: {conversation}, bus.HeaderChannel: {"WEB"},
			bus.HeaderEventID: {id}, bus.HeaderEventName: {name},
		},
		Data: body,
	}
}

// roadBench is a bus with b.N events stored, the members of whose conversations are known, and an agent that counts them.
type roadBench struct {
	*bus.Bus
	joins   int
	arrived atomic.Int64
	done    chan struct{}
}

func newRoadBench(b *testing.B) *roadBench {
	b.Helper()
	r := &roadBench{Bus: openBus(b), joins: min(b.N, roadConversations), done: make(chan struct{})}
	for c := range r.joins {
		id, conversation := "j"+strconv.Itoa(c), "c"+strconv.Itoa(c)
		_, err := r.JetStream().PublishMsg(b.Context(), roadMessage(cim.AgentSubscribed, id, conversation, join(id, conversation, "ada", "PRIMARY")))
		require.NoError(b, err)
	}
	w := r.work(b)
	bustest.Eventually(b, roadWait, func() error { return r.hold(b, bus.StreamIndex, r.joins) })
	require.NoError(b, w.Close(b.Context()))
	for i := range b.N {
		id, conversation := "e"+strconv.Itoa(i), "c"+strconv.Itoa(i%r.joins)
		_, err := r.JetStream().PublishMsgAsync(roadMessage(cim.CustomerMessage, id, conversation, roadEvent(id, conversation)), jetstream.WithStallWait(roadWait))
		require.NoError(b, err)
	}
	<-r.JetStream().PublishAsyncComplete()
	require.NoError(b, r.hold(b, bus.StreamEvents, r.joins+b.N))
	sub, err := r.Conn().Subscribe("cim-live."+tenant+".ada.>", func(*nats.Msg) {
		if r.arrived.Add(1) == int64(b.N) {
			close(r.done)
		}
	})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, sub.Unsubscribe()) })
	require.NoError(b, r.Conn().Flush())
	return r
}

func (r *roadBench) work(b *testing.B) *handlers.Worker {
	b.Helper()
	w, err := handlers.Start(b.Context(), r.Bus, oncimevent.New(oncimevent.Options{}))
	require.NoError(b, err)
	return w
}

func (r *roadBench) hold(b *testing.B, stream string, n int) error {
	b.Helper()
	s, err := r.JetStream().Stream(b.Context(), stream)
	require.NoError(b, err)
	if have := s.CachedInfo().State.Msgs; have != uint64(n) {
		return fmt.Errorf("%s holds %d of %d messages", stream, have, n)
	}
	return nil
}

// wait takes the time until the agent has all events and makes sure that the work was done: an entry and a delivery for each.
func (r *roadBench) wait(b *testing.B) {
	b.Helper()
	select {
	case <-r.done:
	case <-time.After(roadWait):
		b.Fatalf("%d of %d events arrived", r.arrived.Load(), b.N)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	for _, stream := range []string{bus.StreamIndex, bus.StreamDeliveries} {
		bustest.Eventually(b, roadWait, func() error { return r.hold(b, stream, r.joins+b.N) })
	}
}

// BenchmarkRoad measures the way from the stored event over the stored delivery to an agent's callback, a plain subscription: by the
// worker ("cimbus"), and by hand with nats.go ("plain"), which makes the same deliveries and the same index entries, a goroutine
// for each conversation, and acknowledges an event when both are stored.
func BenchmarkRoad(b *testing.B) {
	b.Run("cimbus", func(b *testing.B) {
		r := newRoadBench(b)
		b.ReportAllocs()
		b.ResetTimer()
		w := r.work(b)
		r.wait(b)
		require.NoError(b, w.Close(b.Context()))
	})
	b.Run("plain", func(b *testing.B) {
		r := newRoadBench(b)
		b.ReportAllocs()
		b.ResetTimer()
		end := r.workByHand(b)
		r.wait(b)
		end()
	})
}

// workByHand starts the hand-written worker.
func (r *roadBench) workByHand(b *testing.B) (end func()) {
	b.Helper()
	js, err := jetstream.New(r.Conn(), jetstream.WithPublishAsyncMaxPending(65536))
	require.NoError(b, err)
	consumer, err := js.CreateConsumer(b.Context(), bus.StreamEvents, jetstream.ConsumerConfig{
		Durable: "plain", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 16384,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: uint64(r.joins + 1),
	})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	lanes := map[string]chan jetstream.Msg{}
	var wg sync.WaitGroup
	consume, err := consumer.Consume(func(m jetstream.Msg) {
		conversation := m.Headers().Get(bus.HeaderConversation)
		lane := lanes[conversation]
		if lane == nil {
			lane = make(chan jetstream.Msg, 1024)
			lanes[conversation] = lane
			wg.Go(func() { laneByHand(ctx, b, js, conversation, lane) })
		}
		lane <- m
	}, jetstream.PullMaxMessages(1024))
	require.NoError(b, err)
	return func() {
		consume.Stop()
		<-consume.Closed()
		cancel()
		wg.Wait()
	}
}

func laneByHand(ctx context.Context, b *testing.B, js jetstream.JetStream, conversation string, lane <-chan jetstream.Msg) {
	for {
		select {
		case m := <-lane:
			if err := eventByHand(ctx, js, conversation, m); err != nil {
				b.Error(err)
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func eventByHand(ctx context.Context, js jetstream.JetStream, conversation string, m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	e, err := cim.Decode(m.Data(), conversation)
	if err != nil {
		return err
	}
	header := func() nats.Header {
		return nats.Header{
			bus.HeaderSequence: {strconv.FormatUint(meta.Sequence.Stream, 10)}, bus.HeaderConversation: {conversation},
			bus.HeaderChannel: {e.Channel}, bus.HeaderEventID: {e.ID}, bus.HeaderEventName: {e.Name},
			bus.HeaderSourceSubject: {m.Subject()}, bus.HeaderSourceTime: {meta.Timestamp.UTC().Format(time.RFC3339Nano)},
		}
	}
	delivery := &nats.Msg{Subject: "cim-agent." + tenant + ".ada.onCimEvent." + conversation, Header: header()}
	delivery.Data = cim.AppendDelivery(nil, &e, conversation, true)
	entry := &nats.Msg{Subject: "cim-index." + tenant + "." + conversation, Header: header()}
	entry.Header[bus.HeaderOutcome] = []string{bus.OutcomeDelivered}
	for _, out := range []*nats.Msg{delivery, entry} {
		f, err := js.PublishMsgAsync(out, jetstream.WithStallWait(roadWait))
		if err != nil {
			return err
		}
		select {
		case <-f.Ok():
		case err := <-f.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return m.Ack()
}
