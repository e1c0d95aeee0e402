package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/subjects"
)

// DeadLetter is an event that a handler gave up, as CIM_DEAD_LETTERS keeps it.
type DeadLetter struct {
	Sequence uint64    // in CIM_DEAD_LETTERS; it names the entry
	Time     time.Time // when it was stored

	Handler      string // that gave it up
	Tenant       string
	Channel      string // of the source subject, lower case; "" = none
	Event        string // the event's name in the source subject
	Conversation string // "" = none that could be found
	EventID      string // "" = none

	Reason   string    // a short stable class, such as handlers.ReasonFailed
	Error    string    // the message of the last error, cut at 2 KiB; line breaks became blanks
	Attempts int       // how often the handler tried
	First    time.Time // when it first did
	Last     time.Time // when it gave up

	SourceSubject  string    // the subject the event was published on
	SourceSequence uint64    // its sequence in CIM_EVENTS
	SourceTime     time.Time // when CIM_EVENTS stored it
	RedriveOf      uint64    // the dead letter this event was redriven from, 0 = it was not redriven

	Header  nats.Header // as stored: what the publisher sent besides the bus's own headers, and those
	Payload []byte      // the event as published; nil in plans
	Size    int         // of the payload, bytes
	LeftOut bool        // the payload was too large to be kept here; CIM_EVENTS has it as long as it keeps the event

	Redrive *Redrive // the last redrive, nil = there was none
}

// name is what the entry's subjects are made of.
func (d *DeadLetter) name() subjects.DeadLetter {
	return subjects.DeadLetter{Handler: d.Handler, Tenant: d.Tenant, Channel: d.Channel, Event: d.Event, Sequence: d.SourceSequence}
}

// DeadLetters lists the entries that pass the filter, oldest first: those there are when the listing begins. Tenant, channel, event
// and handler are filtered by the server. The last pair of an incomplete listing is an error; breaking off early is fine.
func (b *Bus) DeadLetters(ctx context.Context, f DeadLetterFilter) iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		for d, err := range b.deadLetters(ctx, f) {
			if err != nil {
				yield(DeadLetter{}, fmt.Errorf("dead letters: %w", err))
				return
			}
			if !yield(d, nil) {
				return
			}
		}
	}
}

func (b *Bus) deadLetters(ctx context.Context, f DeadLetterFilter) iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		redrives, err := b.lastRedrives(ctx, f)
		if err != nil {
			yield(DeadLetter{}, err)
			return
		}
		for m, err := range b.deadLetterMessages(ctx, f.names(), f.Sequences) {
			if err != nil {
				yield(DeadLetter{}, err)
				return
			}
			d, err := readDeadLetter(m)
			if err != nil {
				// What somebody else put there must not hide the others.
				b.log.Warn("message in the stream of dead letters left out", "sequence", m.Sequence, "error", err)
				continue
			}
			if !f.passes(&d) {
				continue
			}
			if d.Redrive, err = redrives(&d); err != nil {
				yield(DeadLetter{}, err)
				return
			}
			if !yield(d, nil) {
				return
			}
		}
	}
}

// deadLetterMessages are the entries' messages: those with the given sequences, or all there are now, on the filter's subject.
func (b *Bus) deadLetterMessages(ctx context.Context, f subjects.DeadLetterFilter, sequences []uint64) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		subject, err := f.Subject()
		if err != nil {
			yield(nil, err)
			return
		}
		if len(sequences) > 0 {
			b.messagesAt(ctx, StreamDeadLetters, subject, sequences)(yield)
			return
		}
		last, err := b.LastMessage(ctx, StreamDeadLetters, subject)
		switch {
		case errors.Is(err, ErrNoMessage):
		case err != nil:
			yield(nil, err)
		default:
			b.Read(ctx, Range{Stream: StreamDeadLetters, Filter: subject, Upto: last.Sequence})(yield)
		}
	}
}

