package bus

import (
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
	Channel      string // original spelling, "" if none was known
	Outcome      string // one of the Outcome constants
	Subject      string // the event was published on
	Stored       time.Time
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
		for m, err := range b.Read(ctx, Range{Stream: StreamIndex, Filter: subject, Batch: 1024}) {
			if err != nil {
				yield(Entry{}, fmt.Errorf("history: %w", err))
				return
			}
			e := entry(conversation, m)
			if e.Sequence <= after {
				continue
			}
			// Entries of a conversation are stored in the order of their events.
			if upto != 0 && e.Sequence > upto {
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
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

// lastChannel is the channel last known of a conversation, "" if none is. Nearly always the last entry has it; an event
// without a channel, published by somebody who did not look it up, may hide it.
func (b *Bus) lastChannel(ctx context.Context, tenant, conversation string) (string, error) {
	last, err := b.lastEntry(ctx, tenant, conversation)
	if errors.Is(err, ErrNoMessage) {
		return "", nil
	}
	if err != nil || last.Channel != "" {
		return last.Channel, err
	}
	channel := ""
	for e, err := range b.History(ctx, tenant, conversation, 0, last.Sequence) {
		if err != nil {
			return "", err
		}
		if e.Channel != "" {
			channel = e.Channel
		}
	}
	return channel, nil
}
