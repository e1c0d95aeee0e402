package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/subjects"
)

const (
	traceID     = "0af7651916cd43dd8448eb211c80319c"
	traceparent = "00-" + traceID + "-b7ad6b7169203331-01"
)

// publishTraced publishes an event as a service does that is part of a trace.
func publishTraced(t testing.TB, b *bus.Bus, subject string, body []byte, header nats.Header) uint64 {
	t.Helper()
	ack, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: subject, Data: body, Header: header})
	require.NoError(t, err)
	return ack.Sequence
}

func TestWithoutTracingTheTraceContextReachesEverythingThatIsMadeOfAnEventAsItCame(t *testing.T) {
	for name, header := range map[string]nats.Header{
		"valid":          {"traceparent": {traceparent}, "tracestate": {"a=1,b=2"}},
		"not valid":      {"traceparent": {"00-1-2-01"}, "tracestate": {"=,=", "x"}},
		"said twice":     {"traceparent": {traceparent, "00-2"}},
		"other spelling": {"Traceparent": {traceparent}, "TraceState": {"a=1"}},
		"long":           {"traceparent": {fmt.Sprintf("%04000d", 7)}},
	} {
		t.Run(name, func(t *testing.T) {
			b := openBus(t)
			var mended atomic.Bool
			start(t, b, broken(&mended))
			carries := func(what string, h nats.Header) {
				for key, values := range header {
					require.Equal(t, values, h[key], what)
				}
			}
			publishTraced(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"), header)
			s := publishTraced(t, b, "cim.acme.web.AGENT_MESSAGE", message("m", "c1"), header)
			drained(t, b)
			dead := stored(t, b, bus.StreamDeadLetters, subjects.AllDeadLetters)
			require.Len(t, dead, 1)
			require.Equal(t, s, bus.SequenceOf(dead[0].Header))
			carries("dead letter", dead[0].Header)

			mended.Store(true)
			redrive(t, b, bus.DeadLetterFilter{}, bus.RedriveOptions{})
			drained(t, b)
			deliveries := stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.>")
			require.Len(t, deliveries, 2)
			for _, d := range deliveries {
				carries("delivery "+bus.LastHeader(d.Header, bus.HeaderEventID), d.Header)
			}
			for _, stream := range []string{bus.StreamEvents, bus.StreamIndex} {
				all := stored(t, b, stream, ">")
				require.Len(t, all, 3, stream)
				for _, m := range all {
					carries(stream, m.Header)
				}
			}
		})
	}
}

// tracedBus is a bus whose spans are recorded.
func tracedBus(t testing.TB) (*bus.Bus, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	return openBusOn(t, bus.Options{
		Embedded: embedded.Options{StoreDir: t.TempDir(), Durability: embedded.Balanced},
		Tracing:  sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)),
	}), recorder
}

// spans waits for so many ended spans of a name, in the order in which they ended.
func spans(t testing.TB, r *tracetest.SpanRecorder, name string, n int) []sdktrace.ReadOnlySpan {
	t.Helper()
	var found []sdktrace.ReadOnlySpan
	bustest.Eventually(t, 20*time.Second, func() error {
		found = nil
		for _, s := range r.Ended() {
			if s.Name() == name {
				found = append(found, s)
			}
		}
		if len(found) != n {
			return fmt.Errorf("%d spans %s, want %d", len(found), name, n)
		}
		return nil
	})
	return found
}

func attributes(s sdktrace.ReadOnlySpan) map[string]any {
	all := map[string]any{}
	for _, a := range s.Attributes() {
		all[string(a.Key)] = a.Value.AsInterface()
	}
	return all
}

// isIn says that a message bears a span's context.
func isIn(t testing.TB, s sdktrace.ReadOnlySpan, h nats.Header) {
	t.Helper()
	require.Equal(t, []string{"00-" + s.SpanContext().TraceID().String() + "-" + s.SpanContext().SpanID().String() + "-01"}, h["traceparent"])
}

