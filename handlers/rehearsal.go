package handlers

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
)

// Rehearsal shows what a handler makes of stored events, by the rules its worker has and with the audiences they had, and what was
// really delivered for them. It writes, publishes and acknowledges nothing; workers are not disturbed. Events in the order they were
// stored in go fastest: the states of the conversations used last are kept. It is not safe for concurrent use.
type Rehearsal struct {
	bus     *bus.Bus
	handler Handler

	conversations recent
	backlog       backlog
	start         deliveriesStart
}

// Rehearsed is what a handler makes, or made, of one event.
type Rehearsed struct {
	// Outcome is one of bus.OutcomeDelivered, bus.OutcomeDropped, bus.OutcomeDeadLetter, OutcomeRetry and OutcomeUnhandled.
	Outcome string
	Reason  string // of one dropped, or the class of a dead letter's
	Err     error  // why it is a dead letter, or would be tried again
	// Deliveries are in the order they are made in, with all the headers they have but Nats-* ones. Those of transient events are in no
	// stream.
	Deliveries []Delivery
}

// Outcomes that only a rehearsal has, beside those of an event.
const (
	OutcomeRetry     = outcomeRetry // the attempt failed where another may succeed; a rehearsal makes one
	OutcomeUnhandled = "unhandled"  // the event is none of the handler's business: redriven for another one, or imported as history
)

// NewRehearsal prepares the rehearsal of a handler, whose durable need not exist.
func NewRehearsal(b *bus.Bus, h Handler) (*Rehearsal, error) {
	if err := h.Validate(); err != nil {
		return nil, fmt.Errorf("rehearsal: %w", err)
	}
	return &Rehearsal{bus: b, handler: h.withDefaults()}, nil
}

// Handle tells what the handler makes of e at its first attempt. That it fails is a result; an error is of the reading, or ctx's.
func (r *Rehearsal) Handle(ctx context.Context, e bus.StoredEvent) (Rehearsed, error) {
	out, err := r.handle(ctx, e)
	if err != nil {
		return Rehearsed{}, fmt.Errorf("rehearsal of event %d: %w", e.Sequence, err)
	}
	return out, nil
}

func (r *Rehearsal) handle(ctx context.Context, stored bus.StoredEvent) (Rehearsed, error) {
	e, key, why := decode(stored.Subject, stored.Header, stored.Data, stored.Sequence, stored.Time)
	others, err := redrivenForOthers(ctx, r.bus, r.handler.Name, &e)
	if err != nil || others || why.imported() {
		return Rehearsed{Outcome: OutcomeUnhandled}, err
	}
	if why == nil {
		return r.perform(ctx, key, e)
	}
	return Rehearsed{Outcome: bus.OutcomeDeadLetter, Reason: why.reason, Err: why.err}, ctx.Err()
}

// perform brings a valid event to the handler.
func (r *Rehearsal) perform(ctx context.Context, key laneKey, e Event) (Rehearsed, error) {
	if r.handler.NewState != nil {
		c, err := r.stateBefore(ctx, key, e.Sequence)
		if err != nil {
			return Rehearsed{}, err
		}
		if !cim.IsTransient(e.Name) {
			c.at = e.Sequence
			if _, err := fold(c.state, &e); err != nil {
				reason := foldReason(err)
				if reason == ReasonPanic {
					c.state = nil // whatever it left of it
				}
				return Rehearsed{Outcome: bus.OutcomeDeadLetter, Reason: reason, Err: err}, nil
			}
		}
		e.Audience = c.state.Audience(&e)
	}
	e.Attempt = 1
	v := r.handler.try(ctx, e)
	out := Rehearsed{Outcome: v.outcome, Reason: v.reason, Err: v.err}
	for _, d := range v.deliveries {
		msg, err := message(key, nil, &e, d)
		if err != nil {
			return Rehearsed{}, err
		}
		if r.tooLarge(msg) {
			return Rehearsed{Outcome: bus.OutcomeDeadLetter, Reason: ReasonTooLarge, Err: fmt.Errorf("%w: %d bytes for %s", errTooLarge, len(msg.Data), msg.Subject)}, nil
		}
		d.Header = msg.Header
		out.Deliveries = append(out.Deliveries, d)
	}
	return out, ctx.Err()
}

// tooLarge tells whether the server would refuse a delivery for its size.
func (r *Rehearsal) tooLarge(m *nats.Msg) bool {
	return int64(m.Size()-len(m.Subject)-len(m.Reply)) > r.bus.Conn().MaxPayload()
}
