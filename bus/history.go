package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// Entry is one committed event of a conversation, as the index has it. The event itself is read with Bus.Event.
type Entry struct {
	Sequence     uint64 // Cim-Sequence: the event's sequence in CIM_EVENTS
	Conversation string
	EventID      string
	EventName    string
	Channel      string    // original spelling, "" if none was known
	Outcome      string    // one of the Outcome constants
	Subject      string    // the event was published on
	Stored       time.Time // when CIM_EVENTS stored it

	IndexSequence uint64    // the entry's own, in CIM_INDEX
	Committed     time.Time // when the entry was stored: all deliveries of the event were before
}

// History lists a conversation's committed events with after < Cim-Sequence ≤ upto in order, complete as of the leader; upto
// 0 means all. conversation "" lists the tenant's events of no conversation. The last pair of an incomplete listing is an error.
func (b *Bus) History(ctx context.Context, tenant, conversation string, after, upto uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		subject, err := subjects.Index{Tenant: tenant, Conversation: conversation}.Subject()
		if err != nil {
			yield(Entry{}, fmt.Errorf("history: %w", err))
			return
		}
		// Entries of a conversation are stored in the order of their events.
		from := uint64(1)
		if after > 0 {
			if from, err = b.firstAbove(ctx, StreamIndex, subject, after); err != nil {
				yield(Entry{}, fmt.Errorf("history: %w", err))
				return
			}
			if from == 0 {
				return
			}
		}
		for m, err := range b.Read(ctx, Range{Stream: StreamIndex, Filter: subject, From: from, Batch: 1024}) {
			if err != nil {
				yield(Entry{}, fmt.Errorf("history: %w", err))
				return
			}
			e := entry(conversation, m)
			if upto != 0 && e.Sequence > upto {
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// HistoryBack is History, the newest first; what is committed while it reads may be left out.
func (b *Bus) HistoryBack(ctx context.Context, tenant, conversation string, after, upto uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		span, subject, err := b.indexSpan(ctx, tenant, conversation, upto)
		if err != nil {
			yield(Entry{}, fmt.Errorf("history: %w", err))
			return
		}
		entries := backwards[Entry]{
			forward: func(part Span) iter.Seq2[Entry, error] {
				return func(yield func(Entry, error) bool) {
					for m, err := range b.Read(ctx, Range{Stream: StreamIndex, Filter: subject, From: part.First, Upto: part.Last, Batch: 1024}) {
						if err != nil {
							yield(Entry{}, fmt.Errorf("history: %w", err))
							return
						}
						if !yield(entry(conversation, m), nil) {
							return
						}
					}
				}
			},
			at: func(e Entry) located {
				return located{e.IndexSequence, 512 + len(e.EventID) + len(e.EventName) + len(e.Channel) + len(e.Subject)}
			},
		}
		for e, err := range entries.read(span) {
			if err == nil && e.Sequence <= after || !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// indexSpan is the stretch of CIM_INDEX that has a conversation's entries up to an event, 0 = all.
func (b *Bus) indexSpan(ctx context.Context, tenant, conversation string, upto uint64) (Span, string, error) {
	span := Span{Stream: StreamIndex, First: 1}
	subject, err := subjects.Index{Tenant: tenant, Conversation: conversation}.Subject()
	if err != nil {
		return span, "", err
	}
	if upto != 0 {
		above, err := b.firstAbove(ctx, StreamIndex, subject, upto)
		if err != nil {
			return span, "", err
		}
		if above != 0 {
			span.Last = above - 1
			return span, subject, nil
		}
	}
	last, err := b.LastMessage(ctx, StreamIndex, subject)
	if errors.Is(err, ErrNoMessage) {
		return span, subject, nil
	}
	if err != nil {
		return span, "", err
	}
	span.Last = last.Sequence
	return span, subject, nil
}

// firstAbove is the stream sequence of the first message on subject with a Cim-Sequence above s, 0 if there is none; for streams whose
// Cim-Sequence only grows on a subject. It takes as many reads as halving the stream takes, however many messages are before it.
func (b *Bus) firstAbove(ctx context.Context, stream, subject string, s uint64) (uint64, error) {
	last, err := b.LastMessage(ctx, stream, subject)
	if errors.Is(err, ErrNoMessage) || err == nil && SequenceOf(last.Header) <= s {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	first := last.Sequence
	for low, high := uint64(1), first-1; low <= high; {
		middle := low + (high-low)/2
		m, err := b.NextMessage(ctx, stream, middle, subject)
		if err != nil {
			return 0, err
		}
		if SequenceOf(m.Header) > s {
			first, high = min(first, m.Sequence), middle-1
		} else {
			low = m.Sequence + 1
		}
	}
	return first, nil
}

func entry(conversation string, m *jetstream.RawStreamMsg) Entry {
	e := Entry{
		Sequence:     SequenceOf(m.Header),
		Conversation: conversation,
		EventID:      LastHeader(m.Header, HeaderEventID),
		EventName:    LastHeader(m.Header, HeaderEventName),
		Channel:      LastHeader(m.Header, HeaderChannel),
		Outcome:      LastHeader(m.Header, HeaderOutcome),
		Subject:      LastHeader(m.Header, HeaderSourceSubject),

		IndexSequence: m.Sequence,
		Committed:     m.Time,
	}
	// The worker wrote it; a time that cannot be read is as good as none.
	e.Stored, _ = time.Parse(time.RFC3339Nano, LastHeader(m.Header, HeaderSourceTime))
	return e
}

// Event reads an event of a conversation's history as it was published. It returns ErrNoMessage when CIM_EVENTS no longer keeps it.
func (b *Bus) Event(ctx context.Context, e Entry) (*jetstream.RawStreamMsg, error) {
	m, err := b.MessageAt(ctx, StreamEvents, e.Sequence)
	if err != nil {
		return nil, fmt.Errorf("event %d: %w", e.Sequence, err)
	}
	return m, nil
}

// lastEntry reads the last index entry of a conversation from the leader; it returns ErrNoMessage when there is none.
func (b *Bus) lastEntry(ctx context.Context, tenant, conversation string) (Entry, error) {
	subject, err := subjects.Index{Tenant: tenant, Conversation: conversation}.Subject()
	if err != nil {
		return Entry{}, err
	}
	m, err := b.LastMessage(ctx, StreamIndex, subject)
	if err != nil {
		return Entry{}, err
	}
	return entry(conversation, m), nil
}

// channelLookback is how many of a conversation's last entries are asked for its channel. The worker writes the channel it knows into
// every entry; only the entry of an event that it could not fold may be without, and most without are of conversations that have none.
const channelLookback = 64

// lastChannel is the channel last known of a conversation, "" if none of its last entries has one. Nearly always the last one has.
func (b *Bus) lastChannel(ctx context.Context, tenant, conversation string) (string, error) {
	subject, err := subjects.Index{Tenant: tenant, Conversation: conversation}.Subject()
	if err != nil {
		return "", err
	}
	last, err := b.LastMessage(ctx, StreamIndex, subject)
	if errors.Is(err, ErrNoMessage) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	channel := LastHeader(last.Header, HeaderChannel)
	if channel != "" {
		return channel, nil
	}
	from, err := b.lastOf(ctx, StreamIndex, subject, last.Sequence, channelLookback)
	if err != nil {
		return "", err
	}
	for m, err := range b.Read(ctx, Range{Stream: StreamIndex, Filter: subject, From: from, Upto: last.Sequence, Batch: channelLookback}) {
		if err != nil {
			return "", err
		}
		channel = cmp.Or(LastHeader(m.Header, HeaderChannel), channel)
	}
	return channel, nil
}

// lastOf is a stream sequence from which on there are the last n messages on subject, up to the one at end; all, if there are fewer.
func (b *Bus) lastOf(ctx context.Context, stream, subject string, end uint64, n uint64) (uint64, error) {
	low, high := uint64(1), end
	for probe := low; low < high; probe = low + (high-low)/2 {
		left, err := b.pendingFrom(ctx, stream, subject, probe)
		if err != nil {
			return 0, err
		}
		if left > n {
			low = probe + 1
		} else {
			high = probe
		}
	}
	return low, nil
}
