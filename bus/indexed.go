package bus

import (
	"context"
	"errors"
	"iter"
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
