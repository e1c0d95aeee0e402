package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tidwall/gjson"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// Journey is what the streams tell of one event: of what was tried and then succeeded, or published twice and stored once, they know
// nothing.
type Journey struct {
	Event   StoredEvent // without message where Expired
	Expired bool        // CIM_EVENTS does not keep it any more: the rest is what is left
	Entry   *Entry      // its index entry, nil = it is not committed, or the index does not keep it any more
	Waiting bool        // its worker has not finished it, or not all that came before it
	Steps   []Step      // in the order of time
	// DeliveriesSince is from when on deliveries are kept, where that is later than the event: there may have been others.
	DeliveriesSince time.Time
}

// StepKind is what a step of a journey is.
type StepKind string

// The steps of a journey.
const (
	StepPublished  StepKind = "published"   // Time is the event's own, zero if it tells none; Header what it was published with; see Emitter
	StepStored     StepKind = "stored"      // in CIM_EVENTS
	StepMember     StepKind = "member"      // it made Agent a member, or changed its Role; an older record of the agent is not kept
	StepLeft       StepKind = "left"        // it ended the membership of Agent
	StepDelivered  StepKind = "delivered"   // see Delivery
	StepReplayed   StepKind = "replayed"    // a delivery made by a replay, see Delivery and Replay
	StepDeadLetter StepKind = "dead-letter" // see DeadLetter
	StepRedrive    StepKind = "redrive"     // a record of the redrive of DeadLetter, see Redrive
	StepCommitted  StepKind = "committed"   // the index entry was stored: see Journey.Entry
	StepReplay     StepKind = "replay"      // a replay took it, see Record
)

// Step is one thing that happened to an event.
type Step struct {
	Kind       StepKind
	Time       time.Time // when the server stored it
	Header     nats.Header
	Emitter    Emitter
	Agent      string
	Role       string
	Delivery   *StoredDelivery
	Replay     string // the replay's id
	DeadLetter *DeadLetter
	Redrive    *Redrive
	Record     *ReplayRecord
}

// Emitter is who an event says it comes from, the zero value where it does not say.
type Emitter struct {
	ID   string // of an agent, a customer, a service
	Type string // AGENT, BOT, CUSTOMER, APP, CONNECTOR, SYSTEM
	Name string // for people
}

// emitterOf reads the emitter of an event's own JSON, as far as it is written as it should be.
func emitterOf(event []byte) Emitter {
	var e Emitter
	for name, to := range map[string]*string{"id": &e.ID, "type": &e.Type, "senderName": &e.Name} {
		if v := gjson.GetBytes(event, "eventEmitter."+name); v.Type == gjson.String {
			*to = v.Str
		}
	}
	return e
}

// Journeys tells of the event with a sequence, and of what it was redriven as. It is a *RangeError where CIM_EVENTS does not have the
// sequence.
func (b *Bus) Journeys(ctx context.Context, sequence uint64) iter.Seq2[Journey, error] {
	return b.journeys(ctx, func(yield func(tracedEvent, error) bool) {
		if _, err := b.Span(ctx, StreamEvents, Point{Sequence: sequence}, Point{Sequence: sequence}); err != nil {
			yield(tracedEvent{}, fmt.Errorf("journey: %w", err))
			return
		}
		yield(tracedEvent{sequence: sequence}, nil)
	})
}

// JourneysOf tells of the events with an id in a stretch of StreamEvents, those that it was redriven as included: of several where the id was
// published again after the duplicate window.
func (b *Bus) JourneysOf(ctx context.Context, s EventSelection, span Span) iter.Seq2[Journey, error] {
	return b.journeys(ctx, b.eventsOfID(ctx, s, span))
}

// tracedEvent is one that is to be told of.
type tracedEvent struct {
	sequence uint64
	entry    *Entry // its index entry, if it was found by that
	tenant   string // of the entry
}

func (b *Bus) journeys(ctx context.Context, events iter.Seq2[tracedEvent, error]) iter.Seq2[Journey, error] {
	return func(yield func(Journey, error) bool) {
		told := map[uint64]bool{}
		var further []uint64
		tell := func(e tracedEvent) bool {
			if told[e.sequence] {
				return true
			}
			told[e.sequence] = true
			j, err := b.journey(ctx, e)
			for _, s := range j.Steps {
				if s.Redrive != nil && s.Redrive.Event != 0 {
					further = append(further, s.Redrive.Event)
				}
			}
			if err != nil {
				err = fmt.Errorf("journey of event %d: %w", e.sequence, err)
			}
			return yield(j, err) && err == nil
		}
		for e, err := range events {
			if err != nil {
				yield(Journey{}, err)
				return
			}
			if !tell(e) {
				return
			}
		}
		for len(further) > 0 {
			next := further[0]
			further = further[1:]
			if !tell(tracedEvent{sequence: next}) {
				return
			}
		}
	}
}