func TestHandleIsTheChildOfWhatPublishedAndDeliverOfHandleAndEachMessageBearsTheSpanThatMadeIt(t *testing.T) {
	b, recorder := tracedBus(t)
	// The span in which a host starts its worker is no parent of events.
	host, span := b.Tracer().Start(t.Context(), "start")
	w, err := handlers.Start(host, b, broken(new(atomic.Bool)))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close(context.WithoutCancel(t.Context()))) })
	span.End()

	publishTraced(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j0", "c1", "ben", "PRIMARY"), nats.Header{"traceparent": {"00-1-2-01"}, "tracestate": {"a=1"}})
	s := publishTraced(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j1", "c1", "ada", "PRIMARY"),
		nats.Header{"Traceparent": {traceparent}, "tracestate": {"a=1"}, "X-Mine": {"x"}})
	handle, deliver := spans(t, recorder, "handle", 2), spans(t, recorder, "deliver", 2)
	drained(t, b)

	require.False(t, handle[0].Parent().IsValid(), "a traceparent that is not valid is none")
	require.NotEqual(t, span.SpanContext().TraceID(), handle[0].SpanContext().TraceID())
	require.Equal(t, trace.SpanKindConsumer, handle[1].SpanKind())
	require.Equal(t, traceID, handle[1].SpanContext().TraceID().String())
	require.Equal(t, "b7ad6b7169203331", handle[1].Parent().SpanID().String())
	require.True(t, handle[1].Parent().IsRemote())
	require.Equal(t, trace.SpanKindProducer, deliver[1].SpanKind())
	require.Equal(t, handle[1].SpanContext().SpanID(), deliver[1].Parent().SpanID())
	require.Equal(t, traceID, deliver[1].SpanContext().TraceID().String())
	common := map[string]any{
		"messaging.system": "nats", "messaging.message.id": "j1", "messaging.message.conversation_id": "c1",
		"cim.tenant": "acme", "cim.event": "AGENT_SUBSCRIBED", "cim.sequence": int64(s),
	}
	with := func(more map[string]any) map[string]any {
		maps.Copy(more, common)
		return more
	}
	require.Equal(t, with(map[string]any{
		"messaging.operation.name": "handle", "messaging.operation.type": "process", "messaging.destination.name": "cim.acme._.AGENT_SUBSCRIBED",
		"messaging.consumer.group.name": bus.HandlerConsumer("onCimEvent"), "cim.handler": "onCimEvent", "cim.attempts": int64(1), "cim.outcome": "delivered",
	}), attributes(handle[1]))
	require.Equal(t, with(map[string]any{
		"messaging.operation.name": "deliver", "messaging.operation.type": "send", "messaging.destination.name": "cim-agent.>",
		"messaging.batch.message_count": int64(2),
	}), attributes(deliver[1]))

	for _, m := range stored(t, b, bus.StreamDeliveries, ">") {
		if bus.SequenceOf(m.Header) == s {
			isIn(t, deliver[1], m.Header)
			require.Equal(t, []string{"a=1"}, m.Header["tracestate"])
			require.Equal(t, []string{"x"}, m.Header["X-Mine"])
			require.NotContains(t, m.Header, "Traceparent")
		} else {
			isIn(t, deliver[0], m.Header)
			require.NotContains(t, m.Header, "tracestate", "it belonged to the traceparent that was not valid")
		}
	}
	index := stored(t, b, bus.StreamIndex, ">")
	require.Len(t, index, 2)
	isIn(t, handle[0], index[0].Header)
	isIn(t, handle[1], index[1].Header)
}

