package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Drop deletes the entries of a plan for good, redriven or not, and what is recorded of their redrives. Entries that are not in the
// plan stay, whatever the filter says of them by now. It returns one result per entry, in the order of the plan, and an error when the
// whole was broken off; repeating it does no harm.
func (b *Bus) Drop(ctx context.Context, plan DeadLetterPlan) ([]DeadLetterResult, error) {
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
		gone, err := b.drop(ctx, stream, &e.DeadLetter)
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

// drop deletes one entry, and tells where it was gone already.
func (b *Bus) drop(ctx context.Context, stream jetstream.Stream, d *DeadLetter) (gone bool, err error) {
	_, err = b.readEntry(ctx, d)
	if errors.Is(err, ErrNoMessage) {
		return true, b.dropRedrives(ctx, stream, d) // a drop may have been broken off in between
	}
	if err != nil {
		return false, err
	}
	if err := stream.DeleteMsg(ctx, d.Sequence); err != nil {
		// The answer may have been lost, or somebody else was faster.
		if _, readErr := b.MessageAt(ctx, StreamDeadLetters, d.Sequence); !errors.Is(readErr, ErrNoMessage) {
			return false, fmt.Errorf("delete dead letter %d: %w", d.Sequence, err)
		}
	}
	return false, b.dropRedrives(ctx, stream, d)
}

// dropRedrives deletes what is recorded of an entry's redrives.
func (b *Bus) dropRedrives(ctx context.Context, stream jetstream.Stream, d *DeadLetter) error {
	subject, err := d.name().Redrive()
	if err != nil {
		return err
	}
	last, _, err := b.lastRedrive(ctx, d)
	if err == nil && last != nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(subject))
	}
	if err != nil {
		return fmt.Errorf("delete the redrives of dead letter %d: %w", d.Sequence, err)
	}
	return nil
}