// journey gathers what the streams have of one event.
func (b *Bus) journey(ctx context.Context, e tracedEvent) (Journey, error) {
	j := Journey{Entry: e.entry}
	m, err := b.MessageAt(ctx, StreamEvents, e.sequence)
	switch {
	case errors.Is(err, ErrNoMessage):
		j.Expired = true
		m = &jetstream.RawStreamMsg{Sequence: e.sequence}
		if e.entry != nil {
			m.Subject, m.Time = e.entry.Subject, e.entry.Stored
		}
	case err != nil:
		return j, err
	}
	j.Event, _ = (&EventSelection{}).Read(m)
	if j.Expired && e.entry != nil {
		j.Event.Conversation, j.Event.ID = e.entry.Conversation, e.entry.EventID
	}
	tenant := cmp.Or(j.Event.Name.Tenant, e.tenant)
	if tenant == "" {
		return j, nil // neither the event nor its entry is left
	}
	if err := b.findEntry(ctx, &j, tenant); err != nil {
		return j, err
	}
	conversation := j.Event.Conversation
	if j.Entry != nil {
		conversation = j.Entry.Conversation
	}
	for _, gather := range []func(context.Context, *Journey, string, string) error{b.stepsOfRoad, b.stepsOfMembers, b.stepsOfDeliveries, b.stepsOfDeadLetters, b.stepsOfReplays} {
		if err := gather(ctx, &j, tenant, conversation); err != nil {
			return j, err
		}
	}
	slices.SortStableFunc(j.Steps, func(x, y Step) int {
		return cmp.Or(cmp.Compare(x.Kind.rank(), y.Kind.rank()), x.Time.Compare(y.Time))
	})
	return j, nil
}

// rank has what an event says of itself before what the servers' clocks say.
func (k StepKind) rank() int {
	switch k {
	case StepPublished:
		return 0
	case StepStored:
		return 1
	}
	return 2
}

// findEntry looks for the index entry: in the lane of the event's conversation, and in that of the events of none, where one lands
// that is wrong.
func (b *Bus) findEntry(ctx context.Context, j *Journey, tenant string) error {
	for _, conversation := range slices.Compact([]string{j.Event.Conversation, ""}) {
		if j.Entry != nil {
			return nil
		}
		subject, err := subjects.Index{Tenant: tenant, Conversation: conversation}.Subject()
		if err != nil {
			continue // no conversation that an index is kept of
		}
		at, err := b.firstAbove(ctx, StreamIndex, subject, j.Event.Sequence-1)
		if err != nil {
			return err
		}
		if at == 0 {
			continue
		}
		m, err := b.MessageAt(ctx, StreamIndex, at)
		if errors.Is(err, ErrNoMessage) {
			continue
		}
		if err != nil {
			return err
		}
		if SequenceOf(m.Header) == j.Event.Sequence {
			e := entry(conversation, m)
			j.Entry = &e
		}
	}
	if j.Entry == nil {
		floor, err := b.committed(ctx)
		j.Waiting = floor < j.Event.Sequence
		return err
	}
	return nil
}

// stepsOfRoad are what the event itself and its entry tell.
func (b *Bus) stepsOfRoad(_ context.Context, j *Journey, _, _ string) error {
	if !j.Expired {
		// What can be read of an event with an error is enough here.
		decoded, _ := cim.Decode(j.Event.Data, "")
		j.Steps = append(j.Steps, Step{Kind: StepPublished, Time: decoded.Time, Header: j.Event.Header, Emitter: emitterOf(decoded.Body)})
	}
	j.Steps = append(j.Steps, Step{Kind: StepStored, Time: j.Event.Time})
	if j.Entry != nil {
		j.Steps = append(j.Steps, Step{Kind: StepCommitted, Time: j.Entry.Committed})
	}
	return nil
}

// stepsOfMembers are the records that the event wrote, as far as no later one replaced them.
func (b *Bus) stepsOfMembers(ctx context.Context, j *Journey, tenant, conversation string) error {
	if conversation == "" {
		return nil
	}
	filter, err := subjects.MemberFilter{Tenant: subjects.Is(tenant), Conversation: subjects.Is(conversation)}.Subject()
	if err != nil {
		return nil // no conversation that there can be members of
	}
	for m, err := range b.Read(ctx, Range{Stream: StreamMembers, Filter: filter}) {
		if err != nil {
			return err
		}
		record, err := decodeMember(m)
		if err != nil || SequenceOf(m.Header) != j.Event.Sequence {
			continue
		}
		kind := StepMember
		if record.Left != 0 {
			kind = StepLeft
		}
		j.Steps = append(j.Steps, Step{Kind: kind, Time: m.Time, Agent: record.Agent, Role: record.Role})
	}
	return nil
}

