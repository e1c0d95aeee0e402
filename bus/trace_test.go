package bus_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

const (
	traceID     = "0af7651916cd43dd8448eb211c80319c"
	parentID    = "b7ad6b7169203331"
	traceparent = "00-" + traceID + "-" + parentID + "-01"
)

// invalidParents are traceparents that W3C Trace Context has everybody ignore.
var invalidParents = map[string][]string{
	"empty":          {""},
	"garbage":        {"00-1-2-01"},
	"zero trace":     {"00-00000000000000000000000000000000-" + parentID + "-01"},
	"zero parent":    {"00-" + traceID + "-0000000000000000-01"},
	"upper case":     {"00-" + strings.ToUpper(traceID) + "-" + parentID + "-01"},
	"version ff":     {"ff-" + traceID + "-" + parentID + "-01"},
	"too long for 0": {traceparent + "-more"},
	"said twice":     {traceparent, traceparent},
	"not text":       {"00-\xff\x00"},
	"very long":      {strings.Repeat("0", 4096)},
}

func TestTraceContextIsReadAsTheSpecificationHasIt(t *testing.T) {
	for name, c := range map[string]struct {
		header nats.Header
		valid  bool
		state  string
	}{
		"plain":                        {nats.Header{"traceparent": {traceparent}}, true, ""},
		"with state":                   {nats.Header{"traceparent": {traceparent}, "tracestate": {"a=1,b=2"}}, true, "a=1,b=2"},
		"state in parts":               {nats.Header{"traceparent": {traceparent}, "tracestate": {"a=1", "b=2"}}, true, "a=1,b=2"},
		"state that is not valid":      {nats.Header{"traceparent": {traceparent}, "tracestate": {"a=1,=,"}}, true, ""},
		"as net/http spells it":        {nats.Header{"Traceparent": {traceparent}, "Tracestate": {"a=1"}}, true, "a=1"},
		"a later version, with more":   {nats.Header{"traceparent": {"42-" + traceID + "-" + parentID + "-01-more"}}, true, ""},
		"in two spellings":             {nats.Header{"traceparent": {traceparent}, "Traceparent": {traceparent}}, false, ""},
		"none":                         {nats.Header{"tracestate": {"a=1"}}, false, ""},
		"no headers":                   {nil, false, ""},
		"garbage with a perfect state": {nats.Header{"traceparent": {"00-1-2-01"}, "tracestate": {"a=1"}}, false, ""},
	} {
		sc := bus.TraceOf(c.header)
		require.Equal(t, c.valid, sc.IsValid(), name)
		require.Equal(t, c.state, sc.TraceState().String(), name)
		if c.valid {
			require.Equal(t, traceID, sc.TraceID().String(), name)
			require.Equal(t, parentID, sc.SpanID().String(), name)
			require.True(t, sc.IsRemote() && sc.IsSampled(), name)
		}
	}
	for name, values := range invalidParents {
		require.False(t, bus.TraceOf(nats.Header{"traceparent": values}).IsValid(), name)
	}
}

func FuzzTraceContextSurvivesBeingWrittenAndReadAgain(f *testing.F) {
	f.Add(traceparent, "a=1,b=2")
	f.Add("00-1-2-01", "=")
	f.Fuzz(func(t *testing.T, parent, state string) {
		sc := bus.TraceOf(nats.Header{"traceparent": {parent}, "tracestate": {state}})
		h := nats.Header{"Traceparent": {"x"}, "TRACESTATE": {"y"}, "X-Mine": {"z"}}
		bus.SetTrace(h, sc)
		require.Equal(t, []string{"z"}, h["X-Mine"])
		require.True(t, bus.TraceOf(h).Equal(sc), "%v", h)
		if !sc.IsValid() {
			require.Len(t, h, 1)
		}
	})
}

func TestWithoutTracingTheTraceContextIsStoredAsItCame(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	p, err := b.NewPublisher(bus.PublisherOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Close(context.WithoutCancel(t.Context()))) }()
	parents := map[string][]string{"valid": {traceparent}}
	maps.Copy(parents, invalidParents)
	// A header on the wire holds neither white space around it nor a zero byte for certain; the rest of the octets are kept.
	delete(parents, "not text")
	sequence := uint64(0)
	for name, values := range parents {
		for _, publish := range ways(t.Context(), b, p) {
			sequence++
			e := event(t, name+string(rune('a'+sequence)), "c")
			e.Header = nats.Header{"traceparent": values, "tracestate": {"=,a"}, "Traceparent": {"of another spelling"}}
			require.NoError(t, publish(e))
			m, err := b.MessageAt(t.Context(), bus.StreamEvents, sequence)
			require.NoError(t, err)
			require.Equal(t, values, m.Header["traceparent"], name)
			require.Equal(t, []string{"=,a"}, m.Header["tracestate"], name)
			require.Equal(t, []string{"of another spelling"}, m.Header["Traceparent"], name)
		}
	}
	require.Nil(t, b.Tracer())
}

// ways are those in which an event can be published.
func ways(ctx context.Context, b *bus.Bus, p *bus.Publisher) []func(bus.Event) error {
	return []func(bus.Event) error{
		func(e bus.Event) error {
			_, err := b.Publish(ctx, e)
			return err
		},
		func(e bus.Event) error {
			q, err := p.Publish(ctx, e)
			if err == nil {
				_, err = q.Receipt()
			}
			return err
		},
	}
}

