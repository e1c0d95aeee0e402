package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// EventSelection selects stored events; everything it says must hold. The zero value selects all there are.
type EventSelection struct {
	Tenant  subjects.Match
	Channel subjects.Match // in any case; subjects.None = events of no channel
	// Events are names, or patterns of names as path.Match takes them; one of them must match. None = any.
	Events       []string
	Conversation subjects.Match // subjects.None = events of no conversation
	ID           string         // the event's id, "" = any
	From, Until  Point          // the stretch, see Bus.Span

	// Where is what else must hold of an event that is selected so far; nil = nothing. It is asked by one goroutine, in the order
	// of reading.
	Where func(e *StoredEvent) bool
	// Looked counts the messages that the server had to send, nil = nobody counts.
	Looked *uint64

	last struct { // the subject read last: most are like the one before
		subject string
		name    subjects.Event
	}
}

// Validate reports everything of the selection that cannot be.
func (s EventSelection) Validate() error {
	_, err := s.Subjects()
	errs := []error{err}
	for _, name := range s.Events {
		if _, err := path.Match(name, ""); err != nil {
			errs = append(errs, fmt.Errorf("event %q: %w: write a name, or a pattern with * and ?", name, err))
		}
	}
	return errors.Join(errs...)
}

// Subjects are the filters that the server reads by: what they let through besides has to be looked at.
func (s EventSelection) Subjects() ([]string, error) {
	names := []subjects.Match{subjects.Any}
	if len(s.Events) > 0 && !slices.ContainsFunc(s.Events, isPattern) {
		names = nil
		for _, name := range slices.Compact(slices.Sorted(slices.Values(s.Events))) {
			names = append(names, subjects.Is(name))
		}
	}
	var filters []string
	for _, name := range names {
		subject, err := subjects.EventFilter{Tenant: s.Tenant, Channel: s.Channel, Event: name}.Subject()
		if err != nil {
			return nil, err
		}
		filters = append(filters, subject)
	}
	return filters, nil
}

func isPattern(name string) bool { return strings.ContainsAny(name, `*?[\`) }

// Read takes a stored message for what it is, and tells whether it is selected as far as names, conversation and id go; the stretch
// it is in and tenant and channel are the reader's to see to.
func (s *EventSelection) Read(m *jetstream.RawStreamMsg) (StoredEvent, bool) {
	e := StoredEvent{RawStreamMsg: m}
	if s.Looked != nil {
		*s.Looked++
	}
	if m.Subject != s.last.subject {
		s.last.subject = m.Subject
		s.last.name, _ = subjects.ParseEvent(m.Subject) // empty where it is none of the bus's
	}
	e.Name = s.last.name
	if len(s.Events) > 0 && !slices.ContainsFunc(s.Events, func(pattern string) bool {
		ok, err := path.Match(pattern, e.Name.Event)
		return ok && err == nil
	}) {
		return e, false
	}
	e.Conversation, e.ID = LastHeader(m.Header, HeaderConversation), LastHeader(m.Header, HeaderEventID)
	if e.Conversation == "" || e.ID == "" {
		if s.cannotHold(m.Data, &e) {
			return e, false
		}
		// What can be read of an event with an error is enough here.
		decoded, _ := cim.Decode(m.Data, e.Conversation)
		e.Conversation, e.ID = decoded.Conversation, decoded.ID
	}
	return e, s.Conversation.Matches(e.Conversation) && (s.ID == "" || s.ID == e.ID) && (s.Where == nil || s.Where(&e))
}

// cannotHold tells at a glance that a body has not what is asked for. A name may be written with escapes; then it takes a second look.
func (s *EventSelection) cannotHold(body []byte, e *StoredEvent) bool {
	lacks := func(name string) bool { return name != "" && !bytes.Contains(body, []byte(name)) }
	missing := s.ID != "" && lacks(s.ID) || e.Conversation == "" && s.Conversation != subjects.Any && lacks(s.Conversation.Name())
	return missing && bytes.IndexByte(body, '\\') < 0
}

// Events reads the selected events in the order they were stored in, each once: those there are when the reading begins. It reads
// with Scan and never by the index: that has no entry of what is transient, or is none of the bus's own handler's business. The last pair
// of an incomplete reading is an error; breaking off early is fine.
func (b *Bus) Events(ctx context.Context, s EventSelection) iter.Seq2[StoredEvent, error] {
	return func(yield func(StoredEvent, error) bool) {
		span, err := b.Span(ctx, StreamEvents, s.From, s.Until)
		if err == nil {
			err = s.Validate()
		}
		if err != nil {
			yield(StoredEvent{}, fmt.Errorf("events: %w", err))
			return
		}
		b.EventsIn(ctx, s, span)(yield)
	}
}

// EventsBackIn is EventsIn, the newest first.
func (b *Bus) EventsBackIn(ctx context.Context, s EventSelection, span Span) iter.Seq2[StoredEvent, error] {
	back := backwards[StoredEvent]{
		forward: func(part Span) iter.Seq2[StoredEvent, error] { return b.EventsIn(ctx, s, part) },
		at:      func(e StoredEvent) located { return locate(e.RawStreamMsg) },
	}
	return back.read(span)
}

// FollowEvents reads the selected events from a sequence of StreamEvents on, and goes on with those stored later until ctx ends, whose
// error is the last pair. From and Until of the selection are not heeded.
func (b *Bus) FollowEvents(ctx context.Context, s EventSelection, from uint64) iter.Seq2[StoredEvent, error] {
	return func(yield func(StoredEvent, error) bool) {
		filters, err := s.Subjects()
		if err != nil {
			yield(StoredEvent{}, fmt.Errorf("events: %w", err))
			return
		}
		for m, err := range b.Scan(ctx, Scan{Stream: StreamEvents, Subjects: filters, From: from, Follow: true}) {
			if err != nil {
				yield(StoredEvent{}, err)
				return
			}
			if e, ok := s.Read(m); ok && !yield(e, nil) {
				return
			}
		}
	}
}

// EventsIn is Events in a stretch that is known already; From and Until of the selection are not heeded.
func (b *Bus) EventsIn(ctx context.Context, s EventSelection, span Span) iter.Seq2[StoredEvent, error] {
	return func(yield func(StoredEvent, error) bool) {
		filters, err := s.Subjects()
		if err != nil {
			yield(StoredEvent{}, fmt.Errorf("events: %w", err))
			return
		}
		if span.First > span.Last {
			return
		}
		for m, err := range b.Scan(ctx, Scan{Stream: StreamEvents, Subjects: filters, From: span.First, Upto: span.Last}) {
			if err != nil {
				yield(StoredEvent{}, err)
				return
			}
			if e, ok := s.Read(m); ok && !yield(e, nil) {
				return
			}
		}
	}
}
