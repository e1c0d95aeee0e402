package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// conversation is what one epoch knows of one conversation. Its lane owns it.
type conversation struct {
	w     *Worker
	key   laneKey
	lane  *lane  // that it is worked on in; nil in tests
	tally *tally // of its tenant

	touched   bool            // the last index entry was read
	agreed    bool            // CIM_EVENTS has the event of that entry, or had it
	committed uint64          // Cim-Sequence of the last index entry
	indexSeq  uint64          // its sequence in CIM_INDEX
	state     State           // nil until the first event above committed
	marks     map[string]mark // the last message of each subject this conversation writes to
	takes     int             // how often the event at hand was taken from the start
	uncovered int             // commits since the last checkpoint
	snapshot  *checkpoint     // taken, waiting to be old enough to be written
	postponed time.Time       // no checkpoint before, the last one failed
	span      trace.Span      // of the event at hand; nil without tracing
}

func newConversation(w *Worker, key laneKey) *conversation {
	return &conversation{w: w, key: key, tally: w.tenants.Of(key.tenant), marks: map[string]mark{}}
}

// forget drops all that was known, so that the next step reads it anew.
func (c *conversation) forget() {
	*c = conversation{w: c.w, key: c.key, lane: c.lane, tally: c.tally, marks: map[string]mark{}, takes: c.takes}
}

// process brings one event to its end: it returns how the source is to be acknowledged, or ctx's error. An event that another
// worker overtook is taken again from the start, with all that is known of the conversation read anew.
func (c *conversation) process(ctx context.Context, e Event, why *invalid) (acknowledgement, error) {
	for c.takes = 1; ; c.takes++ {
		ack, err := c.commit(ctx, e, why)
		if !errors.Is(err, errOvertaken) {
			return ack, err
		}
		c.w.log.Debug("overtaken, reading the conversation anew", "tenant", c.key.tenant, "sequence", e.Sequence)
		c.forget()
	}
}

// commit is the commit protocol. Everything that makes "exactly once, in order" true is in it and in the fence:
//
//  0. an event at or below the last index entry is committed: acknowledge it
//  1. fold the event; write the records of the memberships it changed
//  2. publish the deliveries, wait for all acknowledgements
//  3. publish the index entry: now the event is committed
//  4. acknowledge it (the caller's)
func (c *conversation) commit(ctx context.Context, e Event, why *invalid) (acknowledgement, error) {
	if others, err := c.redrivenForOthers(ctx, &e); err != nil || others {
		return acknowledged, err
	}
	if c.w.commits() {
		if err := c.touch(ctx); err != nil {
			return acknowledged, err
		}
		if e.Sequence <= c.committed && !c.w.redoes(e.Sequence) {
			c.state = nil // it may have been folded for events done again before this one, and lacks this one
			return acknowledged, c.agrees(ctx, &e)
		}
	}
	ctx = c.startHandle(ctx, &e)
	ack, err := c.handle(ctx, &e, why)
	c.endHandle(&e, err)
	return ack, err
}

// handle takes an event that is not committed through steps 1 to 3.
func (c *conversation) handle(ctx context.Context, e *Event, why *invalid) (acknowledgement, error) {
	if why.imported() {
		return acknowledgement{end: endImported}, c.index(ctx, e, bus.OutcomeImported)
	}
	if why != nil {
		return c.bury(ctx, e, failure{reason: why.reason, err: why.err, first: time.Now()})
	}
	if c.w.commits() {
		if err := c.load(ctx, e.Sequence); err != nil {
			return acknowledged, err
		}
		if !cim.IsTransient(e.Name) {
			changes, err := fold(c.state, e)
			if err != nil {
				reason := foldReason(err)
				if reason == ReasonPanic {
					c.state = nil // whatever it left of it
				}
				return c.bury(ctx, e, failure{reason: reason, err: err, first: time.Now()})
			}
			if err := c.publishMembers(ctx, e, changes); err != nil {
				return acknowledged, err
			}
		}
		e.Audience = c.state.Audience(e)
	}
	first := time.Now()
	deliveries, outcome, failed := c.attempt(ctx, e)
	if err := ctx.Err(); err != nil {
		return acknowledged, err
	}
	if failed != nil {
		return c.bury(ctx, e, *failed)
	}
	if err := c.deliver(ctx, e, deliveries); err != nil {
		if errors.Is(err, errTooLarge) {
			return c.bury(ctx, e, failure{reason: ReasonTooLarge, err: err, attempts: e.Attempt, first: first})
		}
		return acknowledged, err
	}
	c.noteOutcome(outcome)
	if cim.IsTransient(e.Name) {
		return acknowledgement{end: endTransient}, nil
	}
	return acknowledgement{end: endOf(outcome)}, c.index(ctx, e, outcome)
}