func TestADeadLetterAndItsRedriveStayInTheTraceOfTheirEvent(t *testing.T) {
	b, recorder := tracedBus(t)
	var mended atomic.Bool
	start(t, b, broken(&mended))
	publishTraced(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"), nil)
	publishTraced(t, b, "cim.acme.web.AGENT_MESSAGE", message("m", "c1"), nats.Header{"traceparent": {traceparent}})
	failed := spans(t, recorder, "handle", 2)[1]
	require.Equal(t, "dead-letter", attributes(failed)["cim.outcome"])
	require.Equal(t, "broken", attributes(failed)["cim.reason"])
	require.Equal(t, codes.Error, failed.Status().Code)
	require.Equal(t, "the mould is cracked", failed.Status().Description)
	require.Len(t, failed.Events(), 1)
	drained(t, b)
	isIn(t, failed, stored(t, b, bus.StreamDeadLetters, ">")[0].Header)

	mended.Store(true)
	redrive(t, b, bus.DeadLetterFilter{}, bus.RedriveOptions{})
	again := spans(t, recorder, "handle", 3)[2]
	require.Equal(t, traceID, again.SpanContext().TraceID().String())
	require.Equal(t, failed.SpanContext().SpanID(), again.Parent().SpanID())
	require.Equal(t, "delivered", attributes(again)["cim.outcome"])
}

func TestEveryFailedAttemptIsInTheSpanAndAHandlersOwnSpansAreItsChildren(t *testing.T) {
	b, recorder := tracedBus(t)
	start(t, b, handlers.Handler{
		Name: "moody", Types: []string{"moodSwing"}, FromStart: true,
		Retry: handlers.RetryPolicy{Attempts: 3, First: time.Millisecond, Longest: 5 * time.Millisecond},
		Handle: func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
			_, own := b.Tracer().Start(ctx, "own")
			defer own.End()
			switch {
			case e.ID == "recovers" && e.Attempt < 3:
				return nil, errors.New("not yet: \xff")
			case e.ID == "dropped":
				return nil, handlers.Drop("of no interest")
			}
			return nil, nil
		},
	})
	publishTraced(t, b, "cim.acme.web.AGENT_MESSAGE", message("recovers", "c1"), nil)
	publishTraced(t, b, "cim.acme.web.AGENT_MESSAGE", message("dropped", "c1"), nil)
	handle := spans(t, recorder, "handle", 2)
	require.Equal(t, int64(3), attributes(handle[0])["cim.attempts"])
	require.Equal(t, "delivered", attributes(handle[0])["cim.outcome"])
	require.Equal(t, codes.Unset, handle[0].Status().Code)
	require.Len(t, handle[0].Events(), 2)
	for i, e := range handle[0].Events() {
		require.Equal(t, "exception", e.Name)
		said := map[string]any{}
		for _, a := range e.Attributes {
			said[string(a.Key)] = a.Value.AsInterface()
		}
		require.Equal(t, "not yet: \ufffd", said["exception.message"])
		require.Equal(t, int64(i+1), said["cim.attempts"])
	}
	require.Equal(t, "dropped", attributes(handle[1])["cim.outcome"])
	for i, own := range spans(t, recorder, "own", 4) {
		require.Equal(t, handle[i/3].SpanContext().SpanID(), own.Parent().SpanID())
	}
	spans(t, recorder, "deliver", 0)
}

func TestAnEventCommittedBeforeHasNoSecondSpan(t *testing.T) {
	b, recorder := tracedBus(t)
	h := broken(new(atomic.Bool))
	w := start(t, b, h)
	publishTraced(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"), nil)
	drained(t, b)
	require.NoError(t, w.Close(t.Context()))
	hand, err := handlers.NewHand(b, h, tenant, "c1")
	require.NoError(t, err)
	require.NoError(t, hand.Process(t.Context(), stored(t, b, bus.StreamEvents, ">")[0]))
	spans(t, recorder, "handle", 1)
	hand.Redo(1, 1)
	require.NoError(t, hand.Process(t.Context(), stored(t, b, bus.StreamEvents, ">")[0]))
	spans(t, recorder, "handle", 2)
}

func TestAReplayCarriesTheTraceContextWhereverItGoes(t *testing.T) {
	header := nats.Header{"traceparent": {traceparent}, "tracestate": {"a=1"}}
	b := openBus(t)
	var seen atomic.Pointer[[]string]
	start(t, b, broken(new(atomic.Bool)))
	start(t, b, watcher(&seen))
	publishTraced(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"), header)
	caughtUp(t, b, "watcher")
	drained(t, b)
	replay := func(target bus.ReplayTarget, err error) {
		require.NoError(t, err)
		span, err := b.Span(t.Context(), bus.StreamEvents, bus.Point{}, bus.Point{})
		require.NoError(t, err)
		r, err := b.StartReplay(t.Context(), bus.NewReplay{Operator: "ann@desk", Target: "test", Span: span})
		require.NoError(t, err)
		_, err = r.To(t.Context(), target)
		require.NoError(t, err)
	}
	carries := func(h nats.Header) {
		for key, values := range header {
			require.Equal(t, values, h[key])
		}
	}
	own, err := b.Conn().SubscribeSync("ops.replay")
	require.NoError(t, err)
	replay(b.ReplayToSubject(t.Context(), "ops.replay"))
	m, err := own.NextMsg(20 * time.Second)
	require.NoError(t, err)
	carries(m.Header)

	replay(b.ReplayToAgents(bus.ReplayAgents{Tenant: tenant, Agents: []string{"ada"}}))
	again := stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.replay.>")
	require.Len(t, again, 1)
	carries(again[0].Header)

	replay(b.ReplayToHandler(t.Context(), "watcher"))
	caughtUp(t, b, "watcher")
	for stream, filter := range map[string]string{bus.StreamEvents: ">", bus.StreamDeliveries: "cim-agent.acme.ada.seen.>"} {
		all := stored(t, b, stream, filter)
		require.Len(t, all, 2, stream)
		for _, m := range all {
			carries(m.Header)
		}
	}
}