// traced is a bus whose spans are recorded.
func traced(t testing.TB, more ...sdktrace.TracerProviderOption) (*bus.Bus, *tracetest.SpanRecorder, *sdktrace.TracerProvider) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(append([]sdktrace.TracerProviderOption{sdktrace.WithSpanProcessor(recorder)}, more...)...)
	b, err := tryOpen(t, bus.Options{Conn: testConn(t, bustest.Server(t)), Tracing: provider})
	require.NoError(t, err)
	return b, recorder, provider
}

func attributes(s sdktrace.ReadOnlySpan) map[string]any {
	all := map[string]any{}
	for _, a := range s.Attributes() {
		all[string(a.Key)] = a.Value.AsInterface()
	}
	return all
}

func TestAPublishSpanIsTheCallersChildElseTheHeadersAndGoesWithTheEvent(t *testing.T) {
	b, recorder, provider := traced(t)
	p, err := b.NewPublisher(bus.PublisherOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Close(context.WithoutCancel(t.Context()))) }()
	own, _ := provider.Tracer("caller").Start(t.Context(), "caller")
	caller := trace.SpanContextFromContext(own)

	sequence := uint64(0)
	for name, c := range map[string]struct {
		ctx    context.Context
		header nats.Header
		trace  string // "" = a new one
		parent string
		state  string
	}{
		"caller's":            {own, nil, caller.TraceID().String(), caller.SpanID().String(), ""},
		"caller's, not other": {own, nats.Header{"traceparent": {traceparent}, "tracestate": {"a=1"}}, caller.TraceID().String(), caller.SpanID().String(), ""},
		"header's":            {t.Context(), nats.Header{"Traceparent": {traceparent}, "tracestate": {"a=1"}}, traceID, parentID, "a=1"},
		"none":                {t.Context(), nil, "", trace.SpanID{}.String(), ""},
		"invalid":             {t.Context(), nats.Header{"traceparent": {"00-1-2-01"}, "tracestate": {"a=1"}}, "", trace.SpanID{}.String(), ""},
	} {
		for _, publish := range ways(c.ctx, b, p) {
			recorder.Reset()
			sequence++
			e := event(t, "e"+string(rune('a'+sequence)), "c")
			given := maps.Clone(c.header)
			e.Header = c.header
			require.NoError(t, publish(e))
			require.Equal(t, given, c.header, "the caller's own headers stay as they are")

			require.Len(t, recorder.Ended(), 1, name)
			span := recorder.Ended()[0]
			require.Equal(t, "publish", span.Name())
			require.Equal(t, trace.SpanKindProducer, span.SpanKind())
			require.Equal(t, c.parent, span.Parent().SpanID().String(), name)
			if c.trace != "" {
				require.Equal(t, c.trace, span.SpanContext().TraceID().String(), name)
			}
			require.Equal(t, map[string]any{
				"messaging.system": "nats", "messaging.operation.name": "publish", "messaging.operation.type": "send",
				"messaging.destination.name": "cim.acme.web.CUSTOMER_MESSAGE", "messaging.message.id": e.ID, "messaging.message.conversation_id": "c",
				"cim.tenant": "acme", "cim.event": "CUSTOMER_MESSAGE", "cim.sequence": int64(sequence), "cim.duplicate": false,
			}, attributes(span))

			m, err := b.MessageAt(t.Context(), bus.StreamEvents, sequence)
			require.NoError(t, err)
			require.Equal(t, []string{"00-" + span.SpanContext().TraceID().String() + "-" + span.SpanContext().SpanID().String() + "-01"}, m.Header["traceparent"])
			require.Equal(t, c.state, strings.Join(m.Header["tracestate"], "+"), name)
			require.NotContains(t, m.Header, "Traceparent")
		}
	}
}

func TestASpanThatIsNotSampledGoesWithTheEventAsSuch(t *testing.T) {
	b, recorder, _ := traced(t, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())))
	e := event(t, "e", "c")
	e.Header = nats.Header{"traceparent": {strings.TrimSuffix(traceparent, "1") + "0"}}
	_, err := b.Publish(t.Context(), e)
	require.NoError(t, err)
	require.Empty(t, recorder.Ended())
	sc := bus.TraceOf(firstEvent(t, b).Header)
	require.Equal(t, traceID, sc.TraceID().String())
	require.False(t, sc.IsSampled())
}

func TestAPublishThatFailsEndsItsSpanWithTheErrorInWordsThatASpanCanCarry(t *testing.T) {
	b, recorder, _ := traced(t)
	p, err := b.NewPublisher(bus.PublisherOptions{})
	require.NoError(t, err)
	require.NoError(t, p.Close(t.Context()))
	require.NoError(t, b.Close(t.Context()))
	for _, publish := range ways(t.Context(), b, p) {
		require.ErrorIs(t, publish(bus.Event{Tenant: "a\xff", Name: "N\xff", Conversation: "c\xff", ID: strings.Repeat("x", 10_000) + "\xff"}), bus.ErrClosed)
	}

	require.Len(t, recorder.Ended(), 2)
	for _, span := range recorder.Ended() {
		require.Equal(t, codes.Error, span.Status().Code)
		require.Contains(t, span.Status().Description, "closed")
		require.Equal(t, "exception", span.Events()[0].Name)
		for _, a := range span.Attributes() {
			if a.Value.Type() == attribute.STRING {
				require.Equal(t, strings.ToValidUTF8(a.Value.AsString(), ""), a.Value.AsString(), a.Key)
				require.LessOrEqual(t, len(a.Value.AsString()), 600, a.Key)
			}
		}
	}
	require.Equal(t, "a\ufffd", bus.SpanError(errors.New("a\xff")).Error())
}