// redrivenForOthers tells whether e is another handler's dead letter, or an event replayed for it, appended once more for that handler
// alone.
func (c *conversation) redrivenForOthers(ctx context.Context, e *Event) (others bool, err error) {
	if bus.LastHeader(e.Header, bus.HeaderRedriveHandler) == "" {
		return false, nil
	}
	err = c.w.persist(ctx, bus.StreamDeadLetters, func() error {
		others, err = redrivenForOthers(ctx, c.w.bus, c.w.handler.Name, e)
		return err
	})
	return others, err
}

// redrivenForOthers tells whether e was redriven or replayed for another handler than the one named. A publisher may write such headers
// too: they are believed only where they name a dead letter of that handler, or the event that e is a copy of.
func redrivenForOthers(ctx context.Context, b *bus.Bus, name string, e *Event) (bool, error) {
	handler := bus.LastHeader(e.Header, bus.HeaderRedriveHandler)
	if handler == "" || handler == name {
		return false, nil
	}
	if of := sequenceIn(e.Header, bus.HeaderReplayOf); of != 0 {
		return isCopy(ctx, b, e, of)
	}
	of := sequenceIn(e.Header, bus.HeaderRedriveOf)
	if of == 0 {
		return false, nil
	}
	m, err := b.MessageAt(ctx, bus.StreamDeadLetters, of)
	if errors.Is(err, bus.ErrNoMessage) {
		// Dropped or expired since, even if it was the last one; one that is yet to come was never redriven.
		s, err := b.JetStream().Stream(ctx, bus.StreamDeadLetters)
		if err != nil {
			return false, err
		}
		return of <= s.CachedInfo().State.LastSeq, nil
	}
	if err != nil {
		return false, err
	}
	return bus.LastHeader(m.Header, bus.HeaderHandler) == handler, nil
}

// isCopy tells whether e is an event that was stored before, appended once more. What says so without being that is handled by all: an
// event that nobody else has is not hidden from anybody.
func isCopy(ctx context.Context, b *bus.Bus, e *Event, of uint64) (bool, error) {
	if of >= e.Sequence {
		return false, nil
	}
	m, err := b.MessageAt(ctx, bus.StreamEvents, of)
	if errors.Is(err, bus.ErrNoMessage) {
		return true, nil // it has expired, or was deleted
	}
	return err == nil && m.Subject == e.Subject && bytes.Equal(m.Data, e.Payload), err
}

