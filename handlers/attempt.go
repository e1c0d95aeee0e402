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
		deliveries, err := c.call(ctx, *e)
		var dead *deadLetterError
		var drop *dropError
		var again *retryError
		switch {
		case whole.Err() != nil:
			return nil, "", nil
		case err == nil:
			if err := c.check(deliveries); err != nil {
				return nil, "", &failure{reason: ReasonBadDelivery, err: err, attempts: n, first: first}
			}
			if n > 1 {
				c.w.failing.over(c.w.handler.Name)
			}
			return deliveries, bus.OutcomeDelivered, nil
		case errors.As(err, &drop):
			c.w.log.Debug("event dropped by its handler", "reason", drop.reason, "sequence", e.Sequence)
			return nil, bus.OutcomeDropped, nil
		case errors.As(err, &dead):
			return nil, "", &failure{reason: dead.reason, err: dead.err, attempts: n, first: first}
		case ctx.Err() != nil:
			return nil, "", &failure{reason: ReasonStuck, err: errors.Join(errStuck, err), attempts: n, first: first}
		case n >= policy.Attempts:
			return nil, "", &failure{reason: ReasonFailed, err: err, attempts: n, first: first}
		}
		c.noteFailure(n, err)
		wait := policy.wait(n)
		if errors.As(err, &again) && again.after > 0 {
			wait = again.after
		}
		c.w.failing.report(c.w.handler.Name, err)
		c.tally.retries.Add(1)
		if err := c.rest(ctx, wait); err != nil {
			if whole.Err() != nil {
				return nil, "", nil
			}
			return nil, "", &failure{reason: ReasonStuck, err: errors.Join(errStuck, err), attempts: n, first: first}
		}
	}
}

func (c *conversation) call(ctx context.Context, e Event) ([]Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, c.w.handler.AttemptTimeout)
	defer cancel()
	return contained(func() ([]Delivery, error) { return c.w.handler.Handle(ctx, e) })
}

// check refuses deliveries that the runtime cannot or must not make.
func (c *conversation) check(deliveries []Delivery) error {
	type target struct{ agent, kind string }
	seen := make(map[target]bool, len(deliveries))
	for _, d := range deliveries {
		t := target{d.Agent, d.Type}
		switch {
		case !c.w.handler.owns(d.Type):
			return fmt.Errorf("delivery type %.80q: not one of the handler's types %q", d.Type, c.w.handler.Types)
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
