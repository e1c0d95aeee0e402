package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/subjects"
)

// deliveries is how far one conversation's deliveries of one type were read.
type deliveries struct {
	after uint64 // events up to this one were asked for
	next  uint64 // where in CIM_DELIVERIES it goes on
	event uint64 // whose delivery is there, 0 = unknown
}

// deliveriesAhead is how many deliveries are read at once: few have more recipients.
const deliveriesAhead = 8

// clocks is by how much the clocks of a cluster's streams may differ.
const clocks = time.Minute

// deliveriesStart is where in CIM_DELIVERIES those of an event may begin.
type deliveriesStart struct {
	time time.Time // of the event it was asked for last
	at   uint64
}

// Delivered tells what was really delivered for e, and whether it became a dead letter of the handler; whether it was dropped is in no
// stream. Deliveries that have expired are not there, like those to come of an event that the handler has not come to yet. Those of one
// agent are in the order they were made in.
func (r *Rehearsal) Delivered(ctx context.Context, e bus.StoredEvent) (Rehearsed, error) {
	out, err := r.delivered(ctx, e)
	if err != nil {
		return Rehearsed{}, fmt.Errorf("what was delivered for event %d: %w", e.Sequence, err)
	}
	return out, nil
}

func (r *Rehearsal) delivered(ctx context.Context, stored bus.StoredEvent) (Rehearsed, error) {
	e, key, why := decode(stored.Subject, stored.Header, stored.Data, stored.Sequence, stored.Time)
	if others, err := redrivenForOthers(ctx, r.bus, r.handler.Name, &e); err != nil || others || why.imported() {
		return Rehearsed{Outcome: OutcomeUnhandled}, err
	}
	if dead, err := r.buried(ctx, &e); err != nil || dead.Outcome != "" {
		return dead, err
	}
	out := Rehearsed{Outcome: bus.OutcomeDelivered}
	if why != nil {
		return out, ctx.Err() // to be a dead letter
	}
	c := r.conversations.get(key)
	var made []*jetstream.RawStreamMsg
	for _, kind := range r.handler.Types {
		messages, err := r.deliveriesOf(ctx, c, key, kind, &e)
		if err != nil {
			return Rehearsed{}, err
		}
		made = append(made, messages...)
	}
	slices.SortFunc(made, func(x, y *jetstream.RawStreamMsg) int { return cmp.Compare(x.Sequence, y.Sequence) })
	for _, m := range made {
		name, err := subjects.ParseDelivery(m.Subject)
		if err != nil {
			return Rehearsed{}, err
		}
		out.Deliveries = append(out.Deliveries, Delivery{Agent: name.Agent, Type: name.Type, Payload: m.Data, Header: m.Header})
	}
	return out, nil
}

// buried is the event's dead letter, if it has one.
func (r *Rehearsal) buried(ctx context.Context, e *Event) (Rehearsed, error) {
	subject, err := deadLetterOf(r.handler.Name, e).Subject()
	if err != nil {
		return Rehearsed{}, err
	}
	m, err := r.bus.LastMessage(ctx, bus.StreamDeadLetters, subject)
	if errors.Is(err, bus.ErrNoMessage) {
		return Rehearsed{}, nil
	}
	if err != nil {
		return Rehearsed{}, err
	}
	return Rehearsed{
		Outcome: bus.OutcomeDeadLetter, Reason: bus.LastHeader(m.Header, bus.HeaderReason), Err: errors.New(bus.LastHeader(m.Header, bus.HeaderError)),
	}, nil
}

// deliveriesOf reads the deliveries of one type for one event. Those of a conversation are stored in the order of its events.
func (r *Rehearsal) deliveriesOf(ctx context.Context, c *rehearsed, key laneKey, kind string, e *Event) ([]*jetstream.RawStreamMsg, error) {
	filter, err := subjects.DeliveryFilter{Tenant: subjects.Is(key.tenant), Type: subjects.Is(kind), Conversation: subjects.Is(key.conversation)}.Subject()
	if err != nil {
		return nil, err
	}
	d := c.delivered[kind]
	if d == nil || e.Sequence <= d.after {
		start, err := r.start.of(ctx, r.bus, e.Stored)
		if err != nil {
			return nil, err
		}
		d = &deliveries{next: start}
		c.delivered[kind] = d
	}
	d.after = e.Sequence
	if d.event > e.Sequence {
		return nil, nil
	}
	var out []*jetstream.RawStreamMsg
	for m, err := range r.bus.Read(ctx, bus.Range{Stream: bus.StreamDeliveries, Filter: filter, From: d.next, Batch: deliveriesAhead}) {
		if err != nil {
			return nil, err
		}
		s := bus.SequenceOf(m.Header)
		d.next, d.event = m.Sequence, s
		if s > e.Sequence {
			break
		}
		d.next, d.event = m.Sequence+1, 0
		if s == e.Sequence {
			out = append(out, m)
		}
	}
	return out, nil
}

// of is where the deliveries of an event stored at t may begin. It is found anew only where that skips something.
func (d *deliveriesStart) of(ctx context.Context, b *bus.Bus, t time.Time) (uint64, error) {
	if !d.time.IsZero() && !t.Before(d.time) && t.Sub(d.time) < clocks {
		return d.at, nil
	}
	span, err := b.Span(ctx, bus.StreamDeliveries, bus.Point{Time: t.Add(-clocks)}, bus.Point{})
	if err != nil {
		return 0, err
	}
	d.time, d.at = t, span.First
	return d.at, nil
}
