package handlers

import (
	"context"

	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// outcomeInterrupted is what the span of an event says that was left to another worker, or to a later taking.
const outcomeInterrupted = "interrupted"

// startHandle begins the span of an event that is not committed yet, from fold to index entry. It is the consumer of what the
// event's headers name and the parent of all that is made of the event. An event that is taken again has a span for each time.
func (c *conversation) startHandle(ctx context.Context, e *Event) context.Context {
	tracer := c.w.bus.Tracer()
	if tracer == nil {
		return ctx
	}
	// A worker's own context may carry the span in which its host started it.
	ctx = trace.ContextWithRemoteSpanContext(ctx, bus.TraceOf(e.Header))
	ctx, c.span = tracer.Start(ctx, "handle", trace.WithSpanKind(trace.SpanKindConsumer),
		c.about(e, e.Subject), trace.WithAttributes(
			semconv.MessagingOperationName("handle"), semconv.MessagingOperationTypeProcess,
			semconv.MessagingConsumerGroupName(c.w.handler.durable()), bus.AttributeHandler.String(c.w.handler.Name)))
	e.derived = makeDerivedHeader(e)
	bus.SetTrace(e.derived, c.span.SpanContext())
	return ctx
}

// about says which event a span is of.
func (c *conversation) about(e *Event, subject string) trace.SpanStartEventOption {
	named := bus.Event{Tenant: e.Source.Tenant, Name: e.Source.Event, Conversation: c.key.conversation, ID: e.ID}
	return trace.WithAttributes(append(bus.SpanAttributes(named, subject), bus.AttributeSequence.Int64(int64(e.Sequence)))...)
}

// noteFailure records a failed attempt after which there will be another.
func (c *conversation) noteFailure(attempt int, err error) {
	if c.span != nil {
		c.span.RecordError(bus.SpanError(err), trace.WithAttributes(bus.AttributeAttempts.Int(attempt)))
	}
}

// noteDeadLetter records why an event becomes a dead letter.
func (c *conversation) noteDeadLetter(f failure) {
	if c.span == nil {
		return
	}
	c.noteOutcome(bus.OutcomeDeadLetter)
	c.span.SetAttributes(bus.AttributeReason.String(f.reason))
	err := bus.SpanError(f.err)
	c.span.RecordError(err)
	c.span.SetStatus(codes.Error, err.Error())
}

func (c *conversation) noteOutcome(outcome string) {
	if c.span != nil {
		c.span.SetAttributes(bus.AttributeOutcome.String(outcome))
	}
}

// endHandle ends the span. err is what kept the event from being committed by this taking.
func (c *conversation) endHandle(e *Event, err error) {
	if c.span == nil {
		return
	}
	c.span.SetAttributes(bus.AttributeAttempts.Int(e.Attempt))
	if err != nil {
		c.noteOutcome(outcomeInterrupted)
	}
	bus.EndSpan(c.span, err)
	c.span = nil
}

// startDeliver begins the span of all deliveries of an event, until the server has acknowledged the last; they bear its context. nil
// where there is no tracer.
func (c *conversation) startDeliver(ctx context.Context, e *Event, deliveries []Delivery) trace.Span {
	tracer := c.w.bus.Tracer()
	if tracer == nil {
		return nil
	}
	_, span := tracer.Start(ctx, "deliver", trace.WithSpanKind(trace.SpanKindProducer), c.about(e, subjects.AllDeliveries), trace.WithAttributes(
		semconv.MessagingOperationName("deliver"), semconv.MessagingOperationTypeSend, semconv.MessagingBatchMessageCount(len(deliveries))))
	return span
}
