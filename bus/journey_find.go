package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/cimbus/cimbus/subjects"
)

// lateCommit is how long after its storing an event is mostly committed.
const lateCommit = 10 * time.Second

// holds tells whether an event is selected, its subject included.
func (s *EventSelection) holds(e StoredEvent) bool {
	filters, err := s.Subjects()
	if err != nil || !slices.ContainsFunc(filters, func(filter string) bool { return covers(filter, e.Subject) }) {
		return false
	}
	_, ok := s.Read(e.RawStreamMsg)
	return ok
}

// eventsOfID finds the events with an id. The index is small and its headers have the ids; the events are looked through only where it
// does not reach: before its beginning, and behind what is committed; everywhere only if nothing was found, for what is transient has
// no entry.
func (b *Bus) eventsOfID(ctx context.Context, s EventSelection, span Span) iter.Seq2[tracedEvent, error] {
	return func(yield func(tracedEvent, error) bool) {
		fail := func(err error) { yield(tracedEvent{}, fmt.Errorf("event %q: %w", s.ID, err)) }
		on, found := true, false
		scan := func(events iter.Seq2[StoredEvent, error]) {
			for e, err := range events {
				if err != nil {
					fail(err)
					on = false
					return
				}
				found = true
				if on = yield(tracedEvent{sequence: e.Sequence}, nil); !on {
					return
				}
			}
		}
		carried := s.ID[:min(len(s.ID), maxCarried)]
		if !headerSafe(carried) {
			scan(b.EventsIn(ctx, s, span))
			return
		}
		floor, err := b.committed(ctx)
		indexed := span.Last + 1 // the first event whose entry must be there
		if err == nil {
			indexed, err = b.indexedSince(ctx, span)
		}
		if err != nil {
			fail(err)
			return
		}
		if indexed > span.First {
			scan(b.EventsIn(ctx, s, Span{span.Stream, span.First, min(indexed-1, span.Last)}))
		}
		// Of events that have expired the index may still know.
		open := s.From.IsZero()
		if on && (open || indexed <= span.Last) {
			parts, err := b.entriesOf(ctx, Span{span.Stream, indexed, span.Last}, open)
			if err != nil {
				fail(err)
				return
			}
			for _, part := range parts {
				// What was committed late is looked for where nothing was found.
				if !on || found {
					break
				}
				for e, err := range b.entriesOfID(ctx, s, part, carried) {
					if err != nil {
						fail(err)
						return
					}
					if e.sequence < indexed && !open || e.sequence > span.Last {
						continue
					}
					found = true
					if on = yield(e, nil); !on {
						return
					}
				}
			}
		}
		behind := max(floor+1, indexed, span.First)
		if on && behind <= span.Last {
			scan(b.EventsIn(ctx, s, Span{span.Stream, behind, span.Last}))
		}
		if from := max(indexed, span.First); on && !found && from < behind {
			scan(b.EventsIn(ctx, s, Span{span.Stream, from, min(behind-1, span.Last)}))
		}
	}
}

// entriesOf is where the index has the entries of a stretch of events, and where those that were committed late are. An
// open stretch has those of events before it, too.
func (b *Bus) entriesOf(ctx context.Context, span Span, open bool) ([]Span, error) {
	info, err := b.streamInfo(ctx, StreamIndex)
	if err != nil {
		return nil, err
	}
	r := &RangeError{Stream: StreamIndex, First: info.State.FirstSeq, Last: info.State.LastSeq, FirstTime: info.State.FirstTime, LastTime: info.State.LastTime}
	begin := r.First
	if !open {
		first, err := b.NextMessage(ctx, span.Stream, span.First, ">")
		if errors.Is(err, ErrNoMessage) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if begin, err = b.firstSince(ctx, r, first.Time.Add(-clockSkew)); err != nil {
			return nil, err
		}
	}
	end := r.Last + 1
	behind, err := b.NextMessage(ctx, span.Stream, span.Last+1, ">")
	if err == nil {
		end, err = b.firstSince(ctx, r, behind.Time.Add(lateCommit))
	}
	if err != nil && !errors.Is(err, ErrNoMessage) {
		return nil, err
	}
	return []Span{{StreamIndex, begin, end - 1}, {StreamIndex, end, r.Last}}, nil
}

// entriesOfID finds the entries of events with an id, as far as their headers carry it.
func (b *Bus) entriesOfID(ctx context.Context, s EventSelection, part Span, carried string) iter.Seq2[tracedEvent, error] {
	return func(yield func(tracedEvent, error) bool) {
		if part.First > part.Last {
			return
		}
		// Without a filter: where a stream has very many subjects, one with wildcards costs the server more than what it leaves out.
		for m, err := range b.Scan(ctx, Scan{Stream: StreamIndex, From: part.First, Upto: part.Last}) {
			if err != nil {
				yield(tracedEvent{}, err)
				return
			}
			if strings.Trim(carried, " \t") != LastHeader(m.Header, HeaderEventID) {
				continue
			}
			name, err := subjects.ParseIndex(m.Subject)
			if err != nil || !s.Tenant.Matches(name.Tenant) {
				continue
			}
			e := entry(name.Conversation, m)
			if ok, err := b.isEvent(ctx, s, e.Sequence); err != nil || ok {
				if !yield(tracedEvent{sequence: e.Sequence, entry: &e, tenant: name.Tenant}, err) || err != nil {
					return
				}
			}
		}
	}
}

// isEvent makes sure that an event is the one asked for, where it is still there: an entry carries the beginning of a long id only.
func (b *Bus) isEvent(ctx context.Context, s EventSelection, sequence uint64) (bool, error) {
	m, err := b.MessageAt(ctx, StreamEvents, sequence)
	var e StoredEvent
	switch {
	case errors.Is(err, ErrNoMessage):
		return true, nil
	case err != nil:
		return false, err
	}
	e.RawStreamMsg = m
	return s.holds(e), nil
}
