package handlers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
)

// maxErrorText bounds the error text a dead letter carries in its header, in bytes.
const maxErrorText = 2048

// bury makes a dead letter of e and commits it: first the dead letter with payload and reason, then the index entry, and only then
// may the source be terminated. One that the server refuses for its size goes without the payload and says so.
func (c *conversation) bury(ctx context.Context, e *Event, f failure) (acknowledgement, error) {
	subject, err := deadLetterOf(c.w.handler.Name, e).Subject()
	if err != nil {
		return acknowledged, fmt.Errorf("dead letter: %w", err)
	}
	c.noteDeadLetter(f)
	text := f.err.Error()
	h := derivedHeader(e)
	h[bus.HeaderHandler] = []string{c.w.handler.Name}
	h[bus.HeaderReason] = []string{f.reason}
	h[bus.HeaderError] = []string{text[:min(len(text), maxErrorText)]}
	h[bus.HeaderAttempts] = []string{strconv.Itoa(max(f.attempts, 1))}
	h[bus.HeaderFirstAttempt] = []string{f.first.UTC().Format(time.RFC3339Nano)}
	h[bus.HeaderLastAttempt] = []string{time.Now().UTC().Format(time.RFC3339Nano)}
	if of := redriveOf(e.Header, c.w.handler.Name); of != "" {
		h[bus.HeaderRedriveOf] = []string{of}
	}

	err = c.publish(ctx, e.Sequence, derived{stream: bus.StreamDeadLetters, msg: &nats.Msg{Subject: subject, Header: h, Data: e.Payload}})
	if errors.Is(err, errTooLarge) {
		h = cloneHeader(h)
		h[bus.HeaderTruncated] = []string{strconv.Itoa(len(e.Payload))}
		err = c.publish(ctx, e.Sequence, derived{stream: bus.StreamDeadLetters, msg: &nats.Msg{Subject: subject, Header: h}})
	}
	if err != nil {
		return acknowledged, err
	}
	if err := c.index(ctx, e, bus.OutcomeDeadLetter); err != nil {
		return acknowledged, err
	}
	// The dead letter itself tells all; a flood of them must not be one of lines.
	c.w.dying.report(f.reason, fmt.Errorf("event %d of tenant %s: %w", e.Sequence, e.Source.Tenant, f.err))
	c.w.stats.deadLetters.Add(1)
	c.w.reasons.add(f.reason)
	return acknowledgement{term: f.reason, end: endDead}, nil
}

// redriveOf is the dead letter that an event was redriven from for this handler, "" if it was not.
func redriveOf(h nats.Header, handler string) string {
	of := bus.LastHeader(h, bus.HeaderRedriveOf)
	if _, err := strconv.ParseUint(of, 10, 64); err != nil || bus.LastHeader(h, bus.HeaderRedriveHandler) != handler {
		return ""
	}
	return of
}
