package bus

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// The headers of W3C Trace Context. What arrives in them goes on unread to everything that is made of an event: deliveries, index
// entry, dead letter, the event a redrive appends, replays. Only where Options.Tracing is set do the bus's own spans take their
// place, as children of what arrived; a traceparent that is not valid then counts as none, and its tracestate with it, as the
// specification has it.
const (
	HeaderTraceParent = "traceparent"
	HeaderTraceState  = "tracestate"
)

// tracerName is the instrumentation scope of the bus's spans, those of the handlers included.
const tracerName = "github.com/cimbus/cimbus"

// The attributes of the bus's spans; the messaging.* ones are OpenTelemetry's. There is never a payload among them.
const (
	AttributeTenant    = attribute.Key("cim.tenant")
	AttributeEvent     = attribute.Key("cim.event")
	AttributeSequence  = attribute.Key("cim.sequence")  // the event's in CIM_EVENTS
	AttributeDuplicate = attribute.Key("cim.duplicate") // publish: the event was stored before
	AttributeHandler   = attribute.Key("cim.handler")   // handle: its name
	AttributeAttempts  = attribute.Key("cim.attempts")  // handle: how often the handler was called
	AttributeOutcome   = attribute.Key("cim.outcome")   // handle: that of the index entry, or "interrupted"
	AttributeReason    = attribute.Key("cim.reason")    // handle: why the event became a dead letter
)

// TraceOf reads the trace context of a message, with which a consumer makes its own spans children of the bus's:
//
//	ctx = trace.ContextWithRemoteSpanContext(ctx, bus.TraceOf(delivery.Header))
//
// It is not valid where there is no traceparent, one that is not valid, or several. The headers' case does not matter.
func TraceOf(h nats.Header) trace.SpanContext {
	parents, states := valuesFold(h, HeaderTraceParent), valuesFold(h, HeaderTraceState)
	if len(parents) != 1 {
		return trace.SpanContext{}
	}
	carrier := propagation.MapCarrier{HeaderTraceParent: parents[0]}
	if len(states) > 0 {
		carrier[HeaderTraceState] = strings.Join(states, ",")
	}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
}

// SetTrace makes sc the trace context of a message, in the place of whatever its headers say. One that is not valid leaves none.
func SetTrace(h nats.Header, sc trace.SpanContext) {
	for key := range h {
		if strings.EqualFold(key, HeaderTraceParent) || strings.EqualFold(key, HeaderTraceState) {
			delete(h, key)
		}
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), sc), carrier)
	for key, value := range carrier {
		h[key] = []string{value}
	}
}

// valuesFold are a header's values in all spellings of its name: what went through net/http comes as Traceparent.
func valuesFold(h nats.Header, name string) []string {
	values := h[name]
	for key, more := range h {
		if key != name && strings.EqualFold(key, name) {
			values = append(slices.Clip(values), more...)
		}
	}
	return values
}

// Tracer starts the bus's spans, nil where Options.Tracing is.
func (b *Bus) Tracer() trace.Tracer { return b.tracer }

// tracerOf is the bus's tracer at a provider, nil where there is none.
func tracerOf(p trace.TracerProvider) trace.Tracer {
	if p == nil {
		return nil
	}
	return p.Tracer(tracerName)
}

// maxSpanText bounds an event's own words in a span, in bytes: an event's id may be of any length.
const maxSpanText = 512

// spanText is s as a span can carry it. One attribute that is not UTF-8 makes an exporter lose all spans that go with it.
func spanText(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxSpanText)], "�")
}

// SpanAttributes are those that every span about an event has.
func SpanAttributes(e Event, subject string) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemKey.String("nats"), semconv.MessagingDestinationName(spanText(subject)),
		semconv.MessagingMessageConversationID(spanText(e.Conversation)), semconv.MessagingMessageID(spanText(e.ID)),
		AttributeTenant.String(spanText(e.Tenant)), AttributeEvent.String(spanText(e.Name)),
	}
}

// SpanError is err as a span can carry it.
func SpanError(err error) error { return errors.New(spanText(err.Error())) }

// startPublish begins the span of an event on its way, which goes with the message; nil where there is no tracer. Its parent is
// the caller's own span, else the one that the event's headers name.
func (b *Bus) startPublish(ctx context.Context, e *Event, msg *nats.Msg) trace.Span {
	if b.tracer == nil {
		return nil
	}
	if !trace.SpanContextFromContext(ctx).IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, TraceOf(e.Header))
	}
	_, span := b.tracer.Start(ctx, "publish", trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(SpanAttributes(*e, msg.Subject)...),
		trace.WithAttributes(semconv.MessagingOperationName("publish"), semconv.MessagingOperationTypeSend))
	SetTrace(msg.Header, span.SpanContext())
	return span
}

// endPublish ends a span that startPublish began, with what became of the event.
func endPublish(span trace.Span, r Receipt, err error) {
	if span == nil {
		return
	}
	if err == nil {
		span.SetAttributes(AttributeSequence.Int64(int64(r.Sequence)), AttributeDuplicate.Bool(r.Duplicate))
	}
	EndSpan(span, err)
}

// EndSpan ends a span, as failed where err is not nil.
func EndSpan(span trace.Span, err error) {
	if err != nil {
		err = SpanError(err)
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