// stepsOfDeliveries are those of the conversation that name the event. They are stored after it; what a handler of its own makes of it,
// or a replay, may be much later. Of no conversation there are those of all agents, so there only those before it was committed count.
func (b *Bus) stepsOfDeliveries(ctx context.Context, j *Journey, tenant, conversation string) error {
	filter, err := subjects.DeliveryFilter{Tenant: subjects.Is(tenant), Conversation: subjects.Is(conversation)}.Subject()
	if err != nil {
		return nil // no conversation that there can be deliveries of
	}
	log, err := b.describeDeliveries(ctx)
	if err != nil {
		return err
	}
	if log.first > log.last {
		return nil
	}
	r := RangeError{Stream: StreamDeliveries, First: log.first, Last: log.last, FirstTime: log.firstTime, LastTime: log.lastTime}
	span := Span{Stream: StreamDeliveries, Last: log.last}
	// On a cluster the clocks of two streams' leaders may differ.
	if span.First, err = b.firstSince(ctx, &r, j.Event.Time.Add(-clockSkew)); err != nil {
		return err
	}
	if span.First == log.first && log.first > 1 {
		if first, err := b.NextMessage(ctx, StreamDeliveries, log.first, ">"); err == nil && first.Time.After(j.Event.Time) {
			j.DeliveriesSince = first.Time
		}
	}
	if conversation == "" && j.Entry != nil {
		next, err := b.firstSince(ctx, &r, j.Entry.Committed.Add(clockSkew))
		if err != nil {
			return err
		}
		span.Last = min(span.Last, next)
	}
	if span.First > span.Last {
		return nil
	}
	for m, err := range b.Scan(ctx, Scan{Stream: StreamDeliveries, Subjects: []string{filter}, From: span.First, Upto: span.Last}) {
		if err != nil {
			return err
		}
		if SequenceOf(m.Header) != j.Event.Sequence {
			continue
		}
		d := readDelivery(m, log.identity)
		s := Step{Kind: StepDelivered, Time: m.Time, Agent: d.Name.Agent, Delivery: &d}
		if s.Replay = LastHeader(m.Header, HeaderReplayID); s.Replay != "" {
			s.Kind = StepReplayed
		}
		j.Steps = append(j.Steps, s)
	}
	return nil
}

// stepsOfDeadLetters are those that handlers made of the event, and what is recorded of their redrives.
func (b *Bus) stepsOfDeadLetters(ctx context.Context, j *Journey, tenant, _ string) error {
	name := j.Event.Name
	if name.Event == "" {
		return nil
	}
	filter, err := subjects.DeadLetterFilter{
		Tenant: subjects.Is(tenant), Channel: subjects.Is(name.Channel), Event: subjects.Is(name.Event), Sequence: j.Event.Sequence,
	}.Subject()
	if err != nil {
		return err
	}
	for m, err := range b.Read(ctx, Range{Stream: StreamDeadLetters, Filter: filter}) {
		if err != nil {
			return err
		}
		d, err := readDeadLetter(m)
		if err != nil {
			return err
		}
		j.Steps = append(j.Steps, Step{Kind: StepDeadLetter, Time: d.Time, DeadLetter: &d})
		records, err := b.Redrives(ctx, d)
		if err != nil {
			return err
		}
		for i := range records {
			j.Steps = append(j.Steps, Step{Kind: StepRedrive, Time: records[i].Time, DeadLetter: &d, Redrive: &records[i]})
		}
	}
	return nil
}

// stepsOfReplays are the replays whose selection has the event, and that came past it.
func (b *Bus) stepsOfReplays(ctx context.Context, j *Journey, _, _ string) error {
	records, err := b.Replays(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // a bus of before there were replays
	}
	if err != nil {
		return err
	}
	info, err := b.streamInfo(ctx, StreamEvents)
	if err != nil {
		return err
	}
	for i := range records {
		r := &records[i]
		s := r.Selection.Selects()
		if r.Stream != streamIdentity(info.Created) || j.Event.Sequence < r.First || j.Event.Sequence > r.Done || !s.holds(j.Event) {
			continue
		}
		j.Steps = append(j.Steps, Step{Kind: StepReplay, Time: r.Started, Replay: r.ID, Record: r})
	}
	return nil
}