// sequenceIn reads a stream sequence from a header, 0 if there is none.
func sequenceIn(h nats.Header, key string) uint64 {
	n, err := strconv.ParseUint(bus.LastHeader(h, key), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// touch reads the last index entry, once.
func (c *conversation) touch(ctx context.Context) error {
	if c.touched {
		return nil
	}
	subject, err := subjects.Index{Tenant: c.key.tenant, Conversation: c.key.conversation}.Subject()
	if err != nil {
		return fmt.Errorf("index of conversation: %w", err)
	}
	return c.w.persist(ctx, bus.StreamIndex, func() error {
		last, err := lastOn(ctx, c.w.bus, bus.StreamIndex, subject)
		if err == nil {
			err = c.sameStreams(ctx, bus.StreamIndex)
		}
		if err != nil {
			return err
		}
		c.marks[subject] = last
		c.committed, c.indexSeq, c.touched = last.sequence, last.stream, true
		return nil
	})
}

// sameStreams is asked after streams were read, and ends the epoch if what was read is incomplete because one was made anew.
func (c *conversation) sameStreams(ctx context.Context, streams ...string) error {
	if c.lane == nil {
		return nil
	}
	err := c.lane.e.sameStreams(ctx, streams)
	if errors.Is(err, errRemade) {
		c.lane.e.end(err)
	}
	return err
}

// errWentBack says that CIM_EVENTS is not the one its conversations' index was made of. To acknowledge its new events as committed
// would lose them.
var errWentBack = errors.New("CIM_EVENTS gives out sequences again that were committed before: it is an old copy, or was made anew by hand; " +
	"no event is handled until, with all workers stopped, all streams are restored from one copy, or all but CIM_EVENTS are deleted")

// agrees is asked before e is taken for committed because the index has come further: whether the entry that says so is of an event
// of this CIM_EVENTS.
func (c *conversation) agrees(ctx context.Context, e *Event) error {
	if c.agreed {
		return nil
	}
	subject, err := subjects.Index{Tenant: c.key.tenant, Conversation: c.key.conversation}.Subject()
	if err != nil {
		return fmt.Errorf("index of conversation: %w", err)
	}
	if err := c.sameEvents(ctx, e.Sequence, mark{sequence: c.committed, made: c.marks[subject].made}); err != nil {
		return err
	}
	c.agreed = true
	return nil
}

// sameEvents tells whether what was made of a later event than s was made of an event of this CIM_EVENTS.
func (c *conversation) sameEvents(ctx context.Context, s uint64, m mark) error {
	back := false
	err := c.w.persist(ctx, bus.StreamEvents, func() error {
		event, err := c.w.bus.MessageAt(ctx, bus.StreamEvents, m.sequence)
		if errors.Is(err, bus.ErrNoMessage) {
			stream, err := c.w.js.Stream(ctx, bus.StreamEvents)
			back = err == nil && stream.CachedInfo().State.LastSeq < m.sequence
			return err
		}
		back = err == nil && m.made != "" && m.made != sourceTime(event.Time)
		return err
	})
	if err == nil && back {
		err = fmt.Errorf("%w (event %d, committed %d)", errWentBack, s, m.sequence)
	}
	return err
}

// sourceTime is the Cim-Source-Time of an event stored at t.
func sourceTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// publishMembers writes the member records that e changed, before any delivery of e.
func (c *conversation) publishMembers(ctx context.Context, e *Event, changes []MemberChange) error {
	out := make([]derived, 0, len(changes))
	for _, m := range changes {
		d, err := c.w.memberRecord(c.key, membership{MemberChange: m, sequence: e.Sequence, stored: e.Stored})
		if err != nil {
			return err
		}
		out = append(out, d)
	}
	return c.publish(ctx, e.Sequence, out...)
}

// membership is a record, and the event that made it so.
type membership struct {
	MemberChange
	sequence uint64
	stored   time.Time // zero if the event is gone
}

func (w *Worker) memberRecord(key laneKey, m membership) (derived, error) {
	subject, err := subjects.MemberKey{Tenant: key.tenant, Agent: m.Agent, Conversation: key.conversation}.Subject()
	if err != nil {
		return derived{}, fmt.Errorf("member record: %w", err)
	}
	body, err := json.Marshal(bus.Member{Role: m.Role, Since: m.Since, Left: m.Left})
	if err != nil {
		return derived{}, fmt.Errorf("member record: %w", err)
	}
	h := nats.Header{bus.HeaderSequence: []string{strconv.FormatUint(m.sequence, 10)}}
	if !m.stored.IsZero() {
		h[bus.HeaderSourceTime] = []string{sourceTime(m.stored)}
	}
	if m.Left != 0 {
		h[headerTTL] = []string{w.bus.LeftMembersTTL().String()}
	}
	return derived{stream: bus.StreamMembers, msg: &nats.Msg{Subject: subject, Header: h, Data: body}}, nil
}

// headerTTL makes the server delete a message after that time.
const headerTTL = "Nats-TTL"

// deliver publishes the deliveries in a span of their own.
func (c *conversation) deliver(ctx context.Context, e *Event, deliveries []Delivery) error {
	if len(deliveries) == 0 {
		return nil
	}
	span := c.startDeliver(ctx, e, deliveries)
	err := c.deliverIn(ctx, span, e, deliveries)
	if span != nil {
		bus.EndSpan(span, err)
	}
	return err
}

// deliverIn publishes the deliveries. One agent's are published one after the other, so that a notice is never stored before
// the event it follows; different agents' go together.
func (c *conversation) deliverIn(ctx context.Context, span trace.Span, e *Event, deliveries []Delivery) error {
	for len(deliveries) > 0 {
		var wave []derived
		var rest []Delivery
		taken := make(map[string]bool, len(deliveries))
		for _, d := range deliveries {
			if taken[d.Agent] {
				rest = append(rest, d)
				continue
			}
			taken[d.Agent] = true
			msg, err := message(c.key, span, e, d)
			if err != nil {
				return err
			}
			if d.Transient {
				if err := c.w.bus.Conn().PublishMsg(msg); err != nil {
					c.w.outage.report("transient", err)
				}
				continue
			}
			wave = append(wave, derived{stream: bus.StreamDeliveries, msg: msg, since: e.Stored})
		}
		if err := c.publish(ctx, e.Sequence, wave...); err != nil {
			return err
		}
		deliveries = rest
	}
	return nil
}

// message puts a delivery on its subject, with the span it is part of; nil = none.
func message(key laneKey, span trace.Span, e *Event, d Delivery) (*nats.Msg, error) {
	name := subjects.Delivery{Tenant: key.tenant, Agent: d.Agent, Type: d.Type, Conversation: key.conversation}
	h := derivedHeader(e)
	if span != nil {
		bus.SetTrace(h, span.SpanContext())
	}
	if len(d.Header) > 0 {
		maps.Copy(h, bus.Foreign(d.Header))
	}
	if d.Transient {
		delete(h, bus.HeaderSequence)
		h[bus.HeaderTransient] = []string{"true"}
		subject, err := name.Live()
		return &nats.Msg{Subject: subject, Header: h, Data: d.Payload}, err
	}
	subject, err := name.Subject()
	return &nats.Msg{Subject: subject, Header: h, Data: d.Payload}, err
}

// index publishes the index entry and so commits e.
func (c *conversation) index(ctx context.Context, e *Event, outcome string) error {
	if !c.w.commits() {
		return nil
	}
	subject, err := subjects.Index{Tenant: c.key.tenant, Conversation: c.key.conversation}.Subject()
	if err != nil {
		return fmt.Errorf("index entry: %w", err)
	}
	channel := ""
	if c.state != nil {
		channel = c.state.LastChannel()
	}
	h := indexHeader(e, outcome, channel)
	if err := c.publish(ctx, e.Sequence, derived{stream: bus.StreamIndex, msg: &nats.Msg{Subject: subject, Header: h}}); err != nil {
		return err
	}
	last := c.marks[subject]
	c.committed, c.indexSeq = last.sequence, last.stream
	if last.sequence > e.Sequence {
		return nil // done again: a checkpoint would claim all that is committed for a state that has not come to it
	}
	c.uncovered++
	return c.checkpointIfDue(ctx)
}

// indexHeader is what an index entry says. Who publishes into the conversation finds its channel in the last entry: one whose event
// has none bears the one used last.
func indexHeader(e *Event, outcome, channel string) nats.Header {
	h := derivedHeader(e)
	h[bus.HeaderOutcome] = []string{outcome}
	if len(h[bus.HeaderChannel]) == 0 && channel != "" {
		h[bus.HeaderChannel] = []string{channel}
	}
	return h
}

// fold folds an event, a panic contained: the event stays out then, as an invalid one does, now and at every later reading.
func fold(state State, e *Event) ([]MemberChange, error) {
	return contained(func() ([]MemberChange, error) { return state.Fold(e) })
}

// foldReason is the reason of the dead letter of an event that could not be folded.
func foldReason(err error) string {
	if dead, ok := errors.AsType[*deadLetterError](err); ok {
		return dead.reason
	}
	return ReasonInvalidEvent
}
