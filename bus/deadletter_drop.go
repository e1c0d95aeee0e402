package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// DropOption changes how Drop drops.
type DropOption func(*dropOptions)

type dropOptions struct {
	operator string
}

// DroppedBy says who drops, for the record; by default it is the name of the connection.
func DroppedBy(operator string) DropOption {
	return func(o *dropOptions) { o.operator = operator }
}

// Drop deletes the entries of a plan for good, redriven or not. Who did it is recorded beside each before it goes: see
// DroppedDeadLetters. Entries that are not in the plan stay, whatever the filter says of them by now. It returns one result per entry,
// in the order of the plan, and an error when the whole was broken off; repeating it does no harm.
func (b *Bus) Drop(ctx context.Context, plan DeadLetterPlan, opts ...DropOption) ([]DeadLetterResult, error) {
	var o dropOptions
	for _, opt := range opts {
		opt(&o)
	}
	operator := cmp.Or(o.operator, b.nc.Opts.Name, "unknown")
	stream, err := b.js.Stream(ctx, StreamDeadLetters)
	if err != nil {
		return nil, fmt.Errorf("drop dead letters: stream %s: %w", StreamDeadLetters, err)
	}
	lanes := make([][]int, len(plan.Entries))
	for i := range lanes {
		lanes[i] = []int{i}
	}
	results, err := carryOut(ctx, plan, lanes, func(ctx context.Context, e PlannedDeadLetter) DeadLetterResult {
		e.Refused = ""
		result := DeadLetterResult{PlannedDeadLetter: e, Outcome: EntryDropped}
		gone, err := b.drop(ctx, stream, &e.DeadLetter, operator)
		switch {
		case err != nil:
			result.Outcome, result.Err = EntryFailed, err
		case gone:
			result.Outcome, result.Refused = EntryRefused, RefusedGone
		}
		return result
	})
	if err != nil {
		return results, fmt.Errorf("drop dead letters: %w", err)
	}
	return results, nil
}

// drop records that an entry is dropped and deletes it, or tells that it was gone already. The record comes first: of an entry that is
// not there any more somebody may ask.
func (b *Bus) drop(ctx context.Context, stream jetstream.Stream, d *DeadLetter, operator string) (gone bool, err error) {
	_, err = b.readEntry(ctx, d)
	if errors.Is(err, ErrNoMessage) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if err := b.recordDrop(ctx, d, operator); err != nil {
		return false, err
	}
	if err := stream.DeleteMsg(ctx, d.Sequence); err != nil {
		// The answer may have been lost, or somebody else was faster.
		if _, readErr := b.MessageAt(ctx, StreamDeadLetters, d.Sequence); !errors.Is(readErr, ErrNoMessage) {
			return false, fmt.Errorf("delete dead letter %d: %w", d.Sequence, err)
		}
	}
	return false, nil
}

// recordDrop puts a record behind those of the redrives, unless a drop that was broken off left one.
func (b *Bus) recordDrop(ctx context.Context, d *DeadLetter, operator string) error {
	for {
		last, at, err := b.lastRedrive(ctx, d)
		if err != nil || last.dropped() {
			return err
		}
		r := Redrive{State: RedriveDropped, Operator: operator, DeadLetter: d.Sequence, Reason: d.Reason, Conversation: d.Conversation}
		if last != nil {
			r.Attempt, r.Event = last.Attempt, last.Event
		}
		if err = b.recordRedrive(ctx, d, &r, at); !errors.Is(err, errRecordOvertaken) {
			return err
		}
	}
}

// DroppedDeadLetters lists what is recorded of the entries that were dropped and pass the filter, in the order in which they were. Of
// each there are its sequence and names, its reason and its conversation; Time is when it was dropped, and Redrive the record, which
// says by whom. The records are kept as long as dead letters are.
func (b *Bus) DroppedDeadLetters(ctx context.Context, f DeadLetterFilter) iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		subject, err := f.names().Redrive()
		if err != nil {
			yield(DeadLetter{}, fmt.Errorf("dropped dead letters: %w", err))
			return
		}
		for m, err := range b.Read(ctx, Range{Stream: StreamDeadLetters, Filter: subject, Batch: 1024}) {
			if err != nil {
				yield(DeadLetter{}, fmt.Errorf("dropped dead letters: %w", err))
				return
			}
			d, ok := readDropped(m)
			asked := len(f.Sequences) == 0 || slices.Contains(f.Sequences, d.Sequence)
			if ok && asked && f.passes(&d) && !yield(d, nil) {
				return
			}
		}
	}
}

func readDropped(m *jetstream.RawStreamMsg) (DeadLetter, bool) {
	var r Redrive
	name, err := subjects.ParseRedrive(m.Subject)
	if err != nil || json.Unmarshal(m.Data, &r) != nil || !r.dropped() {
		return DeadLetter{}, false
	}
	r.Time, r.at = m.Time, m.Sequence
	return DeadLetter{
		Sequence: r.DeadLetter, Time: m.Time, Handler: name.Handler, Tenant: name.Tenant, Channel: name.Channel, Event: name.Event,
		SourceSequence: name.Sequence, Reason: r.Reason, Conversation: r.Conversation, Redrive: &r,
	}, true
}
