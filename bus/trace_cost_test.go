package bus

import (
	"context"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func costOf(ctx context.Context, b *Bus, e Event, msg *nats.Msg) {
	endPublish(b.startPublish(ctx, &e, msg), Receipt{}, nil)
}

func TestWithoutTracingAPublishedEventAllocatesNothingForIt(t *testing.T) {
	b := &Bus{}
	e := Event{Tenant: "acme", Name: "CUSTOMER_MESSAGE", Conversation: "c", ID: "e", Header: nats.Header{HeaderTraceParent: {"00-1-2-01"}}}
	msg, err := e.message()
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() { costOf(t.Context(), b, e, msg) }))
}

// BenchmarkPublishSpan is what tracing adds to one published event: without a provider ("off"), with one that samples none, and all.
func BenchmarkPublishSpan(b *testing.B) {
	for name, provider := range map[string]trace.TracerProvider{
		"off":     nil,
		"none":    sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())),
		"sampled": sdktrace.NewTracerProvider(),
	} {
		b.Run(name, func(b *testing.B) {
			owner := &Bus{tracer: tracerOf(provider)}
			e := Event{Tenant: "acme", Name: "CUSTOMER_MESSAGE", Conversation: "c", ID: "e" + strconv.Itoa(b.N)}
			msg, err := e.message()
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				costOf(b.Context(), owner, e, msg)
			}
		})
	}
}
