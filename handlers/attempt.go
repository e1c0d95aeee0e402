package handlers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// failure is why an event becomes a dead letter.
type failure struct {
	reason   string
	err      error
	attempts int
	first    time.Time // of the first attempt
}

// attempt calls the handler until it succeeds, gives the event up, the policy's last attempt has failed, or too much waits behind
// it. The wait between attempts is inside the lane: what follows in this conversation waits, no other does. When ctx ended
// meanwhile the result means nothing; the caller looks.
func (c *conversation) attempt(ctx context.Context, e *Event) ([]Delivery, string, *failure) {
	policy := c.w.handler.Retry
	first := time.Now()
	whole := ctx
	ctx, stop := c.stoppable(ctx)
	defer stop()
	for n := 1; ; n++ {
		e.Attempt = n
		v := c.w.handler.try(ctx, *e)
		switch {
		case whole.Err() != nil:
			return nil, "", nil
		case v.outcome == bus.OutcomeDelivered:
			if n > 1 {
				c.w.failing.over(c.w.handler.Name)
			}
			return v.deliveries, v.outcome, nil
		case v.outcome == bus.OutcomeDropped:
			c.w.log.Debug("event dropped by its handler", "reason", v.reason, "sequence", e.Sequence)
			return nil, v.outcome, nil
		case v.outcome == bus.OutcomeDeadLetter:
			return nil, "", &failure{reason: v.reason, err: v.err, attempts: n, first: first}
		case ctx.Err() != nil:
			return nil, "", &failure{reason: ReasonStuck, err: errors.Join(errStuck, v.err), attempts: n, first: first}
		case n >= policy.Attempts:
			return nil, "", &failure{reason: ReasonFailed, err: v.err, attempts: n, first: first}
		}
		c.noteFailure(n, v.err)
		wait := policy.wait(n)
		if v.after > 0 {
			wait = v.after
		}
		c.w.failing.report(c.w.handler.Name, v.err)
		c.tally.retries.Add(1)
		if err := c.rest(ctx, wait); err != nil {
			if whole.Err() != nil {
				return nil, "", nil
			}
			return nil, "", &failure{reason: ReasonStuck, err: errors.Join(errStuck, err), attempts: n, first: first}
		}
	}
}

// verdict is what one call of a handler says of an event.
type verdict struct {
	outcome    string        // one of the bus's outcomes, or outcomeRetry
	deliveries []Delivery    // of one delivered
	reason     string        // of one dropped, or a dead letter's
	err        error         // why it is a dead letter, or to be tried again
	after      time.Duration // when to be tried again, 0 = by the policy
}

// outcomeRetry is the outcome of a call that failed, where another may not.
const outcomeRetry = "retry"

// try calls the handler once, and judges what it returns.
func (h *Handler) try(ctx context.Context, e Event) verdict {
	ctx, cancel := context.WithTimeout(ctx, h.AttemptTimeout)
	defer cancel()
	deliveries, err := contained(func() ([]Delivery, error) { return h.Handle(ctx, e) })
	var dead *deadLetterError
	var drop *dropError
	var again *retryError
	switch {
	case err == nil:
		if err := h.check(deliveries); err != nil {
			return verdict{outcome: bus.OutcomeDeadLetter, reason: ReasonBadDelivery, err: err}
		}
		return verdict{outcome: bus.OutcomeDelivered, deliveries: deliveries}
	case errors.As(err, &drop):
		return verdict{outcome: bus.OutcomeDropped, reason: drop.reason}
	case errors.As(err, &dead):
		return verdict{outcome: bus.OutcomeDeadLetter, reason: dead.reason, err: dead.err}
	case errors.As(err, &again):
		return verdict{outcome: outcomeRetry, err: err, after: again.after}
	}
	return verdict{outcome: outcomeRetry, err: err}
}

// check refuses deliveries that the runtime cannot or must not make.
func (h *Handler) check(deliveries []Delivery) error {
	type target struct{ agent, kind string }
	seen := make(map[target]bool, len(deliveries))
	for _, d := range deliveries {
		t := target{d.Agent, d.Type}
		switch {
		case !h.owns(d.Type):
			return fmt.Errorf("delivery type %.80q: not one of the handler's types %q", d.Type, h.Types)
		case seen[t]:
			return fmt.Errorf("two deliveries of type %s for agent %.80q: an event makes at most one", d.Type, d.Agent)
		}
		if _, err := subjects.Encode(d.Agent); err != nil {
			return fmt.Errorf("delivery for agent %.80q: %w", d.Agent, err)
		}
		seen[t] = true
	}
	return nil
}
