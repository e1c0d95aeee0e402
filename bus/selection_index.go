package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// reads is how many single messages are read at once where a list of them is to be had.
const reads = 8

// MessagesAt reads single messages of a stream by their sequences, in the order given, from the leader; those that are not there any
// more are left out. Some are read ahead. The last pair of an incomplete reading is an error.
func (b *Bus) MessagesAt(ctx context.Context, stream string, sequences iter.Seq[uint64]) iter.Seq2[*jetstream.RawStreamMsg, error] {
	type answer struct {
		m   *jetstream.RawStreamMsg
		err error
	}
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var asking sync.WaitGroup
		defer asking.Wait()
		defer cancel()
		var under []chan answer // in the order given
		take := func() bool {
			a := <-under[0]
			under = under[1:]
			return errors.Is(a.err, ErrNoMessage) || yield(a.m, a.err) && a.err == nil
		}
		for s := range sequences {
			if len(under) == reads && !take() {
				return
			}
			to := make(chan answer, 1)
			under = append(under, to)
			asking.Go(func() {
				m, err := b.MessageAt(ctx, stream, s)
				to <- answer{m, err}
			})
		}
		for len(under) > 0 {
			if !take() {
				return
			}
		}
	}
}

// eventsOfConversation reads a conversation's events of a stretch by its index instead of all that the tenant has:
//
//  1. An entry is written after its event. So of the events stored since the index's first entry was, none lacks its own, unless it
//     is not committed yet. The events before that are scanned; mostly there are none.
//  2. What is not committed yet lies behind the worker's floor, which is read before the index: what is committed in between is
//     in both. It is scanned from there, behind the last entry.
func (b *Bus) eventsOfConversation(ctx context.Context, s EventSelection, span Span) iter.Seq2[StoredEvent, error] {
	return func(yield func(StoredEvent, error) bool) {
		floor, err := b.committed(ctx)
		indexed := span.Last + 1 // the first event whose entry must be there
		if err == nil {
			indexed, err = b.indexedSince(ctx, span)
		}
		if err != nil {
			yield(StoredEvent{}, fmt.Errorf("events: %w", err))
			return
		}
		on := true // neither broken off nor failed
		pass := func(events iter.Seq2[StoredEvent, error]) {
			for e, err := range events {
				on = yield(e, err) && err == nil
				if !on {
					return
				}
			}
		}
		if indexed > span.First {
			pass(b.scanEvents(ctx, s, Span{span.Stream, span.First, min(indexed-1, span.Last)}))
		}
		last := indexed - 1
		if on && last < span.Last {
			pass(b.indexedEvents(ctx, s, Span{span.Stream, indexed, span.Last}, &last))
		}
		if from := max(last, floor) + 1; on && from <= span.Last {
			pass(b.scanEvents(ctx, s, Span{span.Stream, max(from, span.First), span.Last}))
		}
	}
}

// indexedEvents reads the events that a conversation's entries name, and notes the last one of them.
func (b *Bus) indexedEvents(ctx context.Context, s EventSelection, span Span, last *uint64) iter.Seq2[StoredEvent, error] {
	return func(yield func(StoredEvent, error) bool) {
		filters, failed := s.Subjects()
		if failed != nil {
			yield(StoredEvent{}, failed)
			return
		}
		sequences := func(next func(uint64) bool) {
			for entry, err := range b.History(ctx, s.Tenant.Name(), s.Conversation.Name(), span.First-1, span.Last) {
				if failed = err; err != nil {
					return
				}
				*last = entry.Sequence
				if !next(entry.Sequence) {
					return
				}
			}
		}
		for m, err := range b.MessagesAt(ctx, StreamEvents, sequences) {
			if err != nil {
				yield(StoredEvent{}, err)
				return
			}
			asked := slices.ContainsFunc(filters, func(filter string) bool { return covers(filter, m.Subject) })
			if e, ok := s.Read(m); ok && asked && !yield(e, nil) {
				return
			}
		}
		if failed != nil {
			yield(StoredEvent{}, failed)
		}
	}
}

// committed is the sequence up to which every event has its index entry.
func (b *Bus) committed(ctx context.Context) (uint64, error) {
	c, err := b.js.Consumer(ctx, StreamEvents, HandlerConsumer(TypeEvent))
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return c.CachedInfo().AckFloor.Stream, nil
}

// indexedSince is the first event of a stretch from which on the index reaches.
func (b *Bus) indexedSince(ctx context.Context, span Span) (uint64, error) {
	first, err := b.NextMessage(ctx, StreamIndex, 1, subjects.AllIndex)
	if errors.Is(err, ErrNoMessage) {
		return span.Last + 1, nil
	}
	if err != nil {
		return 0, err
	}
	event, err := b.NextMessage(ctx, span.Stream, span.First, ">")
	switch {
	case errors.Is(err, ErrNoMessage):
		return span.First, nil
	case err != nil:
		return 0, err
	case !event.Time.Before(first.Time):
		return span.First, nil
	}
	r := &RangeError{Stream: span.Stream, First: span.First, Last: span.Last, FirstTime: event.Time}
	if last, err := b.MessageAt(ctx, span.Stream, span.Last); err == nil {
		r.LastTime = last.Time
	}
	return b.firstSince(ctx, r, first.Time)
}