// messagesAt reads single messages from the leader, in the order of the stream, those that are there and on the filter's subject.
func (b *Bus) messagesAt(ctx context.Context, stream, filter string, sequences []uint64) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		for _, s := range slices.Compact(slices.Sorted(slices.Values(sequences))) {
			m, err := b.MessageAt(ctx, stream, s)
			if errors.Is(err, ErrNoMessage) || err == nil && !covers(filter, m.Subject) {
				continue
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// DeadLetter reads one entry by its sequence in CIM_DEAD_LETTERS, from the leader. It returns ErrNoMessage when there is none, or
// no longer.
func (b *Bus) DeadLetter(ctx context.Context, sequence uint64) (DeadLetter, error) {
	m, err := b.MessageAt(ctx, StreamDeadLetters, sequence)
	if err == nil && !covers(subjects.AllDeadLetters, m.Subject) {
		err = ErrNoMessage // the record of a redrive
	}
	var d DeadLetter
	if err == nil {
		d, err = readDeadLetter(m)
	}
	if err == nil {
		d.Redrive, _, err = b.lastRedrive(ctx, &d)
	}
	if err != nil {
		return DeadLetter{}, fmt.Errorf("dead letter %d: %w", sequence, err)
	}
	return d, nil
}

// readEntry reads an entry once more, with header and payload. It returns ErrNoMessage where it is gone, or the stream was made anew
// and holds something else there.
func (b *Bus) readEntry(ctx context.Context, d *DeadLetter) (DeadLetter, error) {
	subject, err := d.name().Subject()
	if err != nil {
		return DeadLetter{}, err
	}
	m, err := b.MessageAt(ctx, StreamDeadLetters, d.Sequence)
	if err == nil && m.Subject != subject {
		err = ErrNoMessage
	}
	if err != nil {
		return DeadLetter{}, err
	}
	return readDeadLetter(m)
}

// readDeadLetter reads an entry. What the bus wrote can be read; where a header cannot, its field stays zero.
func readDeadLetter(m *jetstream.RawStreamMsg) (DeadLetter, error) {
	name, err := subjects.ParseDeadLetter(m.Subject)
	if err != nil {
		return DeadLetter{}, err
	}
	header := func(key string) string { return LastHeader(m.Header, key) }
	number := func(key string) uint64 {
		n, _ := strconv.ParseUint(header(key), 10, 64)
		return n
	}
	at := func(key string) time.Time {
		t, _ := time.Parse(time.RFC3339Nano, header(key))
		return t
	}
	d := DeadLetter{
		Sequence: m.Sequence, Time: m.Time,
		Handler: name.Handler, Tenant: name.Tenant, Channel: name.Channel, Event: name.Event, EventID: header(HeaderEventID),
		Reason: header(HeaderReason), Error: header(HeaderError), Attempts: int(number(HeaderAttempts)), First: at(HeaderFirstAttempt), Last: at(HeaderLastAttempt),
		SourceSubject: header(HeaderSourceSubject), SourceSequence: name.Sequence, SourceTime: at(HeaderSourceTime), RedriveOf: number(HeaderRedriveOf),
		Header: m.Header, Payload: m.Data, Size: len(m.Data),
	}
	if size := number(HeaderTruncated); size > 0 && len(m.Data) == 0 {
		d.Size, d.LeftOut = int(size), true
	}
	d.Conversation = conversationOf(header(HeaderConversation), m.Data)
	return d, nil
}

// maxCarried is how much of an event's own words a worker puts into a header, in bytes.
const maxCarried = 512

// conversationOf is the conversation of an entry. Its header cannot carry every id: long ones were cut, blanks around them are gone,
// and one with line breaks is not there. Where the body has the id that the header stands for, the body's is the whole one.
func conversationOf(header string, payload []byte) string {
	// Of an event that is wrong this finds what can be found.
	e, _ := cim.Decode(payload, "")
	carried := strings.Trim(e.Conversation[:min(len(e.Conversation), maxCarried)], " \t")
	if header == "" || header == carried {
		return strings.Clone(e.Conversation)
	}
	return header
}
