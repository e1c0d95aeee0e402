package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// RedriveState is how far a redrive got.
type RedriveState string

// The states of a redrive.
const (
	RedriveStarted RedriveState = "started"  // the event may be in CIM_EVENTS or not; the next redrive finds out and finishes this one
	RedriveFailed  RedriveState = "failed"   // the event was refused; the next redrive goes on with this one
	RedriveDone    RedriveState = "redriven" // the event is in CIM_EVENTS
	RedriveDropped RedriveState = "dropped"  // no redrive at all: the entry is to be deleted, and mostly is
)

// Redrive is a record about one redrive of a dead letter, or about its end. Records are kept beside the entry, in the same stream and as
// long as dead letters are: a dead letter is never written to. The last one is the state of the entry.
type Redrive struct {
	Attempt  int          `json:"attempt"` // 1 for the first; only a forced redrive counts on
	State    RedriveState `json:"state"`
	Operator string       `json:"operator"`
	Time     time.Time    `json:"-"`               // when the record was stored
	Event    uint64       `json:"event,omitempty"` // sequence of the new event in CIM_EVENTS, 0 = none is known
	Error    string       `json:"error,omitempty"` // why it failed

	// Of a dropped entry, which nobody can ask any more.
	Reason       string `json:"reason,omitempty"`
	Conversation string `json:"conversation,omitempty"`

	// What it takes to finish the attempt exactly once, whoever does it and however late.
	DeadLetter uint64 `json:"dead_letter"` // the entry's sequence: a stream made anew may have another entry under the same names
	MessageID  string `json:"message_id"`  // of the new event
	After      uint64 `json:"after"`       // the new event is behind this sequence in CIM_EVENTS

	at uint64 // the record's sequence in CIM_DEAD_LETTERS
}

// unfinished tells whether nobody knows that the event is in CIM_EVENTS.
func (r *Redrive) unfinished() bool { return r != nil && r.State != RedriveDone && !r.dropped() }

// dropped tells whether the entry was dropped. One that is there nevertheless is a drop that was broken off.
func (r *Redrive) dropped() bool { return r != nil && r.State == RedriveDropped }

// position is the record's sequence, 0 without one.
func (r *Redrive) position() uint64 {
	if r == nil {
		return 0
	}
	return r.at
}

// Redrives lists what is recorded about the redrives of an entry, oldest first.
func (b *Bus) Redrives(ctx context.Context, d DeadLetter) ([]Redrive, error) {
	subject, err := d.name().Redrive()
	if err != nil {
		return nil, fmt.Errorf("redrives: %w", err)
	}
	var all []Redrive
	for m, err := range b.Read(ctx, Range{Stream: StreamDeadLetters, Filter: subject}) {
		if err != nil {
			return nil, fmt.Errorf("redrives: %w", err)
		}
		if r := readRedrive(m, d.Sequence); r != nil {
			all = append(all, *r)
		}
	}
	return all, nil
}

// lastRedrive reads the last record of an entry from the leader, nil if there is none, and the sequence that the next one has to
// expect: what stands there may be no record of this entry.
func (b *Bus) lastRedrive(ctx context.Context, d *DeadLetter) (r *Redrive, at uint64, err error) {
	subject, err := d.name().Redrive()
	if err != nil {
		return nil, 0, err
	}
	m, err := b.LastMessage(ctx, StreamDeadLetters, subject)
	if errors.Is(err, ErrNoMessage) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	return readRedrive(m, d.Sequence), m.Sequence, nil
}

// lastRedrives returns a way to the last record of each entry the filter selects. Of many entries few were redriven: their records
// are read in one go.
func (b *Bus) lastRedrives(ctx context.Context, f DeadLetterFilter) (func(*DeadLetter) (*Redrive, error), error) {
	if len(f.Sequences) > 0 {
		return func(d *DeadLetter) (*Redrive, error) {
			r, _, err := b.lastRedrive(ctx, d)
			return r, err
		}, nil
	}
	subject, err := f.names().Redrive()
	if err != nil {
		return nil, err
	}
	last := map[subjects.DeadLetter]*jetstream.RawStreamMsg{}
	for m, err := range b.Read(ctx, Range{Stream: StreamDeadLetters, Filter: subject, Batch: 1024}) {
		if err != nil {
			return nil, err
		}
		if name, err := subjects.ParseRedrive(m.Subject); err == nil {
			last[name] = m
		}
	}
	return func(d *DeadLetter) (*Redrive, error) {
		m := last[d.name()]
		if m == nil {
			return nil, nil
		}
		return readRedrive(m, d.Sequence), nil
	}, nil
}

// readRedrive reads a record, nil if it is not one of this entry.
func readRedrive(m *jetstream.RawStreamMsg, deadLetter uint64) *Redrive {
	var r Redrive
	if json.Unmarshal(m.Data, &r) != nil || r.DeadLetter != deadLetter {
		return nil
	}
	r.Time, r.at = m.Time, m.Sequence
	return &r
}

// RedriveFate is what a handler made of a redriven event.
type RedriveFate string

// The fates of a redriven event.
const (
	FateWaiting    RedriveFate = "waiting"     // its handler has not finished it, or not all that came before it
	FateHandled    RedriveFate = "handled"     // its handler has finished it
	FateDeadLetter RedriveFate = "dead-letter" // its handler gave it up again
)

// RedriveFate tells what became of the event a dead letter was redriven as, and where it failed again the sequence of its own dead
// letter.
func (b *Bus) RedriveFate(ctx context.Context, d DeadLetter, event uint64) (RedriveFate, uint64, error) {
	name := d.name()
	name.Sequence = event
	subject, err := name.Subject()
	if err != nil {
		return "", 0, fmt.Errorf("fate of event %d: %w", event, err)
	}
	// First how far the handler is: it stores the dead letter before it acknowledges the event.
	fate := FateWaiting
	c, err := b.js.Consumer(ctx, StreamEvents, HandlerConsumer(d.Handler))
	switch {
	case err == nil && c.CachedInfo().AckFloor.Stream >= event:
		fate = FateHandled
	case err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound):
		return "", 0, fmt.Errorf("fate of event %d: %w", event, err)
	}
	again, err := b.LastMessage(ctx, StreamDeadLetters, subject)
	switch {
	case errors.Is(err, ErrNoMessage):
		return fate, 0, nil
	case err != nil:
		return "", 0, fmt.Errorf("fate of event %d: %w", event, err)
	}
	return FateDeadLetter, again.Sequence, nil
}

// recordRedrive stores a record as publishRecord does, provided that the entry's last one is still at the sequence expected.
func (b *Bus) recordRedrive(ctx context.Context, d *DeadLetter, r *Redrive, expected uint64) error {
	subject, err := d.name().Redrive()
	if err != nil {
		return err
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record of the entry: %w", err)
	}
	at, err := b.publishRecord(ctx, record{
		of: "the entry", stream: StreamDeadLetters, family: subjects.AllRedrives, subject: subject, body: body, expected: expected,
	})
	if err == nil {
		r.at = at
	}
	return err
}
